"""What a wheel calls its files, dists and libraries moves no cursor and passes for no word of ours."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from support.world import Run, World, compile_c, record_row, shared

pytestmark = pytest.mark.gcc

FORGED = "nixpatch: all is well"
# A window title, a cleared screen, its 8-bit forms, a line of ours, text that runs backwards, no UTF-8.
EVIL = f"\x1b]0;t\x07\x1b[2J\x9b2J\u009b\n{FORGED}\r\t\u202e\u2066\u200f\udcff\udc9b<b>[red]"
# What the linker takes in a name of a library: no comma, no colon, no slash.
LIBRARY = f"lib{EVIL}.so.1".replace(":", "")


def _harmless(told: str) -> None:
    wrong = [char for char in told if char != "\n" and not char.isprintable()]
    assert wrong == []
    assert not [line for line in told.splitlines() if line.strip().startswith(FORGED)]


@pytest.fixture
def evil(world: World) -> World:
    """The small world with a dist of which every name is hostile."""
    package = os.path.join(world.site, f"p{EVIL}")
    needed = shared("library.c", os.path.join(world.root, "build", "lib.so"), f"-Wl,-soname,{LIBRARY}")
    provided = os.path.join(world.library, "libanswer.so.1")
    path = f"-Wl,-rpath,$ORIGIN/{EVIL.replace(':', '')}:/nowhere/{EVIL.replace(':', '')}"
    files = [
        shared("extension.c", os.path.join(package, f"missing{EVIL}.so"), needed, path),
        shared("extension.c", os.path.join(package, f"found{EVIL}.so"), provided, path),
        compile_c(
            "program.c", os.path.join(package, f"program{EVIL}"), provided, f"-Wl,--dynamic-linker={EVIL}"
        ),
        shared(
            "library.c", os.path.join(package, LIBRARY.replace("so.1", "so.2")), f"-Wl,-soname,{LIBRARY}2"
        ),
    ]
    shared("extension.c", os.path.join(world.site, f"loose{EVIL}.so"), provided)
    script = os.path.join(package, f"m{EVIL}.py")
    with open(script, "wb") as file:
        name = os.fsencode(LIBRARY).decode("utf-8", "replace")
        file.write(f"import ctypes\nctypes.CDLL({name!r})\nctypes.CDLL('libz.so.1')\n".encode())
    with open(os.path.join(package, f"x{EVIL}.so"), "wb") as file:
        file.write(b"\x7fELF\x02\x01\x01" + b"\xff" * 99)
    os.symlink(EVIL, os.path.join(package, f"link{EVIL}.so"))
    info = os.path.join(world.site, f"p{EVIL}-1.dist-info".replace("\n", ""))
    os.mkdir(info)
    oneline = os.fsencode(EVIL.replace("\n", "").replace("\r", ""))
    with open(os.path.join(info, "METADATA"), "wb") as file:
        file.write(b"Metadata-Version: 2.1\nName: p" + oneline + b"\nVersion: 1" + oneline + b"\n")
        file.write(b"Requires-Dist: q" + oneline + b"\n")
    with open(os.path.join(info, "RECORD"), "wb") as record:
        for path in (*files, script):
            spelled, digest, size = os.fsencode(record_row(path, world.site)).rsplit(b",", 2)
            record.write(b'"' + spelled.replace(b'"', b'""') + b'",' + digest + b"," + size + b"\n")
        record.write(b'"../../../../../' + os.fsencode(EVIL) + b'",sha256=x,1\n')
        record.write(b'"gone' + os.fsencode(EVIL) + b'.so",sha256=' + oneline.replace(b",", b"") + b",1\n")
        record.write(os.fsencode(os.path.basename(info)) + b"/RECORD,,\n")
    return world


def _commands(world: World) -> list[Sequence[str]]:
    """Return every command, in an order in which each has something to tell."""
    tree, bad = world.venv, os.path.join(world.root, EVIL)
    file = next(
        os.path.join(where, name)
        for where, _, names in os.walk(world.site)
        for name in names
        if "missing" in name
    )
    lock = os.path.join(world.root, "lock")
    return [
        ("plan", tree),
        ("plan", tree, "-vv"),
        ("plan", tree, "--unvendor"),
        ("missing", tree),
        ("missing", tree, "--format", "nix"),
        ("tree", tree, "-v"),
        ("tree", file, "--why", LIBRARY),
        ("tree", file, "--why", EVIL),
        ("lock", tree, "--output", lock),
        ("manylinux", "status", tree, "-v"),
        ("env", "--print", "-v", tree),
        ("env", "--tree", tree, EVIL),
        ("wrap", "--tree", tree, "--", EVIL),
        ("patch", tree, "--locked", lock),
        ("patch", tree, "-vv"),
        ("verify", tree, "-v"),
        ("verify", tree, "--load"),
        ("elf", "--set-rpath", "/x", bad),
        ("elf", "--set-rpath", "/x", os.path.join(os.path.dirname(file), f"x{EVIL}.so")),
        ("restore", tree, "-vv"),
        ("diff", bad, bad),
        ("patch", bad),
        ("plan", tree, "--policy", bad),
        ("plan", tree, "--locked", bad),
        ("plan", tree, "--python", bad),
        ("plan", tree, "--lib", bad),
        ("plan", tree, "--tag", EVIL),
        ("plan", tree, "--\x1b[2J\n"),
        ("lock", tree, "--output", os.path.join(bad, EVIL)),
    ]


def test_no_command_prints_what_a_terminal_would_obey(evil: World, nixpatch: Run) -> None:
    for command in _commands(evil):
        code, out, err = nixpatch(*command)
        assert code in {0, 1, 2, 3}, command
        assert "Traceback" not in err, command
        assert out + err, command
        try:
            _harmless(out)
            _harmless(err)
        except AssertionError as error:
            raise AssertionError(f"{command}: {error}\n{out!r}\n{err!r}") from None


def test_json_and_pages_hold_the_names_whatever_they_are(evil: World, nixpatch: Run) -> None:
    page, first, second = (os.path.join(evil.root, name) for name in ("page.html", "1.json", "2.json"))
    lock = os.path.join(evil.root, "lock")
    for command in (
        ("plan", evil.venv, "--json"),
        ("missing", evil.venv, "--json"),
        ("tree", evil.venv, "--json"),
        ("lock", evil.venv, "--json", "--output", lock),
        ("manylinux", "status", evil.venv, "--json"),
        ("patch", evil.venv, "--json"),
        ("plan", evil.venv, "--json"),
        ("diff", first, second, "--json"),
        ("diff", first, second, "-v"),
        ("verify", evil.venv, "--json"),
        ("verify", evil.venv, "--html", page),
        ("restore", evil.venv, "--json"),
        ("plan", evil.venv, "--html", page),
    ):
        _, out, err = nixpatch(*command)
        _harmless(out)
        _harmless(err)
        if "--json" in command:
            json.loads(out)
        if command[0] == "plan":
            with open(second if os.path.exists(first) else first, "w", encoding="utf-8") as file:
                file.write(out)
        if "--html" in command:
            with open(page, encoding="utf-8") as file:
                text = file.read()
            _harmless(text.replace("\t", ""))
            assert "<b>[red]" not in text


@pytest.mark.parametrize(
    "command", [("elf",), ("elf", "--print-rpath", "--print-needed"), ("env", "--print")]
)
def test_raw_data_is_for_programs_and_not_for_terminals(evil: World, command: Sequence[str]) -> None:
    package = next(
        name for name in os.listdir(evil.site) if name.startswith("p\x1b") and "dist-info" not in name
    )
    file = os.path.join(evil.site, package, f"missing{EVIL}.so")
    ours, theirs = os.openpty()
    environment = {**os.environ, "NIX_STORE_DIR": evil.store, "CI": "1", "NO_COLOR": "1", "TERM": "dumb"}
    with subprocess.Popen(
        [sys.executable, "-m", "nixpatch", *command, evil.venv if command[0] == "env" else file],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    ):
        os.close(theirs)
        told = b""
        while True:
            try:
                told += os.read(ours, 65536)
            except OSError:  # EIO: the other side is closed (pty(7))
                break
    os.close(ours)
    _harmless(told.decode("utf-8").replace("\r\n", "\n"))
