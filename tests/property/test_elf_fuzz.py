"""Whatever stands in a file, reading and editing end with an answer: no other exception, no hang."""

import contextlib
import os
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nixpatch.elf import read
from nixpatch.elf.check_inplace import check
from nixpatch.elf.headers import parse
from nixpatch.elf.image import Image, Patch
from nixpatch.elf.inplace_writer import write_edited, write_original
from nixpatch.elf.undo import guard, guarded_tables
from nixpatch.elf.undo_record import FOOTER_SIZE, UndoFooter, UndoRecord
from nixpatch.errors import FileRefused
from nixpatch.model import ElfEdit, ElfFacts, ManualEdit, Skip
from support.programs import RICH, Workshop, content, edit_file

pytestmark = pytest.mark.gcc

EDITS = (
    ElfEdit("/new/path", interp=None),
    ElfEdit(
        None,
        manual=ManualEdit(
            needed=("liba.so", "libanswer.so"),
            soname="libnew.so",
            os_abi=3,
            executable_stack=True,
            no_default_lib=True,
            debug_tag=True,
            renamed_symbols=(("answer", "reply"), ("use", "employ_it")),
            unversioned_symbols=("answer", "memset"),
        ),
    ),
)
LIMIT = 5  # seconds for one file; what is bounded takes a few milliseconds
relaxed = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(str(tmp_path_factory.mktemp("elf")))


@pytest.fixture(params=["library", "program", "edited", "edited and moved", "edited and full"])
def whole(request: pytest.FixtureRequest, workshop: Workshop, tmp_path: Path) -> str:
    if request.param == "library":
        return workshop.library(*RICH)
    if request.param == "program":
        return workshop.program(*RICH)
    flags: tuple[str, ...] = () if request.param == "edited" else ("-Wl,--spare-dynamic-tags=1",)
    if "full" in request.param:
        flags += (f"-Wl,-T,{workshop.source('code_last.ld')}", workshop.source("code_last.c"))
    edit_file(workshop.library(*RICH, *flags), os.path.join(tmp_path, "edited"), ElfEdit("/first"))
    return os.path.join(tmp_path, "edited")


def survives(data: bytes, directory: Path) -> None:
    """Read, edit, check and restore; hold what comes out against what is promised."""
    for edit in EDITS:
        survives_edit(edit, data, directory)


def survives_edit(edit: ElfEdit, data: bytes, directory: Path) -> None:
    path, to = os.path.join(directory, "fuzzed"), os.path.join(directory, "to")
    Path(path).write_bytes(data)
    start = time.monotonic()
    found = read(path)
    assert isinstance(found, ElfFacts | Skip)
    fd = os.open(to, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        try:
            write_edited(path, fd, edit)
        except FileRefused:
            pass
        else:
            violations = check(path, fd, edit)
            assert all(isinstance(violation, str) for violation in violations)
            if not violations:
                after = read(fd, payload_ok=True, any_os=True)
                if isinstance(after, Skip):  # no loader can map it, before as after
                    assert after == found
                else:
                    assert edit.search_path in {None, after.current.search_path}
                    assert edit.manual.soname in {None, after.soname}
                    assert edit.manual.needed in {None, after.needed}
        with contextlib.suppress(FileRefused):
            write_original(path, fd)
    finally:
        os.close(fd)
    assert time.monotonic() - start < LIMIT


def interesting(data: bytearray) -> list[tuple[int, int]]:
    """Ranges with headers: where a flipped bit matters."""
    phoff, shoff = struct.unpack_from("<QQ", data, 0x20)
    phnum, _, shnum = struct.unpack_from("<HHH", data, 0x38)
    ranges = [(0, 64), (phoff, 56 * phnum), (shoff, 64 * shnum)]
    loads = []
    for index in range(phnum):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", data, phoff + 56 * index)
        if kind == 2:
            ranges.append((offset, size))
        if kind == 1:
            loads.append(offset + size)
    ranges.append((max(loads) - 600, 600))
    for index in range(shnum):
        _, kind = struct.unpack_from("<II", data, shoff + 64 * index)
        if kind in {4, 11, 0x6FFFFFF6, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF}:
            ranges.append(struct.unpack_from("<QQ", data, shoff + 64 * index + 24))
    return ranges


@relaxed
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4),
    where=st.integers(0, 10),
)
def test_changed_bytes_in_headers(
    whole: str, tmp_path: Path, flips: list[tuple[float, int]], where: int
) -> None:
    data = bytearray(content(whole))
    ranges = interesting(data)
    start, length = ranges[where % len(ranges)]
    for place, value in flips:
        data[start + int(place * length)] ^= value
    survives(bytes(data), tmp_path)


@relaxed
@given(
    where=st.integers(0, 10),
    place=st.floats(0, 1, exclude_max=True),
    value=st.sampled_from(
        [0, 1, 0x7F, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]
    ),
)
def test_extreme_numbers_in_headers(whole: str, tmp_path: Path, where: int, place: float, value: int) -> None:
    data = bytearray(content(whole))
    ranges = interesting(data)
    start, length = ranges[where % len(ranges)]
    at = start + int(place * length) // 8 * 8
    struct.pack_into("<Q", data, min(at, len(data) - 8), value)
    survives(bytes(data), tmp_path)


@relaxed
@given(keep=st.floats(0, 1))
@example(keep=0.0)
def test_truncated_anywhere(whole: str, tmp_path: Path, keep: float) -> None:
    data = content(whole)
    survives(data[: int(keep * len(data))], tmp_path)


@relaxed
@given(noise=st.binary(max_size=400))
def test_noise_behind_the_magic(tmp_path: Path, noise: bytes) -> None:
    survives(b"\x7fELF" + noise, tmp_path)


numbers = st.integers(0, 300) | st.integers(0, 1 << 14) | st.sampled_from([1 << 31, 1 << 40, (1 << 63) - 1])


@relaxed
@given(
    left=st.lists(st.tuples(numbers, numbers), max_size=3),
    patches=st.lists(st.tuples(numbers, st.binary(max_size=70)), max_size=4),
    cut=st.none() | numbers,
    original_size=st.none() | numbers,
    delta=st.none() | numbers | st.integers(-(1 << 40), -1),
)
def test_forged_record_with_a_valid_checksum(
    workshop: Workshop,
    tmp_path: Path,
    left: list[tuple[int, int]],
    patches: list[tuple[int, bytes]],
    cut: int | None,
    original_size: int | None,
    delta: int | None,
) -> None:
    """A record is data like any other: whoever forges one gets no further than with a forged header."""
    edited = os.path.join(tmp_path, "edited")
    Path(edited).unlink(missing_ok=True)
    edit_file(workshop.library(*RICH), edited, ElfEdit("/first/" + "x" * 500))
    data = bytearray(content(edited))
    fd = os.open(edited, os.O_RDONLY)
    image = Image.of(fd)
    headers = parse(image)
    at = headers.last_load.file_end - FOOTER_SIZE
    footer = UndoFooter.unpack(bytes(data[at : at + FOOTER_SIZE]))
    assert footer
    record = UndoRecord(tuple(left), tuple(Patch(offset, new) for offset, new in patches)).pack()
    footer = replace(
        footer,
        record_length=len(record),
        cut=footer.cut if cut is None else cut,
        original_size=footer.original_size if original_size is None else original_size,
        delta=footer.delta if delta is None else delta,
    )
    try:
        checksum = guard(image, guarded_tables(image, headers), record, footer, left)
    except FileRefused:
        checksum = 0
    finally:
        os.close(fd)
    data[at - len(record) : at] = record
    data[at : at + FOOTER_SIZE] = replace(footer, guard=checksum).pack()
    survives(bytes(data), tmp_path)
