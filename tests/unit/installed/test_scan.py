from __future__ import annotations

import os
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nixpatch.errors import RequestError
from nixpatch.fs import identity
from nixpatch.installed.scan import scan
from nixpatch.model import Tree, TreeKind
from support.installed_trees import ELF, SITE, dist, write


@pytest.fixture
def base(tmp_path: Path) -> str:
    return os.path.realpath(tmp_path)


def venv(base: str, version: str = "version = 3.11.7") -> str:
    write(os.path.join(base, "venv/pyvenv.cfg"), f"home = /usr/bin\n{version}\n".encode())
    os.makedirs(os.path.join(base, "venv", SITE))
    return os.path.join(base, "venv")


def names(tree: Tree) -> list[str]:
    return [os.path.relpath(file.path, tree.prefix) for file in tree.files]


# ------------------------------------------------------------------------------------------- the kind


def test_a_venv(base: str) -> None:
    prefix = venv(base)
    info = dist(os.path.join(prefix, SITE), "pkg", {"pkg/m.so": ELF, "../../../bin/tool": ELF})

    tree = scan(prefix)

    assert (tree.kind, tree.root, tree.prefix) == (TreeKind.VENV, prefix, prefix)
    assert names(tree) == ["bin/tool", f"{SITE}/pkg/m.so"]
    assert {file.owners for file in tree.files} == {(info,)}
    assert tree.python_version == (3, 11)
    assert tree.notes == ()


@pytest.mark.parametrize("lib", ["lib", "lib64"])
@pytest.mark.parametrize(
    "site", ["python3.11/site-packages", "python3.13t/site-packages", "python3/dist-packages"]
)
def test_a_prefix_such_as_the_output_of_a_nix_build(base: str, lib: str, site: str) -> None:
    dist(os.path.join(base, "out", lib, site), "pkg", {"m.so": ELF})

    tree = scan(os.path.join(base, "out"))

    assert (tree.kind, tree.prefix) == (TreeKind.PREFIX, os.path.join(base, "out"))
    assert [found.name for found in tree.dists] == ["pkg"]


def test_lib64_that_is_a_link_to_lib_counts_once(base: str) -> None:
    prefix = venv(base)
    dist(os.path.join(prefix, SITE), "pkg", {"m.so": ELF})
    os.symlink("lib", os.path.join(prefix, "lib64"))

    tree = scan(prefix)

    assert (names(tree), len(tree.dists)) == ([f"{SITE}/m.so"], 1)
    assert scan(os.path.join(prefix, SITE.replace("lib/", "lib64/"))) == scan(os.path.join(prefix, SITE))


def test_a_site_packages_brings_along_its_programs_and_nothing_else(base: str) -> None:
    prefix = venv(base)
    info = dist(os.path.join(prefix, SITE), "ruff", {"../../../bin/ruff": ELF, "m.so": ELF})
    write(os.path.join(prefix, "bin/stranger"), mode=0o755)

    tree = scan(os.path.join(prefix, SITE))

    assert (tree.kind, tree.root, tree.prefix) == (TreeKind.SITE_PACKAGES, os.path.join(prefix, SITE), prefix)
    assert names(tree) == ["bin/ruff", f"{SITE}/m.so"]
    assert tree.files[0].owners == (info,)
    assert tree.python_version == (3, 11)


def test_a_target_directory_of_pip_is_its_own_prefix(base: str) -> None:
    dist(
        os.path.join(base, "vendored"), "pkg", {"m.so": ELF, "bin/tool": ELF}, more_rows=b"../../bin/tool,,\n"
    )

    tree = scan(os.path.join(base, "vendored"))

    assert (tree.kind, tree.prefix) == (TreeKind.SITE_PACKAGES, tree.root)
    assert names(tree) == ["bin/tool", "m.so"]
    assert tree.python_version is None
    assert len(tree.notes) == 1


def test_a_directory_of_elf_files(base: str) -> None:
    write(os.path.join(base, "some/deep/libx.so.1"))

    tree = scan(base)

    assert (tree.kind, names(tree), tree.dists) == (TreeKind.PLAIN, ["some/deep/libx.so.1"], ())


def test_one_file_alone(base: str) -> None:
    path = write(os.path.join(base, "lib/python3.11/m.so"))
    write(os.path.join(base, "lib/python3.11/other.so"))

    tree = scan(path)

    assert (tree.kind, tree.root, tree.prefix) == (
        TreeKind.PLAIN,
        os.path.dirname(path),
        os.path.dirname(path),
    )
    assert [file.path for file in tree.files] == [path]
    assert tree.python_version == (3, 11)


@pytest.mark.parametrize("part", [f"{SITE}/pkg/m.so", f"{SITE}/pkg", "bin", "lib"])
def test_a_part_of_a_venv_is_the_venv_with_a_part(base: str, part: str) -> None:
    prefix = venv(base)
    info = dist(os.path.join(prefix, SITE), "pkg", {"pkg/m.so": ELF, "../../../bin/tool": ELF})

    tree = scan(os.path.join(prefix, part))

    assert replace(tree, part=None) == scan(prefix)
    assert tree.part == os.path.join(prefix, part)
    assert names(tree.only_part()) == [name for name in names(tree) if name.startswith(part)]
    assert [dist.info for dist in tree.only_part().dists] == [info]


def test_environments_in_a_tree_are_none_of_its_files(base: str) -> None:
    prefix = venv(base)
    dist(os.path.join(prefix, SITE), "pkg", {"m.so": ELF})
    inner = venv(os.path.join(prefix, "share"))
    write(os.path.join(inner, SITE, "inner.so"))

    tree = scan(prefix)

    assert names(tree) == [f"{SITE}/m.so"]
    assert any(inner in note for note in tree.notes)
    write(os.path.join(base, "loose/x.so"))
    assert names(scan(base)) == ["loose/x.so"]


def test_a_directory_above_trees_that_has_nothing_else_is_refused_and_names_one(base: str) -> None:
    prefix = venv(base)
    with pytest.raises(RequestError, match=f"trees in it: name one, such as {prefix}"):
        scan(base)


def test_relative_and_linked_paths_end_at_the_real_one(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = venv(base)
    os.symlink("venv", os.path.join(base, "link"))
    monkeypatch.chdir(base)

    assert scan("link").root == prefix


@pytest.mark.parametrize("line", ["version = 3.12.1", "version_info = 3.12.1.final.0", "VERSION=3.12"])
def test_pyvenv_cfg_tells_the_version_where_no_path_does(base: str, line: str) -> None:
    write(os.path.join(base, "pyvenv.cfg"), line.encode())

    assert scan(base).python_version == (3, 12)


# ---------------------------------------------------------------------------------- what is asked wrongly


def test_dists_without_elf_files_are_fine(base: str) -> None:
    dist(os.path.join(base, "site"), "pure", {"pure.py": b"x = 1\n"})

    assert scan(os.path.join(base, "site")).files == ()


def test_a_new_venv_is_fine(base: str) -> None:
    assert scan(venv(base)).files == ()


@pytest.mark.parametrize("name", ["missing", "text.txt", "fifo", "empty", "nul\0byte"])
def test_what_cannot_be_a_tree_is_refused_in_one_line(base: str, name: str) -> None:
    write(os.path.join(base, "text.txt"), b"text" * 100)
    os.mkfifo(os.path.join(base, "fifo"))
    os.mkdir(os.path.join(base, "empty"))

    with pytest.raises(RequestError) as caught:
        scan(os.path.join(base, name))

    assert name.replace("\0", "\\x00") in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_directory_with_nothing_to_do_says_what_to_name(base: str) -> None:
    write(os.path.join(base, "a.txt"), b"text" * 100)

    with pytest.raises(RequestError, match="site-packages"):
        scan(base)


# ---------------------------------------------------------------------------------------- the candidates


def test_the_bytes_decide_and_not_the_name(base: str) -> None:
    write(os.path.join(base, "libx.so.1"))
    write(os.path.join(base, "tool"), mode=0o755)
    write(os.path.join(base, "tool.py"), mode=0o755)
    write(os.path.join(base, "py"))
    write(os.path.join(base, "linker-script.so"), b"INPUT(libx.so.1)" * 10)
    write(os.path.join(base, "empty.so"), b"")
    write(os.path.join(base, "magic-only.so"), b"\x7fELF")

    assert names(scan(base)) == ["libx.so.1", "py", "tool", "tool.py"]


def test_sources_are_not_opened(base: str) -> None:
    write(os.path.join(base, "m.so"))
    for suffix in ("py", "pyc", "h", "json", "PNG"):
        write(os.path.join(base, f"unreadable.{suffix}"), b"text" * 100, mode=0)

    before = os.stat(os.path.join(base, "unreadable.py")).st_atime_ns
    tree = scan(base)

    assert (names(tree), tree.notes) == (["m.so"], ())
    assert os.stat(os.path.join(base, "unreadable.py")).st_atime_ns == before


def test_links_and_special_files_are_left_alone(base: str) -> None:
    write(os.path.join(base, "outside/m.so"))
    root = os.path.join(base, "root")
    write(os.path.join(root, "m.so"))
    os.symlink("m.so", os.path.join(root, "link.so"))
    os.symlink("../outside", os.path.join(root, "linked"))
    os.symlink(".", os.path.join(root, "loop"))
    os.mkfifo(os.path.join(root, "fifo.so"))
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.join(root, "s"))

        assert names(scan(root)) == ["m.so"]


def test_pycache_is_not_entered(base: str) -> None:
    write(os.path.join(base, "m.so"))
    write(os.path.join(base, "__pycache__/x.so"))

    assert names(scan(base)) == ["m.so"]


def test_what_a_killed_run_left_is_told_and_not_patched(base: str) -> None:
    write(os.path.join(base, "m.so"))
    left = write(os.path.join(base, "sub/.nixpatch-m.so-1.tmp"))

    tree = scan(base)

    assert (names(tree), tree.leftovers) == (["m.so"], (left,))


def test_size_and_identity_are_those_of_the_file(base: str) -> None:
    path = write(os.path.join(base, "m.so"), mode=0o555)
    os.link(path, os.path.join(base, "same.so"))

    file = scan(base).files[0]

    assert (file.path, file.size, file.identity) == (path, len(ELF), identity(os.lstat(path)))


@pytest.mark.parametrize("name", [b"new\nline.so", b"caf\xe9.so", b"caf\xc3\xa9.so", b" .so", b"-n.so"])
def test_any_name_works(base: str, name: bytes) -> None:
    path = write(os.path.join(base, "site", os.fsdecode(name)))
    info = dist(os.path.join(base, "site"), "pkg", {}, more_rows=b'"' + name + b'",,\n')

    tree = scan(os.path.join(base, "site"))

    assert [(file.path, file.owners) for file in tree.files] == [(path, (info,))]


def test_a_directory_that_cannot_be_read_is_a_note(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(os.path.join(base, "m.so"))
    locked = os.path.dirname(write(os.path.join(base, "loc\nked/x.so")))
    real = os.open

    def opening(path: str, *arguments: Any, **named: Any) -> int:
        if path == locked:  # modes do not stop root, who runs the tests in many containers
            raise PermissionError(13, "Permission denied", path)
        return real(path, *arguments, **named)

    monkeypatch.setattr(os, "open", opening)
    tree = scan(base)

    assert names(tree) == ["m.so"]
    assert len(tree.notes) == 1
    assert tree.notes[0].endswith("loc\\nked: not searched: Permission denied")


def test_a_very_deep_tree_is_walked(base: str) -> None:
    deep = os.path.join(base, *["d" * 10] * 300)
    write(os.path.join(base, "m.so"))
    write(os.path.join(deep, "n.so"))

    assert len(scan(base).files) == 2


# ------------------------------------------------------------------------------------------------ owners


def test_a_file_that_two_dists_list_has_both_as_owners(base: str) -> None:
    site = os.path.join(base, "site")
    infos = (dist(site, "a", {"shared.so": ELF}), dist(site, "b", {"./shared.so": ELF, "own.so": ELF}))
    write(os.path.join(site, "nobody.so"))

    owners = {os.path.basename(file.path): file.owners for file in scan(site).files}

    assert owners == {"shared.so": infos, "own.so": infos[1:], "nobody.so": ()}


def test_a_conda_environment_is_pointed_out(base: str) -> None:
    dist(os.path.join(base, SITE), "pkg", {"m.so": ELF})
    os.mkdir(os.path.join(base, "conda-meta"))

    assert any("conda" in note for note in scan(base).notes)


@pytest.mark.gcc
def test_a_compiled_library_is_found(base: str) -> None:
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", os.path.join(base, "libx.so")],
        input=b"int x;",
        check=True,
    )

    assert names(scan(base)) == ["libx.so"]


# ------------------------------------------------------------------------------------------- trees of links


def _package(store: str, name: str, files: dict[str, bytes]) -> tuple[str, str]:
    """Install a dist into a store path of its own; return the store path and the dist-info directory."""
    path = os.path.join(store, f"{'0' * 32}-{name}")
    return path, dist(os.path.join(path, SITE), name, files)


def test_links_into_the_store_are_followed_for_who_only_reads(base: str) -> None:
    # As withPackages of nixpkgs links: whole directories, and the standard library of the Python itself.
    store = os.path.join(base, "store")
    python = os.path.join(store, f"{'1' * 32}-python3")
    for name in ("os.py", "lib-dynload/_ssl.so"):
        write(os.path.join(python, "lib/python3.11", name))
    numpy, info = _package(
        store, "numpy", {"numpy/core.so": ELF, "numpy.libs/libblas.so": ELF, "../../../bin/f2py": ELF}
    )
    env = os.path.join(base, "env")
    os.makedirs(os.path.join(env, SITE))
    os.makedirs(os.path.join(env, "bin"))
    for name in ("numpy", "numpy.libs", os.path.basename(info)):
        os.symlink(os.path.join(numpy, SITE, name), os.path.join(env, SITE, name))
    for name in ("os.py", "lib-dynload"):
        os.symlink(os.path.join(python, "lib/python3.11", name), os.path.join(env, "lib/python3.11", name))
    os.symlink(os.path.join(numpy, "bin/f2py"), os.path.join(env, "bin/f2py"))

    tree = scan(env, store_dir=store)

    assert [file.path.removeprefix(numpy + "/") for file in tree.files] == [
        "bin/f2py",
        f"{SITE}/numpy.libs/libblas.so",
        f"{SITE}/numpy/core.so",
    ]
    assert {file.owners for file in tree.files} == {(info,)}
    assert [(found.info, found.has_record) for found in tree.dists] == [(info, True)]
    assert tree.linked == (numpy,)
    assert tree.prefix_of(tree.files[0].path) == numpy
    assert tree.linked_note == "made of links: 3 ELF files read where they lead, in numpy"
    assert names(scan(env)) == []


def test_files_linked_to_a_cache_are_those_of_the_tree(base: str) -> None:
    # As `uv pip install --link-mode symlink` links: each file but RECORD.
    prefix = venv(base)
    site = os.path.join(prefix, SITE)
    info = dist(site, "pkg", {"pkg/m.so": ELF, "../../../bin/tool": ELF})
    for number, path in enumerate((os.path.join(site, "pkg/m.so"), os.path.join(prefix, "bin/tool"))):
        os.makedirs(os.path.join(base, "cache"), exist_ok=True)
        os.rename(path, os.path.join(base, "cache", str(number)))
        os.symlink(os.path.join(base, "cache", str(number)), path)

    tree = scan(prefix, store_dir=os.path.join(base, "store"))

    assert names(tree) == ["bin/tool", f"{SITE}/pkg/m.so"]
    assert {file.owners for file in tree.files} == {(info,)}
    assert tree.linked == ()
    assert os.path.join(base, "cache") in tree.linked_note


def test_a_link_to_anywhere_is_not_searched(base: str) -> None:
    prefix = venv(base)
    dist(os.path.join(prefix, SITE), "pkg", {"pkg/m.so": ELF})
    write(os.path.join(base, "data/big.so"))
    os.symlink(os.path.join(base, "data"), os.path.join(prefix, SITE, "pkg/data"))
    os.symlink(os.path.join(base, "gone"), os.path.join(prefix, SITE, "gone"))
    os.symlink("/", os.path.join(prefix, "root"))

    tree = scan(prefix, store_dir=os.path.join(base, "store"))

    assert names(tree) == [f"{SITE}/pkg/m.so"]


def test_links_of_linked_packages_are_followed_too(base: str) -> None:
    store = os.path.join(base, "store")
    group, _ = _package(store, "group", {"first/m.so": ELF})
    alias = os.path.join(store, f"{'2' * 32}-first")
    os.makedirs(os.path.dirname(os.path.join(alias, SITE)))
    os.symlink(os.path.join(group, SITE), os.path.join(alias, SITE))
    env = venv(base)
    os.symlink(os.path.join(alias, SITE, "first"), os.path.join(env, SITE, "first"))
    os.symlink(os.path.join(alias, "lib"), os.path.join(env, SITE, "loop"))
    os.symlink(alias, os.path.join(env, SITE, "again"))

    tree = scan(env, store_dir=store)

    assert [file.path for file in tree.files] == [os.path.join(group, SITE, "first/m.so")]
