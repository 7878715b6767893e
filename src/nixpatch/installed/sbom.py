"""The SBOM of an un-vendored dist: a CycloneDX 1.6 document in ``sboms`` (PEP 770).

auditwheel's own document stays: it describes the build of the wheel, and PEP 770 gives every tool files of
its own. Serial number and time stamp are optional, and left out: the same input gives the same bytes.
https://cyclonedx.org/docs/1.6/json/
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

from nixpatch.installed.provenance import Provenance
from nixpatch.store_paths import is_store_entry, package_of_entry, version_of

NAME = "sboms/nixpatch.cdx.json"
"""path inside a ``.dist-info`` directory"""


def dump(info: str, provenance: Provenance) -> bytes:
    """Return the document for a dist: JSON with sorted keys, ASCII only, a line feed at the end."""
    name, _, version = os.path.basename(info).removesuffix(".dist-info").partition("-")
    subject = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}"
    components = [
        _component(path, files, provenance) for path, files in sorted(_libraries(provenance).items())
    ]
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


def _libraries(provenance: Provenance) -> Mapping[str, set[str]]:
    """Return the store paths that serve the dist, each with the libraries in it that do."""
    files = {library for file in provenance.files.values() for library in file.needs.values()}
    files.update(graft.library for graft in provenance.unvendored.values() if graft.library)
    by_store_path: dict[str, set[str]] = {}
    for file in files:
        parts = file.split("/")
        depth = next((index for index, part in enumerate(parts[:-1]) if is_store_entry(part)), None)
        if depth is not None:
            by_store_path.setdefault("/".join(parts[: depth + 1]), set()).add(file)
    return by_store_path


def _component(store_path: str, files: set[str], provenance: Provenance) -> dict[str, Any]:
    entry = os.path.basename(store_path)
    package = package_of_entry(entry)
    version = version_of(package)
    name = package.removesuffix(f"-{version}") if version else package
    properties = [("nixpatch:store-path", store_path)]
    properties += [("nixpatch:library", file) for file in sorted(files)]
    properties += [
        ("nixpatch:replaces", f"{path} {graft.sha256}")
        for path, graft in sorted(provenance.unvendored.items())
        if graft.library in files
    ]
    return {
        **_named("library", (name, "-", version)),
        "bom-ref": entry,
        "properties": [{"name": name, "value": value} for name, value in properties],
    }
