import os
from pathlib import Path

import pytest

from nixpatch.errors import MachineError
from nixpatch.store.host_store import assemble
from nixpatch.store_paths import is_store_entry
from support.store_fakes import I686, X86_64, FakeReader, World, library, symlink, world


@pytest.fixture
def host(tmp_path: Path) -> list[str]:
    lib = str(tmp_path / "host" / "lib")
    library(f"{lib}/libz.so.1.3.1", soname="libz.so.1")
    symlink(f"{lib}/libz.so.1", "libz.so.1.3.1")
    library(f"{lib}/libgcc_s.so.1")
    library(f"{lib}/libstdc++.so.6.0.33", needed=["libm.so.6", "libc.so.6", "libgcc_s.so.1"])
    symlink(f"{lib}/libstdc++.so.6", "libstdc++.so.6.0.33")
    library(f"{lib}/libpng16.so.16", needed=["libz.so.1", "libm.so.6", "ld-linux-x86-64.so.2"])
    library(f"{lib}/libbroken.so.1", needed=["libabsent.so.9"])
    return [lib]


def build(scratch: Path, host: list[str], *sonames: str) -> str:
    return assemble(str(scratch), sonames, FakeReader(), machine=X86_64, search=host)


def test_it_is_a_store_that_the_index_understands(tmp_path: Path, host: list[str]) -> None:
    here = World(str(tmp_path / "demo"))
    store = build(tmp_path / "demo", host, "libstdc++.so.6", "libpng16.so.16")
    assert store == here.store.directory
    assert all(is_store_entry(name) for name in os.listdir(store))
    index = here.index()
    found = {
        name: index.providers(name)
        for name in ("libstdc++.so.6", "libgcc_s.so.1", "libz.so.1", "libpng16.so.16")
    }
    assert {name: [provider.package for provider in providers] for name, providers in found.items()} == {
        "libstdc++.so.6": ["gcc-lib-6.0.33"],
        "libgcc_s.so.1": ["gcc-lib-6.0.33"],
        "libz.so.1": ["libz-1.3.1"],
        "libpng16.so.16": ["libpng16-16"],
    }
    assert not any(provider.beside_libc for providers in found.values() for provider in providers)


def test_files_are_copies_under_their_own_names(tmp_path: Path, host: list[str]) -> None:
    store = build(tmp_path / "demo", host, "libz.so.1")
    (path,) = [os.path.join(store, name) for name in os.listdir(store)]
    original = f"{host[0]}/libz.so.1.3.1"
    assert os.readlink(f"{path}/lib/libz.so.1") == "libz.so.1.3.1"
    assert Path(f"{path}/lib/libz.so.1.3.1").read_bytes() == Path(original).read_bytes()
    assert not os.path.samefile(f"{path}/lib/libz.so.1.3.1", original)


def test_the_same_libraries_give_the_same_names(tmp_path: Path, host: list[str]) -> None:
    names = [sorted(os.listdir(build(tmp_path / where, host, "libpng16.so.16"))) for where in ("a", "b", "a")]
    assert names[0] == names[1] == names[2]
    library(f"{host[0]}/libz.so.1.3.1", defs=["other contents"])
    changed = sorted(os.listdir(build(tmp_path / "c", host, "libpng16.so.16")))
    assert len(changed) == len(names[0])
    assert changed != names[0]


def test_libraries_of_another_machine_are_passed_over(tmp_path: Path, host: list[str]) -> None:
    other = str(tmp_path / "host" / "lib32")
    library(f"{other}/libz.so.1", machine=I686)
    store = build(tmp_path / "demo", [other, *host], "libz.so.1")
    assert [name[33:] for name in os.listdir(store)] == ["libz-1.3.1"]


@pytest.mark.parametrize(
    ("soname", "message"),
    [
        ("libnope.so.1", r"libnope\.so\.1 is in none"),
        ("libbroken.so.1", r"libabsent\.so\.9 \(needed by libbroken\.so\.1\)"),
    ],
)
def test_a_library_that_the_host_lacks_is_named(
    tmp_path: Path, host: list[str], soname: str, message: str
) -> None:
    with pytest.raises(MachineError, match=message) as caught:
        build(tmp_path / "demo", host, soname)
    assert "package of your distribution" in str(caught.value)


def test_a_scratch_directory_that_cannot_be_written_is_a_machine_error(
    tmp_path: Path, host: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match="another scratch directory"):
        build(tmp_path / "file", host, "libz.so.1")
    assert world(tmp_path).found("libz.so.1") == []
