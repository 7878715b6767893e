"""verify calls nothing right that does not load, and nothing wrong that does."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nixpatch.errors import MachineError
from nixpatch.installed import provenance
from nixpatch.installed.scan import scan
from nixpatch.installed.target_python import find_target
from nixpatch.model import Target
from nixpatch.operations import verify_load
from nixpatch.operations.plan import Reader
from support.installed_trees import dist
from support.opening import add_opener
from support.programs import content
from support.world import HASH, Run, World, compile_c, make, record_row, shared

pytestmark = pytest.mark.gcc

NAME = "libanswer.so.1"


def bundled(world: World, *options: str) -> str:
    """Let the extension find a library of its dist by its own search path; return the library."""
    path = os.path.join(world.site, "pkg.libs", NAME)
    shared("library.c", path, f"-Wl,-soname,{NAME}")
    shared("extension.c", world.extension, path, "-Wl,-rpath,$ORIGIN:$ORIGIN/../pkg.libs", *options)
    world.write_record(record_row(path, world.site))
    return path


STOPPING: dict[str, Callable[[str, bytes], object]] = {
    "a text": lambda path, _: Path(path).write_bytes(b"libanswer.so.1.2.3"),
    "a directory": lambda path, _: os.mkdir(path),
    "an empty file": lambda path, _: Path(path).write_bytes(b""),
    "the beginning of the library": lambda path, data: Path(path).write_bytes(data[:300]),
    "half of the library": lambda path, data: Path(path).write_bytes(data[: len(data) // 2]),
    "a FIFO": lambda path, _: os.mkfifo(path),
}


@pytest.mark.parametrize("name", STOPPING)
def test_a_file_of_the_name_before_the_library(world: World, nixpatch: Run, name: str) -> None:
    library = bundled(world)
    assert nixpatch(world.venv)[0] == 0
    assert nixpatch("verify", "--load", world.venv)[0] == 0
    placed = os.path.join(world.site, "pkg", NAME)
    STOPPING[name](placed, content(library))

    code, out, _ = nixpatch("verify", world.venv)
    assert code == 1
    assert f"needs {NAME}, but ld.so ends its search at {placed}, which is" in out
    code, out, _ = nixpatch("verify", "--load", world.venv)
    assert code == 1
    assert "the loader failed" in out or "ld.so waits for ever" in out
    for command in ("plan", "patch"):
        code, out, _ = nixpatch(command, "-v", world.venv)
        assert (code, "ld.so ends its search there" in " ".join(out.split())) == (1, True)
    code, out, _ = nixpatch("tree", "--why", NAME, world.extension)
    assert (code, "ld.so ends the search there" in out) == (1, True)


def test_a_text_where_only_a_new_entry_of_the_search_path_leads(world: World, nixpatch: Run) -> None:
    """The need would come from the store, but the directory of another need stands before it."""
    other = os.path.join(world.site, "pkg.libs", "libother.so.1")
    shared("library.c", other, "-Wl,-soname,libother.so.1", "-Danswer=other")
    answer = os.path.join(world.library, NAME)
    shared("extension.c", world.extension, "-Wl,--no-as-needed", answer, other)
    text = os.path.join(world.site, "pkg.libs", NAME)
    Path(text).write_text("libanswer.so.1.2.3")
    world.write_record(record_row(other, world.site), record_row(text, world.site))

    assert nixpatch(world.venv)[0] == 1
    assert world.ask() != "42"
    assert nixpatch("verify", world.venv)[0] == 1


def test_a_file_that_needs_no_edit_and_lacks_a_library(world: World, nixpatch: Run) -> None:
    gone = os.path.join(world.root, "libgone.so.3")
    shared("library.c", gone, "-Wl,-soname,libgone.so.3")
    module = os.path.join(world.site, "pkg", "_other.so")
    shared("extension.c", module, gone, "-DPyInit__ext=PyInit__other")
    os.unlink(gone)
    world.write_record(record_row(module, world.site))
    assert nixpatch(world.venv)[0] == 1

    for options in ((), ("--load",)):
        code, out, _ = nixpatch("verify", *options, world.venv)
        assert code == 1
        assert "pkg/_other.so: needs libgone.so.3, which ld.so does not find" in out
        assert f"note: nixpatch {world.venv} links what the store has, and lists what it lacks" in out
    assert nixpatch("verify", "--ignore-missing", "libgone*", world.venv)[0] == 0
    assert nixpatch("verify", "--load", "--ignore-missing", "libgone*", world.venv)[0] == 0


@pytest.mark.parametrize("is_stub", [False, True])
def test_a_program_whose_loader_is_not_there_cannot_start(is_stub: bool, world: World, nixpatch: Run) -> None:
    """As every program of a wheel on NixOS, where another program may be in the place of the loader."""
    loader = os.path.join(world.root, "lib64", "ld-linux-x86-64.so.2")
    os.makedirs(os.path.dirname(loader))
    library = os.path.join(world.library, NAME)
    options = (f"-Wl,-rpath,{world.library}", f"-Wl,--dynamic-linker={loader}")
    compile_c("program.c", world.program, library, *options)
    if is_stub:
        shutil.copy(shutil.which("false") or "", loader)
    bundled(world)
    assert world.run_program() != 42

    code, out, _ = nixpatch("verify", world.venv)
    assert code == 1
    assert re.search(rf"^bin/pkg-tool: cannot start: it .* dynamic loader {loader}, ", out, re.MULTILINE)
    assert "1 error." in out
    assert nixpatch("verify", "--ignore-missing", "ld-linux*", world.venv)[0] == 0

    assert nixpatch(world.venv)[0] == 0
    assert world.run_program() == 42
    assert nixpatch("verify", world.venv)[0] == 0


def test_a_script_whose_program_is_not_there_cannot_start(world: World, nixpatch: Run) -> None:
    nixpatch(world.venv)
    script = os.path.join(world.venv, "bin", "mine")
    program = os.path.join(world.root, "bin", "nosh")
    dist(world.site, "mine", {"../../../bin/mine": f"#!{program} -e\necho hi\n".encode()})

    for path in (world.venv, os.path.dirname(script)):
        code, out, _ = nixpatch("verify", path)
        assert code == 1
        assert f"mine: cannot start: it begins with #!{program}, which is not there\n" in out
    assert nixpatch("verify", world.extension)[0] == 0

    os.makedirs(os.path.dirname(program))
    shutil.copy("/bin/sh", program)
    assert nixpatch("verify", world.venv)[0] == 0
    # One of the store, which a run takes.
    os.makedirs(os.path.join(world.store, f"{HASH[1:]}0-nosh-1.0"))
    shutil.move(os.path.dirname(program), os.path.join(world.store, f"{HASH[1:]}0-nosh-1.0"))
    assert nixpatch("verify", world.venv)[0] == 1
    assert nixpatch(world.venv)[0] == 0
    assert nixpatch("verify", world.venv)[0] == 0


def test_what_an_earlier_run_ignored_is_a_note_until_verify_is_given_the_rule(
    world: World, nixpatch: Run
) -> None:
    """Provenance may come with a wheel: it lets nothing be missing in silence."""
    shutil.rmtree(os.path.join(world.store, f"{HASH}-answer-1.0"))
    assert nixpatch("--ignore-missing", "libanswer*", "--append-rpath", "/nix/x", world.venv)[0] == 0

    code, out, _ = nixpatch("verify", world.venv)
    assert (code, "needs libanswer.so.1, which may be missing by a rule" in out) == (0, True)
    code, out, _ = nixpatch("verify", "--ignore-missing", "libanswer*", world.venv)
    assert (code, "which may be missing" in out) == (0, False)


def test_another_dist_does_not_say_what_a_file_may_lack(world: World, nixpatch: Run) -> None:
    assert nixpatch(world.venv)[0] == 0
    shutil.rmtree(os.path.dirname(world.library))
    with open(os.path.join(world.info, provenance.NAME), "rb") as file:
        document = json.load(file)
    for entry in document["files"].values():
        entry["needs"][NAME] = "ignored"
    data = json.dumps(document).encode()
    dist(world.site, "other", {"other.py": b"", "other-1.0.dist-info/nixpatch.json": data})
    dist(world.site, "zother", {"zother.py": b"", "zother-1.0.dist-info/nixpatch.json": data})

    for options in ((), ("--load",)):
        code, out, _ = nixpatch("verify", *options, world.venv)
        assert code == 1
        assert "pkg/_ext.so: needs libanswer.so.1 from" in out
        assert "or of another dist: that is not believed" in out


def _add(world: World, name: str, source: bytes, *options: str) -> str:
    path = os.path.join(world.site, "pkg", name)
    command = ["gcc", "-xc", "-", "-shared", "-fPIC", "-Wl,--no-as-needed", "-o", path, *options]
    subprocess.run(command, input=source, check=True)
    return path


ENDING = {
    "abort": (b"abort();", "signal 6"),
    "exit": (b"_exit(127);", "status 127"),
    "exit without an error": (b"_exit(0);", "status 0"),
    "segfault": (b"*(volatile int *)0 = 1;", "signal 11"),
}


@pytest.mark.parametrize("name", ENDING)
def test_load_reports_a_process_that_ends(world: World, nixpatch: Run, name: str) -> None:
    code, how = ENDING[name]
    _add(
        world,
        "ends.so",
        b"#include <stdlib.h>\n#include <unistd.h>\n"
        b"__attribute__((constructor)) static void end(void) { " + code + b" }",
    )
    assert nixpatch(world.venv)[0] == 0

    status, out, _ = nixpatch("verify", "--load", world.venv)

    assert status == 1
    assert f"ends.so: the loader failed: loading it ended the process with {how}" in out


def test_load_takes_an_undefined_symbol_for_one_that_another_library_brings(
    world: World, nixpatch: Run
) -> None:
    _add(world, "open.so", b"extern int elsewhere; int *use(void) { return &elsewhere; }")
    assert nixpatch(world.venv)[0] == 0

    code, out, _ = nixpatch("verify", "--load", world.venv)

    assert code == 0
    assert "open.so: does not load on its own" in out


def _python(world: World, name: str, text: str) -> Target:
    """Return the venv's own Python as a target, with a file that it reads at its start."""
    with open(os.path.join(world.site, name), "w", encoding="utf-8") as file:
        file.write(text)
    target = find_target(scan(world.venv), None, None, Reader())
    return replace(target, python=os.path.join(world.venv, "bin", "python"))


def test_load_is_not_confused_by_what_python_prints_at_its_start(world: World, nixpatch: Run) -> None:
    noise = "import sys; print('{}'); sys.stdin.read(); sys.stderr.buffer.write(b'\\xff\\n'); print('{}')\n"
    target = _python(world, "noise.pth", noise)

    (result,) = verify_load._probe([world.extension], target)[1]

    assert result.path == world.extension
    assert "libanswer.so.1: cannot open" in (result.error or "")


@pytest.mark.parametrize("end", ["os._exit(0)", "os.abort()", "sys.exit('no')"])
def test_a_python_that_ends_at_its_start_is_one_line(world: World, nixpatch: Run, end: str) -> None:
    target = _python(world, "sitecustomize.py", f"import os, sys; {end}\n")

    with pytest.raises(
        MachineError, match=r"cannot load libraries for --load: (exit status|ended by signal)"
    ):
        verify_load._probe([world.extension], target)


def test_a_longer_version_is_another_library(world: World, nixpatch: Run) -> None:
    """libanswer.so.10 is in the process; that is no libanswer.so.1."""
    from nixpatch.operations.plan import Reader

    path = shared("library.c", os.path.join(world.root, "libanswer.so.10"), "-Wl,-soname,libanswer.so.10")
    same = shared("library.c", os.path.join(world.root, "other-name.so"), f"-Wl,-soname,{NAME}")
    expected = {NAME: os.path.join(world.library, NAME)}

    def findings(mapped: str) -> list[str]:
        result = verify_load.LoadResult(world.extension, None, frozenset())
        found = verify_load._check(result, expected, frozenset({mapped}), lambda *_: False, {}, Reader())
        return [finding.severity for finding in found]

    assert findings(path) == ["error"]
    assert findings(same) == ["note"]


def test_a_line_feed_and_spaces_in_directories(tmp_path: Path, nixpatch: Run) -> None:
    world = make(str(tmp_path / "two\nlines, and spaces "))
    assert nixpatch(world.venv)[0] == 0

    code, out, _ = nixpatch("verify", "--load", world.venv)

    assert code == 0, out
    assert "2 files opened by the loader: no errors" in out


def test_a_search_path_under_another_tag(world: World, nixpatch: Run) -> None:
    assert nixpatch(world.venv)[0] == 0
    place = os.path.join(world.info, provenance.NAME)
    data = content(place).replace(b'"RUNPATH"', b'"RPATH"')
    Path(place).write_bytes(data)

    code, out, _ = nixpatch("verify", world.venv)

    assert code == 1
    assert "search path is a RUNPATH, provenance has a RPATH" in out


def test_roots_and_links_of_env_are_no_part_of_the_tree(world: World, nixpatch: Run) -> None:
    """They lead to store paths, whose libraries are not the tree's to check."""
    assert nixpatch(world.venv)[0] == 0
    for name in (".nixpatch-roots", ".nixpatch-env"):
        os.mkdir(os.path.join(world.venv, name))
        os.symlink(os.path.dirname(world.library), os.path.join(world.venv, name, "answer"))
        os.symlink(os.path.join(world.library, NAME), os.path.join(world.venv, name, NAME))

    code, out, _ = nixpatch("verify", "--load", "-v", world.venv)

    assert (code, "made of links" in out) == (0, False)
    assert "2 files opened by the loader" in out


def test_a_text_file_of_nixpatch_that_is_a_link_now(world: World, nixpatch: Run) -> None:
    """RECORD is compared with the content behind a link, and does not stand for the check of the file."""
    add_opener(world)
    assert nixpatch(world.venv)[0] == 0
    startup = os.path.join(world.site, "nixpatch-opener.pth")
    os.rename(startup, startup + "-moved")
    os.symlink(os.path.basename(startup) + "-moved", startup)

    code, out, _ = nixpatch("verify", world.venv)

    assert (code, "nixpatch-opener.pth: was patched and is a link now" in out) == (1, True)


def test_a_venv_whose_python_is_gone(world: World, nixpatch: Run) -> None:
    """Nothing of it starts, whatever its files say."""
    assert nixpatch(world.venv)[0] == 0
    for name in ("python", "python3", f"python{sys.version_info.major}.{sys.version_info.minor}"):
        os.unlink(os.path.join(world.venv, "bin", name))
    gone = os.path.join(world.store, f"{HASH}-python3-3.11.1", "bin", "python3.11")
    os.symlink(gone, os.path.join(world.venv, "bin", "python"))
    Path(world.venv, "pyvenv.cfg").write_text(f"home = {os.path.dirname(gone)}\n")

    code, out, _ = nixpatch("verify", world.venv)

    assert code == 1
    assert f"the Python of {world.venv} is gone: {gone}" in out
    assert f"make the venv anew and install again: python3 -m venv --clear {world.venv}" in out
    assert "Failed: " in out
    code, out, _ = nixpatch("verify", "--json", world.venv)
    assert (code, json.loads(out)["trees"][0]["target"]) == (1, None)
    assert nixpatch("verify", "--html", os.path.join(world.root, "page.html"), world.venv)[0] == 1
    assert nixpatch("restore", world.venv)[0] == 0


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the name of musl has the machine in it")
def test_a_wheel_for_musl_in_a_venv_of_glibc(world: World, nixpatch: Run) -> None:
    """Python looks for other names of modules there, and no libc of musl is in reach."""
    musl = os.path.join(world.root, "libc.musl-x86_64.so.1")
    shared("library.c", musl, "-Wl,-soname,libc.musl-x86_64.so.1")
    shared("extension.c", world.extension, "-nostdlib", musl)
    os.unlink(world.program)
    os.unlink(musl)

    for command in ((), ("verify",), ("verify", "--load")):
        code, out, _ = nixpatch(*command, world.venv)
        assert (code, out.count("musl")) == (1, 1)
        assert "pkg 1.0 was built for musl, the target uses glibc: install its manylinux wheel" in out
    assert "Skipped: 1 built for another libc" in nixpatch(world.venv)[1]
