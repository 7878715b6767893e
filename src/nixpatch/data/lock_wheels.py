"""Write what linked wheels use: libraries by key, other wheels by name. For mkNixpatchLock of the overlay.

    lock_wheels.py WHEELS LIBRARIES

WHEELS is a JSON list of {"name", "file", "path"}, LIBRARIES of {"key", "path"}; every path is a store path.
"""

import glob
import json
import os
import sys
from collections.abc import Iterator
from typing import Any


def main(wheels_file: str, libraries_file: str) -> None:
    """Read both lists and the provenance of every wheel, and write the lock."""
    wheels, libraries = _read(wheels_file), _read(libraries_file)
    roots = {os.path.realpath(f"{wheel['path']}/lib") + "/": wheel["name"] for wheel in wheels}
    rows = {}
    for wheel in wheels:
        keys, others = set(), set()
        for soname, path in _providers(wheel["path"]):
            real = os.path.realpath(path)
            names = (name for root, name in roots.items() if real.startswith(root))
            other = next(names, None)
            of_key = (
                entry["key"]
                for entry in libraries
                if os.path.realpath(f"{entry['path']}/lib/{soname}") == real
            )
            if other is None:
                keys.update([*of_key][:1])
            elif other != wheel["name"]:
                others.add(other)
        rows[wheel["file"]] = {"libraries": sorted(keys), "wheels": sorted(others)}
    offered = sorted({entry["key"] for entry in libraries})
    sys.stdout.write(json.dumps({"offered": offered, "wheels": rows}, indent=1, sort_keys=True) + "\n")


def _read(path: str) -> Any:
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _providers(prefix: str) -> Iterator[tuple[str, str]]:
    """Yield soname and path of every library outside the wheel that its files were linked to."""
    for path in glob.glob(f"{glob.escape(prefix)}/lib/python*/site-packages/*.dist-info/nixpatch.json"):
        document = _read(path)
        for needs in (document["libraries"], *(patched["needs"] for patched in document["files"].values())):
            yield from (item for item in needs.items() if item[1].startswith("/"))


main(*sys.argv[1:])
