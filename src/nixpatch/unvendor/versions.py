"""The version of a vendored library, and that of the store's."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from nixpatch import bounded_json
from nixpatch.fs import read_regular
from nixpatch.model import VendoredPlan

_SBOM_LIMIT = 16 << 20
_MAX_VERSION = 100  # characters
# An output's name follows the version, except for the first output (nixpkgs, make-derivation.nix).
_VERSION = re.compile(r"-(\d[^-]*(?:-[^-]+)*?)(?:-(?:lib|bin|dev|out|static|libgcc))?\Z")


def with_versions(plans: Sequence[VendoredPlan]) -> tuple[VendoredPlan, ...]:
    """Add the versions, from an SBOM of the dist (PEP 770) or the file name."""
    versions: dict[str, Mapping[str, str]] = {}
    result = []
    for plan in plans:
        info = next(iter(plan.file.owners), "")
        if info not in versions:
            versions[info] = dict(_dist_components(info)) if info else {}
        stem, _, suffix = plan.unmangled.partition(".so")
        package = plan.provider.package if plan.provider else ""
        name = stem.removeprefix("lib").lower()
        known = next((versions[info][key] for key in (name, stem.lower()) if key in versions[info]), "")
        version = known or suffix.lstrip(".")
        new = _VERSION.search(package)
        result.append(replace(plan, version=version, new_version=new[1] if new else ""))
    return tuple(result)


def _dist_components(info: str) -> Iterator[tuple[str, str]]:
    """Yield name and version of the components in the dist's CycloneDX documents."""
    directory = os.path.join(info, "sboms")
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return
    for name in names:
        if not name.endswith(".cdx.json") or name == "nixpatch.cdx.json":
            continue
        try:
            data = read_regular(os.path.join(directory, name), _SBOM_LIMIT)
        except OSError:
            continue
        yield from components(data)


def components(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield name and version of the components in a CycloneDX document; nothing if it is not one."""
    try:
        document = bounded_json.parse(data)
    except ValueError:
        return
    rows = document.get("components") if isinstance(document, dict) else None
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict):
            name, version = row.get("name"), row.get("version")
            if isinstance(name, str) and isinstance(version, str) and len(version) <= _MAX_VERSION:
                yield name.lower(), version
