"""What manylinux tags promise, and whether some libraries keep it: values in, values out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from packaging import _manylinux as packaging_manylinux

from nixpatch.model import Provider, ProviderChoice, Target
from nixpatch.model.manylinux import Promise
from nixpatch.policy import default_policy
from nixpatch.resolve.manylinux import (
    claimed_tags,
    honest_limit,
    named,
    policies,
    policies_of,
    promise,
)
from nixpatch.resolve.provider_choice import choose_provider
from support.resolving import AARCH64, MUSL_TARGET, STORE, TARGET, provider

GCC = ("GLIBCXX_3.4.19", "GLIBCXX_3.4.8", "GLIBCXX_3.4.13", "CXXABI_1.3.1", "CXXABI_1.3.3", "CXXABI_1.3.7")
X86_64 = TARGET.machine
X86 = replace(TARGET, libc_version=(2, 26))


def _libraries(target: Target) -> dict[str, Provider]:
    """One library for each that a policy names, without symbol versions: they serve every request."""
    names = {name for policy in policies() for name in policy.sonames(target.machine.name)}
    libc_of = default_policy().libc_of
    return {
        name: provider(f"{STORE}/1-libs/lib/{name}", machine=target.machine)
        for name in names
        if libc_of(name) is None
    }


def _held(
    target: Target, libraries: dict[str, Provider], libc_has: Callable[[str], bool] = lambda _: True
) -> tuple[Promise, ...]:
    def chosen(soname: str, wanted: frozenset[str]) -> ProviderChoice:
        return choose_provider([libraries[soname]] if soname in libraries else [], wanted, target)

    return tuple(
        promise(
            policy,
            target,
            claimed=True,
            is_libc=lambda soname: default_policy().libc_of(soname) is target.libc,
            libc_has=libc_has,
            choose=chosen,
        )
        for policy in policies_of(target.machine.name)
    )


def _kept(held: tuple[Promise, ...]) -> list[str]:
    return [one.policy.name for one in held if one.kept]


def test_the_policies_are_those_of_the_peps() -> None:
    found = {policy.name: policy for policy in policies()}
    assert [policy.alias for policy in policies()][:3] == ["manylinux1", "manylinux2010", "manylinux2014"]
    # PEP 599: GLIBC_2.17, CXXABI_1.3.7, GLIBCXX_3.4.19, GCC_4.8.0 are the highest; PEP 571 and 513 likewise.
    highest = found["manylinux_2_17"].versions["x86_64"]
    assert highest["libstdc++.so.6"] == {"GLIBCXX_3.4.19", "CXXABI_1.3.7"}
    assert highest["libgcc_s.so.1"] == {"GCC_4.8.0"}
    assert found["manylinux_2_12"].versions["x86_64"]["libstdc++.so.6"] == {"GLIBCXX_3.4.13", "CXXABI_1.3.3"}
    assert found["manylinux_2_5"].versions["x86_64"]["libstdc++.so.6"] == {"GLIBCXX_3.4.8", "CXXABI_1.3.1"}
    assert "libexpat.so.1" not in found["manylinux_2_5"].libraries
    assert "libmvec.so.1" in found["manylinux_2_28"].sonames("x86_64")
    assert "libmvec.so.1" not in found["manylinux_2_28"].sonames("ppc64le")
    assert next(policy.name for policy in policies_of("riscv64")) == "manylinux_2_31"


@pytest.mark.parametrize(
    "name", ["manylinux2014", "manylinux_2_17", "manylinux2014_x86_64", "manylinux_2_17_i686"]
)
def test_a_policy_has_several_names(name: str) -> None:
    found = named(name)
    assert found is not None
    assert found.title == "manylinux_2_17 (manylinux2014)"


@pytest.mark.parametrize("name", ["manylinux_2", "manylinux_2_170", "manylinux_2_1", "musllinux_1_2", ""])
def test_what_is_no_policy(name: str) -> None:
    assert named(name) is None


def test_all_that_glibc_allows_is_kept_where_every_library_is_there() -> None:
    held = _held(X86, _libraries(X86))

    assert _kept(held) == [policy.name for policy in policies_of("x86_64") if policy.glibc <= (2, 26)]
    assert honest_limit(held, X86) == (2, 26)
    assert next(one for one in held if not one.kept).broken == ("needs glibc 2.27, the target's is 2.26",)


def test_a_library_that_nothing_has_breaks_every_policy_that_names_it() -> None:
    libraries = _libraries(X86)
    del libraries["libexpat.so.1"]

    held = _held(X86, libraries)

    assert _kept(held) == ["manylinux_2_5"]
    assert held[1].broken == ("libexpat.so.1: no source has a library of this name",)
    assert honest_limit(held, X86) == (2, 5)
    del libraries["libGL.so.1"]
    assert honest_limit(_held(X86, libraries), X86) is None


def test_symbol_versions_set_the_limit() -> None:
    libraries = _libraries(X86)
    libraries["libstdc++.so.6"] = provider(f"{STORE}/2-gcc/lib/libstdc++.so.6", defs=GCC)

    held = _held(X86, libraries)

    assert _kept(held) == ["manylinux_2_5", "manylinux_2_12", "manylinux_2_17"]
    assert held[3].broken == (
        f"libstdc++.so.6: {STORE}/2-gcc/lib/libstdc++.so.6 does not define GLIBCXX_3.4.22",
    )
    assert honest_limit(held, X86) == (2, 17)


def test_a_provider_that_does_not_fit_the_target_keeps_nothing() -> None:
    libraries = _libraries(X86)
    libraries["libz.so.1"] = provider(f"{STORE}/3-zlib/lib/libz.so.1", libc_needs=["GLIBC_2.99"])

    held = _held(X86, libraries)

    assert _kept(held) == []
    assert "needs GLIBC_2.99, the target's glibc is 2.26" in held[0].broken[0]


def test_what_libc_itself_lacks() -> None:
    held = _held(X86, _libraries(X86), lambda soname: soname != "libmvec.so.1")

    assert _kept(held) == ["manylinux_2_5", "manylinux_2_12", "manylinux_2_17"]
    assert held[3].broken == ("libmvec.so.1: the target's libc comes without it",)


def test_between_and_beyond_the_policies_the_limit_is_the_targets_glibc() -> None:
    for version in ((2, 33), (2, 60)):
        target = replace(TARGET, libc_version=version)
        assert honest_limit(_held(target, _libraries(target)), target) == version


def test_musl_takes_no_manylinux_wheel() -> None:
    assert claimed_tags(MUSL_TARGET, lambda _: True) == ()
    assert _kept(_held(MUSL_TARGET, {})) == []


@pytest.mark.parametrize("denied", [None, (2, 17), (2, 30)])
def test_claimed_tags_are_those_of_packaging(
    monkeypatch: pytest.MonkeyPatch, denied: tuple[int, int] | None
) -> None:
    """As packaging makes them inside such a target."""
    for machine, glibc in ((X86_64, (2, 36)), (AARCH64, (2, 31))):
        name = machine.name
        monkeypatch.setattr(packaging_manylinux, "_get_glibc_version", lambda glibc=glibc: glibc)
        monkeypatch.setattr(packaging_manylinux, "_is_compatible", lambda _, version: version != denied)
        target = replace(TARGET, machine=machine, libc_version=glibc)

        expected = list(packaging_manylinux.platform_tags([name]))

        assert list(claimed_tags(target, lambda version: version != denied)) == expected
        assert len(expected) > 10
