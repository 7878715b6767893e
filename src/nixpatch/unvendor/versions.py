"""Which version of a library a wheel has a copy of, and which one the store has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from nixpatch import bounded_json
from nixpatch.fs import read_regular
from nixpatch.model import GraftPlan

_SBOM_LIMIT = 16 << 20
_LONGEST = 100  # characters of a version
# The name of an output stands behind the version, but for the first one (nixpkgs, make-derivation.nix).
_VERSION = re.compile(r"-(\d[^-]*(?:-[^-]+)*?)(?:-(?:lib|bin|dev|out|static|libgcc))?\Z")


def with_versions(plans: Sequence[GraftPlan]) -> tuple[GraftPlan, ...]:
    """Add the versions, as far as an SBOM of the dist (PEP 770) or the file name tells them."""
    told: dict[str, Mapping[str, str]] = {}
    result = []
    for plan in plans:
        info = next(iter(plan.file.owners), "")
        if info not in told:
            told[info] = dict(_components(info)) if info else {}
        stem, _, suffix = plan.unmangled.partition(".so")
        package = plan.provider.package if plan.provider else ""
        name = stem.removeprefix("lib").lower()
        known = next((told[info][key] for key in (name, stem.lower()) if key in told[info]), "")
        version = known or suffix.lstrip(".")
        new = _VERSION.search(package)
        result.append(replace(plan, version=version, new_version=new[1] if new else ""))
    return tuple(result)


def _components(info: str) -> Iterator[tuple[str, str]]:
    """Yield name and version of what the dist's CycloneDX documents list."""
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
        yield from listed(data)


def listed(data: bytes) -> Iterator[tuple[str, str]]:
    """Yield name and version of the components in a CycloneDX document; nothing of what is none."""
    try:
        document = bounded_json.parse(data)
    except ValueError:
        return
    components = document.get("components") if isinstance(document, dict) else None
    for component in components if isinstance(components, list) else ():
        if isinstance(component, dict):
            found, version = component.get("name"), component.get("version")
            if isinstance(found, str) and isinstance(version, str) and len(version) <= _LONGEST:
                yield found.lower(), version
