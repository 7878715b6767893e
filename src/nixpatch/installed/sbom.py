"""What serves a dist in the place of its grafted libraries, as a CycloneDX document in ``sboms`` (PEP 770).

auditwheel's own document stays as it is: it says what the wheel was built with, and PEP 770 gives every tool
files of its own there. The specification leaves serial number and time stamp out of what it requires, and so
does this: the same input gives the same bytes.
Source of the form: CycloneDX 1.6, JSON.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from nixpatch.installed.provenance import Provenance

NAME = "sboms/nixpatch.cdx.json"
"""path inside a ``.dist-info`` directory"""
_STORE_PATH = re.compile(r"(.*?/[0-9a-z]{32}-([^/]+))/.*")
_PACKAGE = re.compile(r"(.+?)-(\d.*)")


def dump(info: str, provenance: Provenance) -> bytes:
    """Return the bytes of the document for a dist: sorted, ASCII only, one line feed at the end."""
    name, _, version = os.path.basename(info).removesuffix(".dist-info").partition("-")
    subject = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    components = [_component(path, files, provenance) for path, files in sorted(_serving(provenance).items())]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "tools": {"components": [_named("application", provenance.tool.partition(" "))]},
            "component": {
                "type": "library",
                "bom-ref": subject,
                "name": name,
                "version": version,
                "purl": subject,
            },
        },
        "components": components,
        "dependencies": [
            {"ref": subject, "dependsOn": [component["bom-ref"] for component in components]},
            *({"ref": component["bom-ref"]} for component in components),
        ],
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode("ascii")


def _named(kind: str, parts: tuple[str, str, str]) -> dict[str, str]:
    return {"type": kind, "name": parts[0], **({"version": parts[2]} if parts[2] else {})}


def _serving(provenance: Provenance) -> Mapping[str, set[str]]:
    """Return, by store path, the files of it that serve the dist."""
    files = {where for file in provenance.files.values() for where in file.needs.values()}
    files.update(graft.library for graft in provenance.unvendored.values() if graft.library)
    found: dict[str, set[str]] = {}
    for file in files:
        inside = _STORE_PATH.fullmatch(file)
        if inside is not None:
            found.setdefault(inside[1], set()).add(file)
    return found


def _component(store_path: str, files: set[str], provenance: Provenance) -> dict[str, Any]:
    entry = os.path.basename(store_path)
    package = entry.partition("-")[2]
    split = _PACKAGE.fullmatch(package)
    properties = [("nixpatch:store-path", store_path)]
    properties += [("nixpatch:library", file) for file in sorted(files)]
    properties += [
        ("nixpatch:replaces", f"{path} {graft.sha256}")
        for path, graft in sorted(provenance.unvendored.items())
        if graft.library in files
    ]
    return {
        **_named("library", (split[1], "-", split[2]) if split else (package, "", "")),
        "bom-ref": entry,
        "properties": [{"name": name, "value": value} for name, value in properties],
    }
