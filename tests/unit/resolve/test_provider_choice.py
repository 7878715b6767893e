from collections.abc import Sequence
from dataclasses import replace

import pytest

from nixpatch.model import Libc, Machine, Provider, Source
from nixpatch.resolve.provider_choice import (
    choose_provider,
    newest,
    version_text,
    versions_beyond_libc,
    wanted_versions,
)
from support.resolving import AARCH64, GLIBC, I686, MUSL_TARGET, STORE, TARGET, elf, provider

OLD = f"{STORE}/1-gcc-12/lib/libstdc++.so.6"
NEW = f"{STORE}/2-gcc-14/lib/libstdc++.so.6"
GLIBCXX = ("GLIBCXX_3.4", "GLIBCXX_3.4.9", "GLIBCXX_3.4.29")


def chosen(candidates: Sequence[Provider], *wanted: str) -> tuple[str | None, tuple[str, ...]]:
    choice = choose_provider(candidates, frozenset(wanted), TARGET)
    return (
        f"{choice.provider.directory}/{choice.provider.name}" if choice.provider else None
    ), choice.rejected


def test_first_in_order_wins_among_equals() -> None:
    assert chosen([provider(OLD), provider(NEW)]) == (OLD, ())
    assert chosen([provider(NEW), provider(OLD)]) == (NEW, ())
    assert chosen([]) == (None, ())


def test_too_old_a_library_is_passed_over_and_the_newest_lacking_version_named() -> None:
    old, new = provider(OLD, defs=GLIBCXX[:1]), provider(NEW, defs=GLIBCXX)
    path, rejected = chosen([replace(old, source=Source.LIB), new], *GLIBCXX)
    assert path == NEW
    assert rejected == (f"{OLD}: does not define GLIBCXX_3.4.29",)


def test_library_without_versions_satisfies_every_request() -> None:
    assert chosen([provider(OLD), provider(NEW, defs=GLIBCXX)], *GLIBCXX) == (OLD, ())


def test_if_none_defines_all_the_one_that_lacks_least() -> None:
    old, new = provider(OLD, defs=GLIBCXX[:1]), provider(NEW, defs=GLIBCXX)
    path, rejected = chosen([old, new], *GLIBCXX, "GLIBCXX_9")
    assert path == NEW
    assert rejected == (f"{OLD}: does not define GLIBCXX_9",)


@pytest.mark.parametrize("machine", [I686, AARCH64])
def test_other_machine_or_class_never_serves(machine: Machine) -> None:
    path, rejected = chosen([provider(OLD, machine=machine), provider(NEW)])
    assert path == NEW
    assert rejected == (f"{OLD}: built for {machine.name}, the target is x86_64",)


def test_newer_glibc_than_the_targets() -> None:
    needy = provider(NEW, libc_needs=["GLIBC_2.34", "GLIBC_2.41", "GLIBC_2.9"])
    assert chosen([needy]) == (None, (f"{NEW}: needs GLIBC_2.41, the target's glibc is 2.40",))
    assert chosen([needy, provider(OLD)])[0] == OLD


def test_other_libc_never_serves() -> None:
    assert chosen([provider(OLD, libc=Libc.MUSL)]) == (
        None,
        (f"{OLD}: linked against musl, the target uses glibc",),
    )
    assert choose_provider([provider(OLD)], frozenset(), MUSL_TARGET).provider is None
    musl = provider(OLD, libc=Libc.MUSL, libc_needs=["GLIBC_9"])
    assert choose_provider([musl], frozenset(), MUSL_TARGET).provider == musl
    assert chosen([provider(OLD, libc=None)])[0] == OLD


def test_a_directory_with_a_libc_only_if_no_other_serves() -> None:
    beside, clean = provider(OLD, beside_libc=True), provider(NEW)
    assert chosen([beside, clean])[0] == NEW
    assert chosen([beside])[0] == OLD
    assert chosen([beside, provider(NEW, machine=I686)])[0] == OLD


def test_the_targets_own_libc_directory_brings_nothing_new_along() -> None:
    own = provider(f"{GLIBC}/libgcc_s.so.1", beside_libc=True)
    assert chosen([own, provider(f"{STORE}/2-gcc-14/lib/libgcc_s.so.1")])[0] == f"{GLIBC}/libgcc_s.so.1"


def test_wanted_versions_are_those_of_any_file() -> None:
    wants = [{"libz.so.1": ["ZLIB_1"], "libx.so": []}, {"libz.so.1": ["ZLIB_2", "ZLIB_1"]}]
    found = wanted_versions(elf(wants=want) for want in wants)
    assert found == {"libz.so.1": {"ZLIB_1", "ZLIB_2"}, "libx.so": frozenset()}


@pytest.mark.parametrize(
    ("version", "there"),
    [
        ("GLIBC_2.40", True),
        ("GLIBC_2.41", False),
        ("GLIBC_2.4", True),
        ("GLIBC_2.31", True),  # as in libpthread: libc.so.6 has no version of that name
        ("GLIBC_3", False),
        ("GLIBC_PRIVATE", True),
        ("GLIBC_ABI_DT_RELR", False),
    ],
)
def test_what_the_targets_glibc_has(version: str, there: bool) -> None:
    assert (versions_beyond_libc([version], TARGET) == frozenset()) is there


def test_versions_are_ordered_as_numbers() -> None:
    assert newest(["GLIBC_2.4", "GLIBC_2.38", "GLIBC_2.9", "GLIBC_ABI_DT_RELR"]) == "GLIBC_2.38"
    assert newest(["CXXABI_1.3.13", "GLIBCXX_3.4.9", "GLIBCXX_3.4.29"]) == "GLIBCXX_3.4.29"
    assert version_text((2, 36)) == "2.36"
