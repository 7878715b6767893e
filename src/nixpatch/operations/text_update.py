"""Write the text files of a dist and record them: start-up files and the first lines of scripts.

Order: the files, RECORD, ``nixpatch.json`` last. A killed run leaves whole files, and as long as provenance
does not describe a file the next run finishes it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nixpatch.fs import read_regular, remove, replacement, write_all
from nixpatch.installed import provenance
from nixpatch.installed.dist_records import DistRecords
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, format_sha256, parse_sha256
from nixpatch.installed.provenance import PatchedText, Provenance
from nixpatch.installed.record import Record, RecordRow
from nixpatch.installed.shebang import with_program
from nixpatch.installed.startup_file import is_startup_file
from nixpatch.model import FileHash, Finding, TextKind, TextPlan
from nixpatch.operations.text_plan import MAX_SCRIPT

_ADVICE = "install the dist again"


def mark_pending(texts: Sequence[TextPlan], records: DistRecords) -> Iterator[TextPlan]:
    """Yield the plans of one dist, each with whether there is anything to write for it."""
    known = records.usable_provenance()
    entries = known.texts if known else {}
    for text in texts:
        entry = entries.get(records.key(text.path))
        current = _contents(text.path)
        if text.content is None:
            yield replace(text, pending=current is not None or entry is not None)
        else:
            written = current == text.content and entry is not None and entry == _entry(text, entry.original)
            yield replace(text, pending=not written)


def restored_texts(records: DistRecords) -> Iterator[TextPlan | Finding]:
    """Yield the way back for the text files of one dist.

    Provenance is believed only where its digests fit the file and the restored script.
    """
    known = records.usable_provenance()
    for key, entry in known.texts.items() if known else ():
        path = records.locator.locate(key)
        if path is None:
            yield Finding("error", records.provenance_path, f"names a file outside the tree: {key}")
            continue
        current = _contents(path)
        digest = None if current is None else _digest(current)
        if entry.kind is TextKind.STARTUP:
            if current is not None and not is_startup_file(current):
                yield Finding("error", path, "cannot be removed: nixpatch did not write it")
            else:
                yield TextPlan(path, records.info, entry.kind, None)
            continue
        if current is None or digest not in {entry.sha256, entry.original}:
            yield Finding("error", path, f"cannot be restored: it was changed after nixpatch; {_ADVICE}")
            continue
        try:
            original = current if digest == entry.original else with_program(current, entry.program)
        except ValueError as error:
            yield Finding("error", path, f"cannot be restored: {error}; {_ADVICE}")
            continue
        if _digest(original) != entry.original:
            yield Finding("error", path, f"cannot be restored: provenance does not fit; {_ADVICE}")
        else:
            yield TextPlan(path, records.info, entry.kind, original, program=entry.program)


def original_programs(records: DistRecords) -> dict[str, str]:
    """Return the program that each changed script of a dist named as it was installed, by path."""
    known = records.usable_provenance()
    programs: dict[str, str] = {}
    for key, entry in known.texts.items() if known else ():
        path = records.locator.locate(key)
        if path is not None and entry.kind is TextKind.SCRIPT:
            current = _contents(path)
            if current is not None and _digest(current) == entry.sha256:
                programs[path] = entry.program
    return programs


def update_texts(
    records: DistRecords, texts: Sequence[TextPlan], *, tool: str, durable: bool
) -> tuple[Finding, ...]:
    """Write the text files of one dist that are pending, then RECORD and provenance.

    A row of RECORD that did not describe a script before is not made right.

    Raises:
        OSError: a file cannot be written. The old one is unchanged.
        FileRefused: RECORD cannot be used.

    """
    findings: list[Finding] = []
    old_record = records.read_record()
    rows = old_record.record
    known = records.usable_provenance() or Provenance(tool, {})
    entries = dict(known.texts)
    for text in texts:
        key = records.key(text.path)
        before = _contents(text.path)
        entry = entries.get(key)
        original = (entry.original if entry else "") or (_digest(before) if before is not None else "")
        _write(text, before, durable=durable)
        if text.is_restored:
            entries.pop(key, None)
        else:
            entries[key] = _entry(text, original)
        if text.kind is TextKind.STARTUP:
            rows = rows.with_contents(key, text.content)
        elif before is not None and text.content is not None:
            own = old_record.rows_of([text.path]).get(text.path, [])
            rows, finding = _with_script(rows, own, text, before, entry)
            findings += filter(None, [finding])
    new = replace(known, tool=tool, texts=entries)
    data = None if new.is_empty else provenance.dump(new)
    rows = rows.with_contents(records.key(records.provenance_path), data)
    records.replace_record(old_record, rows, durable=durable)
    records.replace_provenance(data, durable=durable)
    return tuple(findings)


def _write(text: TextPlan, before: bytes | None, *, durable: bool) -> None:
    if text.content is None:
        if before is not None and is_startup_file(before):
            remove(text.path)
    elif before != text.content:
        with replacement(text.path, durable=durable) as descriptor:
            write_all(descriptor, text.content)


def _with_script(
    rows: Record, own: Sequence[RecordRow], text: TextPlan, before: bytes, entry: PatchedText | None
) -> tuple[Record, Finding | None]:
    """Return RECORD with the new digest of a script, where its row described the old one."""
    assert text.content is not None
    after = _file_hash(text.content)
    updates: dict[str, FileHash] = {}
    for row in own:
        assert row.path is not None
        is_ours = entry is not None and _agrees_by_digest(row, entry.sha256, entry.original)
        if row.agrees(_file_hash(before)) is not False or is_ours:
            updates[row.path] = after
        elif row.agrees(after) is not True:
            error = "RECORD did not describe this file before the patch either, so its row was left as it is"
            return rows, Finding("error", text.path, error)
    return rows.with_changes(updates), None


def _agrees_by_digest(row: RecordRow, *digests: str) -> bool:
    """Whether a row has one of some digests, whatever size it gives."""
    for digest in filter(None, digests):
        try:
            if row.agrees(FileHash(None, {DEFAULT_ALGORITHM: parse_sha256(digest)})):
                return True
        except ValueError:  # another program edited provenance
            continue
    return False


def _entry(text: TextPlan, original: str) -> PatchedText:
    assert text.content is not None
    original = original if text.kind is TextKind.SCRIPT else ""
    return PatchedText(text.kind, _digest(text.content), original, text.program, text.uses)


def _contents(path: str) -> bytes | None:
    try:
        return read_regular(path, MAX_SCRIPT)
    except OSError:
        return None


def _digest(data: bytes) -> str:
    return format_sha256(hashlib.sha256(data).digest())


def _file_hash(data: bytes) -> FileHash:
    return FileHash(len(data), {DEFAULT_ALGORITHM: hashlib.sha256(data).digest()})
