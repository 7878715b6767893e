"""The second writer: it agrees with the first under the real loader, and whatever LIEF does is contained."""

from __future__ import annotations

import os
import textwrap
import time
from pathlib import Path

import pytest

from nixpatch.elf import child_process, read
from nixpatch.elf.check_rewritten import check_rewritten
from nixpatch.elf.lief import writer as writing
from nixpatch.elf.writer import CheckedEdit, write_checked
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ElfFacts, Tag, Writer
from support.programs import RICH, Workshop, content, edit_file, interpreter_alias, load, patched_bytes, run

pytestmark = pytest.mark.gcc

LIBRARIES = {
    "plain": (),
    "rich": RICH,
    "rpath": (*RICH, "-Wl,--disable-new-dtags,-rpath,/old"),
    "runpath": (
        *RICH,
        "-Wl,--enable-new-dtags,-rpath,/old/and/longer/than/the/new/one/could/ever/be/in/here",
    ),
    "relr": (*RICH, "-Wl,-z,pack-relative-relocs"),
    "sysv hash": (*RICH, "-Wl,--hash-style=sysv"),
    "large bss": ("-DWITH_BSS=20000000", "-DWITH_TLS"),
    "64 KiB pages": (*RICH, "-Wl,-z,max-page-size=65536"),
    "debug information": (*RICH, "-g"),
    "full dynamic section": (*RICH, "-Wl,--spare-dynamic-tags=1"),
}
PROGRAMS = {
    "PIE": (*RICH, "-pie", "-fPIE"),
    "non-PIE": (*RICH, "-no-pie", "-fno-pie"),
    "relr": (*RICH, "-pie", "-fPIE", "-Wl,-z,pack-relative-relocs"),
    "full dynamic section": (*RICH, "-pie", "-fPIE", "-Wl,--spare-dynamic-tags=1"),
}


def by_lief(source: str, to: str, edit: ElfEdit, writer: Writer = Writer.LIEF) -> CheckedEdit:
    """Edit into a new file with the mode of the old one."""
    inside = os.open(source, os.O_RDONLY)
    out = os.open(to, os.O_RDWR | os.O_CREAT | os.O_EXCL, os.stat(source).st_mode & 0o777)
    try:
        written = write_checked(inside, out, edit, writer=writer)
        assert check_rewritten(inside, out, edit) == () or written.writer is Writer.INPLACE
        return written
    finally:
        os.close(inside)
        os.close(out)


def linkage(path: str) -> tuple[str | None, Tag | None, str | None]:
    facts = read(path)
    assert isinstance(facts, ElfFacts)
    return facts.current.search_path, facts.current.tag, facts.current.interp


@pytest.mark.parametrize("kind", LIBRARIES)
def test_both_writers_agree_on_a_library(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    library = workshop.library(*LIBRARIES[kind])
    mine, other = str(tmp_path / "mine.so"), str(tmp_path / "other.so")
    edit = ElfEdit(f"/nowhere:{workshop.there}")

    edit_file(library, mine, edit)
    written = by_lief(library, other, edit)

    assert written.writer is Writer.LIEF
    assert load(mine) == load(other) == "42"
    assert linkage(mine) == linkage(other)


@pytest.mark.parametrize("kind", PROGRAMS)
def test_both_writers_agree_on_a_program(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    program = workshop.program(*PROGRAMS[kind])
    loader = linkage(program)[2]
    assert loader
    mine, other = str(tmp_path / "mine"), str(tmp_path / "other")
    edit = ElfEdit(workshop.there, interp=interpreter_alias(str(tmp_path), loader, 200))

    edit_file(program, mine, edit)
    written = by_lief(program, other, edit)

    assert written.writer is Writer.LIEF
    assert run(mine) == run(other) == "42 phdr"
    assert linkage(mine) == linkage(other)


def test_no_section_headers(workshop: Workshop, tmp_path: Path) -> None:
    def strip(data: bytearray) -> None:
        data[0x28:0x30] = bytes(8)
        data[0x3A:0x40] = bytes(6)

    library = patched_bytes(workshop.library(*RICH), str(tmp_path / "bare.so"), strip)
    out = str(tmp_path / "out.so")

    by_lief(library, out, ElfEdit(workshop.there))

    assert load(out) == "42"


def test_removing_and_changing_the_tag(workshop: Workshop, tmp_path: Path) -> None:
    library = workshop.library(*RICH, "-Wl,--disable-new-dtags,-rpath,/old")
    assert linkage(library)[:2] == ("/old", Tag.RPATH)
    gone, changed = str(tmp_path / "gone.so"), str(tmp_path / "changed.so")

    by_lief(library, gone, ElfEdit(""))
    by_lief(library, changed, ElfEdit("/new", Tag.RUNPATH))

    assert linkage(gone)[:2] == (None, None)
    assert linkage(changed)[:2] == ("/new", Tag.RUNPATH)


def test_it_starts_from_the_original_and_a_wish_for_the_original_gives_it_back(
    workshop: Workshop, tmp_path: Path
) -> None:
    library = workshop.library(*RICH)
    patched, once, twice, back = (str(tmp_path / name) for name in ("patched", "once", "twice", "back"))
    edit_file(library, patched, ElfEdit("/first"))

    by_lief(library, once, ElfEdit("/second"))
    by_lief(patched, twice, ElfEdit("/second"))
    written = by_lief(patched, back, ElfEdit(None))

    assert content(once) == content(twice)
    assert written.writer is Writer.INPLACE
    assert content(back) == content(library)


def test_it_takes_over_where_the_in_place_edit_declines(workshop: Workshop, tmp_path: Path) -> None:
    program = workshop.program("-DWITH_BSS=300000000")
    out = str(tmp_path / "out")

    written = by_lief(program, out, ElfEdit(workshop.there), Writer.INPLACE)

    assert written.writer is Writer.LIEF
    assert ".bss" in (written.declined or "")
    assert run(out) == "42 phdr"
    assert os.path.getsize(out) < 1 << 20


def test_where_both_decline_both_reasons_are_told(workshop: Workshop, tmp_path: Path) -> None:
    program = workshop.program("-DWITH_BSS=300000000")
    edit = ElfEdit(workshop.there, renames=(("libanswer.so", "libother.so"),))
    with pytest.raises(FileRefused, match=r"\.bss.*only the in-place edit can rename"):
        by_lief(program, str(tmp_path / "out"), edit, Writer.INPLACE)


def test_more_entries_than_lief_reads(workshop: Workshop, tmp_path: Path) -> None:
    """LIEF stops at 1,000 and would write only those."""
    filters = [f"-Wl,--auxiliary,libaux{index}.so" for index in range(1100)]
    library = workshop.library(*RICH, *filters)
    out = str(tmp_path / "out.so")

    by_lief(library, out, ElfEdit(workshop.there))

    assert load(out) == "42"


def magic_only(data: bytearray) -> None:
    del data[4:]


def type_seven(data: bytearray) -> None:
    data[16] = 7


def truncated(data: bytearray) -> None:
    del data[len(data) // 2 :]


@pytest.mark.parametrize("change", [magic_only, type_seven, truncated])
def test_hostile_files_are_refused(workshop: Workshop, tmp_path: Path, change: object) -> None:
    assert callable(change)
    path = patched_bytes(workshop.library(*RICH), str(tmp_path / "hostile.so"), change)

    with pytest.raises(FileRefused):
        by_lief(path, str(tmp_path / "out.so"), ElfEdit(workshop.there))


@pytest.mark.parametrize("change", [magic_only, type_seven])
def test_an_abort_of_the_real_lief_is_contained(
    workshop: Workshop, tmp_path: Path, change: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What nixpatch's own reader keeps from LIEF, handed to it all the same."""
    assert callable(change)
    library = workshop.library(*RICH)
    hostile = patched_bytes(library, str(tmp_path / "hostile.so"), change)
    fd = os.open(hostile, os.O_RDONLY)
    ask = writing._ask

    def swapped(request, seconds, descriptors):  # type: ignore[no-untyped-def]
        return ask({**request, "source": fd}, seconds, (*descriptors, fd))

    monkeypatch.setattr(writing, "_ask", swapped)
    try:
        with pytest.raises(FileRefused, match="LIEF"):
            by_lief(library, str(tmp_path / "out.so"), ElfEdit(workshop.there))
    finally:
        os.close(fd)


FAKES = {
    "abort": ("import os\nos.abort()", "died of SIGABRT"),
    "kill": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "died of SIGKILL"),
    "crash": ("import ctypes\nctypes.string_at(0)", "died of SIGSEGV"),
    "sleep": ("import time\ntime.sleep(60)", "not done after 1 second"),
    "cannot be imported": ("raise ImportError('libstdc++.so.6: no such file')", "cannot be imported here"),
    "exception": ("raise RuntimeError('odd')", "RuntimeError: odd"),
    "memory": ("x = bytearray(1 << 34)", "ran out of the memory"),
    "silence": ("import os\nos._exit(0)", "without an answer"),
    "flood of answers": ("import os\nwhile True: os.write(1, b'[' * 65536)", "prints more than 256 KiB"),
    "flood of errors": ("import os\nwhile True: os.write(2, b'oh\\n' * 9999)", "prints more than 256 KiB"),
    "closes both and sleeps": (
        "import os, time\nos.close(1)\nos.close(2)\ntime.sleep(60)",
        "not done after 1 s",
    ),
    "noise": ("import os\nos.write(1, b'[]')\nos._exit(0)", "without an answer"),
}


def fake(directory: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = directory / "fake" / "lief"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(code), encoding="utf-8")
    monkeypatch.setattr(writing, "lief_directory", lambda: str(package.parent))


@pytest.mark.parametrize("kind", FAKES)
def test_whatever_the_child_does_is_a_refused_file(
    workshop: Workshop, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, message = FAKES[kind]
    fake(tmp_path, code, monkeypatch)
    if "sleep" in kind:
        monkeypatch.setattr(child_process, "SECONDS", 1)
    begun = time.monotonic()

    with pytest.raises(FileRefused, match=message):
        by_lief(workshop.library(*RICH), str(tmp_path / "out.so"), ElfEdit(workshop.there))

    assert time.monotonic() - begun < 20


def test_the_child_has_limits_a_session_and_only_its_descriptors(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
        import os, resource, sys
        numbers = [getattr(resource, "RLIMIT_" + name) for name in ("AS", "CPU", "FSIZE", "CORE")]
        limits = [resource.getrlimit(number) for number in numbers]
        open_now = [fd for fd in range(100) if os.path.exists(f"/proc/self/fd/{fd}")]
        raise RuntimeError([
            all(soft == hard != resource.RLIM_INFINITY for soft, hard in limits), limits[3] == (0, 0),
            os.getsid(0) == os.getpid(), len(open_now), [name for name in os.environ if "PYTHON" in name],
        ])
    """
    fake(tmp_path, code, monkeypatch)
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    strange = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(strange, True)
    try:
        with pytest.raises(FileRefused) as refused:
            by_lief(workshop.library(*RICH), str(tmp_path / "out.so"), ElfEdit(workshop.there))
    finally:
        os.close(strange)
    assert "[True, True, True, 5, []]" in str(refused.value)


def test_output_that_fails_a_check_is_thrown_away(
    workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = workshop.library(*RICH)
    run_lief = writing._run

    def damaged(source, output, headers, size, contents):  # type: ignore[no-untyped-def]
        address = run_lief(source, output, headers, size, contents)
        text = next(p for p in headers.loads if p.flags & 1)
        byte = os.pread(output, 1, text.offset + 16)
        os.pwrite(output, bytes([byte[0] ^ 1]), text.offset + 16)
        return address

    monkeypatch.setattr(writing, "_run", damaged)

    with pytest.raises(FileRefused, match=r"LIEF's output failed its checks.*memory differs"):
        by_lief(library, str(tmp_path / "out.so"), ElfEdit(workshop.there))
