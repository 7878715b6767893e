"""What must hold for bytes that an installed tree, a wheel file or a cache brings. Functions of bytes."""

import atexit
import base64
import functools
import hashlib
import io
import json
import os
import tempfile
import unittest.mock
import warnings
import zipfile
from typing import IO

from nixpatch.errors import FileRefused, RequestError
from nixpatch.installed import record, wheel_archive, wheel_file, wheel_origin
from nixpatch.installed.hashing import hash_bytes
from nixpatch.installed.provenance import PatchedFile
from nixpatch.model import FileHash
from nixpatch.operations import tree_state
from nixpatch.operations.patch_options import PatchOptions
from nixpatch.operations.record_update import UnrecordedChange, _states, update_rows
from nixpatch.operations.request import PatchRequest
from nixpatch.store.nix_store import Store

STATES = (b"original", b"patched once", b"patched again")
"""of the one file that rows are about; the first is as it was installed"""
_ALGORITHMS = ("sha256", "sha512", "md5", "sha1")
_HASHED = tuple(hash_bytes(state, _ALGORITHMS) for state in STATES)
_NAMES = frozenset({"pkg/x.so", "./pkg/x.so"})
WHEEL = "x-1-py3-none-any.whl"
_INFO = "x-1.dist-info"
_SENTENCE = 1000  # characters
ZIP, MEMBERS = b"Z", b"M"
"""the first byte of an input of :func:`wheel`: a whole archive, or members that become a right one"""
_NEXT, _CONTENT = b"\0\0", b"\0="


def row_updates(data: bytes) -> None:
    """Rows that were wrong stay, rows of other files stay, and a restore brings the bytes back."""
    first = before = record.parse(data[2:])
    accepts, killed = data[:1] or b"\0", data[1:2] > b"\x7f"
    entry: PatchedFile | None = None
    state = 0
    was_wrong = [_of_file(row) and row.agrees(_HASHED[0]) is False for row in first.rows]
    for number in range(1 + accepts[0] % 4):
        accept, after = bool(accepts[0] >> number + 2 & 1), 1 + number % 2
        now, entry, wrong = _run(before, state, after, entry, accept=accept)
        others = [(row, new) for row, new in zip(before.rows, now.rows, strict=True) if not _of_file(row)]
        assert all(row.raw == new.raw for row, new in others)
        for bad, row, new in zip(was_wrong, before.rows, now.rows, strict=True):
            if bad and number == 0 and not accept and row.agrees(_HASHED[after]) is False:
                assert new == row
                assert wrong
        before, state = now, after
    if killed:  # the file is restored, and RECORD; provenance still describes the patch
        before, _, _ = _run(before, state, 0, entry, accept=False)
        state = 0
    before, _, _ = _run(before, state, 0, entry, accept=False)
    # A row of the patched file looks like one that a killed run wrote.
    patched = [FileHash(None, file.digests) for file in _HASHED[1:]]
    sizes = {len(state) for state in STATES[1:]}
    if not any(
        _of_file(row)
        and (any(row.agrees(file) for file in patched) or (not row.digest and row.size in sizes))
        for row in first.rows
    ):
        assert before.data == first.data


def _of_file(row: record.RecordRow) -> bool:
    return row.path in _NAMES


def _run(
    rows: record.Record, before: int, after: int, old: PatchedFile | None, *, accept: bool
) -> tuple[record.Record, PatchedFile | None, int]:
    """Let one run update the rows of the file."""
    entry = PatchedFile(_sha256(0), _sha256(after), "/x", None, None) if after else None
    states, known = _states(UnrecordedChange(_HASHED[before], _HASHED[after], entry), old)
    update = update_rows([*filter(_of_file, rows.rows)], states, known, accept_modified=accept)
    if entry is not None:
        entry = PatchedFile(entry.original, entry.patched, "/x", None, None, rows=update.installed)
    return rows.with_rows(update.changes), entry, update.wrong


def _sha256(state: int) -> str:
    return f"sha256={_HASHED[state].digests['sha256'].hex()}"


def wheel(data: bytes) -> None:
    """A wheel is refused in a sentence, or every file lands below the prefix and RECORD describes it.

    What was unpacked and packed is a wheel again, with the same files, and the bytes of the first one can be
    made of it, or that is refused.
    """
    with _directory() as directory:
        path = os.path.join(directory, WHEEL)
        with open(path, "wb") as file:
            file.write(archive_of(data[1:]) if data[:1] == MEMBERS else data[1:])
        made = _unpacked(path)
        if made is None:
            return
        found, members, contents = made
        prefix = os.path.join(directory, "t")
        for at, content in contents.items():
            assert at == os.path.normpath(at)
            assert at.startswith(prefix + "/")
            if not _can_be_written(at):
                return
            os.makedirs(os.path.dirname(at), exist_ok=True)
            if os.path.isdir(at):
                return
            with open(at, "wb") as file:
                file.write(content)
        again = os.path.join(directory, found.patched_name)
        unchanged = wheel_archive.unchanged_members(found, members)
        origin = wheel_archive.origin_of(found, unchanged, None)
        with open(again, "wb") as file:
            wheel_archive.pack(found, file, members, unchanged, {})
        once_more = _unpacked(again)
        assert once_more is not None
        _, _, packed = once_more
        assert packed.keys() == contents.keys() - _signatures(contents)
        changed = {name for name in packed if packed[name] != contents[name]}
        assert {os.path.basename(name) for name in changed} <= {"WHEEL", "RECORD"}
        assert wheel_origin.from_json(json.loads(json.dumps(wheel_origin.to_json(origin)))) == origin
        _restore(path, again, origin)


def _restore(path: str, patched: str, origin: wheel_origin.WheelOrigin) -> None:
    """Make the bytes of a wheel again."""
    prefix = os.path.join(os.path.dirname(path), "t")
    wheel, output = wheel_file.read_wheel(patched), io.BytesIO()

    def path_of(member: str) -> str:
        return wheel.path_of(member, prefix, os.path.join(prefix, "lib", "site"))

    try:
        wheel_archive.rebuild(wheel, origin, path_of, output)
    except FileRefused:
        return
    with open(path, "rb") as file:
        assert output.getvalue() == file.read()


def _signatures(paths: "dict[str, bytes]") -> "set[str]":
    return {path for path in paths if os.path.basename(path) in {"RECORD.jws", "RECORD.p7s"}}


def _can_be_written(path: str) -> bool:
    parts = path.split("/")
    beside = ["/".join(parts[:n]) for n in range(len(parts))]
    return all(len(os.fsencode(part)) < 256 for part in parts) and not any(map(os.path.isfile, beside))


def _unpacked(
    path: str,
) -> "tuple[wheel_file.WheelFile, dict[str, wheel_file.UnpackedMember], dict[str, bytes]] | None":
    contents: dict[str, bytes] = {}
    prefix = os.path.join(os.path.dirname(path), "t")
    site = os.path.join(prefix, "lib", "site")

    def write(to: str, source: IO[bytes], executable: bool) -> None:
        parts = []
        while part := source.read(1 << 16):
            parts.append(part)
        assert to not in contents
        assert isinstance(executable, bool)
        contents[to] = b"".join(parts)

    try:
        found = wheel_file.read_wheel(path)
        members = wheel_file.unpack(found, prefix, site, write)
    except RequestError as error:
        text = str(error)
        if path not in text or len(text) >= len(path) + _SENTENCE or "\n" in text:
            raise AssertionError("a refusal that is no sentence about this file") from error
        return None
    assert {member.path for member in members.values()} == contents.keys()
    rows = record.parse(contents[members[f"{found.info}/RECORD"].path])
    described = {os.path.normpath(os.path.join(site, row.path or "")): row for row in rows.rows}
    assert described.keys() == contents.keys()
    for to, row in described.items():
        assert row.agrees(hash_bytes(contents[to], {"sha256"})) is (None if row.is_announced else True)
    return found, members, contents


def archive_of(data: bytes) -> bytes:
    """Make a wheel of members ``name NUL = content``, two NULs between them, and a RECORD that is right."""
    output = io.BytesIO()
    rows = []
    with warnings.catch_warnings(), zipfile.ZipFile(output, "w") as archive:
        warnings.simplefilter("ignore")  # a name that is there
        for part in data.split(_NEXT)[:20]:
            name, _, content = part.partition(_CONTENT)
            info = zipfile.ZipInfo(name.decode("utf-8", "replace").replace("\0", "_") or "x")
            info.external_attr = 0o644 << 16
            if content.startswith(b"mode"):
                info.external_attr = int.from_bytes(content[4:6], "big") << 16
            archive.writestr(info, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f'"{info.filename.replace(chr(34), chr(34) * 2)}",sha256={digest},{len(content)}\n')
        archive.writestr(f"{_INFO}/RECORD", "".join(rows).encode("utf-8"))
    return output.getvalue()


def known_tree(data: bytes) -> None:
    """What a cache says of a tree is what a run printed, or it is as good as none."""
    request, path, state = _tree(os.getpid())
    body = data.replace(b"@tree", state.encode())
    with open(path, "wb") as file:
        file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    # The key is a digest of all files of nixpatch, which takes a millisecond.
    with unittest.mock.patch.object(tree_state, "_key", return_value="@key"):
        known = tree_state.recall(request, PatchOptions())
    if known is not None:
        for text, style in (*known.printed.lines, *known.printed.quiet_lines):
            text.encode("utf-8", "surrogateescape")
            style.encode("utf-8", "surrogateescape")
        assert json.loads(body)["tree"] == state


@functools.cache
def _tree(owner: int) -> tuple[PatchRequest, str, str]:
    """Make an empty tree; return the request for it, its file in the cache, and the digest of its state."""
    made = _directory()
    atexit.register(_end, made, owner)
    tree = os.path.join(made.name, "tree")
    os.mkdir(tree)
    request = PatchRequest(tree, Store(made.name, made.name), cache=os.path.join(made.name, "cache"))
    path = tree_state._file(request)
    assert path is not None
    os.mkdir(os.path.dirname(path))
    return request, path, str(tree_state._tree_digest(tree, made.name))


def _end(made: "tempfile.TemporaryDirectory[str]", owner: int) -> None:
    if owner == os.getpid():
        made.cleanup()


def _directory() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
