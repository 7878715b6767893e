"""The first line of a script, as the kernel reads it."""

import os
import subprocess
from pathlib import Path

import pytest

from nixpatch.installed.shebang import HEAD_SIZE, Shebang, read_shebang, with_program


@pytest.mark.parametrize(
    ("head", "program", "argument"),
    [
        (b"#!/bin/bash\necho\n", "/bin/bash", ""),
        (b"#! /bin/bash  -e \n", "/bin/bash", "-e"),
        (b"#!\t/usr/bin/perl -w -T\n", "/usr/bin/perl", "-w -T"),
        (b"#!/usr/bin/env python3\n", "/usr/bin/env", "python3"),
        (b"#!/bin/sh", "/bin/sh", ""),
        (b"#!python\n", "python", ""),
        (b"#!/b\xff/c\n", "/b\udcff/c", ""),
        (b"#!/bin/bash\r\n", "/bin/bash\r", ""),
    ],
)
def test_program_and_argument(head: bytes, program: str, argument: str) -> None:
    assert read_shebang(head) == Shebang(program, argument)


@pytest.mark.parametrize(
    "head",
    [b"", b"#", b"#!", b"#!\n/bin/sh\n", b"#!  \n", b"\xef\xbb\xbf#!/bin/sh\n", b"#!/" + b"x" * 300 + b"\n"],
)
def test_what_the_kernel_runs_by_no_program(head: bytes) -> None:
    assert read_shebang(head) is None


@pytest.mark.parametrize(
    ("program", "absent_program"),
    [
        ("/bin/bash", "bash"),
        ("/usr/bin/bash", "bash"),
        ("/usr/bin/perl", "perl"),
        ("/usr/bin/python3", "python3"),
        ("/usr/local/bin/node", "node"),
        ("/opt/tools/bin/bash", "bash"),
        ("/usr/local/bin/python3.12", "python3.12"),
        ("/home/me/venv/bin/python3.13t", None),
        ("/opt/venv/bin/pypy3", None),
        ("/opt/tools/bin/python-build", "python-build"),
        ("/bin/sh", None),
        ("/usr/bin/env", None),
        ("python", None),
        ("./bash", None),
        ("/bin/bash\r", None),
        ("/bin/", None),
    ],
)
def test_what_nixos_lacks(program: str, absent_program: str | None) -> None:
    assert Shebang(program, "").absent_program == absent_program


def test_launchers_run_in_the_tree() -> None:
    launcher = Shebang("/home/me/venv/bin/python", "")
    assert launcher.runs_in("/nix/store", "/home/me/venv")
    assert not launcher.runs_in("/home/me/ven", "/nix/store")
    assert Shebang("/nix/store/x-bash/bin/bash", "").runs_in("/nix/store/")


def test_another_program_runs_the_same_script() -> None:
    bash = "/nix/store/68pbhqk6sip1ibbc67svxzh9dmd3vnw6-bash-5.2/bin/bash"
    assert with_program(b"#!/bin/bash -e\necho $0\n", bash) == b"#!" + bash.encode() + b" -e\necho $0\n"
    assert with_program(b"#! /bin/bash\n\0\xff", bash) == b"#! " + bash.encode() + b"\n\0\xff"
    assert with_program(with_program(b"#!/bin/bash -e\nx", bash), "/bin/bash") == b"#!/bin/bash -e\nx"


def test_a_line_that_the_kernel_would_cut_is_refused() -> None:
    fits = "/" + "x" * (HEAD_SIZE - len("#!\n") - 1)
    assert len(with_program(b"#!/bin/bash\n", fits)) == HEAD_SIZE
    with pytest.raises(ValueError, match="257 bytes"):
        with_program(b"#!/bin/bash\n", fits + "x")
    with pytest.raises(ValueError, match="has 257 bytes"):
        with_program(f"#!{fits}x\n".encode(), "/bin/bash")


@pytest.mark.parametrize(
    ("content", "program"),
    [(b"echo\n", "/bin/a"), (b"#!/bin/bash\n", "/with space/a"), (b"#!/bin/bash\n", "bash")],
)
def test_what_cannot_be_written_is_refused(content: bytes, program: str) -> None:
    with pytest.raises(ValueError, match="no line"):
        with_program(content, program)


@pytest.mark.parametrize("length", [HEAD_SIZE - 1, HEAD_SIZE, HEAD_SIZE + 1])
def test_the_kernel_agrees_about_the_length(tmp_path: Path, length: int) -> None:
    """The line with its newline: what is longer the kernel cuts, so that the program is not found."""
    padding = length - len(f"#!{tmp_path}/\n")
    program = os.path.join(tmp_path, "p" * padding)
    os.symlink("/bin/sh", program)
    script = os.path.join(tmp_path, "script")
    line = b"#!" + os.fsencode(program) + b"\n"
    assert len(line) == length
    with open(script, "wb") as file:
        file.write(line + b"echo ran\n")
    os.chmod(script, 0o755)
    read = read_shebang(line)
    try:
        ran = subprocess.run([script], capture_output=True, check=False).stdout == b"ran\n"
    except OSError:
        ran = False
    assert ran == (length <= HEAD_SIZE)
    assert (read is not None) == ran
