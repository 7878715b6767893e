"""``nixpatch elf``: print or edit single files, with patchelf's names for what means the same."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer

from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.session import guarded
from nixpatch.errors import FileRefused, RequestError
from nixpatch.escape import shown
from nixpatch.model import ElfFacts, Linkage
from nixpatch.operations import elf_edit
from nixpatch.operations.elf_edit import Change, PathChange

_PRINT = "Print"
_EDIT = "Edit"


def _flag(name: str, text: str, panel: str) -> typer.models.OptionInfo:
    option: typer.models.OptionInfo = typer.Option(name, help=text, rich_help_panel=panel)
    return option


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which facts are to be printed."""

    interpreter: bool
    soname: bool
    rpath: bool
    needed: bool

    @property
    def nothing(self) -> bool:
        """None was asked for by name."""
        return not (self.interpreter or self.soname or self.rpath or self.needed)


@guarded
def elf_command(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Dynamic ELF files.")],
    print_rpath: Annotated[bool, _flag("--print-rpath", "The search path.", _PRINT)] = False,
    print_interpreter: Annotated[bool, _flag("--print-interpreter", "The dynamic linker.", _PRINT)] = False,
    print_needed: Annotated[bool, _flag("--print-needed", "The needed libraries.", _PRINT)] = False,
    print_soname: Annotated[bool, _flag("--print-soname", "The library's own name.", _PRINT)] = False,
    set_rpath: Annotated[
        str | None, typer.Option(metavar="PATH", help="Replace the search path.", rich_help_panel=_EDIT)
    ] = None,
    add_rpath: Annotated[
        str | None, typer.Option(metavar="PATH", help="Append to the search path.", rich_help_panel=_EDIT)
    ] = None,
    remove_rpath: Annotated[bool, _flag("--remove-rpath", "Remove the search path.", _EDIT)] = False,
    shrink_rpath: Annotated[
        bool, _flag("--shrink-rpath", "Remove directories that hold nothing the file needs.", _EDIT)
    ] = False,
    allowed_rpath_prefixes: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIXES",
            help="With --shrink-rpath, also remove directories with another beginning (colon-separated).",
            rich_help_panel=_EDIT,
        ),
    ] = None,
    force_rpath: Annotated[
        bool, _flag("--force-rpath", "Write DT_RPATH instead of DT_RUNPATH.", _EDIT)
    ] = False,
    set_interpreter: Annotated[
        str | None, typer.Option(metavar="PATH", help="Replace the dynamic linker.", rich_help_panel=_EDIT)
    ] = None,
    replace_needed: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="OLD NEW",
            help="Need NEW in the place of OLD, in DT_NEEDED and in the version needs.",
            rich_help_panel=_EDIT,
        ),
    ] = None,
    restore: Annotated[
        bool, _flag("--restore", "Give the file back as it was before its first edit.", _EDIT)
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write here, leave the file itself alone.", rich_help_panel=_EDIT),
    ] = None,
    force_payload: Annotated[
        bool, _flag("--force-payload", "Edit programs that carry appended data, too.", _EDIT)
    ] = False,
) -> ExitCode:
    """Print or edit single ELF files, with patchelf's flags. RECORD is not brought up to date: see patch."""
    paths = [
        change
        for change, given in (
            (PathChange.SET, set_rpath is not None),
            (PathChange.ADD, add_rpath is not None),
            (PathChange.REMOVE, remove_rpath),
            (PathChange.SHRINK, shrink_rpath),
        )
        if given
    ]
    if len(paths) > 1:
        raise RequestError(
            "only one of --set-rpath, --add-rpath, --remove-rpath and --shrink-rpath is possible"
        )
    if allowed_rpath_prefixes is not None and not shrink_rpath:
        raise RequestError("--allowed-rpath-prefixes belongs to --shrink-rpath")
    change = Change(
        paths[0] if paths else PathChange.KEEP,
        set_rpath or add_rpath or "",
        tuple(prefix for prefix in (allowed_rpath_prefixes or "").split(":") if prefix),
        force_rpath,
        set_interpreter,
        replace_needed,
    )
    if replace_needed is not None and not all(replace_needed):
        raise RequestError("--replace-needed takes two names, and none may be empty")
    if restore and not change.nothing:
        raise RequestError("--restore goes with no other edit")
    if output is not None and len(files) > 1:
        raise RequestError("--output takes a single FILE")
    wanted = Wanted(print_interpreter, print_soname, print_rpath, print_needed)
    for file in files:
        _must_be_file(file)
    code = ExitCode.SATISFIED
    for file in files:
        try:
            _one(file, wanted, change, output, restore=restore, payload_ok=force_payload)
        except FileRefused as refused:
            _complain(file, str(refused))
            code = ExitCode.REMAINS
        except OSError as error:
            _complain(file, error.strerror or str(error))
            code = ExitCode.REMAINS
    return code


def _one(
    file: str, wanted: Wanted, change: Change, output: str | None, *, restore: bool, payload_ok: bool
) -> None:
    source = os.path.realpath(file)  # like patchelf: a link is not replaced, the file behind it is
    facts = elf_edit.facts_of(source, payload_ok=True)
    reading = change.nothing and output is None and not restore
    if reading or not wanted.nothing:
        for line in _everything(file, facts) if wanted.nothing else _asked_for(facts, wanted):
            _print(line)
    if reading:
        return
    to = source if output is None else os.path.realpath(output)
    if restore:
        elf_edit.restore(source, to)
        return
    elf_edit.facts_of(source, payload_ok=payload_ok)
    edit = elf_edit.edit_of(facts, change, elf_edit.holder_of(facts))
    if edit is None and to == source:
        return
    for note in elf_edit.carry_out(source, to, edit):
        _complain(file, note)


def _asked_for(facts: ElfFacts, wanted: Wanted) -> Iterator[str]:
    """Yield what patchelf prints, in its order."""
    if wanted.interpreter:
        if facts.current.interp is None:
            raise FileRefused("it has no interpreter")
        yield facts.current.interp
    if wanted.soname and facts.soname is not None:
        yield facts.soname
    if wanted.rpath:
        yield facts.current.search_path or ""
    if wanted.needed:
        yield from facts.needed


def _everything(file: str, facts: ElfFacts) -> Iterator[str]:
    yield f"file: {file}"
    yield f"machine: {facts.machine.name}"
    yield f"kind: {'program' if facts.executable else 'library'}"
    if facts.soname is not None:
        yield f"soname: {facts.soname}"
    yield from _linkage(facts.current, "")
    for need in facts.needed:
        yield f"needed: {need}"
    if facts.original_sha256 is not None:
        yield f"original sha256: {facts.original_sha256.hex()}"
        yield from _linkage(facts.original, "original ")
        for old, _ in facts.current.renamed:
            yield f"original needed: {old}"
    elif facts.stale_undo:
        yield "original: lost, another tool (such as strip) changed the file after nixpatch"
    appended = elf_edit.payload_of(os.path.realpath(file))
    if appended:
        yield f"payload: {appended}"


def _linkage(linkage: Linkage, prefix: str) -> Iterator[str]:
    if linkage.interp is not None:
        yield f"{prefix}interpreter: {linkage.interp}"
    if linkage.tag is not None:
        yield f"{prefix}{linkage.tag.value.lower()}: {linkage.search_path}"


def _print(line: str) -> None:
    """Bytes as they are for a program that reads them, printable ones for a person."""
    if sys.stdout.isatty():
        sys.stdout.write(f"{shown(line)}\n")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(line) + b"\n")
    sys.stdout.buffer.flush()


def _must_be_file(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise RequestError(f"{path}: not a regular file; nixpatch patch takes directories")


def _complain(file: str, text: str) -> None:
    sys.stderr.write(f"nixpatch: {shown(file)}: {shown(text)}\n")
