"""The dists of a site directory: ``*.dist-info`` with METADATA and RECORD (PEP 376, PEP 627)."""

from __future__ import annotations

import errno
import os
import re
import stat

from packaging.utils import canonicalize_name

from nixpatch.errors import FileRefused
from nixpatch.escape import is_machine_error, reason, shown
from nixpatch.fs import read_head, read_regular
from nixpatch.installed.python_layout import prefix_of_site
from nixpatch.installed.record import MAX_RECORD_SIZE, paths
from nixpatch.installed.record_paths import Locator
from nixpatch.model import Dist

_SUFFIX = ".dist-info"
MAX_HEADERS = 1 << 20
"""bytes of METADATA that are read; behind them is only the description of the project"""
_MAX_REQUIRES = 1 << 13
"""the largest number in the corpus is about two hundred"""

# Three headers, with folded lines (RFC 822 as PEP 566 uses it). The email package would parse the description
# of the project as well: ten times the work of all the rest of a scan.
_HEADERS = re.compile(
    rb"^(Name|Version|Requires-Dist)[ \t]*:[ \t]*([^\r\n]*(?:\r?\n[ \t]+[^\r\n]+)*)",
    re.IGNORECASE | re.MULTILINE,
)
_HEADERS_END = re.compile(rb"\r?\n\r?\n")


def find_dists(site: str, prefix: str, *, follow: bool = False) -> tuple[tuple[Dist, ...], tuple[str, ...]]:
    """Return the dists of ``site``, sorted by ``info``, and notes on oddities.

    Both paths are real paths. A dist without a usable RECORD is included, with ``has_record`` False. With
    ``follow`` a link to a dist that is installed elsewhere counts as that dist, in its own site directory.

    Raises:
        OSError: ``site`` cannot be listed.

    """
    with os.scandir(site) as entries:
        names = sorted(entry.name for entry in entries if entry.name.endswith(_SUFFIX))
    own_locator = Locator(site, prefix)
    dists: list[Dist] = []
    notes: list[str] = []
    unrecorded: list[str] = []
    for name in names:
        info = os.path.join(site, name)
        if name.startswith("~"):
            notes.append(f"{shown(name)}: left behind by an interrupted pip, not counted as installed")
            continue
        if not os.path.isdir(info):
            continue
        home, home_prefix, locator = site, prefix, own_locator
        if follow and os.path.islink(info):
            info = os.path.realpath(info)
            home = os.path.dirname(info)
            home_prefix = prefix_of_site(home) or home
            locator = Locator(home, home_prefix)
        files, remarks = _files(info, home_prefix, locator)
        notes += (f"{shown(name)}: {remark}" for remark in remarks)
        if files is None and not remarks:
            unrecorded.append(shown(name))
        dists.append(_dist(home, info, files))
    if unrecorded:
        notes.append(
            f"no RECORD, so what belongs to them is unknown (not from pip or uv): {', '.join(unrecorded)}"
        )
    return tuple(dists), tuple(notes)


def _dist(site: str, info: str, files: frozenset[str] | None) -> Dist:
    name, _, version = os.path.basename(info).removesuffix(_SUFFIX).partition("-")
    metadata = _metadata(info)
    return Dist(
        name=canonicalize_name(metadata.get("name", [name])[0]),
        version=metadata.get("version", [version])[0],
        site=site,
        info=info,
        requires=tuple(metadata.get("requires-dist", ())),
        files=files or frozenset(),
        has_record=files is not None,
    )


def _metadata(info: str) -> dict[str, list[str]]:
    """Return the headers that we use, by lower-case name; none if METADATA cannot be read."""
    try:
        # METADATA may be a link: `uv pip install --link-mode symlink` and buildEnv of nixpkgs make one.
        return headers(read_head(os.path.realpath(os.path.join(info, "METADATA")), MAX_HEADERS))
    except OSError as error:
        if is_machine_error(error):
            raise
        return {}


def headers(data: bytes) -> dict[str, list[str]]:
    """Return Name, Version and Requires-Dist of METADATA, by lower-case name."""
    end = _HEADERS_END.search(data)
    values_by_name: dict[str, list[str]] = {}
    for header in _HEADERS.finditer(data, 0, end.start() if end else len(data)):
        # Line by line: a pattern for white space around a line end takes quadratic time.
        lines = (line.strip() for line in header[2].splitlines())
        text = b" ".join(filter(None, lines)).decode("utf-8", "replace").strip()
        values = values_by_name.setdefault(header[1].decode("ascii").lower(), [])
        if text and len(values) < _MAX_REQUIRES:
            values.append(text)
    return {name: values for name, values in values_by_name.items() if values}


def _files(info: str, prefix: str, locator: Locator) -> tuple[frozenset[str] | None, list[str]]:
    """Return the files that RECORD lists, None if it cannot be used, and remarks on it."""
    record = os.path.join(info, "RECORD")
    try:
        if stat.S_ISLNK(os.lstat(info).st_mode):
            # RECORD would be written when one of its files changes, wherever the link leads.
            return None, ["is a symbolic link, so its RECORD is not used"]
        data = read_regular(record, MAX_RECORD_SIZE)
    except FileNotFoundError:
        return None, []
    except OSError as error:
        if is_machine_error(error):
            raise
        text = "it is a symbolic link" if error.errno == errno.ELOOP else reason(error)
        return None, [f"RECORD is not used: {text}"]
    try:
        files, unresolved = locator.locate_all(paths(data))
    except FileRefused as refused:
        return None, [f"RECORD is not used: {refused}"]
    outside = [row for row in unresolved if not row.endswith("/")]
    remarks = []
    if outside:
        remarks.append(
            f"{len(outside)} of its RECORD rows lead out of {shown(prefix)}, such as {shown(outside[0])}"
        )
    return frozenset(files), remarks
