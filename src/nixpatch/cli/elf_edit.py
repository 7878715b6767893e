"""``nixpatch elf``: print or edit single files, with the option names of patchelf."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from typing import Annotated, Any, NamedTuple

import typer

from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.session import check_output, guarded
from nixpatch.errors import FileRefused, RequestError
from nixpatch.escape import shown
from nixpatch.model import ElfFacts, Linkage, ManualEdit, ResolutionCache
from nixpatch.operations import elf_edit
from nixpatch.operations.elf_edit import FileChange, PathAction
from nixpatch.operations.resolution_cache import DirectoryReader

_PRINT = "Print"
_EDIT = "Edit"
_NO_EFFECT = "Accepted because patchelf has them; they have no effect"
_STACK = {True: "X", False: "-", None: "?"}  # as patchelf prints it
_ARGUMENT = 1 << 20  # bytes of a value in a file
_NAME_MAP = 64 << 20  # bytes


def _option(panel: str, text: str, *flags: str, metavar: str | None = None, click_type: Any = None) -> Any:
    return typer.Option(*flags, metavar=metavar, help=text, rich_help_panel=panel, click_type=click_type)


class NameReplacement(NamedTuple):
    """The values of ``--replace-needed``. Typer has no other type for a repeated option with two values."""

    old: str
    new: str


@dataclass(frozen=True, slots=True)
class PrintOptions:
    """The values to print."""

    interpreter: bool
    soname: bool
    rpath: bool
    needed: bool
    os_abi: bool
    executable_stack: bool

    @property
    def is_empty(self) -> bool:
        """Whether none was selected."""
        return not any(astuple(self))

    @property
    def are_of_any_program(self) -> bool:
        """Whether a static program has all that was selected."""
        return not (self.is_empty or self.interpreter or self.soname or self.rpath or self.needed)


@guarded
def elf_command(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Dynamic ELF files.")],
    print_rpath: Annotated[bool, _option(_PRINT, "The search path.", "--print-rpath")] = False,
    print_interpreter: Annotated[bool, _option(_PRINT, "The dynamic linker.", "--print-interpreter")] = False,
    print_needed: Annotated[bool, _option(_PRINT, "The needed libraries.", "--print-needed")] = False,
    print_soname: Annotated[bool, _option(_PRINT, "The library's own name.", "--print-soname")] = False,
    print_os_abi: Annotated[bool, _option(_PRINT, "The operating system.", "--print-os-abi")] = False,
    print_execstack: Annotated[
        bool, _option(_PRINT, "Whether it wants an executable stack.", "--print-execstack")
    ] = False,
    set_rpath: Annotated[str | None, _option(_EDIT, "Replace the search path.", metavar="PATH|@FILE")] = None,
    add_rpath: Annotated[
        str | None, _option(_EDIT, "Append to the search path.", metavar="PATH|@FILE")
    ] = None,
    remove_rpath: Annotated[bool, _option(_EDIT, "Remove the search path.", "--remove-rpath")] = False,
    shrink_rpath: Annotated[
        bool, _option(_EDIT, "Remove directories without a library that the file needs.", "--shrink-rpath")
    ] = False,
    allowed_rpath_prefixes: Annotated[
        str | None,
        _option(
            _EDIT,
            "With --shrink-rpath, also remove directories outside these (colon-separated).",
            metavar="PREFIXES",
        ),
    ] = None,
    force_rpath: Annotated[
        bool, _option(_EDIT, "Write DT_RPATH instead of DT_RUNPATH.", "--force-rpath")
    ] = False,
    set_interpreter: Annotated[
        str | None,
        _option(
            _EDIT,
            "Replace the dynamic linker.",
            "--set-interpreter",
            "--interpreter",
            metavar="PATH|@FILE",
        ),
    ] = None,
    replace_needed: Annotated[
        list[NameReplacement] | None,
        _option(
            _EDIT,
            "Rename a needed library, in DT_NEEDED and in the version needs; may be repeated.",
            metavar="OLD NEW",
            click_type=(str, str),
        ),
    ] = None,
    build_resolution_cache: Annotated[
        bool,
        _option(
            _EDIT,
            "Write a note with the places of the needed libraries, which spares a loader that reads it the "
            "search path; a later edit keeps it true.",
            "--build-resolution-cache",
        ),
    ] = False,
    add_needed: Annotated[
        list[str] | None,
        _option(_EDIT, "Add a needed library before all others; may be repeated.", metavar="LIBRARY|@FILE"),
    ] = None,
    remove_needed: Annotated[
        list[str] | None,
        _option(_EDIT, "Remove a needed library; may be repeated.", metavar="LIBRARY|@FILE"),
    ] = None,
    set_soname: Annotated[
        str | None, _option(_EDIT, "Replace the library's own name.", metavar="SONAME|@FILE")
    ] = None,
    no_default_lib: Annotated[
        bool,
        _option(_EDIT, "Let ld.so skip its default directories for the file's needs.", "--no-default-lib"),
    ] = False,
    clear_execstack: Annotated[
        bool, _option(_EDIT, "Ask for no executable stack.", "--clear-execstack")
    ] = False,
    set_execstack: Annotated[bool, _option(_EDIT, "Ask for an executable stack.", "--set-execstack")] = False,
    set_os_abi: Annotated[
        str | None, _option(_EDIT, "Replace the operating system, such as linux.", metavar="ABI|@FILE")
    ] = None,
    clear_symbol_version: Annotated[
        list[str] | None,
        _option(_EDIT, "Remove the version of a dynamic symbol; may be repeated.", metavar="SYMBOL|@FILE"),
    ] = None,
    rename_dynamic_symbols: Annotated[
        str | None,
        _option(
            _EDIT, "Rename dynamic symbols: each line of the file has an old and a new name.", metavar="FILE"
        ),
    ] = None,
    add_debug_tag: Annotated[
        bool, _option(_EDIT, "Add DT_DEBUG, by which debuggers find libraries.", "--add-debug-tag")
    ] = False,
    restore: Annotated[
        bool, _option(_EDIT, "Restore the file as it was before its first edit.", "--restore")
    ] = False,
    output: Annotated[
        str | None,
        _option(
            _EDIT, "Write to this file (- for standard output), and do not change the input.", metavar="FILE"
        ),
    ] = None,
    force_payload: Annotated[
        bool, _option(_EDIT, "Also edit programs with appended data.", "--force-payload")
    ] = False,
    page_size: Annotated[  # noqa: ARG001
        int | None, _option(_NO_EFFECT, "Edits add no page.", "--page-size", metavar="BYTES")
    ] = None,
    debug: Annotated[bool, _option(_NO_EFFECT, "There is no trace.", "--debug")] = False,  # noqa: ARG001
    no_sort: Annotated[  # noqa: ARG001
        bool, _option(_NO_EFFECT, "Headers keep their order.", "--no-sort")
    ] = False,
    no_clobber_old_sections: Annotated[  # noqa: ARG001
        bool, _option(_NO_EFFECT, "Old sections keep their bytes.", "--no-clobber-old-sections")
    ] = False,
) -> ExitCode:
    """Print or edit single ELF files, with the options of patchelf. Does not update RECORD."""
    actions = [
        action
        for action, given in (
            (PathAction.SET, set_rpath is not None),
            (PathAction.ADD, add_rpath is not None),
            (PathAction.REMOVE, remove_rpath),
            (PathAction.SHRINK, shrink_rpath),
        )
        if given
    ]
    if len(actions) > 1:
        raise RequestError("use only one of --set-rpath, --add-rpath, --remove-rpath and --shrink-rpath")
    if allowed_rpath_prefixes is not None and not shrink_rpath:
        raise RequestError("--allowed-rpath-prefixes needs --shrink-rpath")
    if clear_execstack and set_execstack:
        raise RequestError("use only one of --clear-execstack and --set-execstack")
    change = FileChange(
        actions[0] if actions else PathAction.KEEP,
        _argument(set_rpath or add_rpath or ""),
        tuple(prefix for prefix in (allowed_rpath_prefixes or "").split(":") if prefix),
        force_rpath,
        None if set_interpreter is None else _argument(set_interpreter),
        tuple(replace_needed or ()),
        resolution_cache=build_resolution_cache,
        removed_needs=_names("--remove-needed", remove_needed),
        added_needs=_names("--add-needed", add_needed),
        soname=None if set_soname is None else _names("--set-soname", [set_soname])[0],
        os_abi=None if set_os_abi is None else elf_edit.os_abi_number(_argument(set_os_abi)),
        executable_stack=set_execstack if set_execstack or clear_execstack else None,
        no_default_lib=no_default_lib,
        debug_tag=add_debug_tag,
        symbols=None if rename_dynamic_symbols is None else _name_map(rename_dynamic_symbols),
        unversioned_symbols=_names("--clear-symbol-version", clear_symbol_version),
    )
    if force_rpath and build_resolution_cache:
        raise RequestError("--build-resolution-cache cannot be combined with --force-rpath")
    if not all(name for pair in change.needs for name in pair):
        raise RequestError("--replace-needed takes two names that are not empty")
    if restore and not change.is_empty:
        raise RequestError("--restore cannot be combined with another edit")
    if output is not None and len(files) > 1:
        raise RequestError("--output takes a single FILE")
    printing = PrintOptions(
        print_interpreter, print_soname, print_rpath, print_needed, print_os_abi, print_execstack
    )
    if output == "-" and not printing.is_empty:
        raise RequestError("--output - cannot be combined with an option that prints")
    if output not in {None, "-"}:
        check_output(output, option="--output")
    for file in files:
        _require_file(file)
    code = ExitCode.SATISFIED
    for file in files:
        try:
            _process(file, printing, change, output, restore=restore, payload_ok=force_payload)
        except FileRefused as refused:
            _warn(file, str(refused))
            code = ExitCode.REMAINS
        except OSError as error:
            _warn(file, error.strerror or str(error))
            code = ExitCode.REMAINS
    return code


def _argument(value: str) -> str:
    """Return the value of an option, or what the file holds that it names with ``@``, as patchelf does.

    Raises:
        RequestError: the file cannot be read, or is too long.

    """
    if not value.startswith("@"):
        return value
    return _text_of(value[1:], _ARGUMENT)


def _text_of(path: str, limit: int) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}") from error
    if len(data) > limit:
        raise RequestError(f"{path}: more than {limit} bytes")
    return os.fsdecode(data)


def _names(option: str, values: list[str] | None) -> tuple[str, ...]:
    names = tuple(map(_argument, values or ()))
    if not all(names):
        raise RequestError(f"{option} takes a name that is not empty")
    return names


def _name_map(path: str) -> tuple[tuple[str, str], ...]:
    """Read the file of ``--rename-dynamic-symbols``: an old and a new name a line.

    Raises:
        RequestError: it cannot be read, or a line is wrong.

    """
    names: dict[str, str] = {}
    for number, line in enumerate(_text_of(path, _NAME_MAP).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise RequestError(f"{path}:{number}: {len(words)} names, not an old and a new one")
        if words[0] in names:
            raise RequestError(f"{path}:{number}: {words[0]} has a line already")
        if any("@" in word for word in words):
            raise RequestError(f"{path}:{number}: a name without @ and version is wanted")
        names[words[0]] = words[1]
    return tuple(names.items())


def _process(
    file: str,
    printing: PrintOptions,
    change: FileChange,
    output: str | None,
    *,
    restore: bool,
    payload_ok: bool,
) -> None:
    source = os.path.realpath(file)  # like patchelf, edit the file behind a link
    read_only = change.is_empty and output is None and not restore
    if read_only and printing.are_of_any_program:
        for line in _stack_and_system(source, printing):
            _print(line)
        return
    facts = elf_edit.facts_of(source, payload_ok=True)
    if read_only or not printing.is_empty:
        for line in _all_values(file, facts) if printing.is_empty else _selected_values(facts, printing):
            _print(line)
    if read_only:
        return
    destination = sys.stdout.buffer if output == "-" else output or source
    if restore:
        for note in elf_edit.restore(source, destination):
            _warn(file, note)
        return
    elf_edit.facts_of(source, payload_ok=payload_ok)

    def cache_for(needed: tuple[str, ...], linkage: Linkage) -> ResolutionCache:
        decision = DirectoryReader().decide(source, needed, linkage, is_asked=change.resolution_cache)
        if decision.reason is not None:
            _warn(file, f"no resolution cache: {decision.reason}")
        return decision.cache

    has_symbols = bool(change.symbols or change.unversioned_symbols)
    symbols = elf_edit.symbol_names(source) if has_symbols else frozenset()
    edit = elf_edit.edit_of(facts, change, elf_edit.library_finder(facts), cache_for, symbols)
    if edit is None and (output is None or os.path.realpath(output) == source):
        return
    for note in elf_edit.apply_edit(source, destination, edit):
        _warn(file, note)


def _stack_and_system(source: str, printing: PrintOptions) -> Iterator[str]:
    stack, system = elf_edit.stack_and_system_of(source)
    if printing.os_abi:
        yield elf_edit.os_abi_name(system)
    if printing.executable_stack:
        yield f"execstack: {_STACK[stack]}"


def _selected_values(facts: ElfFacts, printing: PrintOptions) -> Iterator[str]:
    """Yield the selected values in the order of patchelf."""
    if printing.interpreter:
        if facts.current.interp is None:
            raise FileRefused("it has no interpreter")
        yield facts.current.interp
    if printing.os_abi:
        yield elf_edit.os_abi_name(facts.os_abi)
    if printing.soname and facts.soname is not None:
        yield facts.soname
    if printing.rpath:
        yield facts.current.search_path or ""
    if printing.executable_stack:
        yield f"execstack: {_STACK[facts.executable_stack]}"
    if printing.needed:
        yield from facts.needed


def _all_values(file: str, facts: ElfFacts) -> Iterator[str]:
    yield f"file: {file}"
    yield f"machine: {facts.machine.name}"
    yield f"kind: {'program' if facts.executable else 'library'}"
    if facts.soname is not None:
        yield f"soname: {facts.soname}"
    yield from _linkage(facts.current, "")
    for need in facts.needed:
        yield f"needed: {need}"
    for need, places in facts.current.resolution_cache:
        yield f"resolution cache: {need} {places}"
    if facts.original_sha256 is not None:
        yield f"original sha256: {facts.original_sha256.hex()}"
        yield from _linkage(facts.original, "original ")
        for old, _ in facts.current.renamed:
            yield f"original needed: {old}"
        changes = ", ".join(_changes(facts.manual))
        if changes:
            yield f"also changed: {changes}"
    elif facts.stale_undo:
        yield "original: lost, another tool (such as strip) changed the file after nixpatch"
    appended = elf_edit.payload_of(os.path.realpath(file))
    if appended:
        yield f"payload: {appended}"


def _changes(manual: ManualEdit) -> Iterator[str]:
    """Yield what else differs from the original, in the words of the options."""
    for is_changed, name in (
        (manual.needed is not None, "needed libraries"),
        (manual.soname is not None, "soname"),
        (manual.os_abi is not None, "OS ABI"),
        (manual.executable_stack is not None, "execstack"),
        (manual.no_default_lib, "no-default-lib"),
        (manual.debug_tag, "debug tag"),
        (bool(manual.renamed_symbols), f"{len(manual.renamed_symbols)} names of symbols"),
        (bool(manual.unversioned_symbols), f"{len(manual.unversioned_symbols)} versions of symbols"),
    ):
        if is_changed:
            yield name


def _linkage(linkage: Linkage, prefix: str) -> Iterator[str]:
    if linkage.interp is not None:
        yield f"{prefix}interpreter: {linkage.interp}"
    if linkage.tag is not None:
        yield f"{prefix}{linkage.tag.value.lower()}: {linkage.search_path}"


def _print(line: str) -> None:
    """Print a line: escaped on a terminal, else with the bytes of the file."""
    if sys.stdout.isatty():
        sys.stdout.write(f"{shown(line)}\n")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(line) + b"\n")
    sys.stdout.buffer.flush()


def _require_file(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise RequestError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(mode):
        raise RequestError(f"{path}: not a regular file; nixpatch patch takes directories")


def _warn(file: str, text: str) -> None:
    sys.stderr.write(f"nixpatch: {shown(file)}: {shown(text)}\n")
