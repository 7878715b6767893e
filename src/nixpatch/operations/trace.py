"""Trace the needs of any ELF file of the machine, or of a whole tree, by the rules of ld.so(8).

``resolve.ld_so`` simulates the search; this module picks the process to simulate. A program is started by the
loader that it names; a library is opened by the Python of its tree, or mapped as by ``ld.so --list``. Nothing
is run. Files for musl are traced by glibc's rules, although musl searches otherwise (the search paths of all
loading files, then the system's).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from nixpatch import elf
from nixpatch.errors import RequestError
from nixpatch.installed.loader_defaults import read_loader_defaults
from nixpatch.installed.scan import archive_message, scan
from nixpatch.installed.tree_roots import tree_of_file
from nixpatch.model import ElfFacts, LoadConflict, LoaderDefaults, Skip, SkipReason, Target, Tree
from nixpatch.model.trace import SearchedPlace, SearchStep, Start, Trace, TracedNeed
from nixpatch.operations.plan import Reader
from nixpatch.operations.target import loader_beside_libc, target_of_output
from nixpatch.operations.target_libraries import target_libraries
from nixpatch.operations.trace_opened import opened_by_file, opened_by_tree
from nixpatch.policy import default_policy
from nixpatch.resolve.ld_so import LoaderConfig, simulate
from nixpatch.resolve.load_order import library_use, load_conflicts
from nixpatch.store.nix_store import DEFAULT_STORE_DIR

# Files without needs: a trace of one of these is empty, and no error.
_WITHOUT_NEEDS = frozenset(
    {SkipReason.STATIC, SkipReason.RELOCATABLE, SkipReason.CORE, SkipReason.DEBUG_FILE}
)


@dataclass(frozen=True, slots=True)
class TraceOptions:
    """The options of a trace, and the parts of the environment that affect it."""

    python: str | None = None
    path_env: str | None = None
    """value of PATH"""
    ld_library_path: str | None = None
    """value of LD_LIBRARY_PATH"""
    current_directory: str | None = None
    cache: str | None = None
    """the cache of a run; None caches nothing"""
    store_dir: str | None = None
    """the directory of the store: links of a tree that lead out of it are followed; None follows none"""


def trace_file(path: str, options: TraceOptions) -> Trace:
    """Trace the needs of one ELF file, and of the libraries that serve them.

    Raises:
        RequestError: it is no ELF file that a loader could map, or its Python cannot be used.

    """
    reader = Reader()
    file = os.path.realpath(path)
    try:
        facts = reader(file)
        if isinstance(facts, Skip) and facts.reason is SkipReason.PAYLOAD:
            facts = reader.known[file] = elf.read(file, payload_ok=True)
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from None
    if isinstance(facts, Skip):
        if facts.reason not in _WITHOUT_NEEDS:
            text = archive_message(path) or f"{path}: {facts.text}; name an ELF file or a tree"
            raise RequestError(text)
        no_process = Start(None, "no loader is needed", None, LoaderDefaults())
        return Trace(file, {}, (file,), no_process, (), skipped={file: facts})
    start = _start(file, facts, options, reader)
    loader_config = _loader_config(start, options, reader)
    process = simulate(
        start.program or file,
        loader_config,
        [file] if start.program is not None else [],
        whole=True,
    )
    links: list[TracedNeed] = []
    reached = {file: facts}
    needs: dict[str, dict[str, TracedNeed]] = {}
    tidy = lru_cache(maxsize=None)(_tidy)
    for need in process.needs:  # a need of both the Python and the file occurs twice
        needs.setdefault(tidy(need.by), {}).setdefault(need.need, need)
    queue = [file]
    for user in queue:
        for need in needs.get(user, {}).values():
            link = _link(need, facts, reader, tidy)
            links.append(link)
            if link.path is not None and link.path not in reached:
                library = reader.facts(link.path)
                if library is not None:
                    reached[link.path] = library
                    queue.append(link.path)
    opened = opened_by_file(file, facts, {link.need: link.path for link in links if link.by == file}, reader)
    searched = opened.search(start.program or file, loader_config)
    return Trace(
        file,
        reached,
        (file,),
        start,
        tuple(links),
        tuple(_link(need, facts, reader, tidy) for need in searched),
        conflicts=_conflicts(links, reached, start, reader),
    )


def trace_tree(path: str, options: TraceOptions) -> Trace:
    """Trace the needs of every ELF file of a tree.

    Each file is opened on its own; a need that is not found this way is looked up in the trace of a file that
    loads it.

    Raises:
        RequestError: there is no such tree, or no Python for it.

    """
    tree = scan(path, store_dir=options.store_dir)
    reader = Reader()
    target = target_of_output(
        tree, options.python, options.path_env, reader, options.store_dir or DEFAULT_STORE_DIR
    )
    start = _start_of(target, options)
    loader_config = _loader_config(start, options, reader)
    tidy = lru_cache(maxsize=None)(_tidy)
    files: dict[str, ElfFacts] = {}
    skipped: dict[str, Skip] = {}
    own: list[TracedNeed] = []
    transitive: dict[tuple[str, str], TracedNeed] = {}
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
        for need in simulate(first, loader_config, opened, whole=True).needs:
            if need.by == file.path:
                own.append(need)
            elif need.path is not None:
                transitive.setdefault((tidy(need.by), need.need), need)
    # A need that a file does not meet on its own may be met by the RPATH of a file that loads it.
    needs = (transitive.get((need.by, need.need), need) if need.path is None else need for need in own)
    links = [_link(need, files[tidy(need.by)], reader, tidy) for need in needs]
    links = [_loaded_before(link, files) if link.path is None else link for link in links]
    conflicts = _conflicts(links, files, start, reader)
    names = opened_by_tree(tree, files, target, reader, options.cache)
    python = reader.facts(target.python)
    searched = [
        _link(need, files.get(tidy(need.by)) or python, reader, tidy)
        for need in names.search(target.python, loader_config)
    ]
    return _only_part(
        Trace(tree.root, files, tuple(files), start, tuple(links), tuple(searched), tree, skipped, conflicts),
        tree,
    )


def _only_part(trace: Trace, tree: Tree) -> Trace:
    """Leave the files of the named part; what they need may be met by a file of the rest."""
    if tree.part is None:
        return trace
    files = {path: facts for path, facts in trace.files.items() if tree.has(path)}
    return replace(
        trace,
        files=files,
        asked=tuple(files),
        links=tuple(link for link in trace.links if tree.has(link.by)),
        opened=tuple(link for link in trace.opened if tree.has((link.opener or link.by).partition(":")[0])),
        skipped={path: skip for path, skip in trace.skipped.items() if tree.has(path)},
        conflicts=tuple(conflict for conflict in trace.conflicts if any(map(tree.has, conflict.files))),
    )


def _loaded_before(link: TracedNeed, files: Mapping[str, ElfFacts]) -> TracedNeed:
    """Meet a need by a library of the tree with this soname and another file name, loaded before by code."""
    for path, facts in files.items():
        if facts.soname == link.need and not facts.executable:
            return replace(link, path=path, places=(SearchedPlace(SearchStep.LOADED, path),))
    return link


def _conflicts(
    links: Iterable[TracedNeed], files: Mapping[str, ElfFacts], start: Start, reader: Reader
) -> tuple[LoadConflict, ...]:
    target, policy = start.target, default_policy()
    if target is None:
        return ()
    uses = [
        library_use(link.by, files[link.by], link.need, os.path.realpath(link.path))
        for link in links
        if link.path is not None and not files[link.by].executable and policy.libc_of(link.need) is None
    ]
    return tuple(
        load_conflicts(
            uses,
            lambda sonames: target_libraries(target, sonames, reader.facts),
            reader.version_defs,
            lambda path, soname: policy.ignored(path, soname) is not None,
        )
    )


def _start(file: str, facts: ElfFacts, options: TraceOptions, reader: Reader) -> Start:
    library_path = _library_path(options)
    interp = facts.current.interp
    if interp is not None and options.python is None:
        found_by = "its interpreter" + ("" if os.path.exists(interp) else ", which does not exist")
        return Start(None, found_by, interp, read_loader_defaults(interp), library_path)
    tree = tree_of_file(file)
    if tree is not None or options.python is not None:
        target = target_of_output(
            tree or scan(file),
            options.python,
            options.path_env,
            reader,
            options.store_dir or DEFAULT_STORE_DIR,
        )
        if target.machine == facts.machine:
            return _start_of(target, options)
        if options.python is not None:
            other = f"{target.python} for {target.machine.name}"
            raise RequestError(f"{file} is for {facts.machine.name}, {other}: omit --python")
    loader = loader_beside_libc(file, facts, reader)
    if loader is not None:
        return Start(None, "in the directory of its libc", loader, read_loader_defaults(loader), library_path)
    loader = facts.machine.arch.loader
    if loader is not None and os.path.exists(loader):
        return Start(
            None,
            f"the default loader for {facts.machine.name}",
            loader,
            read_loader_defaults(loader),
            library_path,
        )
    return Start(
        None, f"no loader for {facts.machine.name} on this machine", None, LoaderDefaults(), library_path
    )


def _start_of(target: Target, options: TraceOptions) -> Start:
    return Start(
        target.python,
        target.found_by,
        target.loader,
        read_loader_defaults(target.loader),
        _library_path(options),
        target,
    )


def _library_path(options: TraceOptions) -> tuple[str, ...]:
    """Split LD_LIBRARY_PATH at colons and semicolons; an empty entry is the current directory (ld.so(8))."""
    if not options.ld_library_path:
        return ()
    return tuple(entry or "." for entry in options.ld_library_path.replace(";", ":").split(":"))


def _loader_config(start: Start, options: TraceOptions, reader: Reader) -> LoaderConfig:
    known = start.known
    return LoaderConfig(
        read=reader.facts,
        identity=lru_cache(maxsize=None)(os.path.realpath),
        default_dirs=known.directories,
        ld_library_path=start.library_path,
        loader=start.loader,
        current_directory=options.current_directory,
        cache=known.cache,
        cached=lambda name: known.cached.get(name, ()),
        stop_at=reader.stop_at,
    )


def _link(need: TracedNeed, facts: ElfFacts | None, reader: Reader, tidy: Callable[[str], str]) -> TracedNeed:
    """Add to a need why each searched place does not serve it."""
    last = len(need.places) - 1
    sought = tuple(
        SearchedPlace(
            place.how,
            tidy(place.path) if place.path is not None and "/../" in place.path else place.path,
            tidy(place.of) if place.of.startswith("/") else place.of,
            place.entry,
            None if number == last and need.path is not None else _why_not(place.path, facts, reader),
        )
        for number, place in enumerate(need.places)
    )
    path = tidy(need.path) if need.path is not None else None
    return TracedNeed(tidy(need.by), need.need, path, sought, need.opener)


def _why_not(path: str | None, facts: ElfFacts | None, reader: Reader) -> str:
    """Return why a place does not serve."""
    if path is None:
        return "does not have it"
    stop = reader.stop_at(path, facts.machine) if facts is not None else None
    if stop is not None:
        return f"{stop.why}: ld.so ends {'the search' if stop.is_fatal else 'this search path'} there"
    if not os.path.exists(path):
        if not os.path.isdir(os.path.dirname(path)):
            return "no such directory"
        return "a dangling link" if os.path.islink(path) else "no such file"
    try:
        library = reader(path)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if isinstance(library, Skip):
        return library.reason.value
    return f"built for {library.machine.name}" + (f", not for {facts.machine.name}" if facts else "")


def _tidy(path: str) -> str:
    """Return a path without ``..`` whose file name stays as it was asked for, even if it is a link."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))
