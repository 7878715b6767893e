"""nixpatch elf: what patchelf prints and does, but whole files, checked, and with a way back."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from nixpatch import elf
from nixpatch.cli import run as command_line
from nixpatch.model import ElfEdit, ElfFacts
from support.programs import (
    RICH,
    Workshop,
    content,
    copy,
    edit_file,
    interpreter_alias,
    load,
    need,
    run,
    search_paths,
)
from support.world import Run as Elf


@pytest.mark.gcc
def test_shrinking_credits_a_library_to_the_first_directory_that_has_it(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    other = os.path.join(tmp_path, "other")
    wrong = os.path.join(tmp_path, "wrong")
    for directory in (other, wrong):
        os.mkdir(directory)
    shutil.copy(workshop.answer, other)
    Path(wrong, "libanswer.so").write_text("INPUT(libanswer.so.1)\n")
    path = f"{wrong}:$ORIGIN/x:{workshop.there}::{other}"
    program = copy(workshop.program(*RICH, f"-Wl,-rpath,{path}"), os.path.join(tmp_path, "program"))
    assert elf_command("--shrink-rpath", program) == (0, "", "")
    assert search_paths(program) == [("DT_RUNPATH", f"$ORIGIN/x:{workshop.there}")]


@pytest.mark.gcc
def test_a_library_without_soname_and_needs_counts_as_one(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    bare = copy(
        workshop.gcc("libbare.so", "-shared", "-fPIC", "-nostdlib", workshop.source("answer.c")),
        os.path.join(tmp_path, "libbare.so"),
    )
    assert elf_command("--print-needed", bare) == (0, "", "")
    source = workshop.gcc(
        "bare", workshop.source("program.c"), workshop.source("use.c"), "-L", str(tmp_path), "-lbare"
    )
    program = copy(source, os.path.join(tmp_path, "program"))
    assert elf_command("--set-rpath", f"/nowhere:{tmp_path}", program)[0] == 0
    assert elf_command("--shrink-rpath", program) == (0, "", "")
    assert search_paths(program) == [("DT_RUNPATH", str(tmp_path))]
    assert run(program) == "42 phdr"
    assert elf_command("--set-rpath", "/a", bare)[0] == 0
    assert (search_paths(bare), run(program)) == ([("DT_RUNPATH", "/a")], "42 phdr")


@pytest.mark.gcc
def test_one_edit_keeps_what_the_one_before_it_did(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    source = workshop.program(*RICH)
    program = copy(source, os.path.join(tmp_path, "program"))
    before = elf.read(program)
    assert isinstance(before, ElfFacts)
    assert before.current.interp
    loader = interpreter_alias(str(tmp_path), before.current.interp, 150)
    assert elf_command("--set-rpath", workshop.there, program)[0] == 0
    assert elf_command("--set-interpreter", loader, program)[0] == 0
    assert elf_command("--add-rpath", "/more", program)[0] == 0
    assert run(program) == "42 phdr"
    once = os.path.join(tmp_path, "once")
    edit_file(source, once, ElfEdit(f"{workshop.there}:/more", interp=loader))
    assert content(once) == content(program)
    assert elf_command("--remove-rpath", program)[0] == 0
    assert elf_command("--set-interpreter", before.current.interp, program)[0] == 0
    assert content(program) == content(source)


@pytest.mark.gcc
def test_removal_outlives_the_next_edit(workshop: Workshop, tmp_path: Path, elf_command: Elf) -> None:
    program = copy(workshop.program(*RICH, "-Wl,-rpath,/old"), os.path.join(tmp_path, "program"))
    assert elf_command("--remove-rpath", program)[0] == 0
    assert elf_command("--set-interpreter", "/l", program)[0] == 0
    assert elf_command("--print-rpath", "--print-interpreter", program)[1] == "/l\n\n"
    assert elf_command("--restore", program)[0] == 0
    assert elf_command("--print-rpath", program)[1] == "/old\n"


@pytest.mark.gcc
def test_edit_after_strip_keeps_what_it_does_not_change(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    program = copy(workshop.program(*RICH, "-g"), os.path.join(tmp_path, "program"))
    assert elf_command("--set-rpath", workshop.there, program)[0] == 0
    subprocess.run([need("strip"), "-S", program], check=True)
    assert "lost" in elf_command(program)[1]
    code, _, err = elf_command("--restore", program)
    assert (code, "stale" in err) == (1, True)
    before = elf.read(program)
    assert isinstance(before, ElfFacts)
    assert before.current.interp
    loader = interpreter_alias(str(tmp_path), before.current.interp, 150)
    code, _, err = elf_command("--set-interpreter", loader, program)
    assert (code, "cannot be undone" in err) == (0, True)
    assert elf_command("--print-rpath", program)[1] == f"{workshop.there}\n"
    assert run(program) == "42 phdr"


@pytest.mark.gcc
def test_without_flags_it_prints_what_the_headers_say(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    library = copy(workshop.library(*RICH, "-Wl,-rpath,/old"), os.path.join(tmp_path, "libuse.so"))
    before = content(library)
    assert elf_command("--set-rpath", "/new", "--force-rpath", library) == (0, "", "")
    code, out, err = elf_command(library)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == f"file: {library}"
    assert {"kind: library", "soname: libuse.so", "rpath: /new", "needed: libanswer.so"} < set(lines)
    assert "original runpath: /old" in lines
    assert elf_command("--restore", library) == (0, "", "")
    assert content(library) == before
    assert "original" not in elf_command(library)[1]


@pytest.mark.gcc
@pytest.mark.parametrize("to", ["-", "/dev/stdout", "fifo"])
@pytest.mark.parametrize("action", ["edit", "copy", "restore"])
def test_output_into_a_pipe(workshop: Workshop, tmp_path: Path, action: str, to: str) -> None:
    source = workshop.program(*RICH)
    expected = source
    if action != "copy":
        expected = os.path.join(tmp_path, "edited")
        edit_file(source, expected, ElfEdit("/a"))
    flags = {"edit": ["--set-rpath", "/a"], "copy": ["--remove-rpath"], "restore": ["--restore"]}[action]
    file, expected = (expected, source) if action == "restore" else (source, expected)
    if to == "fifo":
        to = os.path.join(tmp_path, "fifo")
        os.mkfifo(to)
    command = [sys.executable, "-m", "nixpatch", "elf", *flags, "--output", to, file]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        written = content(to) if to.endswith("fifo") else b""
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert written + out == content(expected)
    if to.endswith("fifo"):
        assert stat.S_ISFIFO(os.lstat(to).st_mode)


@pytest.mark.gcc
def test_output_into_a_device(workshop: Workshop, tmp_path: Path, elf_command: Elf) -> None:
    source = workshop.program(*RICH)
    null, full = (os.path.join(tmp_path, name) for name in ("null", "full"))
    try:
        os.mknod(null, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(full, stat.S_IFCHR | 0o666, os.makedev(1, 7))
        Path(null).write_bytes(b"")
    except OSError as error:
        pytest.skip(f"device nodes: {error.strerror}")
    assert elf_command("--set-rpath", "/a", "--output", null, source) == (0, "", "")
    code, _, err = elf_command("--set-rpath", "/a", "--output", full, source)
    assert (code, "No space left" in err) == (1, True)
    for path in (null, full):
        assert stat.S_ISCHR(os.lstat(path).st_mode)
    assert elf_command("--print-rpath", "--output", "-", source)[0] == 2


@pytest.mark.gcc
def test_a_large_bss_is_left_to_lief_as_in_a_tree(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    program = copy(workshop.program("-DWITH_BSS=300000000"), os.path.join(tmp_path, "program"))
    code, _, err = elf_command("--set-rpath", workshop.there, program)
    assert (code, "written by LIEF: cannot be undone" in err, ".bss" in err) == (0, True, True)
    assert run(program) == "42 phdr"
    before = content(program)
    assert elf_command("--restore", program)[0] == 1
    assert content(program) == before


@pytest.mark.gcc
def test_output_leaves_the_file_alone(workshop: Workshop, tmp_path: Path, elf_command: Elf) -> None:
    source = workshop.program(*RICH)
    before = content(source)
    for index, flags in enumerate([("--set-rpath", workshop.there), (), ("--remove-rpath",)]):
        out = os.path.join(tmp_path, str(index))
        assert elf_command(*flags, "--output", out, source) == (0, "", "")
        assert (content(out) == before) == (index > 0)
        assert stat.S_IMODE(os.stat(out).st_mode) == stat.S_IMODE(os.stat(source).st_mode)
    assert content(source) == before
    assert run(os.path.join(tmp_path, "0")) == "42 phdr"
    back = os.path.join(tmp_path, "back")
    assert elf_command("--restore", "--output", back, os.path.join(tmp_path, "0")) == (0, "", "")
    assert content(back) == before


@pytest.mark.gcc
def test_other_names_of_the_file_keep_its_bytes(workshop: Workshop, tmp_path: Path, elf_command: Elf) -> None:
    library = copy(workshop.library(*RICH), os.path.join(tmp_path, "libuse.so"))
    cache, link = os.path.join(tmp_path, "cache"), os.path.join(tmp_path, "link")
    os.link(library, cache)
    os.symlink("libuse.so", link)
    assert elf_command("--set-rpath", workshop.there, link) == (0, "", "")
    assert os.path.islink(link)
    assert content(cache) == content(workshop.library(*RICH))
    assert load(library) == "42"


@pytest.mark.gcc
def test_one_bad_file_does_not_keep_the_others_from_being_edited(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    text = os.path.join(tmp_path, "text")
    Path(text).write_text("INPUT(libc.so.6)\n")
    good = copy(workshop.library(*RICH), os.path.join(tmp_path, "good"))
    code, out, err = elf_command("--set-rpath", "/new", text, good)
    assert (code, out) == (1, "")
    assert err == f"nixpatch: {text}: not an ELF file\n"
    assert search_paths(good) == [("DT_RUNPATH", "/new")]


@pytest.mark.gcc
def test_what_cannot_be_done_leaves_the_file_as_it_was(
    workshop: Workshop, tmp_path: Path, elf_command: Elf
) -> None:
    library = copy(workshop.library(*RICH), os.path.join(tmp_path, "libuse.so"))
    nowhere = os.path.join(tmp_path, "no", "where")
    for flags, expected, why in (
        (("--set-interpreter", "/lib/ld.so"), 1, "it has no PT_INTERP"),
        (("--print-interpreter",), 1, "it has no interpreter"),
        (("--restore",), 1, "no undo record"),
        (("--set-rpath", "/x", "--output", nowhere), 3, f"{nowhere}: cannot be written: No such file"),
    ):
        code, out, err = elf_command(*flags, library)
        assert (code, out) == (expected, "")
        assert why in err
    assert content(library) == content(workshop.library(*RICH))
    assert os.listdir(tmp_path) == ["libuse.so"]


@pytest.mark.gcc
def test_payload_is_left_alone_unless_forced(workshop: Workshop, tmp_path: Path, elf_command: Elf) -> None:
    program = copy(workshop.program(*RICH), os.path.join(tmp_path, "program"))
    with open(program, "ab") as file:
        file.write(b"PK\3\4" + b"x" * 500 + b"PK\5\6" + bytes(18))
    before = content(program)
    assert elf_command("--print-rpath", program) == (0, "\n", "")
    assert elf_command(program)[1].endswith("\npayload: zip, 526 bytes\n")
    code, _, err = elf_command("--set-rpath", workshop.there, program)
    assert code == 1
    assert "zip, 526 bytes" in err
    assert content(program) == before
    assert elf_command("--set-rpath", workshop.there, "--force-payload", program) == (0, "", "")
    assert run(program) == "42 phdr"
    assert content(program).endswith(before[-526:])


@pytest.mark.gcc
def test_path_bytes_come_out_as_they_went_in(
    workshop: Workshop, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    library = copy(workshop.library(*RICH), os.path.join(tmp_path, "libuse.so"))
    path = os.fsdecode(b"/caf\xe9:/\xc3\xa9")
    assert command_line(["elf", "--set-rpath", path, library]) == 0
    assert command_line(["elf", "--print-rpath", library]) == 0
    assert capfdbinary.readouterr().out == os.fsencode(path) + b"\n"


@pytest.mark.parametrize(
    ("flags", "why"),
    [
        (("--set-rpath", "/a", "--add-rpath", "/b", "F"), "only one of"),
        (("--allowed-rpath-prefixes", "/a", "F"), "needs --shrink-rpath"),
        (("--restore", "--remove-rpath", "F"), "cannot be combined with another edit"),
        (("--output", "o", "F", "F"), "single FILE"),
        (("--print-rpath", "nothing"), "No such file"),
        (("--print-rpath", "."), "not a regular file"),
        (("--no-such-flag", "F"), "No such option"),
        ((), "Missing argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_wrong_requests(
    tmp_path: Path, elf_command: Elf, monkeypatch: pytest.MonkeyPatch, flags: Sequence[str], why: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("F").write_bytes(b"")
    code, out, err = elf_command(*flags)
    assert (code, out) == (2, "")
    assert why in err
    assert content("F") == b""
