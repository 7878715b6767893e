"""Make a plan: scan, read, resolve. Reads everything once, decides nothing itself, writes nothing."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from nixpatch import elf
from nixpatch.errors import MachineError, RequestError
from nixpatch.escape import is_machine_error
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.lender_sites import read_lender_sites
from nixpatch.installed.linked import sites_elsewhere
from nixpatch.installed.loader_defaults import defaults_file
from nixpatch.installed.python_layout import is_python_name
from nixpatch.installed.scan import scan
from nixpatch.installed.sys_path import module_directories
from nixpatch.installed.system_trees import is_system_directory, owned_by_system
from nixpatch.model import (
    ElfFacts,
    FilePlan,
    Finding,
    LenderSite,
    Machine,
    Origin,
    Plan,
    Provider,
    SearchStop,
    Skip,
    SkipReason,
    Target,
    TextPlan,
    Tree,
    TreeFile,
    TreeKind,
    VendoredPlan,
)
from nixpatch.operations.foreign_dists import dangling_dists, foreign_dists, linked_for_others
from nixpatch.operations.known_headers import KnownHeaders
from nixpatch.operations.opened_names import CodeReader
from nixpatch.operations.read_ahead import read_ahead, read_headers
from nixpatch.operations.request import PatchRequest
from nixpatch.operations.resolution_cache import plan_caches
from nixpatch.operations.resume import is_stale, stale_note, unrecorded, vouches
from nixpatch.operations.signatures import broken_signatures
from nixpatch.operations.skipped_programs import unable_to_start
from nixpatch.operations.starting_files import StartingFiles
from nixpatch.operations.target import cannot_start, target_of_output
from nixpatch.operations.target_libraries import target_libraries
from nixpatch.operations.text_plan import plan_scripts, plan_startup_files
from nixpatch.operations.text_update import mark_pending, original_programs
from nixpatch.policy import Policy
from nixpatch.resolve.context import ResolutionContext, SearchPathOptions
from nixpatch.resolve.file_plan import libc_findings, plan_file
from nixpatch.resolve.load_order import late_findings, load_conflicts, planned_uses
from nixpatch.resolve.opened_libraries import needs_by_caller
from nixpatch.resolve.optional_libraries import optional_libraries
from nixpatch.resolve.python_libraries import PythonLibraries, PythonResolver
from nixpatch.resolve.search_path import inside, names_path
from nixpatch.resolve.stopped_imports import mark_stopped
from nixpatch.store import lockfile, nixpkgs
from nixpatch.store.cache import Cache
from nixpatch.store.catalog import packaged
from nixpatch.store.index import ProviderIndex, open_index
from nixpatch.store.programs import find_loader, find_program
from nixpatch.store.sources import LibrarySources
from nixpatch.unvendor.apply import distrusted, unsettled
from nixpatch.version import __version__

_NO_SYSTEM = "name a venv or a package in it; nixpatch --system patches this nevertheless"


def make_plan(
    request: PatchRequest,
    say: Callable[[str], None] = lambda _: None,
    reading: Callable[[Iterable[TreeFile]], Iterable[TreeFile]] = iter,
    records: TreeRecords | None = None,
) -> Plan:
    """Decide what shall happen to every ELF file of a tree.

    Args:
        request: the tree, and what the plan depends on.
        say: called with a line of text before a slow step.
        reading: passes on the files whose headers are read.
        records: RECORDs and provenance; give the same to ``apply``.

    Raises:
        RequestError: a path, an option, the target or the lock is wrong.
        MachineError: there is no store, what is locked is gone or changed, or Nix failed.

    """
    reference = nixpkgs.parse_reference(request.nixpkgs) if request.nixpkgs is not None else None
    read = Reader()
    tree = scan_for(request, read.note)
    records = records or TreeRecords()
    code = CodeReader(tree, request.policy, Cache(request.cache, __version__), records)
    results = _read_files(request, tree, read, code, reading)
    foreign = tuple(disregard_foreign_records(tree, read, records))
    results.update((finding.path, read(finding.path)) for finding in foreign)
    facts = {path: result for path, result in results.items() if isinstance(result, ElfFacts)}
    target = target_for(request, tree, read)
    notes_by_soname: dict[str, str] = {}

    def decide(
        sources: LibrarySources,
    ) -> _Decision:
        read.forget_absent()  # nixpkgs may have brought something since
        with _index(request, target, read, sources, code.cache) as index:  # keeps what it learns of the store
            context = ResolutionContext(
                tree=tree,
                target=target,
                store_dir=request.store.directory,
                facts=facts,
                policy=request.policy,
                options=SearchPathOptions(request.tag, request.append),
                providers=index.providers,
                considered=lambda name: (*index.considered(name), *filter(None, [notes_by_soname.get(name)])),
                machine_of=read.machine,
                stop_at=read.stop_at,
                exists=read.exists,
                lender_sites=_lender_sites(tree, sources, index),
                read_facts=read.facts,
            )
            context, python = _with_opened(context, index, code)
            vendored: tuple[VendoredPlan, ...] = ()
            if request.unvendor:
                from nixpatch.unvendor.inputs import decide_unvendoring  # noqa: PLC0415 - hardly any run asks for it

                unvendoring = decide_unvendoring(context, request.unvendor, read.facts, records)
                context, vendored = unvendoring.context, unvendoring.plans
            files = tuple(
                _plan_one(request, context, file, results[file.path]) for file in context.tree.files
            )
            read.noted.update(index.looked_at, (site.path for site in context.lender_sites))
            return _Decision(context, files, vendored, python, index.target_closure)

    sources = sources_of(request, target)
    if reference is not None:
        first = decide(replace(sources, pure=True))
        unprovided = _unprovided(first.context, first.files)
        realised = nixpkgs.realise(request.store, reference, unprovided, target.machine, on_message=say)
        notes_by_soname.update(realised.notes)
        sources = replace(sources, nixpkgs=realised.paths)
    decision = decide(sources)
    context, vendored = decision.context, decision.vendored
    caches = plan_caches(
        tree, target, decision.files, records, request.store.directory if request.resolution_cache else None
    )
    files = _mark_stopped(request, tree, target, mark_unrecorded(tree, caches.files, records))
    texts, text_findings = _plan_texts(request, decision, records)
    findings = [
        *(Finding("note", tree.root, note) for note in (*tree.notes, tree.linked_note) if note),
        *foreign,
        *caches.findings,
    ]
    if request.project is not None:
        findings.append(Finding("note", request.project, "its [tool.nixpatch] adds rules"))
    findings += (
        *(finding for file in files for finding in libc_findings(context, file)),
        *late_findings(files),
    )
    conflicts = tuple(
        load_conflicts(
            planned_uses(files),
            lambda sonames: target_libraries(target, sonames, read.facts),
            read.version_defs,
            lambda path, soname: request.policy.ignored(path, soname) is not None,
        )
    )
    findings += (conflict.finding for conflict in conflicts)
    findings += (
        *cannot_start(tree, target),
        *dangling_dists(tree),
        *foreign_dists(
            tree,
            {path: file.machine for path, file in facts.items()},
            target,
            linked_for_others(facts, target),
        ),
    )
    findings += (*_obstacles(files), *_in_other_store_paths(tree, files))
    findings += (*_elsewhere(tree, request), *_signatures(files), *text_findings)
    _note_loaders(target, files, read)
    findings += unable_to_start(
        ((file.file.path, file.skip) for file in files if file.skip is not None),
        read.facts,
        lambda path, name: request.policy.ignored(path, name) is not None,
    )
    findings += _not_unvendored(request, tree, vendored)
    stale, of_provenance = _check_provenance(tree, records)
    findings += (*_not_locked(request, sources, tree, files), *of_provenance)
    return Plan(
        tree,
        target,
        request.store.directory,
        files,
        tuple(findings),
        tuple(_serving(context, files, texts)),
        vendored,
        tuple(dist.info for dist in tree.dists if unsettled(records.of(tree, dist.info))),
        stale=stale,
        texts=texts,
        opened_unmet=optional_libraries(tree, files, decision.python, request.policy),
        opened_computed=tuple(
            os.path.join(os.path.dirname(info), source)
            for info, libraries in decision.python.items()
            for source in libraries.computed
        ),
        conflicts=conflicts,
        asked_nixpkgs=request.nixpkgs is not None,
        read_paths=(read.paths | caches.read_paths) - results.keys(),
        # In the store nobody can restore an un-vendored library, and a copy would count in the closure.
        keeps_originals=not (request.in_nix_build or request.store.store_path_of(request.path, resolve=True)),
    ).only_part()


@dataclass(frozen=True, slots=True)
class _Decision:
    """The outcome of resolution."""

    context: ResolutionContext
    files: tuple[FilePlan, ...]
    vendored: tuple[VendoredPlan, ...]
    python: Mapping[str, PythonLibraries]
    """what Python code opens by name, by ``.dist-info``"""
    target_closure: frozenset[str]


def _mark_stopped(
    request: PatchRequest, tree: Tree, target: Target, files: tuple[FilePlan, ...]
) -> tuple[FilePlan, ...]:
    """Mark files with unmet needs that stop an import or a program; with ``strict``, all of them."""
    starting = StartingFiles(tree, target)
    return mark_stopped(
        files,
        lambda file: request.strict or starting(file.file, file.facts),
        functools.cache(os.path.realpath),
    )


def _plan_texts(
    request: PatchRequest, decision: _Decision, records: TreeRecords
) -> tuple[tuple[TextPlan, ...], tuple[Finding, ...]]:
    """Plan the start-up files and scripts of a tree."""
    tree, context = decision.context.tree, decision.context
    find = functools.cache(
        lambda name: find_program(
            request.store,
            name,
            given=(*request.libs, *request.closures),
            closure=decision.target_closure,
            pure=request.pure or request.locked is not None,
            is_foreign=lambda path: context.machine_of(path) not in {None, context.target.machine},
        )
    )
    programs: dict[str, str] = {}
    for dist in tree.dists:
        programs.update(original_programs(dist, records.of(tree, dist.info)))
    by_dist: dict[str, list[TextPlan]] = {}
    findings: list[Finding] = []
    python = decision.python if request.startup_files else {}
    policy = request.policy if request.startup_files else Policy()
    startup = plan_startup_files(tree, python, policy)
    for planned in (*startup, *plan_scripts(tree, context.target, context.store_dir, find, programs)):
        if isinstance(planned, Finding):
            findings.append(planned)
        else:
            by_dist.setdefault(planned.info, []).append(planned)
    texts = [
        text
        for info, planned_texts in sorted(by_dist.items())
        for text in mark_pending(planned_texts, records.of(tree, info))
    ]
    return tuple(texts), tuple(findings)


def _read_files(
    request: PatchRequest,
    tree: Tree,
    read: Reader,
    code: CodeReader,
    reading: Callable[[Iterable[TreeFile]], Iterable[TreeFile]],
) -> dict[str, ElfFacts | Skip]:
    """Read the headers of all files; of a large tree by several processes, together with the code."""
    headers = KnownHeaders(request.cache, tree.root, __version__)
    read.known.update(headers.of(file.path for file in tree.files))
    with read_ahead(tree, code, read.known, request.workers) as readings:
        for file in reading(tree.files):
            while file.path not in read.known and (part := next(readings, None)) is not None:
                read.known.update(part.facts)
                code.take(part.strings, part.names)
            read.in_tree(file.path)
        for part in readings:
            code.take(part.strings, part.names)
    results = {file.path: read.known[file.path] for file in tree.files}
    headers.keep(results)
    return results


def _with_opened(
    context: ResolutionContext, index: ProviderIndex, code: CodeReader
) -> tuple[ResolutionContext, dict[str, PythonLibraries]]:
    """Add the libraries that code opens by name; return what Python code opens by ``.dist-info``, too."""
    catalog = packaged()
    names = code.code_names(context.facts, context.target.machine)
    is_known = functools.cache(
        lambda name: bool(
            context.files_named(name)
            or context.lent_files((), name)
            or index.providers(name)
            or catalog.lookup(name) is not None
        )
    )
    resolver = PythonResolver(context, index.versions, index.beginning, is_known)
    python = {
        dist.info: resolver.resolve(dist, names.python[dist.info])
        for dist in context.tree.dists
        if dist.info in names.python
    }
    cffi = tuple(dict.fromkeys(need for libraries in python.values() for need in libraries.cffi))
    opened = needs_by_caller(context, names.native, is_known, cffi)
    return replace(context, opened=opened), python


def scan_for(request: PatchRequest, note: Callable[[str], None] = lambda _: None) -> Tree:
    """Read the tree that a request names; ``note`` is called with where a mark of the system was looked for.

    Raises:
        RequestError: there is no such tree, or it is the system's and ``system`` was not said.
        MachineError: a disk fails, or the run may open no more files.

    """
    refuse_system_directory(request)
    tree = scan(request.path, store_dir=request.store.directory, follow=request.follow_links)
    owned = None if request.system else owned_by_system(tree, note)
    if tree.part is not None and request.unvendor:
        raise RequestError(
            f"--unvendor: a part of {tree.root}: its other files may need what goes; name this"
        )
    if owned is not None:
        raise RequestError(f"{request.path}: {owned}: {_NO_SYSTEM}")
    return tree


def refuse_system_directory(request: PatchRequest) -> None:
    """Refuse a top-level directory of the system before anything of it is locked or read.

    Raises:
        RequestError: it is one, and ``system`` was not said.

    """
    if not request.system and is_system_directory(request.path, request.home):
        raise RequestError(f"{request.path}: a directory of the system, or a home directory: {_NO_SYSTEM}")


def check_request(request: PatchRequest) -> None:
    """Look at what a request names without resolving anything: the tree, the target, the lockfile.

    Raises:
        RequestError: as :func:`make_plan` does.
        MachineError: as :func:`make_plan` does.

    """
    tree = scan_for(request)
    sources_of(request, target_for(request, tree, Reader()))


def target_for(request: PatchRequest, tree: Tree, read: Reader) -> Target:
    """Return the target of a tree for a request, as ``target_of_output`` does."""
    return target_of_output(
        tree,
        request.python,
        request.path_env,
        read,
        request.store.directory,
        request.loader,
        functools.partial(_loader_for, request),
        read.note,
    )


def _loader_for(request: PatchRequest, name: str) -> str | None:
    """Return the loader for a Python that cannot start: that of the stdenv or the lockfile comes first."""
    locked = lockfile.read(request.locked, request.store).loader if request.locked is not None else None
    for loader in (request.loader, locked):
        if loader is not None and os.path.basename(loader) == name:
            return loader
    given = (*request.libs, *request.closures)
    return find_loader(request.store.directory, name, given, pure=request.pure or locked is not None)


def sources_of(request: PatchRequest, target: Target) -> LibrarySources:
    """Return where libraries come from, the lock read and held against target and store.

    Raises:
        RequestError: the lock is none, or is for another target; or an option goes round it.
        MachineError: what is locked is gone or changed.

    """
    lender_sites = {given: read_lender_sites((given,)) for given in request.libs}
    if request.locked is None:
        return LibrarySources(request.libs, request.closures, lender_sites, request.pure)
    if request.closures or request.nixpkgs is not None:
        other = "--closure" if request.closures else "--nixpkgs"
        raise RequestError(
            f"{other}: with --locked the store serves what the lock has, no more; leave one out"
        )
    contents = lockfile.read(request.locked, request.store)
    lockfile.check_target(contents, request.locked, target)
    lockfile.check_libraries(contents, request.locked)
    return LibrarySources(request.libs, lender_sites=lender_sites, pure=True, lockfile=contents)


def _lender_sites(tree: Tree, sources: LibrarySources, index: ProviderIndex) -> tuple[LenderSite, ...]:
    """Return the sites of all ``--lib`` and ``--closure``, each once; those in the tree are its own."""
    sites = [site for given in sources.libs for site in sources.lender_sites.get(given, ())]
    sites += read_lender_sites(index.closure_paths)
    return tuple({site.path: site for site in sites if not inside(site.path, tree.prefix)}.values())


def _unprovided(context: ResolutionContext, files: tuple[FilePlan, ...]) -> set[str]:
    """Return the sonames for which to ask nixpkgs: missing, or of the system and borrowed from a stranger."""
    return {
        answer.need
        for file in files
        for answer in file.answers
        if not names_path(answer.need)
        and (
            answer.origin is Origin.MISSING
            or (answer.origin is Origin.OTHER_DIST and context.policy.is_system(answer.need))
        )
    }


def _serving(
    context: ResolutionContext, files: tuple[FilePlan, ...], texts: tuple[TextPlan, ...]
) -> Iterator[Provider]:
    """Yield the providers that were chosen for the tree, sorted by name."""
    needs = {answer.need for file in files for answer in file.answers if answer.origin is Origin.STORE}
    opened = {path for text in texts for _, path in text.answers if path.startswith("/")}
    for need in sorted(needs | set(map(os.path.basename, opened))):
        provider = context.choice(need).provider
        if provider is not None and (
            need in needs or f"{provider.directory}/{provider.name}" in opened  # a driver is another file
        ):
            yield provider


def _note_loaders(target: Target, files: Iterable[FilePlan], read: Reader) -> None:
    """Note the loaders that a plan depends on, the files that say where they search, and Python's modules."""
    python = read.facts(target.python)
    facts = [*(file.facts for file in files if file.facts is not None), *((python,) if python else ())]
    for loader in {target.loader, *(file.current.interp for file in facts if file.current.interp)}:
        read.noted.update((loader, defaults_file(loader)))
    read.noted.update(module_directories(target))


def _not_unvendored(
    request: PatchRequest, tree: Tree, vendored: tuple[VendoredPlan, ...]
) -> Iterator[Finding]:
    if request.unvendor and not vendored:
        asked = "" if request.unvendor == ("*",) else f" that {' or '.join(request.unvendor)} matches"
        yield Finding("note", tree.root, f"--unvendor: there is no grafted library{asked}")


def _not_locked(
    request: PatchRequest, sources: LibrarySources, tree: Tree, files: tuple[FilePlan, ...]
) -> Iterator[Finding]:
    """Report what the tree needs and the lock does not have: it was made for other wheels."""
    if sources.lockfile is None:
        return
    needs = {answer.need for file in files for answer in file.blocking if not names_path(answer.need)}
    for need in sorted(needs - set(sources.lockfile.libraries)):
        yield Finding("error", tree.root, f"{need} is not in {request.locked}: run nixpatch lock again")


def _plan_one(
    request: PatchRequest, context: ResolutionContext, file: TreeFile, read: ElfFacts | Skip
) -> FilePlan:
    if isinstance(read, Skip):
        return FilePlan(file, None, read)
    if request.owned_only and not file.owners:
        return FilePlan(file, read, Skip(SkipReason.UNOWNED))
    if _is_base_python(context.tree, file, read):
        return FilePlan(file, read, Skip(SkipReason.BASE_PYTHON))
    return plan_file(context, file)


def _is_base_python(tree: Tree, file: TreeFile, facts: ElfFacts) -> bool:
    """Whether a file is a venv's copy of its base Python (``venv --copies``), and that can start here.

    Its search path may lead to the libpython of the base, which is outside the tree.
    """
    return (
        tree.kind is TreeKind.VENV
        and not file.owners
        and facts.original_sha256 is None
        and os.path.dirname(file.path) == os.path.join(tree.prefix, "bin")
        and is_python_name(os.path.basename(file.path))
        and facts.current.interp is not None
        and os.path.isfile(facts.current.interp)
    )


def _in_other_store_paths(tree: Tree, files: tuple[FilePlan, ...]) -> Iterator[Finding]:
    """Say that files of packages that a tree links to are not written, and where they can be."""
    linked = {tree.prefix_of(file.file.path) for file in files if file.edit is not None} - {tree.prefix}
    for prefix in sorted(linked):
        text = "only linked into the tree, and patch does not write there: add nixpatchHook to its derivation"
        yield Finding("note", prefix, text)


def _elsewhere(tree: Tree, request: PatchRequest) -> Iterator[Finding]:
    """Report site-packages that are links out of the tree: nothing is written there, so nothing loads."""
    for site in sites_elsewhere(tree.prefix, request.store.directory):
        python = request.python or os.path.join(tree.prefix, "bin", "python")
        if not make_plan(replace(request, path=site, python=python, follow_links=False)).pending:
            continue
        text = f"site-packages is a link to it, out of {tree.root}, where nothing is written: run nixpatch"
        yield Finding("error", site, f"{text} {site} --python {python}")


def _obstacles(files: tuple[FilePlan, ...]) -> Iterator[Finding]:
    """Say before anything is written where the layout of a file leaves only the other writer."""
    for file in files:
        if file.edit is not None and file.facts is not None and file.facts.obstacle is not None:
            text = f"not edited in place, left to LIEF: {file.facts.obstacle}"
            yield Finding("note", file.file.path, text)


def disregard_foreign_records(tree: Tree, read: Reader, records: TreeRecords) -> Iterator[Finding]:
    """Make the facts of files with an undo record that nothing vouches for those of any other file.

    Yields:
        a note for each of them.

    """
    for file in tree.files:
        facts = read.known.get(file.path)
        if not isinstance(facts, ElfFacts) or facts.original_sha256 is None:
            continue
        owners = [records.of(tree, info) for info in file.owners or ("",)]
        if not any(vouches(owner, file.path, facts.original_sha256) for owner in owners):
            read.known[file.path] = elf.read(file.path, foreign=True)
            text = "was installed with an undo record, which is ignored: the original is the file as it is"
            yield Finding("note", file.path, text)


def stale_provenance(tree: Tree, records: TreeRecords) -> tuple[str, ...]:
    """Return the ``info`` of the dists of a tree whose provenance is stale, "" for the files of no dist."""
    infos = (*(dist.info for dist in tree.dists if inside(dist.info, tree.prefix)), "")
    return tuple(info for info in infos if is_stale(records.of(tree, info)))


def _check_provenance(tree: Tree, records: TreeRecords) -> tuple[tuple[str, ...], list[Finding]]:
    """Return what :func:`stale_provenance` does, and findings for what is not believed."""
    stale = stale_provenance(tree, records)
    findings = [finding for dist in tree.dists for finding in distrusted(records.of(tree, dist.info))]
    return stale, findings + [stale_note(records.of(tree, info)) for info in stale]


def mark_unrecorded(tree: Tree, files: tuple[FilePlan, ...], records: TreeRecords) -> tuple[FilePlan, ...]:
    """Mark patched files that are not recorded yet."""
    unchanged: dict[str, list[FilePlan]] = {}
    for file in files:
        if file.edit is None and file.facts is not None and file.after is not None:
            for info in file.file.owners or ("",):
                unchanged.setdefault(info, []).append(file)
    unrecorded_paths: set[str] = set()
    for info, info_files in unchanged.items():
        unrecorded_paths |= unrecorded(records.of(tree, info), info_files)
    return tuple(
        replace(file, unrecorded=True) if file.file.path in unrecorded_paths else file for file in files
    )


def _index(
    request: PatchRequest, target: Target, read: Reader, sources: LibrarySources, cache: Cache
) -> ProviderIndex:
    """Open the index over every source.

    Raises:
        MachineError: there is neither a store nor anything given instead of it.

    """
    if not request.store.exists and not request.libs and not request.closures:
        raise MachineError(
            f"{request.store.directory}: there is no Nix store on this machine: "
            "install Nix, name a store with --store, or name libraries with --lib DIR"
        )
    return open_index(request.store, target, read, sources, cache=cache)


def _signatures(files: Iterable[FilePlan]) -> Iterator[Finding]:
    """Say which files have a signature that an edit breaks."""
    for file in files:
        if file.edit is not None:
            yield from (Finding("note", file.file.path, text) for text in broken_signatures(file.file.path))


@dataclass(slots=True)
class Reader:
    """Reads each ELF file's headers once; the answers are values."""

    known: dict[str, ElfFacts | Skip] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    """where there was nothing: the files of a directory look for the same needs in the same places"""
    looked_at: dict[str, bool] = field(default_factory=dict)
    """whether there is a file"""
    noted: set[str] = field(default_factory=set)
    """where others looked, and what could not be read"""
    stops: dict[tuple[str, Machine], SearchStop | None] = field(default_factory=dict)

    def __call__(self, path: str) -> ElfFacts | Skip:
        """Read the headers of a file, whose last name may be a link."""
        result = self.known.get(path)
        if result is None:
            self.noted.add(path)
            result = self.known[path] = read_headers(path)
        return result

    def note(self, path: str) -> None:
        """Keep in mind that the plan depends on the state of a file or directory, or on its absence."""
        self.noted.add(path)

    def in_tree(self, path: str) -> ElfFacts | Skip:
        """Read the headers of a file that a scan found; one that went since is no reason to stop.

        Raises:
            MachineError: the disk fails, or the run may open no more files.

        """
        try:
            return self(path)
        except OSError as error:
            if is_machine_error(error):
                raise MachineError(f"{path}: {error.strerror}: mend this and run nixpatch again") from error
            self.known[path] = gone = Skip(SkipReason.NOT_ELF, f"changed during the run: {error.strerror}")
            return gone

    def facts(self, path: str) -> ElfFacts | None:
        """Return what the ELF file at a path says, None where there is none that ld.so would take."""
        if path not in self.known:
            if path in self.absent:
                return None
            try:
                os.stat(path)
            except (FileNotFoundError, ValueError):
                self.absent.add(path)
                return None
            except OSError:
                self.note(path)
                return None
        try:
            result = self(path)
        except OSError:
            return None
        return result if isinstance(result, ElfFacts) else None

    def exists(self, path: str) -> bool:
        """Return whether there is a file at a path."""
        if path not in self.looked_at:
            self.looked_at[path] = os.path.exists(path)
        return self.looked_at[path]

    @property
    def paths(self) -> frozenset[str]:
        """Where anything was read, or looked for."""
        return frozenset(self.known.keys() | self.absent | self.looked_at.keys() | self.noted)

    def forget_absent(self) -> None:
        """Look again for files that were not there."""
        self.absent.clear()
        self.stops.clear()

    def stop_at(self, path: str, machine: Machine) -> SearchStop | None:
        """Return why ld.so ends a search at a path for files of a machine; None if it opens it or goes on."""
        facts = self.facts(path)
        if path in self.absent or (facts is not None and facts.machine == machine and not facts.executable):
            return None
        key = (path, machine)
        if key not in self.stops:
            self.stops[key] = elf.search_stop(path, machine)
        return self.stops[key]

    def version_defs(self, path: str) -> frozenset[str]:
        """Return the symbol versions that the library at a path defines, none where there is none."""
        facts = self.facts(path)
        return frozenset(facts.version_defs) if facts is not None else frozenset()

    def machine(self, path: str) -> Machine | None:
        """Return the machine of the ELF file at a path, None where there is none."""
        facts = self.facts(path)
        if facts is not None:
            return facts.machine
        known = self.known.get(path)
        if isinstance(known, Skip) and known.reason is SkipReason.PAYLOAD:  # nothing to ld.so
            with contextlib.suppress(OSError):
                return elf.machine_of_library(os.path.realpath(path))
        return None
