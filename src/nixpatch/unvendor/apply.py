"""Remove grafted libraries from a tree, and bring them back.

Order per dist, after every user of every graft is linked anew: ``nixpatch.json`` and the SBOM, the graft
itself, RECORD. A killed run leaves a tree that works, and the next one finds in ``nixpatch.json`` what
remains to be done. On the way back the grafts come first and their users after them. The original moves into
the ``.dist-info`` directory. RECORD lists each file at every moment, at its new path before it is made there,
so that ``pip uninstall`` removes it. In the store and in a Nix build, where nobody could restore the
original, it is deleted.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace

from nixpatch import elf
from nixpatch.errors import FileRefused
from nixpatch.fs import make_directory, move, remove, remove_directory, replace_bytes, replacement
from nixpatch.installed import provenance, record, sbom
from nixpatch.installed.dist_records import DistRecords, RecordFile
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, format_sha256, has_sha256, hash_file
from nixpatch.installed.provenance import Provenance, ProvenanceError, RemovedGraft
from nixpatch.installed.record import Record, RecordRow
from nixpatch.model import ElfFacts, FileHash, Finding, VendoredPlan
from nixpatch.unvendor.decision import unmangled


def removed_grafts(records: DistRecords) -> dict[str, RemovedGraft]:
    """Return the grafts that were removed from a dist, by the path that each had.

    A wheel can bring a ``nixpatch.json`` of its own, so an entry counts only if it fits the dist: see
    :func:`distrusted`.
    """
    grafts = _entries(records)
    rejected = _rejected(records, grafts)
    return {path: graft for path, graft in grafts.items() if path not in rejected}


def distrusted(records: DistRecords) -> Iterator[Finding]:
    """Report the entries of removed grafts that are ignored, because they do not fit the dist."""
    for path, why in _rejected(records, _entries(records)).items():
        text = (
            f"says that nixpatch removed {path!r}, but {why}: nothing is done for it; install the dist again"
        )
        yield Finding("error", records.provenance_path, text)


def unsettled(records: DistRecords) -> bool:
    """Return whether grafts, RECORD or SBOM of a dist differ from provenance: a run was killed."""
    grafts = removed_grafts(records)
    document = os.path.join(records.info, sbom.NAME)
    if not grafts and document not in records.listed:
        return False
    try:
        rows = records.read_record().record
    except (OSError, FileRefused):
        return False
    if not grafts:
        return any(row.is_announced for row in rows.rows_for(records.key(document)))
    listed = {row.path for row in rows.rows}
    if records.key(document) not in listed or not os.path.isfile(document):
        return True
    for path, graft in grafts.items():
        old = os.path.join(records.base, path)
        if graft.kept not in listed | {None} or _row_path(graft) in listed:
            return True
        if os.path.lexists(old) or _is_empty(os.path.dirname(old)):
            return True
    return False


def remove_grafts(
    records: DistRecords,
    grafts: Sequence[VendoredPlan],
    needed: Collection[str],
    *,
    tool: str,
    keep: bool,
    durable: bool = False,
) -> None:
    """Remove grafts of one dist, and finish what an earlier run began.

    Args:
        records: the dist.
        grafts: the grafts to remove.
        needed: paths that files of the tree need; a removed graft among them is recorded as present again.
        tool: name and version for the provenance.
        keep: move the originals aside; False deletes them.
        durable: survive a power failure.

    Raises:
        OSError: something cannot be written. The tree works; the next run finishes it.
        FileRefused: RECORD cannot be read, or does not list a graft any more.

    """
    removed = removed_grafts(records)
    leaving = [  # others went when the same plan was carried out before
        graft
        for graft in grafts
        if records.key(graft.file.path) not in removed or os.path.lexists(graft.file.path)
    ]
    _must_list(records.read_record(), [graft.file.path for graft in leaving])
    if leaving:
        new = [_kept_path(records, graft.file.path) for graft in leaving] if keep else []
        document = os.path.join(records.info, sbom.NAME)
        records.announce((*new, records.provenance_path, document), durable=durable)
    rows = records.read_record()
    for graft in leaving:
        key = records.key(graft.file.path)
        removed[key] = _set_aside(records, graft, rows, keep=keep, durable=durable)
    returned = {path: graft for path, graft in removed.items() if os.path.join(records.base, path) in needed}
    for path in returned:
        del removed[path]
    _settle(records, removed, returned, tool=tool, durable=durable)


def bring_back(records: DistRecords, *, durable: bool = False) -> tuple[str, ...]:
    """Move the originals of one dist to their old paths; return the paths that exist then.

    Raises:
        OSError: a directory or RECORD cannot be written.
        FileRefused: RECORD cannot be read.

    """
    paths = []
    grafts = removed_grafts(records)
    records.announce(
        (path for _, kept, path in _kept(records, grafts) if os.path.lexists(kept)), durable=durable
    )
    for key, kept, path in _kept(records, grafts):
        if os.path.lexists(kept) and not os.path.lexists(path):
            # Only the last directory was removed with the graft.
            make_directory(os.path.dirname(path), grafts[key].directory_mode)
            move(kept, path, overwrite=False)
        if os.path.lexists(path):
            paths.append(path)
    return tuple(paths)


def record_return(records: DistRecords, *, tool: str, durable: bool = False) -> None:
    """Remove the grafts that are back from provenance and SBOM, and restore their rows in RECORD.

    Raises:
        OSError: something cannot be written.
        FileRefused: RECORD cannot be read.

    """
    grafts = removed_grafts(records)
    if grafts or unsettled(records):
        exists = {path: os.path.lexists(os.path.join(records.base, path)) for path in grafts}
        returned = {path: graft for path, graft in grafts.items() if exists[path]}
        removed = {path: graft for path, graft in grafts.items() if not exists[path]}
        _settle(records, removed, returned, tool=tool, durable=durable)


def lost_grafts(records: DistRecords) -> Iterator[tuple[str, str]]:
    """Yield file name and path of the removed grafts that cannot come back."""
    grafts = removed_grafts(records)
    present = {
        path for _, kept, path in _kept(records, grafts) if os.path.lexists(kept) or os.path.lexists(path)
    }
    for key in grafts:
        path = os.path.join(records.base, key)
        if path not in present:
            yield os.path.basename(key), path


def _entries(records: DistRecords) -> Mapping[str, RemovedGraft]:
    try:
        known = records.read_provenance()
    except (OSError, ProvenanceError):
        return {}
    return known.unvendored if known else {}


def _rejected(records: DistRecords, grafts: Mapping[str, RemovedGraft]) -> dict[str, str]:
    """Return the entries that do not fit the dist, each with the reason.

    An entry fits if nixpatch could have written it for a library of this dist: RECORD lists the library or
    its original, the original is in the one directory that nixpatch puts originals into, and a file that
    still exists has the digest of the entry.
    """
    if not grafts:
        return {}
    locator = records.locator
    try:
        rows = records.read_record().record.rows
    except (OSError, FileRefused):
        return dict.fromkeys(grafts, "RECORD of the dist cannot be read")
    # By directory and name, not by real path: the last name of a row may be a link.
    owned = {locator.locate(row.path) for row in rows if row.path is not None}
    reasons = {path: _misfit(records, path, graft, owned) for path, graft in grafts.items()}
    return {path: text for path, text in reasons.items() if text is not None}


def _misfit(records: DistRecords, key: str, graft: RemovedGraft, owned: Collection[str | None]) -> str | None:
    """Return why an entry does not fit the dist; None if it does."""
    locator = records.locator
    path = locator.locate(key)
    if path is None:
        return "that is outside of the tree"
    if unmangled(os.path.basename(path)) is None:
        return "that is no name of a grafted library"
    if locator.locate(_row_path(graft)) != path:
        return "the row of RECORD that is kept for it names another file"
    kept = None if graft.kept is None else locator.locate(graft.kept)
    if graft.kept is not None and kept != _kept_path(records, path):
        return f"its original would not be in {provenance.GRAFTS}"
    exists = os.path.lexists(path)
    if (exists or kept is not None) and path not in owned and (kept is None or kept not in owned):
        return "RECORD of the dist does not list it"
    if exists and not _has_digest(path, graft.sha256):
        facts = elf.read(path) if os.path.isfile(path) and not os.path.islink(path) else None
        original = facts.original_sha256 if isinstance(facts, ElfFacts) else None
        if original is None or format_sha256(original) != graft.sha256:
            return "the file there is another one"
    return None


def _kept_path(records: DistRecords, path: str) -> str:
    """Return the path that the original of a graft is moved to."""
    return os.path.join(records.info, provenance.GRAFTS, os.path.basename(path))


def _kept(records: DistRecords, grafts: Mapping[str, RemovedGraft]) -> Iterator[tuple[str, str, str]]:
    """Yield the key of each graft, the path of its original, and its old path, both inside the tree."""
    for key, graft in grafts.items():
        kept = records.locator.locate(graft.kept) if graft.kept else None
        path = records.locator.locate(key)
        if kept and path and os.path.dirname(kept) == os.path.join(records.info, provenance.GRAFTS):
            yield key, kept, path


def _must_list(record_file: RecordFile, paths: Collection[str]) -> None:
    for path in set(paths) - record_file.rows_of(paths).keys():  # another program replaced it since the plan
        raise FileRefused(f"RECORD does not list {path} any more")


def _set_aside(
    records: DistRecords, graft: VendoredPlan, record_file: RecordFile, *, keep: bool, durable: bool
) -> RemovedGraft:
    """Return the entry of a graft that goes; write the original of a patched one beside."""
    path = graft.file.path
    original = graft.original_sha256
    row = record_file.rows_of({path})[path][0]
    kept = _kept_path(records, path) if keep else None
    if kept is None:
        digest = format_sha256(original or hash_file(path).digests[DEFAULT_ALGORITHM])
    else:
        source = path
        if original is not None:
            from nixpatch.elf.inplace_writer import write_original  # noqa: PLC0415 - not needed by plan

            make_directory(os.path.dirname(kept))
            with replacement(kept, durable=durable, like=os.stat(path)) as temp:
                write_original(path, temp)
            source = kept
        now = hash_file(source, {DEFAULT_ALGORITHM, row.new_algorithm or DEFAULT_ALGORITHM})
        digest = format_sha256(now.digests[DEFAULT_ALGORITHM])
        row = _installed_row(records, path, row, now)
    provider = graft.provider
    return RemovedGraft(
        sha256=digest,
        row=os.fsdecode(row.raw),
        kept=records.key(kept) if kept else None,
        soname=graft.soname,
        library=f"{provider.directory}/{provider.name}" if provider else None,
        version=graft.version,
        new_version=graft.new_version,
        directory_mode=stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode),
    )


def _installed_row(records: DistRecords, path: str, row: RecordRow, original: FileHash) -> RecordRow:
    """Return the row of a graft as it was installed."""
    if row.agrees(original) is not False:
        return row  # not that of a patched file
    known = records.usable_provenance()
    entry = known.files.get(records.key(path)) if known else None
    for text in entry.rows if entry else ():
        rows = record.parse(os.fsencode(text)).rows
        if len(rows) == 1 and rows[0].path == row.path and rows[0].agrees(original) is not False:
            return rows[0]
    return row.updated(original)


def _settle(
    records: DistRecords,
    removed: Mapping[str, RemovedGraft],
    returned: Mapping[str, RemovedGraft],
    *,
    tool: str,
    durable: bool,
) -> None:
    """Make provenance, SBOM, files and RECORD agree, in this order.

    Provenance has the grafts that returned until RECORD has their rows: a later run finishes this one.
    """
    old = records.usable_provenance() or Provenance(tool, {})
    files = {path: file for path, file in old.files.items() if path not in removed}
    new = replace(old, tool=tool, files=files, unvendored=removed)
    data = None if new.is_empty else provenance.dump(new)
    unfinished = provenance.dump(replace(new, unvendored={**removed, **returned})) if returned else data
    document = os.path.join(records.info, sbom.NAME)
    components = sbom.dump(records.info, new) if removed else None
    if unfinished is not None:
        records.replace_provenance(unfinished, durable=durable)
    if components is not None:
        make_directory(os.path.dirname(document))
        replace_bytes(document, components, durable=durable)
    for path, graft in removed.items():
        _take_out(records, path, graft)
    record_file = records.read_record()
    rows = record_file.record
    for graft in removed.values():
        row_path = _row_path(graft)
        if graft.kept is None:
            rows = rows.without(row_path)
        elif rows.rows_for(row_path):
            row = RecordRow.parse(os.fsencode(graft.row))
            rows = rows.with_one_row((row_path, graft.kept), row.moved(graft.kept))
    for graft in returned.values():
        if graft.kept is not None:
            rows = rows.with_one_row((graft.kept, _row_path(graft)), RecordRow.parse(os.fsencode(graft.row)))
    rows = _without_unused_originals(records, rows, {graft.kept for graft in removed.values()})
    rows = rows.with_contents(records.key(records.provenance_path), data)
    rows = rows.with_contents(records.key(document), components)
    records.replace_record(record_file, rows, durable=durable)
    if components is None:
        remove(document)
    for directory in (os.path.join(records.info, provenance.GRAFTS), os.path.dirname(document)):
        remove_directory(directory)
    records.replace_provenance(data, durable=durable)


def _without_unused_originals(records: DistRecords, rows: Record, used: Collection[str | None]) -> Record:
    """Remove the originals that a killed run announced and that no entry names, with their rows."""
    directory = os.path.join(records.info, provenance.GRAFTS)
    for row in rows.rows:
        path = records.locator.locate(row.path or "") if row.is_announced else None
        if row.path is not None and row.path not in used and path and os.path.dirname(path) == directory:
            remove(path)
            rows = rows.without(row.path)
    return rows


def _take_out(records: DistRecords, key: str, graft: RemovedGraft) -> None:
    path = records.locator.locate(key)
    if path is None:
        return
    kept = os.path.join(records.base, graft.kept) if graft.kept else None
    if not os.path.lexists(path):
        pass  # a run that was killed did it
    elif kept is None or _has_digest(kept, graft.sha256):
        remove(path)  # not kept; or patched, and the original is set aside already
    else:
        make_directory(os.path.dirname(kept))
        move(path, kept, overwrite=True)
    remove_directory(os.path.dirname(path))


def _is_empty(directory: str) -> bool:
    try:
        return not os.listdir(directory)
    except OSError:
        return False


def _has_digest(path: str, digest: str) -> bool:
    try:
        return has_sha256(path, digest)
    except OSError:
        return False


def _row_path(graft: RemovedGraft) -> str:
    """Return the path in the row of RECORD that is kept for a graft; "" if that is not one row."""
    rows = record.parse(os.fsencode(graft.row)).rows
    return (rows[0].path if len(rows) == 1 else None) or ""
