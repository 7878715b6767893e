"""Write the text files of a dist and record them: start-up files and the first lines of scripts.

Order: the files, RECORD, ``nixpatch.json`` last; RECORD lists new files before they are made. A killed run
leaves whole files, and as long as provenance does not describe a file the next run finishes it. A start-up
file is known by its first line. Only ``nixpatch.json`` keeps the program that a script had, so that comes
before the script is changed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from nixpatch.errors import FileRefused
from nixpatch.fs import read_identified, read_regular, remove, replace_bytes, replacement, write_all
from nixpatch.installed import provenance
from nixpatch.installed.dist_records import DistRecords, RecordFile
from nixpatch.installed.hashing import (
    DEFAULT_ALGORITHM,
    encode_digest,
    format_sha256,
    hash_bytes,
    parse_sha256,
)
from nixpatch.installed.provenance import PatchedText, Provenance
from nixpatch.installed.shebang import with_program
from nixpatch.installed.startup_file import is_startup_file
from nixpatch.model import Dist, FileHash, Finding, TextKind, TextPlan, Tree
from nixpatch.operations.record_update import RowStates, RowUpdate, relink, signature_notes, update_rows
from nixpatch.operations.text_plan import MAX_SCRIPT, is_foreign, startup_path

_ADVICE = "install the dist again"


def mark_pending(texts: Sequence[TextPlan], records: DistRecords) -> Iterator[TextPlan]:
    """Yield the plans of one dist, each with whether there is anything to write for it."""
    known = records.usable_provenance()
    entries = known.texts if known else {}
    for text in texts:
        written = text.content is not None and _contents(text.path) == text.content
        entry = entries.get(records.key(text.path))
        is_recorded = entry is not None and replace(entry, rows=(), link="") == _entry(text)
        yield replace(text, pending=not (written and is_recorded and _is_described(text, records)))


def _is_described(text: TextPlan, records: DistRecords) -> bool:
    """Return whether a row of RECORD may describe a script; if none does, every run reports that."""
    assert text.content is not None
    state = hash_bytes(text.content)
    try:
        record = records.read_record()
        if encode_digest(state.digests[DEFAULT_ALGORITHM]).encode() in record.data:
            return True
        rows = record.rows_of([text.path]).get(text.path, [])
    except (OSError, FileRefused):  # reported when it is to be updated
        return True
    return not rows or any(row.agrees(state) is not False for row in rows)


def restored_texts(tree: Tree, dist: Dist, records: DistRecords) -> Iterator[TextPlan | Finding]:
    """Yield the way back for the text files of one dist.

    A wheel may bring provenance of its own. It is believed only about scripts of the dist, and only where its
    digest fits the script as it would be restored. A start-up file goes without it, too: a run that was
    killed may have left one.
    """
    known = records.usable_provenance()
    startup = startup_path(dist)
    is_listed = startup in dist.files or os.path.lexists(startup)
    for key, entry in known.texts.items() if known else ():
        path = records.locator.locate(key)
        if path is None or (path not in dist.files if entry.kind is TextKind.SCRIPT else path != startup):
            text = f"names a file that is not of this dist, so nothing is done for it: {key}"
            yield Finding("error", records.provenance_path, text)
        elif entry.kind is TextKind.STARTUP:
            is_listed = True
            if is_foreign(tree, dist, path):
                yield Finding("error", path, "cannot be removed: nixpatch did not write it")
        elif (original := _original(_contents(path), entry)) is None:
            text = "cannot be restored: it was changed after nixpatch, or provenance is wrong"
            yield Finding("error", path, f"{text}; {_ADVICE}")
        else:
            yield TextPlan(path, records.info, entry.kind, original, program=entry.program, is_restored=True)
    if startup and is_listed and dist.has_record and not is_foreign(tree, dist, startup):
        yield TextPlan(startup, records.info, TextKind.STARTUP, None, is_restored=True)


def original_programs(dist: Dist, records: DistRecords) -> dict[str, str]:
    """Return the program that each changed script of a dist named as it was installed, by path."""
    known = records.usable_provenance()
    programs: dict[str, str] = {}
    for key, entry in known.texts.items() if known else ():
        path = records.locator.locate(key)
        if path is None or path not in dist.files or entry.kind is not TextKind.SCRIPT:
            continue
        if _original(_contents(path), entry) is not None:
            programs[path] = entry.program
    return programs


def _original(current: bytes | None, entry: PatchedText) -> bytes | None:
    """Return a script as it was installed; None where its entry does not fit it."""
    try:
        original = with_program(current or b"", entry.program)
    except ValueError:
        return None
    return original if _digest(original) == entry.original else None


def update_texts(
    records: DistRecords,
    texts: Sequence[TextPlan],
    *,
    tool: str,
    accept_modified: bool = False,
    durable: bool = False,
) -> tuple[Finding, ...]:
    """Write the text files of one dist that are pending, then RECORD and provenance.

    Args:
        records: the dist.
        texts: its text files.
        tool: name and version for the provenance.
        accept_modified: update rows that did not describe a script before, too.
        durable: survive a power failure.

    Raises:
        OSError: a file cannot be written. The old one is unchanged.
        FileRefused: RECORD cannot be used.

    """
    findings: list[Finding] = []
    links = {text.path: text.link for text in texts if text.link}
    for path, link in links.items():
        _take_over(path, link)
    if not all(text.is_restored for text in texts):
        startup = (text.path for text in texts if text.kind is TextKind.STARTUP and text.content is not None)
        records.announce((*startup, records.provenance_path), durable=durable)
    old_record = records.read_record()
    rows = old_record.record
    known = records.usable_provenance() or Provenance(tool, {})
    updates = {
        text.path: _row_update(
            records, old_record, text, known.texts.get(records.key(text.path)), accept_modified
        )
        for text in texts
        if text.kind is TextKind.SCRIPT
    }
    entries = {**known.texts, **dict(_announced(texts, known, records, updates, links))}
    if entries != known.texts:
        records.replace_provenance(provenance.dump(replace(known, texts=entries)), durable=durable)
    for text in texts:
        key = records.key(text.path)
        if text.kind is TextKind.STARTUP:
            _write_startup_file(text, durable=durable)
            rows = rows.with_contents(key, text.content)
        else:
            _write_script(text, durable=durable)
            findings += updates[text.path].findings(text.path)
            rows = rows.with_rows(updates[text.path].changes)
        entry = None if text.is_restored else _entry(text)
        old = known.texts.get(key)
        if entry is None:
            entries.pop(key, None)
            if old is not None and text.kind is TextKind.SCRIPT:
                relink(text.path, old.link, old.original)
        else:
            link = links.get(text.path) or (old.link if old is not None else "")
            rows_before = updates[text.path].installed if text.path in updates else ()
            entries[key] = replace(entry, rows=rows_before, link=link)
    new = replace(known, tool=tool, texts=entries)
    data = None if new.is_empty else provenance.dump(new)
    rows = rows.with_contents(records.key(records.provenance_path), data)
    if data is not None and rows.data != old_record.data:
        findings += signature_notes(records)
    records.replace_record(old_record, rows, durable=durable)
    records.replace_provenance(data, durable=durable)
    return tuple(findings)


def _announced(
    texts: Sequence[TextPlan],
    known: Provenance,
    records: DistRecords,
    updates: Mapping[str, RowUpdate],
    links: Mapping[str, str],
) -> Iterator[tuple[str, PatchedText]]:
    """Yield entries for scripts that are about to be changed.

    Nothing but provenance keeps the program of the original. RECORDs of dists that share the script may have
    the old digest or the new one, should this run be killed.
    """
    for text in texts:
        entry, key = _entry(text), records.key(text.path)
        if text.kind is TextKind.STARTUP or entry is None or text.is_restored:
            continue
        old = known.texts.get(key)
        if old is None or (old.original, old.program) != (entry.original, entry.program):
            old = replace(entry, sha256=entry.original)
        uses = tuple(sorted({*old.uses, *entry.uses}))
        rows = updates[text.path].installed
        link = old.link or links.get(text.path, "")
        yield key, replace(old, uses=uses, next_sha256=entry.sha256, rows=rows, link=link)


def _take_over(path: str, link: str) -> None:
    """Put a copy of a script in the place of a link to it.

    Raises:
        OSError: that is not possible, or it is another link; it is still there.

    """
    if os.readlink(path) != link:
        raise OSError(errno.EBUSY, "changed while nixpatch worked on it", path)
    real = os.path.realpath(path)
    data = read_regular(real, MAX_SCRIPT)
    with replacement(path, mode=stat.S_IMODE(os.lstat(real).st_mode) & 0o777) as descriptor:
        write_all(descriptor, data)


def _write_startup_file(text: TextPlan, *, durable: bool) -> None:
    before = _contents(text.path)
    if before is None or is_startup_file(before):
        if text.content is None:
            remove(text.path)
        else:
            replace_bytes(text.path, text.content, durable=durable)


def _write_script(text: TextPlan, *, durable: bool) -> None:
    """Write a script.

    Raises:
        OSError: it cannot be written, or is not the one that was planned any more (EBUSY).

    """
    assert text.content is not None
    before, known = read_identified(text.path, MAX_SCRIPT)
    if before != text.content:
        try:
            is_planned = with_program(text.content, text.program) == with_program(before, text.program)
        except ValueError:
            is_planned = False
        if not is_planned:
            raise OSError(errno.EBUSY, "changed while nixpatch worked on it", text.path)
        with replacement(text.path, durable=durable, expected=known) as descriptor:
            write_all(descriptor, text.content)


def _row_update(
    records: DistRecords, record: RecordFile, text: TextPlan, entry: PatchedText | None, accept_modified: bool
) -> RowUpdate:
    """Return new rows for a script as it is about to be written."""
    assert text.content is not None
    algorithms = records.algorithms([text.path])
    before = _contents(text.path) or b""
    original = with_program(text.content, text.program)
    after, now, installed = (hash_bytes(state, algorithms) for state in (text.content, before, original))
    written = [after] if before == original else [after, now]
    known: tuple[str, ...] = ()
    if entry is not None and entry.original == _digest(original):
        known = entry.rows
        for digest in {entry.sha256, entry.next_sha256} - {entry.original, ""}:
            with contextlib.suppress(ValueError):  # another program edited provenance
                # A run wrote it, and a later one was killed before it updated the row.
                written.append(FileHash(None, {DEFAULT_ALGORITHM: parse_sha256(digest)}))
    return update_rows(
        record.rows_of([text.path]).get(text.path, []),
        RowStates(installed, (now, installed), tuple(written), after),
        known,
        accept_modified=accept_modified,
    )


def _entry(text: TextPlan) -> PatchedText | None:
    if text.content is None:
        return None
    original = ""
    if text.kind is TextKind.SCRIPT:
        original = _digest(with_program(text.content, text.program))
    return PatchedText(text.kind, _digest(text.content), original, text.program, text.uses)


def _contents(path: str) -> bytes | None:
    try:
        return read_regular(path, MAX_SCRIPT)
    except OSError:
        return None


def _digest(data: bytes) -> str:
    return format_sha256(hashlib.sha256(data).digest())
