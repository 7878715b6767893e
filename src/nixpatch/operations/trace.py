"""Who needs what, found where and how: any ELF file of the machine, or a whole tree, as it is on the disk.

The simulator does the search, this says in which process, and why each place did or did not serve. A program
is started by the loader it names; a library is opened by the Python whose tree it lies in, or mapped as
``ld.so --list`` does. Nothing is run. musl searches otherwise (every parent's path, then the system's); its
files are shown by glibc's rules.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from nixpatch import elf, installed
from nixpatch.errors import RequestError
from nixpatch.installed import built_in
from nixpatch.model import BuiltIn, ElfFacts, Skip, SkipReason, Target
from nixpatch.model.trace import SearchedPlace, Start, Trace, TracedNeed
from nixpatch.operations.plan import Reader
from nixpatch.resolve.ld_so import LoaderConfig, simulate

# What needs nothing of a loader; nothing is wrong with it.
_NEEDLESS = frozenset({SkipReason.STATIC, SkipReason.RELOCATABLE, SkipReason.CORE, SkipReason.DEBUG_FILE})


@dataclass(frozen=True, slots=True)
class Request:
    """What of the process's environment counts."""

    python: str | None = None
    search_path: str | None = None
    """value of PATH"""
    library_path: str | None = None
    """value of LD_LIBRARY_PATH"""
    directory: str | None = None
    """the current directory"""


def trace_file(path: str, request: Request) -> Trace:
    """Follow the needs of one ELF file, and of what they bring along.

    Raises:
        RequestError: it is no ELF file that a loader could map, or its Python cannot be used.

    """
    reader = Reader()
    file = os.path.realpath(path)
    try:
        found = reader(file)
        if isinstance(found, Skip) and found.reason is SkipReason.PAYLOAD:
            found = reader.known[file] = elf.read(file, payload_ok=True)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    if isinstance(found, Skip):
        if found.reason not in _NEEDLESS:
            raise RequestError(f"{path}: {found.text}; name an ELF file or a tree")
        alone = Start(None, "not asked for", None, BuiltIn())
        return Trace(file, {}, (file,), alone, (), skipped={file: found})
    start = _start(file, found, request, reader)
    around = _around(start, request, reader)
    opened = [] if start.program is None else [file]
    process = simulate(start.program or file, around, opened, whole=True)
    links: list[TracedNeed] = []
    reached = {file: found}
    needs: dict[str, dict[str, TracedNeed]] = {}
    tidy = lru_cache(maxsize=None)(_tidy)
    for need in process.needs:  # what the Python needs is asked for once more by who opens the file
        needs.setdefault(tidy(need.by), {}).setdefault(need.need, need)
    queue = [file]
    for by in queue:
        for need in needs.get(by, {}).values():
            links.append(_judged(need, found, reader, tidy))
            target = links[-1].path
            if target is not None and target not in reached:
                facts = reader.facts(target)
                if facts is not None:
                    reached[target] = facts
                    queue.append(target)
    return Trace(file, reached, (file,), start, tuple(links))


def trace_tree(path: str, request: Request) -> Trace:
    """Look up the needs of every ELF file of a tree, each opened on its own, else by a file that needs it.

    Raises:
        RequestError: there is no such tree, or no Python for it.

    """
    tree = installed.scan(path)
    reader = Reader()
    target = installed.find_target(tree, request.python, request.search_path, reader)
    start = _start_of(target, request)
    around = _around(start, request, reader)
    tidy = lru_cache(maxsize=None)(_tidy)
    files: dict[str, ElfFacts] = {}
    skipped: dict[str, Skip] = {}
    mine: list[TracedNeed] = []
    met: dict[tuple[str, str], TracedNeed] = {}
    for file in tree.files:
        facts = reader(file.path)
        if isinstance(facts, ElfFacts) and facts.machine != target.machine:
            facts = Skip(SkipReason.OTHER_MACHINE, facts.machine.name)
        if isinstance(facts, Skip):
            skipped[file.path] = facts
            continue
        files[file.path] = facts
        program = facts.executable and facts.current.interp is not None
        first, opened = (file.path, []) if program else (target.python, [file.path])
        for need in simulate(first, around, opened, whole=True).needs:
            if need.by == file.path:
                mine.append(need)
            elif need.path is not None:
                met.setdefault((tidy(need.by), need.need), need)
    # What a file does not find on its own it may find by the RPATH of the one that loads it.
    links = [
        _judged(met.get((need.by, need.need), need) if need.path is None else need, facts, reader, tidy)
        for need in mine
        for facts in [files[need.by]]
    ]
    return Trace(tree.root, files, tuple(files), start, tuple(links), tree, skipped)


def _start(file: str, facts: ElfFacts, request: Request, reader: Reader) -> Start:
    path = _library_path(request)
    if facts.current.interp is not None and request.python is None:
        return Start(None, "its interpreter", facts.current.interp, built_in(facts.current.interp), path)
    tree = installed.enclosing(file)
    if tree is not None or request.python is not None:
        whole = tree or installed.scan(file)
        target = installed.find_target(whole, request.python, request.search_path, reader)
        if target.machine == facts.machine:
            return _start_of(target, request)
        if request.python is not None:
            other = f"{target.python} for {target.machine.name}"
            raise RequestError(f"{file} is for {facts.machine.name}, {other}: leave --python out")
    beside = _beside_libc(file, facts, reader)
    if beside is not None:
        return Start(None, "beside the libc that it needs", beside, built_in(beside), path)
    usual = facts.machine.arch.loader
    if usual is not None and os.path.exists(usual):
        return Start(None, f"the usual place for {facts.machine.name}", usual, built_in(usual), path)
    return Start(None, f"no loader for {facts.machine.name} on this machine", None, BuiltIn(), path)


def _start_of(target: Target, request: Request) -> Start:
    return Start(
        target.python, target.found_by, target.loader, built_in(target.loader), _library_path(request)
    )


def _library_path(request: Request) -> tuple[str, ...]:
    """Split LD_LIBRARY_PATH: colons or semicolons; an empty entry is the current directory."""
    if not request.library_path:
        return ()
    return tuple(entry or "." for entry in request.library_path.replace(";", ":").split(":"))


def _beside_libc(file: str, facts: ElfFacts, reader: Reader) -> str | None:
    """Return the loader beside the libc that a library finds by its own search path, as in the store."""
    alone = LoaderConfig(reader.facts)
    for need in simulate(file, alone, whole=True).needs:
        if need.need != "libc.so.6" or need.path is None:
            continue
        where = os.path.dirname(need.path)
        name = os.path.basename(facts.machine.arch.loader or "")
        if name and os.path.exists(f"{where}/{name}"):
            return f"{where}/{name}"
    return None


def _around(start: Start, request: Request, reader: Reader) -> LoaderConfig:
    known = start.known
    return LoaderConfig(
        read=reader.facts,
        identity=lru_cache(maxsize=None)(os.path.realpath),
        default_dirs=known.directories,
        ld_library_path=start.library_path,
        loader=start.loader,
        current_directory=request.directory,
        cache=known.cache,
        cached=lambda name: known.cached.get(name, ()),
    )


def _judged(need: TracedNeed, facts: ElfFacts, reader: Reader, tidy: Callable[[str], str]) -> TracedNeed:
    places: Sequence[SearchedPlace] = need.places
    last = len(places) - 1
    sought = tuple(
        SearchedPlace(
            place.how,
            tidy(place.path) if place.path is not None and "/../" in place.path else place.path,
            tidy(place.of) if place.of.startswith("/") else place.of,
            place.entry,
            None if number == last and need.path is not None else _why_not(place.path, facts, reader),
        )
        for number, place in enumerate(places)
    )
    return TracedNeed(tidy(need.by), need.need, tidy(need.path) if need.path is not None else None, sought)


def _why_not(path: str | None, facts: ElfFacts, reader: Reader) -> str:
    """Say why a place does not serve."""
    if path is None:
        return "does not have it"
    if not os.path.exists(path):
        if not os.path.isdir(os.path.dirname(path)):
            return "no such directory"
        return "a link to what is not there" if os.path.islink(path) else "no such file"
    try:
        found = reader(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if isinstance(found, Skip):
        return found.reason.value
    return f"built for {found.machine.name}, not for {facts.machine.name}"


def _tidy(path: str) -> str:
    """Spell a path without ``..``; the last name is kept, as it is what was asked for."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
