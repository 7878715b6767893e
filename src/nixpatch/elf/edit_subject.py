"""What an edit looks at beside the headers of the original: linkage, names, symbols."""

from __future__ import annotations

from dataclasses import dataclass

from nixpatch.elf.dynamic import NeedReference, linkage, need_references, soname
from nixpatch.elf.headers import ElfFile
from nixpatch.elf.symbol_tables import SymbolTables, read_symbol_tables
from nixpatch.model import ElfEdit, Linkage


@dataclass(frozen=True, slots=True)
class EditSubject:
    """Contents of the original."""

    linkage: Linkage
    soname: str | None = None
    references: tuple[NeedReference, ...] = ()
    """empty unless the edit changes DT_NEEDED"""
    symbols: SymbolTables | None = None
    """None unless the edit changes symbols"""


def read_subject(file: ElfFile, edit: ElfEdit) -> EditSubject:
    """Read what an edit looks at.

    Raises:
        SkippedFile: the file contradicts itself.

    """
    manual = edit.manual
    has_symbols = bool(manual.renamed_symbols or manual.unversioned_symbols)
    return EditSubject(
        linkage(file),
        None if manual.soname is None else soname(file),
        need_references(file) if edit.renames or manual.needed is not None else (),
        read_symbol_tables(file) if has_symbols else None,
    )
