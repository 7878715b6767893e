"""The note in which a file says what it opens at run time."""

import json
import os
import struct
import subprocess
from pathlib import Path

import pytest

from nixpatch.elf import read
from nixpatch.elf.writer import write_checked
from nixpatch.errors import FileRefused
from nixpatch.model import DlopenNeed, DlopenPriority, ElfEdit, ElfFacts, Writer

pytestmark = pytest.mark.gcc

REQUIRED, RECOMMENDED = DlopenPriority.REQUIRED, DlopenPriority.RECOMMENDED


def library_with_note(directory: Path, text: bytes, owner: str = "FDO", kind: int = 0x407C0C0A) -> str:
    """Compile a library whose note holds this text."""
    source = os.path.join(directory, "note.s")
    bytes_ = ", ".join(str(byte) for byte in text + b"\0")
    with open(source, "w", encoding="ascii") as file:
        file.write(f"""
        .section .note.dlopen, "a", %note
        .p2align 2
        .long {len(owner) + 1}, {len(text) + 1}, {kind}
        .asciz "{owner}"
        .p2align 2
        .byte {bytes_}
        .p2align 2
        .section .note.GNU-stack, "", %progbits
        """)
    out = os.path.join(directory, "libnote.so")
    command = ["gcc", "-shared", "-nostdlib", "-Wl,--build-id,-soname,libnote.so", "-o", out, source]
    subprocess.run(command, check=True, capture_output=True)
    return out


def needs(path: str) -> tuple[DlopenNeed, ...]:
    facts = read(path)
    assert isinstance(facts, ElfFacts)
    return facts.dlopen_needs


def test_entries_with_alternatives_and_priority(tmp_path: Path) -> None:
    entries = [
        {"soname": ["libzstd.so.1", "libzstd.so.0"], "priority": "required", "feature": "zstd"},
        {"soname": ["libbz2.so.1"]},
    ]
    path = library_with_note(tmp_path, json.dumps(entries).encode())

    assert needs(path) == (
        DlopenNeed(("libzstd.so.1", "libzstd.so.0"), REQUIRED),
        DlopenNeed(("libbz2.so.1",), RECOMMENDED),
    )


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"{}", b"[1, null, {}]", b'[{"soname": "libz.so.1"}]', b'[{"soname": ["a/b", "", 3]}]',
     b"[" * 5000, b"\xff\xfe"],
    ids=["empty", "cut", "none", "table", "kinds", "string", "names", "deep", "bytes"],
)  # fmt: skip
def test_a_note_that_is_not_to_the_specification_says_nothing(tmp_path: Path, text: bytes) -> None:
    assert needs(library_with_note(tmp_path, text)) == ()


def test_a_note_beyond_the_end_of_the_file_says_nothing(tmp_path: Path) -> None:
    path = library_with_note(tmp_path, b'[{"soname": ["libz.so.1"]}]')
    with open(path, "r+b") as file:
        data = file.read()
        table = struct.unpack_from("<Q", data, 32)[0]
        for index in range(struct.unpack_from("<H", data, 56)[0]):
            if struct.unpack_from("<I", data, table + 56 * index)[0] == 4:  # PT_NOTE
                file.seek(table + 56 * index + 8)
                file.write(struct.pack("<Q", 1 << 40))

    assert needs(path) == ()


def test_notes_of_others_are_not_ours(tmp_path: Path) -> None:
    text = b'[{"soname": ["libz.so.1"]}]'

    assert needs(library_with_note(tmp_path, text, owner="GNU")) == ()
    assert needs(library_with_note(tmp_path, text, kind=1)) == ()


@pytest.mark.parametrize("writer", Writer)
def test_no_writer_leaves_a_stale_resolution_cache(tmp_path: Path, writer: Writer) -> None:
    library = library_with_note(tmp_path, b"libz.so.1\0=/lib/libz.so.1\0", "NixOS", 0x63A86CB6)
    with open(library, "rb") as file, open(os.path.join(tmp_path, "out"), "wb+") as out:
        if writer is Writer.LIEF:
            with pytest.raises(FileRefused, match=r"^only the in-place edit can drop or change"):
                write_checked(file.fileno(), out.fileno(), ElfEdit("/a"), writer=writer)
            return
        write_checked(file.fileno(), out.fileno(), ElfEdit("/a"), writer=writer)
        facts = read(out.fileno())
        assert isinstance(facts, ElfFacts)
        assert (facts.current.search_path, facts.current.resolution_cache) == ("/a", ())
