"""Hold a tree against what its provenance says: files, linkage, needs, store paths, RECORD rows.

Needs are looked up by ld.so's rules without running anything; ``loading`` asks the real loader.

All that ``nixpatch verify`` looks at in one tree: promise, lock, what stands behind it, loader, roots.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from nixpatch.installed import Locator, provenance
from nixpatch.installed.dist_records import Ledger, ledger
from nixpatch.installed.provenance import PatchedFile, Provenance
from nixpatch.model import ElfFacts, Finding, Linkage, Skip, Target, Tree, Verdict
from nixpatch.operations.plan import Reader
from nixpatch.operations.verify_record import rows_of
from nixpatch.policy import default_policy
from nixpatch.resolve.ld_so import locate
from nixpatch.unvendor.apply import distrusted

_GONE = "is gone"


def verify(tree: Tree, target: Target, reader: Reader, *, rows: bool = True, workers: int = 0) -> Verdict:
    """Check every patched file of a tree and, with ``rows``, every RECORD row of every dist."""
    findings: list[Finding] = []
    patched: dict[str, tuple[Ledger, PatchedFile]] = {}
    for info in (*(dist.info for dist in tree.dists), ""):
        where = ledger(tree, info)
        for path, entry in _entries(where, findings).items():
            patched[path] = (where, entry)
    needs = 0
    libraries: set[str] = set()
    for path, (where, entry) in sorted(patched.items()):
        facts = _facts(reader, path)
        if isinstance(facts, str):
            findings.append(Finding("error", path, f"was patched and {facts}: install the dist again"))
            continue
        findings += _linkage(path, facts, entry)
        libraries.update([entry.interp] if entry.interp else [])
        for need in dict.fromkeys((*facts.needed, *entry.needs)):  # provenance also has what is opened
            needs += 1
            findings += _need(path, need, facts, where, entry, target, reader)
            if entry.needs.get(need, "").startswith("/"):
                libraries.add(entry.needs[need])
    count = 0
    if rows:
        for checked, trouble in rows_of(
            tree, {path: entry.patched for path, (_, entry) in patched.items()}, workers
        ):
            count += checked
            findings += trouble
    return Verdict(
        tree, target, len(patched), needs, count, tuple(sorted(libraries)), findings=tuple(findings)
    )


def with_findings(verdict: Verdict, findings: Sequence[Finding], *, loaded: int | None = None) -> Verdict:
    """Add what others found: the real loader, the garbage collector."""
    loaded = verdict.loaded if loaded is None else loaded
    return replace(verdict, loaded=loaded, findings=(*verdict.findings, *findings))


def facts_for(tree: Tree, target: Target, reader: Reader) -> dict[str, ElfFacts]:
    """Return what the tree's ELF files for the target's machine say, by path."""
    found = {file.path: reader.facts(file.path) for file in tree.files}
    return {path: facts for path, facts in found.items() if facts and facts.machine == target.machine}


def expected(path: str, facts: ElfFacts, reader: Reader) -> dict[str, str]:
    """Return, for each need that the file's own search path meets, the real file behind it."""
    found: dict[str, str] = {}
    for need in facts.needed:
        answer = locate(
            need,
            search_path=facts.current.search_path,
            directory=os.path.dirname(path),
            machine=facts.machine,
            machine_of=reader.machine,
        )
        if answer is not None:
            found[need] = os.path.realpath(answer.path)
    return found


def may_lack(tree: Tree) -> Callable[[str, str], bool]:
    """Return whether a file may lack a soname: by the policy, or by what provenance says was asked for."""
    policy = default_policy()
    asked: set[tuple[str, str]] = set()
    for info in (*(dist.info for dist in tree.dists), ""):
        for path, entry in _entries(ledger(tree, info), []).items():
            asked.update(
                (path, need) for need, where in entry.needs.items() if where in {"ignored", "driver"}
            )
    return lambda path, need: (path, need) in asked or policy.ignored(path, need) is not None


def _entries(where: Ledger, findings: list[Finding]) -> Mapping[str, PatchedFile]:
    findings += distrusted(where)
    try:
        known: Provenance | None = provenance.read(where.provenance)
    except provenance.ProvenanceError as error:
        findings.append(Finding("error", where.provenance, f"cannot be used: {error}; run nixpatch again"))
        return {}
    if known is None:
        return {}
    locator = Locator(where.base, where.prefix)
    result: dict[str, PatchedFile] = {}
    for key, entry in known.files.items():
        path = locator.locate(key)
        if path is None:
            findings.append(Finding("error", where.provenance, f"names a file outside the tree: {key}"))
        else:
            result[path] = entry
    return result


def _facts(reader: Reader, path: str) -> ElfFacts | str:
    try:
        facts = reader(path)
    except FileNotFoundError:
        return _GONE
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return f"is no longer readable as ELF ({facts.reason.value})" if isinstance(facts, Skip) else facts


def _linkage(path: str, facts: ElfFacts, entry: PatchedFile) -> Iterator[Finding]:
    wished = Linkage(entry.search_path, entry.tag, entry.interp)
    if facts.stale_undo:
        text = "was changed by another tool after nixpatch (strip, patchelf): it cannot be restored any more"
        yield Finding("note", path, text)
    if facts.current.search_path != wished.search_path or facts.current.tag is not wished.tag:
        text = f"search path is {facts.current.search_path!r}, provenance says {wished.search_path!r}"
        yield Finding("error", path, f"{text}: run nixpatch again")
    if dict(facts.current.renamed) != dict(entry.renamed) and not facts.stale_undo:
        text = f"needs renamed: {dict(facts.current.renamed)}, provenance says {dict(entry.renamed)}"
        yield Finding("error", path, f"{text}: run nixpatch again")
    if facts.current.interp != wished.interp:
        text = f"interpreter is {facts.current.interp!r}, provenance says {wished.interp!r}"
        yield Finding("error", path, f"{text}: run nixpatch again")
    if facts.current.interp is not None and not os.path.exists(facts.current.interp):
        yield Finding("error", path, f"its interpreter {facts.current.interp} {_GONE}: run nixpatch again")


def _need(
    path: str,
    need: str,
    facts: ElfFacts,
    where: Ledger,
    entry: PatchedFile,
    target: Target,
    reader: Reader,
) -> Iterator[Finding]:
    planned = entry.needs.get(need)
    if planned is None:
        yield Finding("error", path, f"needs {need}, which provenance does not know: run nixpatch again")
        return
    if planned == "missing":
        yield Finding("error", path, f"needs {need}, which nothing provides: see nixpatch plan")
        return
    if planned in {"driver", "ignored"}:
        return
    found = locate(
        need,
        search_path=facts.current.search_path,
        directory=os.path.dirname(path),
        machine=facts.machine,
        machine_of=reader.machine,
        default_dirs=() if facts.no_default_lib else (target.libc_dir,),
    )
    opened = os.path.normpath(found.path) if found else None
    if planned == "libc":
        wanted = os.path.join(target.libc_dir, need)
    elif planned.startswith("site:"):
        wanted = os.path.normpath(os.path.join(where.base, planned.removeprefix("site:")))
    else:
        wanted = planned
    if opened == wanted:
        return
    if not os.path.exists(wanted):
        text = f"needs {need} from {wanted}, which {_GONE} (garbage collected?)"
    else:
        text = f"needs {need} from {wanted}, ld.so would open {opened or 'nothing'}"
    yield Finding("error", path, f"{text}: run nixpatch again")
