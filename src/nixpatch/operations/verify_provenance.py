"""Check a patched tree against its provenance: files, linkage, needs, store paths and RECORD rows.

Needs are looked up by the rules of ld.so(8), without running anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from nixpatch.installed.dist_records import DistRecords, TreeRecords
from nixpatch.installed.provenance import PatchedFile, ProvenanceError
from nixpatch.model import ElfFacts, Finding, Skip, Tag, Target, Tree, Verdict
from nixpatch.operations.plan import Reader
from nixpatch.operations.resume import is_stale, stale_note
from nixpatch.operations.verify_record import PatchedDigests, check_digest, check_rows
from nixpatch.operations.verify_texts import check_texts, patched_texts
from nixpatch.policy import Policy, default_policy
from nixpatch.resolve.ld_so import LocatedFile, locate
from nixpatch.unvendor.apply import distrusted

_GONE = "is gone"
_RULED = "may be missing by a rule of the run that patched it (--ignore-missing, --policy)"


def check_provenance(
    tree: Tree,
    target: Target,
    reader: Reader,
    *,
    rows: bool = True,
    workers: int = 0,
    records: TreeRecords | None = None,
    accept_modified: bool = False,
    policy: Policy | None = None,
) -> Verdict:
    """Check every patched file of a tree and, with ``rows``, every RECORD row of every dist."""
    findings: list[Finding] = []
    records = records or TreeRecords()
    policy = policy or default_policy()
    patched = patched_files(tree, records, findings)
    needs = 0
    libraries: set[str] = set()
    for path, (dist, entry) in sorted(patched.items(), key=lambda item: item[0]):
        facts = _facts(reader, path)
        if isinstance(facts, str):
            findings.append(Finding("error", path, f"was patched and {facts}: install the dist again"))
            continue
        findings += _check_linkage(path, facts, entry)
        libraries.update([entry.interp] if entry.interp else [])
        for need in dict.fromkeys((*facts.needed, *entry.needs)):  # provenance has dlopen names, too
            needs += 1
            findings += _check_need(path, need, facts, dist, entry, target, reader, policy)
            if entry.needs.get(need, "").startswith("/"):
                libraries.add(entry.needs[need])
    findings += _ignored_by_rule(tree, records, policy)
    texts = patched_texts(tree, records)
    libraries.update(use for _, entry in texts.values() for use in entry.uses)
    row_count = 0
    if rows:
        digests = {
            path: PatchedDigests(entry.patched, entry.original) for path, (_, entry) in patched.items()
        }
        digests.update(
            {path: PatchedDigests(entry.sha256, entry.original) for path, (_, entry) in texts.items()}
        )
        compared: set[str] = set()
        for checked in check_rows(tree, records, digests, workers, accept_modified=accept_modified):
            row_count += checked.rows
            findings += checked.findings
            compared |= checked.compared
        for path in sorted(patched.keys() - compared):
            findings += check_digest(path, digests[path])
        for path, unlisted in _unlisted(tree, records, reader).items():
            if path not in patched:
                findings += check_digest(path, unlisted)
    findings += check_texts(texts, {finding.path for finding in findings if finding.severity == "error"})
    return Verdict(
        tree,
        target,
        len(patched),
        needs,
        len(texts),
        row_count,
        tuple(sorted(libraries)),
        findings=tuple(findings),
    )


def _ignored_by_rule(tree: Tree, records: TreeRecords, policy: Policy) -> Iterator[Finding]:
    """Report what files that were not patched may miss by nothing but provenance: a wheel may bring it."""
    for dist in records.of_all(tree):
        for path, needs in sorted(dist.ignored().items()):
            for need in needs:
                if tree.has(path) and policy.ignored(path, need) is None:
                    yield Finding("note", path, f"needs {need}, which {_RULED}")


def _unlisted(tree: Tree, records: TreeRecords, reader: Reader) -> dict[str, PatchedDigests]:
    """Return the patched files that RECORD does not list, so that no dist claims them, by path.

    Provenance that is about such a file is stale. But its undo record shows that nixpatch wrote it, so where
    the digest differs, something else changed it later.
    """
    unclaimed = {file.path for file in tree.files if not file.owners}
    digests: dict[str, PatchedDigests] = {}
    for dist in tree.dists if unclaimed else ():
        dist_records = records.of(tree, dist.info)
        known = dist_records.usable_provenance()
        for key, entry in known.files.items() if known is not None else ():
            path = dist_records.locator.locate(key)
            facts = reader.facts(path) if path in unclaimed else None
            if path is not None and facts is not None and (facts.stale_undo or facts.original_sha256):
                digests[path] = PatchedDigests(entry.patched, entry.original)
    return digests


def with_findings(verdict: Verdict, findings: Sequence[Finding], *, loaded: int | None = None) -> Verdict:
    """Add the findings of another check, and the number of files that the loader opened."""
    loaded = verdict.loaded if loaded is None else loaded
    return replace(verdict, loaded=loaded, findings=(*verdict.findings, *findings))


def facts_of_tree(tree: Tree, target: Target, reader: Reader) -> dict[str, ElfFacts]:
    """Return the facts of the tree's ELF files for the target's machine, by path."""
    every = {file.path: reader.facts(file.path) for file in tree.files}
    return {path: facts for path, facts in every.items() if facts and facts.machine == target.machine}


def libraries_by_search_path(path: str, facts: ElfFacts, reader: Reader) -> dict[str, str]:
    """Return the real path of the library for each need that the file's own search path meets."""
    libraries = {need: by_search_path(need, path, facts, reader) for need in facts.needed}
    return {need: os.path.realpath(library) for need, library in libraries.items() if library is not None}


def by_search_path(need: str, path: str, facts: ElfFacts, reader: Reader) -> str | None:
    """Return the library that the search path of the file at ``path`` yields for a need."""
    library = _located(need, path, facts, reader)
    return library.path if library is not None and library.stop is None else None


def stop_by_search_path(need: str, path: str, facts: ElfFacts, reader: Reader) -> str | None:
    """Return the path at which ld.so ends its search for a need of the file at ``path``; None: nowhere."""
    library = _located(need, path, facts, reader)
    return library.path if library is not None and library.stop is not None else None


def _located(need: str, path: str, facts: ElfFacts, reader: Reader) -> LocatedFile | None:
    return locate(
        need,
        search_path=facts.current.search_path,
        directory=os.path.dirname(path),
        machine=facts.machine,
        machine_of=reader.machine,
        stop_at=reader.stop_at,
    )


def may_be_missing(
    tree: Tree, records: TreeRecords, policy: Policy | None = None
) -> Callable[[str, str], bool]:
    """Return ``ignored(path, soname)``: whether the policy or the provenance lets a file miss a soname."""
    policy = policy or default_policy()
    recorded = {
        (path, need)
        for path, (_, entry) in patched_files(tree, records, []).items()
        for need, origin in entry.needs.items()
        if origin in {"ignored", "driver"}
    }
    recorded.update(
        (path, need)
        for dist in records.of_all(tree)
        for path, needs in dist.ignored().items()
        for need in needs
    )
    return lambda path, need: (
        (path, need) in recorded
        or (bool(tree.linked) and (os.path.realpath(path), need) in recorded)
        or policy.ignored(path, need) is not None
    )


def patched_files(
    tree: Tree, records: TreeRecords, findings: list[Finding]
) -> dict[str, tuple[DistRecords, PatchedFile]]:
    """Read the provenance of every dist, and of the files of no dist; errors go to ``findings``."""
    patched: dict[str, tuple[DistRecords, PatchedFile]] = {}
    for dist in records.of_all(tree):
        findings += distrusted(dist)
        try:
            entries = dist.patched()
        except ProvenanceError as error:
            text = f"cannot be used: {error}; run nixpatch again"
            findings.append(Finding("error", dist.provenance_path, text))
            continue
        if is_stale(dist):
            findings.append(stale_note(dist))
        patched.update((path, (dist, entry)) for path, entry in entries.items())
    return patched


def _facts(reader: Reader, path: str) -> ElfFacts | str:
    """Return the facts of a file, or why there are none."""
    try:
        facts = reader(path)
    except FileNotFoundError:
        return _GONE
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return f"is no longer readable as ELF ({facts.reason.value})" if isinstance(facts, Skip) else facts


def _check_linkage(path: str, facts: ElfFacts, entry: PatchedFile) -> Iterator[Finding]:
    current = facts.current
    if facts.stale_undo:
        text = "was changed by another tool after nixpatch (strip, patchelf): it cannot be restored any more"
        yield Finding("note", path, text)
    if (current.search_path, current.tag) != (entry.search_path, entry.tag):
        text = f"search path is {current.search_path!r}, provenance has {entry.search_path!r}"
        if current.search_path == entry.search_path:
            text = f"search path is a {_tag(current.tag)}, provenance has a {_tag(entry.tag)}"
        yield Finding("error", path, f"{text}: run nixpatch again")
    if dict(current.renamed) != dict(entry.renamed) and not facts.stale_undo:
        text = f"renamed needs are {dict(current.renamed)}, provenance has {dict(entry.renamed)}"
        yield Finding("error", path, f"{text}: run nixpatch again")
    if current.resolution_cache != entry.linkage.resolution_cache:
        yield Finding("error", path, "its resolution cache is not that of provenance: run nixpatch again")
    if current.interp != entry.interp:
        text = f"interpreter is {current.interp!r}, provenance has {entry.interp!r}"
        yield Finding("error", path, f"{text}: run nixpatch again")
    if current.interp is not None and not os.path.exists(current.interp):
        yield Finding("error", path, f"its interpreter {current.interp} {_GONE}: run nixpatch again")


def _tag(tag: Tag | None) -> str:
    return tag.value if tag is not None else "search path of no kind"


def _check_need(
    path: str,
    need: str,
    facts: ElfFacts,
    records: DistRecords,
    entry: PatchedFile,
    target: Target,
    reader: Reader,
    policy: Policy,
) -> Iterator[Finding]:
    planned = entry.needs.get(need)
    if planned is None:
        yield Finding("error", path, f"needs {need}, which provenance does not have: run nixpatch again")
        return
    if planned == "missing":
        return  # verify_transitive reports it unless ld.so finds it
    if planned in {"driver", "ignored"}:
        # Provenance may come with a wheel: what nothing else says is reported.
        is_ruled = policy.is_driver(need) if planned == "driver" else need not in facts.needed
        if not is_ruled and policy.ignored(path, need) is None:
            yield Finding("note", path, f"needs {need}, which {_RULED}")
        return
    library = locate(
        need,
        search_path=facts.current.search_path,
        directory=os.path.dirname(path),
        machine=facts.machine,
        machine_of=reader.machine,
        default_dirs=() if facts.no_default_lib else (target.libc_dir,),
        stop_at=reader.stop_at,
    )
    if library is not None and library.stop is not None:
        text = f"needs {need}, but ld.so ends its search at {library.path}, which {library.stop.why}"
        yield Finding("error", path, f"{text}: remove it, or install its dist again")
        return
    opened = os.path.normpath(library.path) if library else None
    if planned == "libc":
        expected = os.path.join(target.libc_dir, need)
    elif planned.startswith("site:"):
        expected = os.path.normpath(os.path.join(records.base, planned.removeprefix("site:")))
    else:
        expected = planned
    if opened == expected:
        return
    serving = reader.facts(expected) if opened is None else None
    if serving is not None and serving.soname == need:
        # ld.so takes a library that is loaded already under the soname: the file itself, or one before it.
        if expected != path:
            yield Finding(
                "note", path, f"finds {need} only once {expected}, which has this soname, is loaded"
            )
        return
    if not os.path.exists(expected):
        text = f"needs {need} from {expected}, which {_GONE} (garbage collected?)"
    else:
        text = f"needs {need} from {expected}, but ld.so would open {opened or 'nothing'}"
    yield Finding("error", path, f"{text}: run nixpatch again")
