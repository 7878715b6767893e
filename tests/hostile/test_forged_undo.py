"""A wheel that brings an ELF file with an undo record: it is not believed, and cannot put back code."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from nixpatch import elf
from nixpatch.elf import structs
from nixpatch.elf.check_inplace import undo_violations
from nixpatch.elf.headers import parse
from nixpatch.elf.image import Image, Patch
from nixpatch.elf.inplace_writer import write_edited
from nixpatch.elf.undo import guard, guarded_tables, open_views
from nixpatch.elf.undo_record import FOOTER_SIZE, UndoRecord
from nixpatch.errors import FileRefused
from nixpatch.installed import provenance
from nixpatch.model import ElfEdit, ElfFacts
from support.programs import RICH, Workshop, content, copy, edit_file, read_headers, restore_file
from support.world import Run, World

pytestmark = pytest.mark.gcc

RETURN_7 = b"\xb8\x07\x00\x00\x00\xc3"  # mov eax, 7; ret


def code_of(path: str, name: str) -> int:
    """Return the file offset of a function."""
    with open(path, "rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        symbol = table.get_symbol_by_name(name)
        assert symbol is not None
        headers = parse(Image.of(file.fileno()))
        offset = headers.file_offset(symbol[0]["st_value"])
    assert offset is not None
    return offset


def forge(path: str, extra: tuple[Patch, ...] = (), **fields: int) -> None:
    """Change the undo record of a patched file and make checksum and digest right."""
    for _ in range(2):  # the digest is that of what the record gives
        data = bytearray(content(path))
        with open_views(path) as views:
            footer, headers, image = views.footer, views.current.headers, views.current.image
            assert footer
            footer = replace(footer, sha256=views.original.image.sha256(), **fields)
            end = headers.last_load.file_end - FOOTER_SIZE
            old = UndoRecord.unpack(bytes(data[end - footer.record_length : end]))
            assert old
            patches = {patch.offset: patch for patch in (*old.patches, *extra)}
            record = UndoRecord(old.left, tuple(patches[offset] for offset in sorted(patches))).pack()
            footer = replace(footer, record_length=len(record))
            checksum = guard(image, guarded_tables(image, headers), record, footer, old.left)
        data[end - len(record) : end] = record
        data[end : end + FOOTER_SIZE] = replace(footer, guard=checksum).pack()
        Path(path).write_bytes(data)


@pytest.fixture
def shipped(world: World) -> str:
    """The extension of the wheel as somebody patched it before, with room for a longer record."""
    original = copy(world.extension, os.path.join(world.root, "original.so"))
    os.unlink(world.extension)
    edit_file(original, world.extension, ElfEdit("$ORIGIN/nothing:/" + "x" * 500))
    world.write_record()
    return world.extension


def ask(world: World) -> str:
    """Call the extension with the library that it needs loaded before."""
    library = os.path.join(world.library, "libanswer.so.1")
    code = f"import ctypes; ctypes.CDLL({library!r}); print(ctypes.CDLL({world.extension!r}).ask())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def is_intact(path: str) -> bool:
    facts = elf.read(path)
    return isinstance(facts, ElfFacts) and facts.original_sha256 is not None


def test_honest_record_has_no_violations(shipped: str) -> None:
    with open_views(shipped) as views:
        assert undo_violations(views) == ()
    assert elf.undo_is_plausible(shipped)


@pytest.mark.parametrize("kind", ["code", "cut", "area", "strings"])
def test_a_record_gives_back_nothing_that_no_edit_changes(world: World, shipped: str, kind: str) -> None:
    with open_views(shipped) as views:
        footer = views.footer
    assert footer
    changes = {
        "code": {},
        "cut": {"cut": footer.cut - 8},
        "area": {"area": footer.area - 64},
        "strings": {"string_size": footer.string_size - 1},
    }
    code = (Patch(code_of(shipped, "ask"), RETURN_7),) if kind == "code" else ()
    forge(shipped, code, **changes[kind])
    assert is_intact(shipped)
    with open_views(shipped) as views:
        assert undo_violations(views) != ()
    assert not elf.undo_is_plausible(shipped)
    with pytest.raises(FileRefused, match="not from an edit of this file"):
        restore_file(shipped, os.path.join(world.root, "restored"))
    with (
        open(os.path.join(world.root, "edited"), "wb+") as out,
        pytest.raises(FileRefused, match="not from an edit of this file"),
    ):
        write_edited(shipped, out.fileno(), ElfEdit("/new"))


@pytest.mark.parametrize("forged", [True, False], ids=["forged", "honest"])
@pytest.mark.parametrize("claimed", [True, False], ids=["with RECORD", "no RECORD"])
def test_a_shipped_record_is_ignored(
    world: World, nixpatch: Run, shipped: str, forged: bool, claimed: bool
) -> None:
    if forged:
        forge(shipped, (Patch(code_of(shipped, "ask"), RETURN_7),))
        world.write_record()
    before = content(shipped)
    assert ask(world) == "42\n"
    if not claimed:
        os.unlink(world.record)
    code, out, _ = nixpatch(world.venv)
    assert code == 0
    assert ask(world) == "42\n"
    assert world.ask() == "42"
    if claimed or forged:
        assert "was installed with an undo record, which is ignored" in out
        code, out, _ = nixpatch("plan", "--check", world.venv)
        assert (code, "undo record" in out) == (0, False)
        assert nixpatch("verify", world.venv)[0] == 0
        assert nixpatch("restore", world.venv)[0] == 0
        assert content(shipped) == before


def test_restore_leaves_a_shipped_file_alone(world: World, nixpatch: Run, shipped: str) -> None:
    before = content(shipped)
    code, out, _ = nixpatch("restore", world.venv)
    assert (code, "which is ignored" in out) == (0, True)
    assert content(shipped) == before


def test_lost_provenance_is_no_reason_to_distrust(world: World, nixpatch: Run) -> None:
    before = content(world.extension)
    assert nixpatch(world.venv)[0] == 0
    os.unlink(os.path.join(world.info, provenance.NAME))
    code, out, _ = nixpatch(world.venv)
    assert (code, "which is ignored" in out) == (0, False)
    assert nixpatch("restore", world.venv)[0] == 0
    assert content(world.extension) == before


@pytest.mark.parametrize("kind", ["honest", "forged"])
def test_a_record_gives_back_no_wrong_count_of_relocations(tmp_path: Path, kind: str) -> None:
    """With it, ld.so would add the load address to whatever the relocations behind the relative ones name."""
    workshop = Workshop(str(tmp_path / "workshop"))
    last = (f"-Wl,-T,{workshop.source('code_last.ld')}", workshop.source("code_last.c"))
    library = workshop.library(*RICH, "-Wl,--spare-dynamic-tags=1", *last)
    out, back = str(tmp_path / "out.so"), str(tmp_path / "back.so")
    edit_file(library, out, ElfEdit("/new"))
    headers = read_headers(library)
    index, count = next((i, e.value) for i, e in enumerate(headers.live) if e.tag in structs.HINT_TAGS)
    value = headers.dynamic_offset + index * headers.layout.dyn.size + headers.layout.dyn.size // 2
    with open_views(out) as views:
        patch = next(p for p in views.original.image.patches if p.offset <= value < p.offset + len(p.data))
    data = bytearray(patch.data)
    assert data[value - patch.offset] == count < 0xFF
    data[value - patch.offset] += kind == "forged"
    forge(out, (Patch(patch.offset, bytes(data)),))
    assert is_intact(out)
    if kind == "honest":
        restore_file(out, back)
        assert content(back) == content(library)
        return
    assert not elf.undo_is_plausible(out)
    with pytest.raises(FileRefused, match="not from an edit of this file"):
        restore_file(out, back)
