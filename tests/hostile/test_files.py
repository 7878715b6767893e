"""Files of every kind in a tree: what is no plain file stays as it is, and the rest is patched."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from nixpatch import elf
from nixpatch.model import ElfFacts
from support import opened
from support import world as worlds
from support.injector import state_of
from support.people import NOBODY, as_nobody, needs_root
from support.world import Run, World, compile_c, record_row

pytestmark = pytest.mark.gcc


def patched(path: str) -> bool:
    facts = elf.read(path)
    return isinstance(facts, ElfFacts) and facts.original_sha256 is not None


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def test_pipes_sockets_devices_and_directories_with_the_names_of_libraries(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = os.path.dirname(world.extension)
    os.mkfifo(os.path.join(package, "fifo.so"))
    os.mkdir(os.path.join(package, "directory.so"))
    monkeypatch.chdir(package)  # the path of a socket has a small limit
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind("socket.so")
    if os.geteuid() == 0:
        os.mknod(os.path.join(package, "device.so"), stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero
    rows = [
        f"pkg/{name}," + "sha256=AAAA,1" for name in ("fifo.so", "socket.so", "device.so", "directory.so")
    ]
    world.write_record(*rows)
    before = {name: os.lstat(name).st_mode for name in os.listdir(package)}

    code, out, err = nixpatch(world.venv)

    assert (code, err) == (0, "")
    assert "Patched 2 of 2" in out
    assert {name: os.lstat(name).st_mode for name in os.listdir(package)} == before
    assert all(row.encode() in read(world.record) for row in rows)
    assert nixpatch("restore", world.venv)[0] == 0


def test_a_directory_in_the_place_of_what_we_write(world: World, nixpatch: Run) -> None:
    before = read(world.record)
    place = os.path.join(world.info, "nixpatch.json")
    os.makedirs(os.path.join(place, "full"))

    for command in ((), ("restore",)):
        code, out, _ = nixpatch(*command, world.venv)

        assert code == 1
        assert "nixpatch.json: cannot be written (Is a directory): remove it, and run nixpatch again" in out
        assert patched(world.extension) == (not command)

    shutil.rmtree(place)
    assert nixpatch(world.venv)[0] == 0
    assert nixpatch("verify", world.venv)[0] == 0
    assert nixpatch("restore", world.venv)[0] == 0
    assert read(world.record) == before


@pytest.mark.parametrize("kind", ["link", "fifo"])
def test_a_link_or_pipe_in_the_place_of_what_we_write_is_replaced(
    world: World, nixpatch: Run, kind: str
) -> None:
    outside = os.path.join(world.root, "outside")
    with open(outside, "wb") as file:
        file.write(b"outside")
    place = os.path.join(world.info, "nixpatch.json")
    if kind == "link":
        os.symlink(outside, place)
    else:
        os.mkfifo(place)

    code, _, _ = nixpatch(world.venv)

    assert code == 0
    assert stat.S_ISREG(os.lstat(place).st_mode)
    assert read(outside) == b"outside"
    assert nixpatch("verify", world.venv)[0] == 0


def test_a_hard_link_between_two_dists_is_cut_and_both_are_right(world: World, nixpatch: Run) -> None:
    os.makedirs(os.path.join(world.site, "other"))
    other = os.path.join(world.site, "other", "_ext.so")
    os.link(world.extension, other)
    info = os.path.join(world.site, "other-1.0.dist-info")
    os.makedirs(info)
    with open(os.path.join(info, "METADATA"), "w", encoding="utf-8") as file:
        file.write("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    with open(os.path.join(info, "RECORD"), "w", encoding="utf-8") as file:
        file.write(f"{record_row(other, world.site)}\nother-1.0.dist-info/RECORD,,\n")

    assert nixpatch(world.venv)[0] == 0

    assert patched(world.extension)
    assert patched(other)
    assert os.stat(other).st_nlink == os.stat(world.extension).st_nlink == 1
    assert nixpatch("verify", world.venv)[0] == 0


NAMES = [
    b"new\nline.so",
    b"not-utf-8-\xff\xfe.so",
    b"tab\t.so",
    b'quote"comma,.so',
    b"e\xcc\x81.so",
    b"back\\slash.so",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_patched_recorded_verified_and_restored(world: World, nixpatch: Run, name: bytes) -> None:
    path = os.path.join(world.site, "pkg", os.fsdecode(name))
    os.rename(world.extension, path)
    shutil.copy(path, world.extension)
    row = os.fsencode(record_row(path, world.site))
    spelled, rest = row[: -len(row.split(b",sha256=")[-1]) - 8], row.split(b",sha256=")[-1]
    quoted = b'"' + spelled.replace(b'"', b'""') + b'"'
    with open(world.record, "ab") as file:
        file.write(quoted + b",sha256=" + rest + b"\n")
    before = world.snapshot()

    assert nixpatch(world.venv)[0] == 0

    assert patched(path)
    assert nixpatch("verify", world.venv)[0] == 0
    assert nixpatch("restore", world.venv)[0] == 0
    assert world.snapshot() == before


def test_names_that_differ_in_case_alone_are_two_files(world: World, nixpatch: Run) -> None:
    upper = os.path.join(world.site, "pkg", "_EXT.so")
    shutil.copy(world.extension, upper)
    before = read(world.record)
    world.write_record()
    assert read(world.record) == before  # which does not know the second one

    assert nixpatch(world.venv, "--owned-only")[0] == 0

    assert patched(world.extension)
    assert not patched(upper)


@pytest.mark.parametrize("mode", [0o444, 0o555, 0o4755, 0o2755, 0o1644, 0o600])
def test_modes_stay_but_for_the_rights_of_another(world: World, nixpatch: Run, mode: int) -> None:
    os.chmod(world.extension, mode)

    assert nixpatch(world.venv)[0] == 0

    assert patched(world.extension)
    assert stat.S_IMODE(os.stat(world.extension).st_mode) == mode & ~0o6000


def test_a_file_that_cannot_be_changed_is_told_and_the_rest_is_done(world: World, nixpatch: Run) -> None:
    if subprocess.run(["chattr", "+i", world.extension], capture_output=True, check=False).returncode:
        pytest.skip("no immutable files here (chattr +i: root, and a file system that has them)")
    try:
        before = read(world.extension)
        code, out, _ = nixpatch(world.venv)
        assert code == 1
        assert "_ext.so: not patched: Operation not permitted: the file is as it was" in out
        assert read(world.extension) == before
        assert patched(world.program)
        assert not any(name.startswith(".nixpatch-") for name in os.listdir(os.path.dirname(world.extension)))
    finally:
        subprocess.run(["chattr", "-i", world.extension], check=True)
    assert nixpatch(world.venv)[0] == 0
    assert nixpatch("verify", world.venv)[0] == 0


@needs_root
def test_root_leaves_files_to_their_owners(world: World, nixpatch: Run) -> None:
    os.chown(world.extension, NOBODY, NOBODY)
    os.chown(world.record, NOBODY, NOBODY)

    assert nixpatch(world.venv)[0] == 0

    assert patched(world.extension)
    assert {os.stat(path).st_uid for path in (world.extension, world.record)} == {NOBODY}


# ------------------------------------------------------------------------------------------- as somebody else


@pytest.fixture
def open_world() -> Iterator[World]:
    """A world that nobody may look at; its Python too, which is one that nobody runs."""
    root = os.path.realpath(tempfile.mkdtemp(prefix="nixpatch-world-"))
    os.chmod(root, 0o755)
    made = worlds.make(root)
    for name in os.listdir(os.path.join(made.venv, "bin")):
        if name.startswith("python"):
            os.unlink(os.path.join(made.venv, "bin", name))
    compile_c("library.c", os.path.join(made.venv, "bin", "python3"), "-DMAIN")
    yield made
    shutil.rmtree(root)


def _give_away(directory: str) -> None:
    os.chown(directory, NOBODY, NOBODY)
    for here, directories, files in os.walk(directory):
        for name in (*directories, *files):
            os.chown(os.path.join(here, name), NOBODY, NOBODY, follow_symlinks=False)


def _environment(world: World) -> dict[str, str]:
    cache = os.path.join(world.root, "nowhere")
    return {"NIX_STORE_DIR": world.store, "XDG_CACHE_HOME": cache, "HOME": "/nonexistent", "COLUMNS": "200"}


@needs_root
def test_a_tree_of_somebody_else_is_not_begun(open_world: World) -> None:
    before = state_of(open_world.venv)

    code, told = as_nobody([open_world.venv], _environment(open_world))

    assert code == 3
    assert told.startswith(f"nixpatch: {open_world.venv}")
    assert "cannot be written, so nothing was changed" in told
    assert told.count("\n") == 1
    assert state_of(open_world.venv) == before


@needs_root
def test_a_site_packages_that_cannot_be_written_keeps_its_scripts_too(open_world: World) -> None:
    """The start-up file has to be made there; bin could be written."""
    opened.install(open_world)
    _give_away(open_world.venv)
    os.chown(open_world.site, 0, 0)
    before = state_of(open_world.venv)

    code, told = as_nobody([open_world.venv], _environment(open_world))

    assert code == 3
    assert "cannot be written, so nothing was changed" in told
    assert state_of(open_world.venv) == before


@needs_root
def test_ones_own_tree_with_a_file_of_somebody_else(open_world: World) -> None:
    """The directory decides who may rename (rename(2)); the new file is of him who made it."""
    _give_away(open_world.venv)
    os.chown(open_world.extension, 0, 0)

    code, told = as_nobody([open_world.venv], _environment(open_world))

    assert code == 0, told
    assert patched(open_world.extension)
    assert os.stat(open_world.extension).st_uid == NOBODY


@needs_root
def test_files_that_may_not_be_read_are_left_alone(open_world: World) -> None:
    _give_away(open_world.venv)
    os.chown(open_world.extension, 0, 0)
    os.chmod(open_world.extension, 0o700)
    before = read(open_world.extension)

    code, told = as_nobody([open_world.venv], _environment(open_world))

    assert "_ext.so: not read: Permission denied" in told
    assert code in {0, 1}
    assert "Traceback" not in told
    assert read(open_world.extension) == before
    assert patched(open_world.program)


@needs_root
def test_a_sticky_directory_keeps_the_files_of_others(open_world: World) -> None:
    _give_away(open_world.venv)
    package = os.path.dirname(open_world.extension)
    os.chown(package, 0, 0)
    os.chmod(package, 0o1777)
    os.chown(open_world.extension, 0, 0)
    before = read(open_world.extension)

    code, told = as_nobody([open_world.venv], _environment(open_world))

    assert code == 1
    assert "_ext.so: not patched: Operation not permitted: the file is as it was" in told
    assert read(open_world.extension) == before
    assert [name for name in os.listdir(package) if name.startswith(".nixpatch-")] == []


@needs_root
def test_a_user_who_may_not_open_the_database_of_nix_has_no_roots(open_world: World) -> None:
    """A single-user Nix of root: its programs are there for all, and fail for all others."""
    _give_away(open_world.venv)
    os.makedirs(os.path.join(open_world.root, "nix", "var", "nix"))
    program = os.path.join(open_world.root, "bin", "nix-store")
    os.makedirs(os.path.dirname(program))
    with open(program, "w", encoding="utf-8") as file:
        file.write("#!/bin/sh\necho 'error: opening lock file: Permission denied' >&2\nexit 1\n")
    os.chmod(program, 0o755)
    environment = {**_environment(open_world), "PATH": f"{os.path.dirname(program)}:/usr/bin:/bin"}

    code, told = as_nobody([open_world.venv], environment)

    assert code == 0, told
    assert "no garbage-collector roots are made" in told
    assert patched(open_world.extension)
    code, told = as_nobody(["verify", open_world.venv], environment)
    assert code == 0, told
    assert "no garbage-collector roots" in told
