"""``nixpatch.json``: the changes of nixpatch to a dist, kept beside its RECORD.

verify, restore and the next patch read it. RECORD lists it, so that ``pip uninstall`` removes it. It holds no
time, no host name and no absolute path of the tree: the same input gives the same bytes everywhere. A file of
the same form at the root of the tree describes the files that no dist claims.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nixpatch import bounded_json
from nixpatch.escape import is_machine_error
from nixpatch.fs import can_be_path, read_regular
from nixpatch.installed import wheel_origin
from nixpatch.installed.wheel_origin import WheelOrigin
from nixpatch.model import Linkage, Tag, TextKind

NAME = "nixpatch.json"
"""file name inside a ``.dist-info`` directory"""
UNOWNED_NAME = ".nixpatch.json"
"""file name at the root of a tree, for files that no dist claims"""
INPLACE = "inplace"
"""the writer that leaves an undo record, and the one meant where an entry names none"""
GRAFTS = "nixpatch-grafts"
"""directory inside a ``.dist-info`` directory: the originals of the libraries that were un-vendored"""
DIRECTORY_MODE = 0o755
"""permission bits of the directories that installers make"""
_MODES = 0o2775
"""the bits that a directory is given back with: provenance of another may not open it to all users"""
_VERSION = 1
_LIMIT = 16 << 20  # bytes; ten thousand patched files take about four megabytes
_MAX_VALUES = 1 << 20


@dataclass(frozen=True, slots=True)
class PatchedFile:
    """One patched file."""

    original: str
    """``sha256=<hex>`` of the file as it was installed"""
    patched: str
    """``sha256=<hex>`` of the file as nixpatch left it; "" before RECORD has it, if ``rows`` had to be kept
    first"""
    search_path: str | None
    tag: Tag | None
    interp: str | None
    needs: Mapping[str, str] = field(default_factory=dict)
    """soname -> what serves it: a store path, ``site:`` and a path relative to the site directory, or one of
    the words libc, driver, ignored, missing"""
    writer: str = INPLACE
    """``Writer`` value; a file of any other writer holds no undo record"""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """needs that were renamed: name in the original -> present name"""
    rows: tuple[str, ...] = ()
    """rows of RECORD as they were installed, in its order, where a restore could not compute them; "" for one
    that it can"""
    link: str = ""
    """the text of the link that the file was installed as (uv --link-mode symlink); "" for a file"""
    resolution_cache: Mapping[str, str] = field(default_factory=dict)
    """needed library -> places, as in :data:`nixpatch.model.ResolutionCache`"""

    @property
    def linkage(self) -> Linkage:
        """The linkage of the file."""
        renamed = tuple(sorted(self.renamed.items()))
        cache = tuple(sorted(self.resolution_cache.items(), key=lambda pair: os.fsencode(pair[0])))
        return Linkage(self.search_path, self.tag, self.interp, renamed, cache)


@dataclass(frozen=True, slots=True)
class RemovedGraft:
    """A vendored library that was replaced by one of the store."""

    sha256: str
    """``sha256=<hex>`` of the file as it was installed"""
    row: str
    """its row in RECORD, with the line ending; that of the original if the original is kept"""
    kept: str | None
    """the original, relative to the site directory; None if it was deleted"""
    soname: str | None
    """the soname that its users need instead; None if it has no users left"""
    library: str | None
    """the file of the store that serves them"""
    version: str = ""
    new_version: str = ""
    directory_mode: int = DIRECTORY_MODE
    """permission bits of its directory, which goes with its last file"""


@dataclass(frozen=True, slots=True)
class PatchedText:
    """A text file that nixpatch made or changed."""

    kind: TextKind
    sha256: str
    """``sha256=<hex>`` of the file as nixpatch left it"""
    original: str = ""
    """``sha256=<hex>`` of the script as it was installed; "" for a start-up file"""
    program: str = ""
    """the program in the first line of the script as it was installed"""
    uses: tuple[str, ...] = ()
    """files outside the tree that it names, sorted"""
    next_sha256: str = ""
    """``sha256=<hex>`` of what a run is about to write; it stays there only if the run is killed"""
    link: str = ""
    """the text of the link that the script was installed as; "" for a file"""
    rows: tuple[str, ...] = ()
    """as those of :class:`PatchedFile`"""


@dataclass(frozen=True, slots=True)
class Provenance:
    """All patched files of one dist, by path relative to its site directory as RECORD writes it."""

    tool: str
    files: Mapping[str, PatchedFile]
    unvendored: Mapping[str, RemovedGraft] = field(default_factory=dict)
    """un-vendored libraries, by the path that each had"""
    texts: Mapping[str, PatchedText] = field(default_factory=dict)
    """start-up files and scripts, by path as those of ``files``"""
    wheel: WheelOrigin | None = None
    """the wheel that a patched wheel file was made from"""
    ignored: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """files that were not patched, by path as those of ``files``: the needs that a rule of the user lets them
    miss, sorted; those of a patched file are in ``needs``"""

    @property
    def is_empty(self) -> bool:
        """Whether the dist is as it was installed, so that the file has no use."""
        return not (self.files or self.unvendored or self.texts or self.ignored)


IN_WHEEL = " (wheel)"
"""ends the tool in the provenance of a patched wheel file"""


class ProvenanceError(ValueError):
    """The file is damaged, or nixpatch did not write it. The message names the place."""


def dump(provenance: Provenance) -> bytes:
    """Return the bytes of the file: JSON with sorted keys, ASCII only, a line feed at the end."""
    libraries = {
        need: library
        for file in provenance.files.values()
        for need, library in file.needs.items()
        if library.startswith("/")
    }
    document: dict[str, Any] = {
        "version": _VERSION,
        "tool": provenance.tool,
        "libraries": libraries,
        "files": {
            path: {
                "original": file.original,
                "patched": file.patched,
                "search_path": file.search_path,
                "tag": file.tag.value if file.tag else None,
                "interp": file.interp,
                "needs": dict(file.needs),
                **({} if file.writer == INPLACE else {"writer": file.writer}),
                **({"renamed": dict(file.renamed)} if file.renamed else {}),
                **({"rows": list(file.rows)} if file.rows else {}),
                **({"link": file.link} if file.link else {}),
                **({"resolution_cache": dict(file.resolution_cache)} if file.resolution_cache else {}),
            }
            for path, file in provenance.files.items()
        },
    }
    if provenance.unvendored:
        document["unvendored"] = {path: _graft_row(graft) for path, graft in provenance.unvendored.items()}
    if provenance.texts:
        document["texts"] = {path: _text_row(text) for path, text in provenance.texts.items()}
    if provenance.wheel is not None:
        document["wheel"] = wheel_origin.to_json(provenance.wheel)
    if provenance.ignored:
        document["ignored"] = {path: list(needs) for path, needs in provenance.ignored.items()}
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")


def _graft_row(graft: RemovedGraft) -> dict[str, Any]:
    row = asdict(graft)
    if graft.directory_mode == DIRECTORY_MODE:
        del row["directory_mode"]
    return row


def _text_row(text: PatchedText) -> dict[str, Any]:
    row = {**asdict(text), "kind": text.kind.name.lower()}
    for name in ("next_sha256", "link", "rows"):
        if not row[name]:
            del row[name]
    return row


def load(data: bytes) -> Provenance:
    """Parse the bytes of the file.

    Raises:
        ProvenanceError: not JSON, another version, or a field of the wrong kind.

    """
    try:
        document = bounded_json.parse(data, _MAX_VALUES)
    except ValueError as error:
        raise ProvenanceError(f"not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("version") != _VERSION:
        raise ProvenanceError("not a version 1 document")
    files = document.get("files")
    if not isinstance(files, dict):
        raise ProvenanceError("files is not a table")
    removed = document.get("unvendored", {})
    if not isinstance(removed, dict):
        raise ProvenanceError("unvendored is not a table")
    texts = document.get("texts", {})
    if not isinstance(texts, dict):
        raise ProvenanceError("texts is not a table")
    ignored = document.get("ignored", {})
    if not isinstance(ignored, dict):
        raise ProvenanceError("ignored is not a table")
    return Provenance(
        _text(document, "tool"),
        {path: _file(path, row) for path, row in files.items()},
        {path: _graft(path, row) for path, row in removed.items()},
        {path: _text_file(path, row) for path, row in texts.items()},
        _wheel(document.get("wheel")),
        {path: _ignored(path, needs) for path, needs in ignored.items()},
    )


def _wheel(value: Any) -> WheelOrigin | None:
    try:
        return None if value is None else wheel_origin.from_json(value)
    except ValueError as error:
        raise ProvenanceError(str(error)) from error


def _file(path: str, row: Any) -> PatchedFile:
    if not isinstance(row, dict):
        raise ProvenanceError(f"{path!r} is not a table")
    if not can_be_path(path):
        raise ProvenanceError(f"{path!r} is no file's name")
    needs = row.get("needs", {})
    if not isinstance(needs, dict) or not all(
        isinstance(value, str) and can_be_path(value) and can_be_path(need) for need, value in needs.items()
    ):
        raise ProvenanceError(f"needs of {path!r} is not a table of strings")
    renamed = row.get("renamed", {})
    if not isinstance(renamed, dict) or not all(isinstance(value, str) for value in renamed.values()):
        raise ProvenanceError(f"renamed of {path!r} is not a table of strings")
    cache = row.get("resolution_cache", {})
    if not isinstance(cache, dict) or not all(
        isinstance(value, str) and can_be_path(value) and can_be_path(need) for need, value in cache.items()
    ):
        raise ProvenanceError(f"resolution_cache of {path!r} is not a table of strings")
    tag = row.get("tag")
    if tag not in (None, "RPATH", "RUNPATH"):
        raise ProvenanceError(f"tag of {path!r} is {tag!r}")
    return PatchedFile(
        original=_text(row, "original"),
        patched=_text(row, "patched"),
        search_path=_optional_text(row, "search_path"),
        tag=Tag(tag) if tag else None,
        interp=_optional_text(row, "interp"),
        needs=needs,
        writer=_optional_text(row, "writer") or INPLACE,
        renamed=renamed,
        rows=_rows(path, row),
        link=_optional_text(row, "link") or "",
        resolution_cache=cache,
    )


def _graft(path: str, row: Any) -> RemovedGraft:
    if not isinstance(row, dict) or not can_be_path(path):
        raise ProvenanceError(f"{path!r} is not a table, or no file's name")
    mode = row.get("directory_mode", DIRECTORY_MODE)
    if not isinstance(mode, int):
        raise ProvenanceError(f"directory_mode of {path!r} is {mode!r}")
    return RemovedGraft(
        sha256=_text(row, "sha256"),
        row=_text(row, "row"),
        kept=_optional_text(row, "kept"),
        soname=_optional_text(row, "soname"),
        library=_optional_text(row, "library"),
        version=_optional_text(row, "version") or "",
        new_version=_optional_text(row, "new_version") or "",
        directory_mode=mode & _MODES,
    )


def _text_file(path: str, row: Any) -> PatchedText:
    if not isinstance(row, dict) or not can_be_path(path):
        raise ProvenanceError(f"{path!r} is not a table, or no file's name")
    kind, uses = row.get("kind"), row.get("uses", [])
    if kind not in [kind.name.lower() for kind in TextKind]:  # no set: JSON has values that no set takes
        raise ProvenanceError(f"kind of {path!r} is {kind!r}")
    if not isinstance(uses, list) or not all(isinstance(use, str) and can_be_path(use) for use in uses):
        raise ProvenanceError(f"uses of {path!r} is not a list of paths")
    return PatchedText(
        TextKind[kind.upper()],
        _text(row, "sha256"),
        _optional_text(row, "original") or "",
        _optional_text(row, "program") or "",
        tuple(uses),
        _optional_text(row, "next_sha256") or "",
        _optional_text(row, "link") or "",
        _rows(path, row),
    )


def _ignored(path: str, needs: Any) -> tuple[str, ...]:
    is_list = isinstance(needs, list) and all(isinstance(need, str) and can_be_path(need) for need in needs)
    if not is_list or not can_be_path(path):
        raise ProvenanceError(f"{path!r} is not a list of names, or no file's name")
    return tuple(needs)


def _rows(path: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    rows = row.get("rows", [])
    if not isinstance(rows, list) or not all(isinstance(text, str) and can_be_path(text) for text in rows):
        raise ProvenanceError(f"rows of {path!r} is not a list of rows of RECORD")
    return tuple(rows)


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise ProvenanceError(f"{key} is not a string")
    if not can_be_path(value):
        raise ProvenanceError(f"{key} has a character that no path can have")
    return value


def _optional_text(row: Mapping[str, Any], key: str) -> str | None:
    return None if row.get(key) is None else _text(row, key)


def read(path: str) -> Provenance | None:
    """Read a provenance file; None if there is none.

    Raises:
        ProvenanceError: the file exists, but cannot be used.
        OSError: the disk fails, or the run may open no more files.

    """
    try:
        return load(read_regular(path, _LIMIT))
    except FileNotFoundError:
        return None
    except OSError as error:
        if is_machine_error(error):
            raise
        raise ProvenanceError(error.strerror or str(error)) from error
