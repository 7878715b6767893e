"""Wrong input: one clear line, an exit code, and nothing changed."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import stat
import struct
import subprocess
import sys
import threading

import pytest

from support.world import Run, World, shared

pytestmark = pytest.mark.gcc


def _refused(result: tuple[int, str, str], code: int, *words: str) -> None:
    got, out, err = result
    assert got == code
    assert out == ""
    assert err.startswith("nixpatch: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err


def test_no_such_path(world: World, nixpatch: Run) -> None:
    _refused(nixpatch("/no/such/tree"), 2, "/no/such/tree")


def test_an_empty_path_is_not_the_current_directory(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a variable that is not set."""
    monkeypatch.chdir(world.root)
    before = world.snapshot()
    for words in ([], ["verify"], ["tree"], ["missing"], ["restore"], ["lock"], ["manylinux", "status"]):
        _refused(nixpatch(*words, ""), 2, "is empty")
    _refused(nixpatch("wrap", "--tree", "", "--", "true"), 2, "is empty")
    assert world.snapshot() == before


def test_a_directory_without_elf_files_and_dists(world: World, nixpatch: Run) -> None:
    empty = os.path.join(world.root, "empty")
    os.makedirs(empty)

    _refused(nixpatch(empty), 2, empty, "ELF")


def test_a_tree_of_pure_python_has_nothing_to_do(world: World, nixpatch: Run) -> None:
    for path in (world.extension, world.program):
        os.unlink(path)

    code, out, _ = nixpatch(world.venv)

    assert code == 0
    assert "Patched 0 of 0 ELF files" in out


def test_half_an_installation_says_so(world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.snapshot()
    with monkeypatch.context() as gone:
        gone.setitem(sys.modules, "nixpatch.operations.apply", None)  # what is imported when it is needed
        _refused(nixpatch(world.venv), 3, "its own files cannot be read", "nixpatch.operations.apply")

    def unreadable(_: str) -> object:
        raise OSError(5, "Input/output error", "patch.py")

    monkeypatch.setattr("nixpatch.cli.app.import_module", unreadable)
    _refused(nixpatch(world.venv), 3, "its own files cannot be read", "Input/output error", "patch.py")
    assert world.snapshot() == before


def test_no_store_and_no_lib(world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = world.snapshot()
    monkeypatch.setenv("NIX_STORE_DIR", os.path.join(world.root, "nowhere"))

    _refused(nixpatch(world.venv), 3, "nowhere", "--lib")
    assert before == world.snapshot()


def test_a_store_that_does_not_exist(world: World, nixpatch: Run) -> None:
    _refused(nixpatch(world.venv, "--store", "/no/such/store"), 2, "--store", "/no/such/store")


def test_a_lib_that_does_not_exist(world: World, nixpatch: Run) -> None:
    before = world.snapshot()

    _refused(nixpatch(world.venv, "--lib", "/no/such/lib"), 2, "--lib", "/no/such/lib", "does not exist")
    assert before == world.snapshot()


def test_a_lib_with_libraries_of_another_machine(world: World, nixpatch: Run) -> None:
    before = world.snapshot()
    other = os.path.join(world.root, "other")
    library = shared("library.c", os.path.join(other, "libanswer.so.1"), "-Wl,-soname,libanswer.so.1")
    with open(library, "r+b") as file:  # e_machine: EM_AARCH64
        file.seek(18)
        file.write(struct.pack("<H", 183))

    _refused(nixpatch(world.venv, "--lib", other), 2, "aarch64", "x86_64")
    assert before == world.snapshot()


def test_a_closure_that_is_no_store_path(world: World, nixpatch: Run) -> None:
    _refused(nixpatch(world.venv, "--closure", world.root), 2, "--closure", world.root)


def test_a_target_python_that_cannot_be_found(world: World, nixpatch: Run) -> None:
    before = world.snapshot()

    _refused(nixpatch(world.venv, "--python", "/no/such/python"), 2, "/no/such/python")
    os.unlink(os.path.join(world.venv, "bin", "python3"))
    with open(os.path.join(world.venv, "pyvenv.cfg"), "w", encoding="utf-8") as file:
        file.write("home = /no/such/home/bin\nversion = 3.11.0\n")
    for name in os.listdir(os.path.join(world.venv, "bin")):
        if name.startswith("python"):
            os.unlink(os.path.join(world.venv, "bin", name))
    _refused(nixpatch(world.venv), 2, "Python", "--python")
    after = world.snapshot()
    assert {path: data for path, data in before.items() if path != "pyvenv.cfg"} == {
        path: data for path, data in after.items() if path != "pyvenv.cfg"
    }


def test_an_unknown_option(world: World, nixpatch: Run) -> None:
    code, _, err = nixpatch(world.venv, "--no-such-option")

    assert code == 2
    assert "--no-such-option" in err


@pytest.mark.skipif(shutil.which("unshare") is None, reason="not installed: unshare")
def test_a_read_only_tree(world: World) -> None:
    """A file system mounted read-only: root may write into any directory that is merely 0555."""
    before = world.snapshot()
    script = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
    command = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, "sh", world.venv]
    probe = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"no mount namespaces here: {probe.stderr.strip()}")
    import sys

    done = subprocess.run(
        [*command, sys.executable, "-m", "nixpatch", world.venv],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NIX_STORE_DIR": world.store},
    )

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"nixpatch: {world.venv}")
    assert "cannot be written, so nothing was changed" in done.stderr
    assert before == world.snapshot()


def test_every_path_is_looked_at_before_one_is_patched(world: World, nixpatch: Run) -> None:
    before = world.snapshot()
    _refused(nixpatch(world.venv, "/no/such/tree"), 2, "/no/such/tree")
    _refused(nixpatch(world.venv, "plan"), 2, "plan")  # a command behind the tree
    assert world.snapshot() == before

    assert nixpatch(world.venv)[0] == 0
    patched = world.snapshot()
    _refused(nixpatch("restore", world.venv, "/no/such/tree"), 2, "/no/such/tree")
    assert world.snapshot() == patched


@pytest.mark.parametrize(
    "command", [("patch",), ("plan",), ("verify",), ("restore",), ("missing",), ("tree",), ("lock",)]
)
def test_json_is_a_whole_document_when_the_request_is_wrong(nixpatch: Run, command: tuple[str, ...]) -> None:
    code, out, err = nixpatch(*command, "--json", "/no/such/tree")
    document = json.loads(out)
    assert code == 2
    assert "/no/such/tree" in document["error"]
    assert document["command"] == command[0]
    assert document["trees"] == []
    assert err.count("\n") == 1


def test_json_has_the_trees_that_were_done_before_one_failed(world: World, nixpatch: Run) -> None:
    other = world.copy("other")
    assert nixpatch(world.venv)[0] == 0
    shutil.rmtree(other.site)
    code, out, _ = nixpatch("verify", "--json", world.venv, "/no/such/tree", other.venv)
    document = json.loads(out)
    assert code == 2
    assert [tree["tree"]["root"] for tree in document["trees"]] == [world.venv]
    assert "/no/such/tree" in document["error"]


def test_a_report_on_several_trees_names_each(world: World, nixpatch: Run) -> None:
    other = world.copy("other")
    _, out, _ = nixpatch(world.venv, other.venv)
    lines = out.splitlines()
    assert lines[0] == world.venv
    assert other.venv in lines
    _, out, _ = nixpatch(world.venv)
    assert world.venv not in out.splitlines()


@pytest.mark.parametrize("path", ["/", "/usr", "/usr/lib", "~"])
def test_a_directory_of_the_system_is_not_patched_by_accident(
    nixpatch: Run, path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    path = str(tmp_path) if path == "~" else path
    _refused(nixpatch(path), 2, path, "--system")


def test_a_python_that_a_package_manager_owns_is_not_patched_by_accident(world: World, nixpatch: Run) -> None:
    os.unlink(os.path.join(world.venv, "pyvenv.cfg"))
    mark = os.path.join(os.path.dirname(world.site), "EXTERNALLY-MANAGED")
    with open(mark, "w", encoding="ascii") as file:
        file.write("[externally-managed]\nError=use apt\n")
    before = world.snapshot()
    for path in (world.venv, world.site):
        _refused(nixpatch(path, "--python", sys.executable), 2, path, mark, "--system")
    assert world.snapshot() == before
    assert nixpatch(world.venv, "--python", sys.executable, "--system")[0] == 0
    assert world.ask() == "42"


def test_a_directory_that_pythons_of_debian_share_has_the_mark_beside_it(world: World, nixpatch: Run) -> None:
    os.unlink(os.path.join(world.venv, "pyvenv.cfg"))
    library = os.path.dirname(world.site)
    shared_site = os.path.join(os.path.dirname(library), "python3", "dist-packages")
    os.makedirs(os.path.dirname(shared_site))
    os.rename(world.site, shared_site)
    mark = os.path.join(library, "EXTERNALLY-MANAGED")
    with open(mark, "w", encoding="ascii") as file:
        file.write("[externally-managed]\nError=use apt\n")
    before = world.snapshot()
    package = os.path.join(shared_site, "pkg")
    for path in (world.venv, os.path.dirname(shared_site), shared_site, package, f"{package}/_ext.so"):
        _refused(nixpatch(path, "--python", sys.executable), 2, path, mark, "--system")
    assert world.snapshot() == before


def test_a_file_of_the_system_is_not_patched_by_accident(nixpatch: Run) -> None:
    path = os.path.realpath("/usr/bin/env")
    if not path.startswith("/usr/bin/"):
        pytest.skip("no directories of the Filesystem Hierarchy Standard here")
    _refused(nixpatch("plan", path), 2, path, "package manager", "--system")


def test_a_python_that_uv_manages_is_its_users(world: World, nixpatch: Run) -> None:
    os.unlink(os.path.join(world.venv, "pyvenv.cfg"))
    with open(os.path.join(os.path.dirname(world.site), "EXTERNALLY-MANAGED"), "w", encoding="ascii") as file:
        file.write("[externally-managed]\nError=This Python installation is managed by uv and ...\n")
    assert nixpatch(world.venv, "--python", sys.executable)[0] == 0


@pytest.mark.parametrize("directory", ["lib", "./lib", "", "../lib"])
def test_a_relative_directory_is_never_appended(world: World, nixpatch: Run, directory: str) -> None:
    before = world.snapshot()
    _refused(nixpatch(world.venv, "--append-rpath", directory), 2, "--append-rpath", "ld.so(8)")
    assert world.snapshot() == before


@pytest.mark.parametrize("name", ["no/such/directory/out", "file/out", "directory", "directory/", "new/"])
def test_where_a_file_goes_is_looked_at_before_anything_is_done(
    world: World, nixpatch: Run, name: str
) -> None:
    os.mkdir(os.path.join(world.root, "directory"))
    with open(os.path.join(world.root, "file"), "wb"):
        pass
    output = os.path.join(world.root, name)
    words = ("--html", output, world.venv)
    before = world.snapshot()
    for command in (words, ("verify", *words), ("lock", "--output", output, world.venv)):
        _refused(nixpatch(*command), 3, output, "cannot be written")
    edit = ("elf", "--set-rpath", "/opt/lib", "--print-needed", "--output", output, world.extension)
    _refused(nixpatch(*edit), 3, output, "cannot be written")
    assert world.snapshot() == before
    nixpatch(world.venv)
    before = world.snapshot()
    _refused(nixpatch("restore", *words), 3, output, "cannot be written")
    assert world.snapshot() == before


@pytest.mark.parametrize("option", ["html", "lock"])
def test_a_report_into_a_device_or_a_pipe_leaves_it_one(
    world: World, nixpatch: Run, option: str, tmp_path: pathlib.Path
) -> None:
    pipe = str(tmp_path / "pipe")
    os.mkfifo(pipe)
    chunks: list[bytes] = []
    thread = threading.Thread(target=lambda: chunks.append(pathlib.Path(pipe).read_bytes()))
    thread.start()
    command = ("--html", pipe, world.venv) if option == "html" else ("lock", world.venv, "-o", pipe)
    assert nixpatch(*command)[0] == 0
    thread.join(30)
    assert stat.S_ISFIFO(os.lstat(pipe).st_mode)
    assert chunks[0].startswith(b"<!doctype html>" if option == "html" else b"{")
    device = str(tmp_path / "null")
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    assert nixpatch(*(device if word == pipe else word for word in command))[0] == 0
    assert stat.S_ISCHR(os.lstat(device).st_mode)
