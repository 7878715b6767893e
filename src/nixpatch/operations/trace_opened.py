"""Which libraries the code of a file or a tree opens by name, and where each is searched.

The names are read from ELF files and sources, so an unpatched tree has them, too. A patched tree adds what
its provenance has, and the answers of its start-up files. Nothing is run.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from nixpatch.elf.dlopen_strings import DLOPEN, dlopen_strings
from nixpatch.errors import FileRefused
from nixpatch.fs import read_regular
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.startup_file import startup_name, startup_tables
from nixpatch.model import Dist, ElfFacts, OpenedName, OpenedNeed, Opener, Target, Tree
from nixpatch.model.trace import SearchedPlace, SearchStep, TracedNeed
from nixpatch.operations.opened_names import CodeReader
from nixpatch.operations.plan import Reader
from nixpatch.operations.text_plan import MAX_SCRIPT
from nixpatch.operations.verify_provenance import by_search_path, patched_files
from nixpatch.policy import default_policy
from nixpatch.resolve.context import ResolutionContext, SearchPathOptions
from nixpatch.resolve.ld_so import LoaderConfig, search_opened
from nixpatch.resolve.opened_libraries import OpeningFile, needs_by_caller, opened_libraries
from nixpatch.store.cache import Cache
from nixpatch.store.catalog import packaged
from nixpatch.version import __version__


@dataclass(frozen=True, slots=True)
class OpenedByCode:
    """What code opens by name, by the way in which it is searched."""

    by_caller: Mapping[str, Sequence[tuple[Sequence[str], str]]] = field(default_factory=dict)
    """path of the file that calls dlopen -> alternatives, and the code that opens them"""
    by_python: Sequence[tuple[Sequence[str], str]] = ()
    """the same, for names that ctypes opens: no file of the tree calls dlopen for it"""
    answered: Sequence[TracedNeed] = ()
    """names that a start-up file answers"""

    def search(self, program: str, config: LoaderConfig) -> Iterator[TracedNeed]:
        """Yield where ld.so finds each library in a process of ``program``."""
        yield from self.answered
        for caller, needs in (*sorted(self.by_caller.items()), (program, self.by_python)):
            yield from search_opened(program, config, caller, needs) if needs else ()


def opened_by_file(
    path: str, facts: ElfFacts, libraries: Mapping[str, str | None], reader: Reader
) -> OpenedByCode:
    """Return what one ELF file opens; ``libraries`` are the files that serve its needs, by need."""
    policy, catalog = default_policy(), packaged()

    def is_known(name: str) -> bool:
        return catalog.lookup(name) is not None or by_search_path(name, path, facts, reader) is not None

    symbols = (*DLOPEN, *(symbol for opener in policy.dlopen.openers for symbol in opener.symbols))
    try:
        strings = dlopen_strings(path, symbols)
    except (FileRefused, OSError):
        strings = None
    if strings is None:
        return OpenedByCode()
    beside = frozenset(os.listdir(os.path.dirname(path)))
    opening = OpeningFile(path, facts.soname, facts.needed, strings, beside)
    by_caller: dict[str, list[tuple[Sequence[str], str]]] = {}
    for library in opened_libraries(opening, policy, is_known)[0]:
        for caller in library.callers:
            file = libraries.get(caller) if caller else path
            if file is not None:
                by_caller.setdefault(file, []).append((library.sonames, path))
    return OpenedByCode(by_caller)


def opened_by_tree(
    tree: Tree, facts: Mapping[str, ElfFacts], target: Target, reader: Reader, cache_path: str | None
) -> OpenedByCode:
    """Return what the files and sources of a tree open; ``cache_path`` is the cache of a run, if any."""
    records, catalog, cache = TreeRecords(), packaged(), Cache(cache_path, __version__)
    names = CodeReader(tree, default_policy(), cache, records).code_names(facts, target.machine)
    cache.save()
    context = ResolutionContext(
        tree=tree,
        target=target,
        store_dir="",
        facts=facts,
        policy=default_policy(),
        options=SearchPathOptions(),
        providers=lambda _: (),
        considered=lambda _: (),
        machine_of=reader.machine,
        stop_at=reader.stop_at,
        exists=os.path.exists,
    )
    recorded = {
        path: [need for need in entry.needs if path in facts and need not in facts[path].needed]
        for path, (_, entry) in patched_files(tree, records, []).items()
    }
    known = {need for needs in recorded.values() for need in needs}
    answered: list[TracedNeed] = []
    by_python: list[tuple[Sequence[str], str]] = []
    cffi: list[OpenedNeed] = []
    for dist in tree.dists:
        table = _answers(dist)
        for name in names.python.get(dist.info, ()):
            if "*" in name.name or not _is_library(name):
                continue
            place = os.path.join(dist.site, f"{name.path}:{name.line}")
            spellings = _spellings(name, known)
            is_file = ".so" in name.name or name.name in table or spellings[0] in known
            if not is_file and not catalog.has_library(_stem(name.name)):
                continue  # code asks for names of other systems, too: find_library("magic1")
            if name.opener is Opener.CFFI:
                cffi.append(OpenedNeed(spellings, place))
            elif name.name in table:
                answered.append(_answered(dist, name.name, table[name.name], place))
            elif name.traced:
                by_python.append((spellings, place))
    opened = needs_by_caller(
        context,
        names.native,
        lambda name: bool(context.files_named(name)) or name in known or catalog.lookup(name) is not None,
        cffi,
    )
    by_caller = {path: [(need.sonames, need.opener) for need in needs] for path, needs in opened.items()}
    for path, needs in recorded.items():
        read = {name for sonames, _ in by_caller.get(path, ()) for name in sonames}
        by_caller.setdefault(path, []).extend(((need,), path) for need in needs if need not in read)
    return OpenedByCode(by_caller, by_python, answered)


def _answers(dist: Dist) -> dict[str, str]:
    """Return what the start-up file of a dist answers: absolute paths, and sonames, by name."""
    try:
        data = read_regular(os.path.join(dist.site, startup_name(dist.name)), MAX_SCRIPT)
    except OSError:
        return {}
    libraries, answers = startup_tables(data)
    return {
        name: os.path.normpath(os.path.join(dist.site, path)) if "/" in path else path
        for name, path in {**answers, **libraries}.items()
    }


def _answered(dist: Dist, name: str, library: str, opener: str) -> TracedNeed:
    file = os.path.join(dist.site, startup_name(dist.name))
    is_there = "/" not in library or os.path.exists(library)
    place = SearchedPlace(SearchStep.STARTUP, library, file, name, None if is_there else "no such file")
    need = name if ".so" in name else os.path.basename(library)
    return TracedNeed(file, need, library if is_there else None, (place,), opener)


def _is_library(name: OpenedName) -> bool:
    """Whether a name may be a library that a process does not have anyway."""
    return not any(default_policy().libc_of(f"{_stem(name.name)}.so.{n}") for n in "6210")


def _spellings(name: OpenedName, known: Iterable[str]) -> tuple[str, ...]:
    """Return the file names that a name may mean: those that provenance has first."""
    if ".so" in name.name:
        return (name.name,)
    stem = _stem(name.name)
    return (*sorted(need for need in known if _stem(need) == stem), f"{stem}.so")


def _stem(name: str) -> str:
    name = os.path.basename(name)
    return name.partition(".so")[0] if ".so" in name or name.startswith("lib") else f"lib{name}"
