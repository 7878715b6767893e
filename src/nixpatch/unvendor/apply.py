"""Take grafted libraries out of a tree, and bring them back.

Order per dist, after every user of every graft is linked anew: ``nixpatch.json`` and the SBOM, the graft
itself, RECORD. A run that is killed leaves a tree that works, and what the next one finds in
``nixpatch.json`` is what remains to be done; on the way back the grafts come first and the users after them.
The original moves into the ``.dist-info`` directory, where RECORD goes on to list it, so that ``pip
uninstall`` takes it along; in the store and in a Nix build nobody could restore it, and it is deleted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from nixpatch import elf
from nixpatch.errors import FileRefused
from nixpatch.fs import make_directory, move, read_regular, remove_directory, replace_bytes, replacement
from nixpatch.fs import remove as remove_file
from nixpatch.installed import provenance, record, sbom
from nixpatch.installed.dist_records import Ledger, ledger, rows_by_file
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, format_sha256, has_sha256, hash_file
from nixpatch.installed.provenance import Provenance, RemovedGraft
from nixpatch.installed.record_paths import Locator
from nixpatch.model import ElfFacts, FileHash, Finding, Skip, Tree, VendoredPlan
from nixpatch.unvendor.decision import unmangled

_MARK = b'"unvendored"'


def removed_grafts(where: Ledger) -> Provenance | None:
    """Return the provenance of a dist some of whose grafts were removed, None for any other.

    A wheel can bring a ``nixpatch.json`` of its own. So an entry counts only if it fits the dist (see
    :func:`distrusted`); those that do not fit are left out here.
    """
    known = _provenance(where)
    if known is None:
        return None
    rejected = _rejected(where, known)
    entries = {path: graft for path, graft in known.unvendored.items() if path not in rejected}
    return replace(known, unvendored=entries) if entries else None


def distrusted(where: Ledger) -> Iterator[Finding]:
    """Report the entries of removed grafts for which nothing is done, because they do not fit the dist."""
    known = _provenance(where)
    for path, why in _rejected(where, known).items() if known else ():
        text = (
            f"says that nixpatch removed {path!r}, but {why}: nothing is done for it; install the dist again"
        )
        yield Finding("error", where.provenance, text)


def _provenance(where: Ledger) -> Provenance | None:
    try:
        # Nearly every dist has none, and parsing JSON for it would take its time.
        if _MARK not in read_regular(where.provenance, 64 << 20):
            return None
        return provenance.read(where.provenance)
    except (OSError, provenance.ProvenanceError):
        return None


def _rejected(where: Ledger, known: Provenance) -> dict[str, str]:
    """Return why entries of removed grafts are not believed, by their path.

    Believed is what this tool would have written for a library that this dist owns: RECORD lists the library
    or its kept original, the original is in the one directory that nixpatch puts originals into, and a file
    that is still there has the digest of the entry.
    """
    try:
        rows = _rows(where).rows
    except (OSError, FileRefused):
        return dict.fromkeys(known.unvendored, "RECORD of the dist cannot be read")
    locator = Locator(where.base, where.prefix)
    # By directory and name, not by real path: the last name of a row may be a link.
    owned = {locator.locate(row.path) for row in rows if row.path is not None}
    found = {path: _objection(where, path, graft, locator, owned) for path, graft in known.unvendored.items()}
    return {path: why for path, why in found.items() if why is not None}


def _objection(
    where: Ledger, path: str, graft: RemovedGraft, locator: Locator, owned: Collection[str | None]
) -> str | None:
    """Return why an entry does not fit the dist, None if it does."""
    place = locator.locate(path)
    if place is None:
        return "that is outside of the tree"
    if unmangled(os.path.basename(place)) is None:
        return "that is no name of a grafted library"
    if locator.locate(_spelled(graft)) != place:
        return "the row of RECORD that is kept for it names another file"
    kept = None if graft.kept is None else locator.locate(graft.kept)
    if graft.kept is not None and kept != os.path.join(
        where.info, provenance.GRAFTS, os.path.basename(place)
    ):
        return f"its original would not be in {provenance.GRAFTS}"
    there = os.path.lexists(place)
    if (there or kept is not None) and place not in owned and (kept is None or kept not in owned):
        return "RECORD of the dist does not list it"
    if there and not _is_original(place, graft):
        facts = elf.read(place) if os.path.isfile(place) and not os.path.islink(place) else None
        original = facts.original_sha256 if isinstance(facts, ElfFacts) else None
        if original is None or format_sha256(original) != graft.sha256:
            return "the file there is another one"
    return None


def unsettled(tree: Tree) -> tuple[str, ...]:
    """Return the dists in which a killed run left grafts or RECORD other than provenance has them."""
    found = []
    for dist in tree.dists:
        where = ledger(tree, dist.info)
        known = removed_grafts(where)
        if known is None:
            continue
        try:
            rows = record.parse(read_regular(where.record or "", record.MAX_RECORD_SIZE))
        except (OSError, FileRefused):
            continue
        listed = {row.path for row in rows.rows}
        document = os.path.join(where.info, sbom.NAME)
        settled = where.key(document) in listed and os.path.isfile(document)
        for path, graft in known.unvendored.items():
            kept = graft.kept is None or graft.kept in listed
            place = os.path.join(where.base, path)
            there = os.path.lexists(place) or _is_empty(os.path.dirname(place))
            settled = settled and kept and not there and _spelled(graft) not in listed
        if not settled:
            found.append(dist.info)
    return tuple(found)


def remove(
    where: Ledger,
    grafts: Sequence[VendoredPlan],
    needed: Collection[str],
    *,
    tool: str,
    keep: bool,
    durable: bool = False,
) -> None:
    """Take ``grafts`` of one dist out, and finish what an earlier run began.

    ``needed``: paths that files of the tree need; a graft among them comes back into the books. ``keep``:
    move the originals aside instead of deleting them.

    Raises:
        OSError: something cannot be written. The tree works, the next run goes on.

    """
    try:
        known = provenance.read(where.provenance)
    except provenance.ProvenanceError:
        known = None
    trusted = removed_grafts(where)
    entries = dict(trusted.unvendored) if trusted else {}
    rows = _rows(where)
    for graft in grafts:
        entries[where.key(graft.file.path)] = _put_aside(where, graft, rows, keep=keep, durable=durable)
    back = {path: entry for path, entry in entries.items() if os.path.join(where.base, path) in needed}
    for path in back:
        del entries[path]
    _settle(where, known, entries, back, tool=tool, durable=durable)


def bring_back(where: Ledger) -> tuple[str, ...]:
    """Move the originals of one dist to where they were; return their paths there.

    Raises:
        OSError: a directory cannot be written.

    """
    known = removed_grafts(where)
    found = []
    for kept, path in _kept(where, known):
        if os.path.lexists(kept) and not os.path.lexists(path):
            # Only the last directory can have gone: what removes it leaves those above.
            make_directory(os.path.dirname(path))
            move(kept, path, overwrite=False)
        if os.path.lexists(path):
            found.append(path)
    return tuple(found)


def returned(where: Ledger, *, tool: str, durable: bool = False) -> None:
    """Strike the grafts that are back off provenance, the SBOM and RECORD, byte for byte.

    Raises:
        OSError: something cannot be written.

    """
    known = removed_grafts(where)
    if known is None:
        return
    back = {
        path: graft
        for path, graft in known.unvendored.items()
        if os.path.lexists(os.path.join(where.base, path))
    }
    left = {path: graft for path, graft in known.unvendored.items() if path not in back}
    _settle(where, known, left, back, tool=tool, durable=durable)


def lost(where: Ledger) -> Iterator[tuple[str, str]]:
    """Yield file name and path of the removed grafts that cannot come back."""
    known = removed_grafts(where)
    there = {path for kept, path in _kept(where, known) if os.path.lexists(kept) or os.path.lexists(path)}
    for key in known.unvendored if known else ():
        path = os.path.join(where.base, key)
        if path not in there:
            yield os.path.basename(key), path


def _kept(where: Ledger, known: Provenance | None) -> Iterator[tuple[str, str]]:
    """Yield where each original is and where it was, both inside the tree."""
    locator = Locator(where.base, where.prefix)
    for path, graft in known.unvendored.items() if known else ():
        kept = locator.locate(graft.kept) if graft.kept else None
        place = locator.locate(path)
        if kept and place and os.path.dirname(kept) == os.path.join(where.info, provenance.GRAFTS):
            yield kept, place


def _put_aside(
    where: Ledger, graft: VendoredPlan, rows: record.Record, *, keep: bool, durable: bool
) -> RemovedGraft:
    """Describe a graft that goes; one that nixpatch has patched is put aside as it was before."""
    path = graft.file.path
    facts = elf.read(path)
    original = None if isinstance(facts, Skip) else facts.original_sha256
    spelled = rows_by_file(where, rows, {path: None})[path][0]
    assert spelled.path is not None
    kept = os.path.join(where.info, provenance.GRAFTS, os.path.basename(path)) if keep else None
    if kept is None:
        digest = original or hash_file(path).digests[DEFAULT_ALGORITHM]
    else:
        source = path
        if original is not None:
            _write_original(path, kept, durable=durable)
            source = kept
        now = hash_file(source, {DEFAULT_ALGORITHM, spelled.new_algorithm or DEFAULT_ALGORITHM})
        digest = now.digests[DEFAULT_ALGORITHM]
        # Where the row has no digest of the patched file, it is the original's already.
        rows = rows.with_changes({spelled.path: now}) if spelled.agrees(now) is False else rows
        spelled = rows.rows_for(spelled.path)[0]
    provider = graft.provider
    return RemovedGraft(
        sha256=format_sha256(digest),
        row=os.fsdecode(spelled.raw),
        kept=where.key(kept) if kept else None,
        soname=graft.soname,
        library=f"{provider.directory}/{provider.name}" if provider else None,
        version=graft.version,
        new_version=graft.new_version,
    )


def _write_original(path: str, kept: str, *, durable: bool) -> None:
    from nixpatch.elf.inplace_writer import write_original  # noqa: PLC0415 - not needed by plan

    make_directory(os.path.dirname(kept))
    with replacement(kept, durable=durable, like=os.stat(path)) as temp:
        write_original(path, temp)


def _settle(
    where: Ledger,
    known: Provenance | None,
    entries: dict[str, RemovedGraft],
    back: dict[str, RemovedGraft],
    *,
    tool: str,
    durable: bool,
) -> None:
    """Make provenance, SBOM, files and RECORD agree, in this order."""
    old = known or Provenance(tool, {})
    files = {path: file for path, file in old.files.items() if path not in entries}
    new = replace(old, tool=tool, files=files, unvendored=entries)
    data = provenance.dump(new) if files or entries else None
    document = os.path.join(where.info, sbom.NAME)
    listing = sbom.dump(where.info, new) if entries else None
    if data is not None:
        replace_bytes(where.provenance, data, durable=durable)
    if listing is not None:
        make_directory(os.path.dirname(document))
        replace_bytes(document, listing, durable=durable)
    for path, graft in entries.items():
        _take_out(where, path, graft)
    rows = _rows(where)
    before = rows.data
    for graft in entries.values():
        spelled = _spelled(graft)
        if graft.kept is None:
            rows = rows.without(spelled)
        elif rows.rows_for(spelled):
            rows = rows.with_raw(spelled, os.fsencode(graft.row)).with_moved(spelled, graft.kept)
    for graft in back.values():
        if graft.kept is not None:
            rows = rows.with_raw(graft.kept, os.fsencode(graft.row))
    for path, content in ((where.provenance, data), (document, listing)):
        key = where.key(path)
        rows = rows.without(key) if content is None else rows.with_row(key, _hash(content))
    if rows.data != before and where.record is not None:
        replace_bytes(where.record, rows.data, durable=durable)
    if listing is None:
        remove_file(document)
    for directory in (os.path.join(where.info, provenance.GRAFTS), os.path.dirname(document)):
        remove_directory(directory)
    if data is None:  # last of all: what tells the next run that there is something left to do
        remove_file(where.provenance)


def _take_out(where: Ledger, key: str, graft: RemovedGraft) -> None:
    path = Locator(where.base, where.prefix).locate(key)
    if path is None:
        return
    kept = os.path.join(where.base, graft.kept) if graft.kept else None
    if not os.path.lexists(path):
        pass  # a run that was killed did it
    elif kept is None or _is_original(kept, graft):
        remove_file(path)  # deleted; or patched, and the original stands aside already
    else:
        make_directory(os.path.dirname(kept))
        move(path, kept, overwrite=True)
    remove_directory(os.path.dirname(path))


def _is_empty(directory: str) -> bool:
    try:
        return not os.listdir(directory)
    except OSError:
        return False


def _is_original(kept: str, graft: RemovedGraft) -> bool:
    try:
        return has_sha256(kept, graft.sha256)
    except OSError:
        return False


def _rows(where: Ledger) -> record.Record:
    return record.parse(read_regular(where.record or "", record.MAX_RECORD_SIZE))


def _spelled(graft: RemovedGraft) -> str:
    """Return the path as its row in RECORD has it."""
    rows = record.parse(os.fsencode(graft.row)).rows
    return (rows[0].path if len(rows) == 1 else None) or ""


def _hash(content: bytes) -> FileHash:
    return FileHash(len(content), {DEFAULT_ALGORITHM: hashlib.sha256(content).digest()})
