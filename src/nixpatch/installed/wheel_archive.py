"""Write a patched wheel, and the original again from it.

What did not change is copied as the archive has it, header and packed bytes: ``zipfile`` writes the central
directory of the new archive, but has no call for such a copy. Layout: APPNOTE 4.3, "General Format of a .ZIP
file".
"""

from __future__ import annotations

import copy
import hashlib
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Final

from nixpatch.errors import FileRefused, RequestError
from nixpatch.installed.hashing import DEFAULT_ALGORITHM, encode_digest, hash_file
from nixpatch.installed.wheel_file import SIGNATURES, UnpackedMember, WheelFile, csv_of, readable
from nixpatch.installed.wheel_origin import OriginalMember, WheelOrigin

_CHUNK: Final = 1 << 20
_HEADER: Final = struct.Struct("<4s5H3I2H")  # local file header (APPNOTE 4.3.7)
_ENTRY: Final = struct.Struct("<4s6H3I5H2I")  # central directory header (APPNOTE 4.3.12)
_ENTRY_MAGIC: Final = b"PK\x01\x02"
_OFFSET_IN_ZIP64: Final = 0xFFFFFFFF
_ZIP64: Final = 1  # header ID of the extra field with sizes of 8 bytes (APPNOTE 4.5.3)
_LEVELS: Final = (6, 9, 1, 2, 3, 4, 5, 7, 8)
_MEMORY: Final = (8, 9)  # zlib's memLevel: the default, and that of Info-ZIP
_OTHER_BYTES: Final = (
    "the contents are those of the original, the bytes of the archive are not (the zlib here is another one, "
    "or the patched wheel was packed anew)"
)
_KEPT_SIZE: Final = 1 << 14
"""bytes of packed contents that provenance keeps where zlib does not give them"""


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a member is in its archive."""

    start: int
    contents: int
    trailer: int
    """behind its packed contents"""
    end: int


def pack(
    wheel: WheelFile,
    output: IO[bytes],
    members: Mapping[str, UnpackedMember],
    unchanged: Collection[str],
    added: Mapping[str, str],
) -> None:
    """Write a wheel with the files as they are now: the order, times and permissions of the original.

    Args:
        wheel: the original.
        output: where to.
        members: as ``unpack`` returned them; a file that is gone is left out.
        unchanged: as :func:`unchanged_members` returns them.
        added: the files of further members, written before RECORD.

    Raises:
        OSError: a file cannot be read, or the output not be written.

    """
    record = f"{wheel.info}/RECORD"
    rows: list[tuple[str, str, str]] = []
    model = next(info for info in wheel.members if info.filename == record)
    spans = _spans(wheel)
    with open(wheel.path, "rb") as source, zipfile.ZipFile(output, "w") as archive:
        for info in _kept(wheel, members):
            name = info.filename
            if name in unchanged:
                _copy(source, spans[name], info, archive)
                rows.append((name, f"sha256={members[name].digest}", str(info.file_size)))
            else:
                rows.append(_add(archive, _info_like(info, name), _contents(wheel, name, members[name].path)))
        for name, path in sorted(added.items()):
            with open(path, "rb") as contents:
                rows.append(_add(archive, _info_like(model, name), contents))
        rows.append((record, "", ""))
        archive.writestr(_info_like(model, record), csv_of(rows))


def unchanged_members(wheel: WheelFile, members: Mapping[str, UnpackedMember]) -> frozenset[str]:
    """Return the members whose files are as they were unpacked; WHEEL and RECORD are never among them."""
    return frozenset(
        info.filename
        for info in _kept(wheel, members)
        if info.filename not in wheel.rewritten
        and _digest(members[info.filename].path) == members[info.filename].digest
    )


def _kept(wheel: WheelFile, members: Mapping[str, UnpackedMember]) -> Iterator[zipfile.ZipInfo]:
    """Yield the members that the patched wheel has, too, without RECORD, which is the last."""
    for info in wheel.members:
        name = info.filename
        is_signature = os.path.basename(name) in SIGNATURES
        if name != f"{wheel.info}/RECORD" and not is_signature and os.path.lexists(members[name].path):
            yield info


def _digest(path: str) -> str:
    return encode_digest(hash_file(path).digests[DEFAULT_ALGORITHM])


def _copy(source: IO[bytes], span: _Span, info: zipfile.ZipInfo, archive: zipfile.ZipFile) -> None:
    """Copy a member with its header; ``zipfile`` writes its central directory header in the end."""
    assert archive.fp is not None
    copied = copy.copy(info)
    copied.header_offset = archive.start_dir
    copied.extra = _without_zip64(info.extra)
    archive.fp.seek(archive.start_dir)
    source.seek(span.start)
    for chunk in _chunks(source, span.end - span.start):
        archive.fp.write(chunk)
    archive.start_dir = archive.fp.tell()
    archive.filelist.append(copied)
    archive.NameToInfo[copied.filename] = copied


def _without_zip64(extra: bytes) -> bytes:
    """Leave out what ``zipfile`` writes itself where sizes or the offset need it."""
    kept, place = b"", 0
    while place + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, place)
        if kind != _ZIP64:
            kept += extra[place : place + 4 + size]
        place += 4 + size
    return kept + extra[place:]


def _add(archive: zipfile.ZipFile, info: zipfile.ZipInfo, contents: IO[bytes]) -> tuple[str, str, str]:
    """Write a member, and return its row of RECORD."""
    digest, size = hashlib.sha256(), 0
    with contents:
        info.file_size = contents.seek(0, io.SEEK_END)  # tells zipfile whether it takes 8 bytes
        contents.seek(0)
        with archive.open(info, "w") as member:
            while chunk := contents.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                member.write(chunk)
    return info.filename, f"sha256={encode_digest(digest.digest())}", str(size)


def _info_like(model: zipfile.ZipInfo, name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, model.date_time)
    info.external_attr, info.create_system = model.external_attr, model.create_system
    info.compress_type = zipfile.ZIP_DEFLATED  # with zlib's default level, as nearly all wheels have it
    return info


def _contents(wheel: WheelFile, name: str, path: str) -> IO[bytes]:
    if name != f"{wheel.info}/WHEEL":
        return open(path, "rb")
    with open(path, "rb") as file:
        lines = file.read().splitlines(keepends=True)
    kept = [line for line in lines if not line.lower().startswith(b"build:")]
    place = next((n + 1 for n, line in enumerate(kept) if line.lower().startswith(b"root-is-purelib:")), 0)
    end = b"\r\n" if kept and kept[0].endswith(b"\r\n") else b"\n"
    kept.insert(place, f"Build: {wheel.patched_build}".encode("ascii") + end)
    return io.BytesIO(b"".join(kept))


def origin_of(wheel: WheelFile, unchanged: Collection[str], known: WheelOrigin | None) -> WheelOrigin:
    """Return what it takes to write the original again; of an archive of an unusual layout only its SHA-256.

    Args:
        wheel: the wheel that was unpacked, before ``pack`` writes the new one.
        unchanged: as :func:`unchanged_members` returns them.
        known: the origin of a wheel that was patched before.

    Raises:
        OSError: the wheel cannot be read.

    """
    spans = _spans(wheel)
    with readable(wheel), open(wheel.path, "rb") as source, zipfile.ZipFile(wheel.path) as archive:
        if known is not None:
            origin, names = known, {name for name, _ in _entries(known.directory)} - known.members.keys()
        else:
            names = {info.filename for info in archive.infolist()}
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            source.seek(archive.start_dir)
            directory = source.read()
            is_usual = _is_usual(directory, spans)
            name, directory = os.path.basename(wheel.path), directory if is_usual else b""
            origin = WheelOrigin(name, f"sha256={digest}", directory, {})
            names = names if is_usual else set()
        changed = {
            info.filename: _original(wheel, archive, source, info, spans[info.filename])
            for info in archive.infolist()
            if info.filename in names.difference(unchanged)
        }
    return WheelOrigin(origin.name, origin.sha256, origin.directory, {**origin.members, **changed})


def _is_usual(directory: bytes, spans: Mapping[str, _Span]) -> bool:
    """Whether the members follow each other from the first byte on, as the central directory has them."""
    entries = _entries(directory)
    offsets = [offset for _, offset in entries]
    return (
        sorted(name for name, _ in entries) == sorted(spans)
        and all(spans[name].start == offset for name, offset in entries)
        and min(offsets, default=1) == 0
        and _OFFSET_IN_ZIP64 not in offsets
    )


def _original(
    wheel: WheelFile, archive: zipfile.ZipFile, source: IO[bytes], info: zipfile.ZipInfo, span: _Span
) -> OriginalMember:
    source.seek(span.start)
    header = source.read(span.contents - span.start)
    source.seek(span.trailer)
    trailer = source.read(span.end - span.trailer)
    is_rewritten = info.filename in wheel.rewritten
    if info.is_dir() or is_rewritten or os.path.basename(info.filename) in SIGNATURES:
        return OriginalMember(header, trailer, packed=_packed(source, span))
    if info.compress_type == zipfile.ZIP_STORED:
        return OriginalMember(header, trailer, stored=True)
    if info.compress_type == zipfile.ZIP_DEFLATED:
        for memory in _MEMORY:
            for level in _LEVELS:
                with archive.open(info) as contents:
                    source.seek(span.contents)
                    if _is_deflated(contents, source, span.trailer - span.contents, level, memory):
                        return OriginalMember(header, trailer, level=level, memory=memory)
    if span.trailer - span.contents <= _KEPT_SIZE:
        return OriginalMember(header, trailer, packed=_packed(source, span))
    return OriginalMember(header, trailer)


def _packed(source: IO[bytes], span: _Span) -> bytes:
    source.seek(span.contents)
    return source.read(span.trailer - span.contents)


def _is_deflated(contents: IO[bytes], source: IO[bytes], size: int, level: int, memory: int) -> bool:
    """Whether zlib makes the next ``size`` bytes of ``source`` of the contents."""
    for chunk in _deflated(contents, level, memory):
        if source.read(len(chunk)) != chunk or len(chunk) > size:
            return False
        size -= len(chunk)
    return size == 0


def _deflated(contents: IO[bytes], level: int, memory: int) -> Iterator[bytes]:
    packer = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, memory)
    while chunk := contents.read(_CHUNK):
        yield packer.compress(chunk)
    yield packer.flush()


def _chunks(source: IO[bytes], size: int) -> Iterator[bytes]:
    while size:
        chunk = source.read(min(size, _CHUNK))
        if not chunk:
            raise RequestError(f"{source.name}: it became shorter; nothing was written")
        size -= len(chunk)
        yield chunk


def _spans(wheel: WheelFile) -> dict[str, _Span]:
    """Return where each member is: it ends where the next one begins.

    Raises:
        RequestError: two members overlap, or one is cut off.

    """
    with readable(wheel), open(wheel.path, "rb") as source, zipfile.ZipFile(wheel.path) as archive:
        infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
        ends = [*(info.header_offset for info in infos[1:]), archive.start_dir]
        spans = {}
        for info, end in zip(infos, ends, strict=True):
            source.seek(info.header_offset)
            header = source.read(_HEADER.size)
            if len(header) < _HEADER.size:
                raise zipfile.BadZipFile("it ends too early")
            *_, name_size, extra_size = _HEADER.unpack(header)
            contents = info.header_offset + _HEADER.size + name_size + extra_size
            trailer = contents + info.compress_size
            if trailer > end:
                raise zipfile.BadZipFile(f"{info.filename!a} overlaps what follows it")
            spans[info.filename] = _Span(info.header_offset, contents, trailer, end)
    return spans


def _entries(directory: bytes) -> list[tuple[str, int]]:
    """Return name and offset of each member, in the order of the archive."""
    entries, place = [], 0
    while directory[place : place + 4] == _ENTRY_MAGIC and place + _ENTRY.size <= len(directory):
        fields = _ENTRY.unpack_from(directory, place)
        flags, (name_size, extra_size, comment_size), offset = fields[3], fields[10:13], fields[-1]
        name = directory[place + _ENTRY.size : place + _ENTRY.size + name_size]
        entries.append((name.decode("utf-8" if flags & 0x800 else "cp437"), offset))  # APPNOTE 4.4.4, bit 11
        place += _ENTRY.size + name_size + extra_size + comment_size
    return sorted(entries, key=lambda entry: entry[1])


def rebuild(wheel: WheelFile, origin: WheelOrigin, path_of: Callable[[str], str], output: IO[bytes]) -> None:
    """Write the original wheel.

    Args:
        wheel: the patched wheel.
        origin: what it was made from.
        path_of: returns the file with the contents of a member.
        output: where to.

    Raises:
        FileRefused: the bytes of the original cannot be made again.
        OSError: a file cannot be read, or the output not be written.

    """
    if not origin.directory:
        raise FileRefused("the layout of its archive was an unusual one, which was not kept")
    digest, size = hashlib.sha256(), 0
    spans = _spans(wheel)
    with open(wheel.path, "rb") as source:
        for name, offset in _entries(origin.directory):
            if offset != size:
                raise FileRefused(_OTHER_BYTES)
            for data in _original_bytes(name, origin, path_of, source, spans):
                digest.update(data)
                output.write(data)
                size += len(data)
        digest.update(origin.directory)
        output.write(origin.directory)
    if f"sha256={digest.hexdigest()}" != origin.sha256:
        raise FileRefused(_OTHER_BYTES)


def _original_bytes(
    name: str,
    origin: WheelOrigin,
    path_of: Callable[[str], str],
    source: IO[bytes],
    spans: Mapping[str, _Span],
) -> Iterator[bytes]:
    member = origin.members.get(name)
    if member is None:
        if name not in spans:
            raise FileRefused(f"{name} is not in it any more")
        source.seek(spans[name].start)
        yield from _chunks(source, spans[name].end - spans[name].start)
        return
    yield member.header
    if member.packed is not None:
        yield member.packed
    elif not (member.stored or member.level):
        raise FileRefused(f"{name} was packed by another program than zlib, whose bytes cannot be made again")
    else:
        with open(path_of(name), "rb") as contents:
            if member.level:
                yield from _deflated(contents, member.level, member.memory)
            else:
                yield from iter(lambda: contents.read(_CHUNK), b"")
    yield member.trailer
