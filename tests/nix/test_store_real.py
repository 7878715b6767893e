"""The store package against a real store, a real Nix and real ELF files."""

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nixpatch.elf import read
from nixpatch.errors import MachineError
from nixpatch.model import ElfFacts, Libc, Machine, Source, Target
from nixpatch.policy import default_policy
from nixpatch.store.cache import Cache
from nixpatch.store.cached_reads import CachedHeaders
from nixpatch.store.closure import closure, closure_by_reading
from nixpatch.store.host_store import assemble
from nixpatch.store.index import open_index
from nixpatch.store.nix_store import Store, find_store
from nixpatch.store.sources import LibrarySources
from nixpatch.store_paths import version_key
from support.testbed.store import NixStore, nix_environment

pytestmark = pytest.mark.nix

X86_64 = Machine(62, 64, "little")


@pytest.fixture(scope="module")
def store(nix_store: NixStore) -> Store:
    found = find_store(None, nix_environment())
    assert found.program is not None
    return found


@pytest.fixture(scope="module")
def target(nix_store: NixStore) -> Target:
    glibc = nix_store["glibc"] + "/lib"
    return Target(
        python=nix_store.python,
        found_by="--python",
        version=(3, 11),
        machine=X86_64,
        loader=f"{glibc}/ld-linux-x86-64.so.2",
        libc=Libc.GLIBC,
        libc_version=(2, 36),
        libc_versions=frozenset(),
        libc_dir=glibc,
    )


@pytest.fixture
def added(store: Store, tmp_path: Path) -> Iterator[str]:
    """A store path of our own with a zlib that is newer than all others, gone again afterwards."""
    source = tmp_path / "zlib-99.9"
    (source / "lib").mkdir(parents=True)
    library = os.path.realpath("/lib/x86_64-linux-gnu/libz.so.1")
    (source / "lib" / "libz.so.1").write_bytes(Path(library).read_bytes())
    path = _nix(store, "--add", str(source)).strip()
    yield path
    if os.path.lexists(path):
        _nix(store, "--delete", path)


def _nix(store: Store, *words: str) -> str:
    done = subprocess.run(["nix-store", *words], env=dict(store.environ), capture_output=True, check=True)
    return done.stdout.decode()


def test_closure_is_the_one_that_nix_knows(nix_store: NixStore, store: Store) -> None:
    paths = [nix_store["python3"], nix_store["glib"]]
    assert closure(store, paths, CachedHeaders(read, Cache())) == tuple(sorted(nix_store.closure(*paths)))


@pytest.mark.parametrize("attr", ["python3", "glib", "libxkbcommon", "fontconfig", "gfortranLib"])
def test_closure_by_reading_brings_all_libraries_that_nix_does(
    nix_store: NixStore, store: Store, attr: str
) -> None:
    known = set(nix_store.closure(nix_store[attr]))
    reached = set(closure_by_reading(store, [nix_store[attr]], CachedHeaders(read, Cache())))
    assert reached <= known
    assert {path for path in known - reached if os.path.isdir(f"{path}/lib")} == set()


def test_closure_of_what_is_not_there_is_a_machine_error_of_one_line(store: Store) -> None:
    absent = f"{store.directory}/{'0' * 32}-absent-1.0"
    with pytest.raises(MachineError) as caught:
        closure(store, [absent], CachedHeaders(read, Cache()))
    assert "\n" not in str(caught.value)
    assert absent in str(caught.value)


def test_only_paths_that_nix_lost_are_invalid(nix_store: NixStore, store: Store) -> None:
    absent = f"{store.directory}/{'0' * 32}-absent-1.0"
    assert store.invalid([nix_store["zlib"], absent]) == {absent}
    assert store.invalid([]) == frozenset()


def test_versions_sort_as_this_nix_sorts_them(nix_store: NixStore, store: Store) -> None:
    dice = random.Random(7)
    parts = ["0", "1", "2", "10", "03", ".", "-", "pre", "a", "rc", "lib", ".1", "-2"]
    versions = ["".join(dice.choices(parts, k=dice.randrange(6))) for _ in range(120)]
    expression = (
        f"let vs = builtins.fromJSON ''{json.dumps(versions)}''; "
        "in map (a: map (b: builtins.compareVersions a b) vs) vs"
    )
    command = ["nix-instantiate", "--eval", "--strict", "--json", "--expr", expression]
    done = subprocess.run(command, env=dict(store.environ), capture_output=True, check=True)
    table: list[list[int]] = json.loads(done.stdout)
    for i, one in enumerate(versions):
        for j, other in enumerate(versions):
            left, right = version_key(one), version_key(other)
            assert (left > right) - (left < right) == table[i][j], (one, other)


def test_the_targets_own_zlib_is_first_and_other_machines_are_told_apart(
    nix_store: NixStore, store: Store, target: Target
) -> None:
    found = open_index(store, target, read).providers("libz.so.1")
    best = found[0]
    assert best.directory == nix_store["zlib"] + "/lib"
    assert best.source is Source.TARGET_CLOSURE
    assert best.in_target_closure
    assert best.package.startswith("zlib-")
    assert os.path.basename(best.real) != best.name == "libz.so.1"
    assert "ZLIB_1.2.9" in best.version_defs
    assert "GLIBC_2.14" in best.libc_needs
    assert best.libc is Libc.GLIBC
    assert not best.beside_libc
    directories = {provider.directory: provider.machine.name for provider in found}
    assert directories[nix_store["zlib_i686"] + "/lib"] == "i686"
    assert directories[nix_store["zlib_second"] + "/lib"] == "x86_64"


def test_libc_is_marked_and_musl_is_never_offered_for_it(
    nix_store: NixStore, store: Store, target: Target
) -> None:
    index = open_index(store, target, read)
    for name in ("libc.so.6", "libm.so.6"):
        found = {provider.directory: provider for provider in index.providers(name)}
        assert found[nix_store["glibc"] + "/lib"].beside_libc
        assert nix_store["musl"] + "/lib" not in found


def test_whatever_a_library_of_the_store_needs_is_found_in_it(
    nix_store: NixStore, store: Store, target: Target
) -> None:
    # Some inputs of a build have a lib directory without libraries (gnutar's holds a helper program).
    given = [
        path for path in nix_store.library_directories if any(".so" in name for name in os.listdir(path))
    ]
    index = open_index(store, target, read, LibrarySources(libs=tuple(given), pure=True))
    missing = set()
    for directory in given:
        for name in os.listdir(directory):
            facts = read(os.path.realpath(os.path.join(directory, name))) if ".so" in name else None
            for need in facts.needed if isinstance(facts, ElfFacts) else ():
                if default_policy().libc_of(need) is None and not any(
                    p.machine == X86_64 for p in index.providers(need)
                ):
                    missing.add((name, need))
    assert missing == set()


def test_the_cache_follows_what_nix_adds_and_collects(
    store: Store, target: Target, added: str, tmp_path: Path
) -> None:
    cache = str(tmp_path / "store.sqlite")

    def found() -> list[str]:
        with open_index(store, target, read, cache=Cache(cache)) as index:
            cached = index.providers("libz.so.1")
        assert cached == open_index(store, target, read).providers("libz.so.1")
        return [provider.directory for provider in cached]

    assert f"{added}/lib" in found()
    assert f"{added}/lib" in found()
    _nix(store, "--delete", added)
    assert f"{added}/lib" not in found()


def test_a_store_of_the_hosts_libraries_can_be_assembled(tmp_path: Path, target: Target) -> None:
    directory = assemble(str(tmp_path), ["libstdc++.so.6", "libz.so.1"], read)
    index = open_index(find_store(directory, {}), target, read)
    for name in ("libstdc++.so.6", "libgcc_s.so.1", "libz.so.1"):
        (provider,) = index.providers(name)
        assert provider.soname == name
        assert provider.machine == target.machine
        assert not provider.beside_libc
    assert "GLIBCXX_3.4" in index.providers("libstdc++.so.6")[0].version_defs
    assert index.providers("libc.so.6") == ()
