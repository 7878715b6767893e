"""What a patched wheel keeps of the archive that it was made from, so that ``restore`` can write that again.

Members that nixpatch did not change are in the patched wheel with the bytes that they had, header and all. Of
the others provenance keeps the header and how the contents were packed, and of the archive its central
directory (APPNOTE 4.3.6).
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

_MAX_DIRECTORY: Final = 64 << 20
"""bytes of a central directory; one with 200,000 members of a wheel takes half of it"""


@dataclass(frozen=True, slots=True)
class OriginalMember:
    """A member of the original archive that the patched wheel has other contents of, or none."""

    header: bytes
    """its local file header"""
    trailer: bytes = b""
    """what stood between its contents and the next member: a data descriptor"""
    packed: bytes | None = None
    """its contents as the archive had them, where restored files do not give them"""
    stored: bool = False
    """the contents were not packed"""
    level: int | None = None
    """compression level with which zlib gives the bytes that the archive had; None if no level does"""
    memory: int = 8
    """zlib's memLevel"""


@dataclass(frozen=True, slots=True)
class WheelOrigin:
    """The wheel that a patched wheel was made from."""

    name: str
    """its file name"""
    sha256: str
    """``sha256=<hex>`` of its bytes"""
    directory: bytes
    """its central directory and what follows, to the last byte"""
    members: Mapping[str, OriginalMember]
    """by name"""


def to_json(origin: WheelOrigin) -> dict[str, Any]:
    """Return a JSON object; bytes are base64."""
    return {
        "name": origin.name,
        "sha256": origin.sha256,
        "directory": _encoded(zlib.compress(origin.directory, 9)),
        "members": {name: _member_to_json(member) for name, member in origin.members.items()},
    }


def _member_to_json(member: OriginalMember) -> dict[str, Any]:
    row: dict[str, Any] = {"header": _encoded(member.header)}
    if member.trailer:
        row["trailer"] = _encoded(member.trailer)
    if member.packed is not None:
        row["packed"] = _encoded(member.packed)
    if member.stored:
        row["stored"] = True
    if member.level is not None:
        row |= {"level": member.level, "memory": member.memory}
    return row


def from_json(value: Any) -> WheelOrigin:
    """Parse the JSON object.

    Raises:
        ValueError: it has another form.

    """
    if not isinstance(value, dict) or not isinstance(value.get("members"), dict):
        raise ValueError("wheel is not a table, or has no members")  # noqa: TRY004 - as json does
    name, digest = value.get("name"), value.get("sha256")
    if not isinstance(name, str) or not isinstance(digest, str) or "/" in name or not name.isprintable():
        raise ValueError("wheel has no name or sha256")
    unpacker = zlib.decompressobj()
    try:
        directory = unpacker.decompress(_decoded(value, "directory") or b"", _MAX_DIRECTORY)
    except zlib.error as error:
        raise ValueError(f"directory of wheel: {error}") from error
    if unpacker.unconsumed_tail or not unpacker.eof:
        raise ValueError("directory of wheel: too large, or cut off")
    members = {member: _member_from_json(member, row) for member, row in value["members"].items()}
    return WheelOrigin(name, digest, directory, members)


def _member_from_json(name: str, row: Any) -> OriginalMember:
    if not isinstance(row, dict):
        raise ValueError(f"member {name!r} of wheel is not a table")  # noqa: TRY004 - as above
    level, memory = row.get("level"), row.get("memory", 8)
    if level not in (None, *range(1, 10)) or memory not in (8, 9):
        raise ValueError(f"member {name!r} of wheel: no such level")
    return OriginalMember(
        _decoded(row, "header") or b"",
        _decoded(row, "trailer") or b"",
        _decoded(row, "packed"),
        row.get("stored") is True,
        level,
        memory,
    )


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _decoded(row: Mapping[str, Any], key: str) -> bytes | None:
    text = row.get(key)
    if text is None:
        return None
    if not isinstance(text, str):
        raise ValueError(f"{key} of wheel is not a string")  # noqa: TRY004 - as above
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{key} of wheel is not base64: {error}") from error
