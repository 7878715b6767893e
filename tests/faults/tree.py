"""The tree of these runs: small, and with one of each thing that a run writes."""

from __future__ import annotations

import os
import shutil

from nixpatch.installed.scan import scan
from support import opened
from support import world as worlds
from support.injector import TreeState, state_of
from support.world import World, record_row, shared

SECOND = "2" * 32 + "-other-2.0"
"""a store path with another copy of the library, and another bash"""


def make(root: str) -> World:
    """Two dists that share a file, a signed RECORD with CRLF and sha384, a file that no dist claims.

    And two that share a script, one of which opens libraries by name.
    """
    world = worlds.make(root)
    opened.install(world)
    opened.install(world, "partner", {"partner.py": b"", "../../../bin/opener-run": opened.SCRIPT})
    second = os.path.join(world.store, SECOND)
    os.makedirs(os.path.join(second, "bin"))
    os.symlink("/bin/bash", os.path.join(second, "bin", "bash"))
    shared("library.c", os.path.join(second, "lib", "libanswer.so.1"), "-Wl,-soname,libanswer.so.1")
    for name in ("Activate.ps1", "activate", "activate.csh", "activate.fish"):
        os.unlink(os.path.join(world.venv, "bin", name))
    library = os.path.join(world.library, "libanswer.so.1")
    other = shared("extension.c", os.path.join(world.site, "other", "_ext.so"), library, "-DOTHER")
    loose = shared("extension.c", os.path.join(world.site, "loose.so"), library, "-DLOOSE")
    os.chmod(other, 0o555)
    os.chmod(loose, 0o4755)
    info = os.path.join(world.site, "other-2.0.dist-info")
    shutil.copytree(world.info, info)
    with open(os.path.join(info, "METADATA"), "w", encoding="utf-8") as file:
        file.write("Metadata-Version: 2.1\nName: other\nVersion: 2.0\n")
    rows = [record_row(path, world.site) for path in (other, world.extension, os.path.join(info, "METADATA"))]
    with open(os.path.join(info, "RECORD"), "wb") as record:
        record.write("".join(f"{row}\r\n" for row in (*rows, "other-2.0.dist-info/RECORD,,")).encode())
    with open(os.path.join(info, "RECORD.jws"), "wb") as signature:
        signature.write(b"{}")
    return world


def graft(world: World, to: str) -> None:
    """Copy the tree, and give the first dist a library of its own that auditwheel would have put there."""
    shutil.copytree(world.venv, to, symlinks=True)
    site = os.path.join(to, os.path.relpath(world.site, world.venv))
    name = "libanswer-0a1b2c3d.so.1"
    library = shared("library.c", os.path.join(site, "pkg.libs", name), f"-Wl,-soname,{name}")
    user = os.path.join(site, "pkg", "_user.so")
    shared("extension.c", user, library, "-Wl,-rpath,$ORIGIN/../pkg.libs", "-DUSER")
    with open(os.path.join(site, "pkg-1.0.dist-info", "RECORD"), "a", encoding="utf-8") as record:
        record.writelines(f"{record_row(path, site)}\n" for path in (library, user))


def unlisted(tree: str, before: TreeState) -> list[str]:
    """Return the files that a run made and no RECORD lists: ``pip uninstall`` would leave them behind."""
    listed = frozenset[str]().union(*(dist.files for dist in scan(tree).dists))
    made = state_of(tree).keys() - before.keys()
    return sorted(
        path
        for path in made
        if os.path.isfile(file := os.path.join(tree, path)) and file not in listed
        if not os.path.basename(path).startswith(".nixpatch")
    )
