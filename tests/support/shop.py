"""Small wheels to install into the small world, made here: real installers, no index."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nixpatch import elf
from nixpatch.model import ElfFacts
from support.opened import SCRIPT, SOURCE, bash
from support.world import World, shared

Call = Callable[..., tuple[int, str, str]]
"""runs a command line: exit code, standard output, standard error, those of the installer among them"""


def make_wheel(
    directory: str,
    name: str,
    version: str,
    extension: str | None = None,
    more_files: Mapping[str, bytes] = MappingProxyType({}),
    tag: str = "py3-none-any",
    requires: Sequence[str] = (),
) -> str:
    """Write a wheel of a package with one module, and with a copy of an extension if one is given."""
    files = {f"{name}/__init__.py": f"version = {version!r}\n".encode(), **more_files}
    if extension is not None:
        with open(extension, "rb") as file:
            files[f"{name}/native/_ext.so"] = file.read()
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{info}/METADATA"] = (metadata + "".join(f"Requires-Dist: {line}\n" for line in requires)).encode()
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: {tag}\n".encode()
    )
    rows = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(data)}\n")
    files[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    os.makedirs(directory, exist_ok=True)
    wheel = os.path.join(directory, f"{name}-{version}-{tag}.whl")
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            entry = zipfile.ZipInfo(path)
            # Pip makes a script executable if it is so in the wheel, uv makes each of them.
            entry.external_attr = (0o100755 if "/scripts/" in path else 0o100644) << 16
            archive.writestr(entry, data)
    return wheel


@dataclass(frozen=True)
class Shop:
    """The small world, with wheels to install into its venv."""

    world: World
    wheels: str

    def wheel(self, name: str, version: str = "1.0", *, native: bool = True) -> str:
        """Make a wheel; a native one needs the library of the world's store."""
        extension = os.path.join(self.world.root, "ext.so")
        if native and not os.path.exists(extension):
            shared("extension.c", extension, os.path.join(self.world.library, "libanswer.so.1"))
        return make_wheel(self.wheels, name, version, extension if native else None)

    def opener(self) -> str:
        """Make a wheel that opens the library by name, and has a script."""
        bash(self.world)
        files = {"opener.py": SOURCE, "opener_pkg-1.0.data/scripts/opener-run": SCRIPT}
        return make_wheel(self.wheels, "opener_pkg", "1.0", more_files=files)

    def extension(self, name: str) -> str:
        """Return where the extension of an installed wheel is."""
        return os.path.join(self.world.site, name, "native", "_ext.so")

    def search_path(self, name: str) -> str | None:
        """Return the search path of an installed extension."""
        facts = elf.read(self.extension(name))
        assert isinstance(facts, ElfFacts)
        return facts.current.search_path

    def ask(self, name: str) -> str:
        """Load an installed extension with the venv's Python; return its answer."""
        code = f"import ctypes; print(ctypes.CDLL({self.extension(name)!r}).ask())"
        python = os.path.join(self.world.venv, "bin", "python")
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    def traces(self) -> list[str]:
        """Return what of ours, or of an installed dist, is in the venv, pkg's own files not counted."""
        venv = self.world.venv
        paths = (
            path
            for directory, _, names in os.walk(venv)
            for path in (directory, *(os.path.join(directory, name) for name in names))
        )
        found = [os.path.relpath(path, venv) for path in paths if "/pip/" not in path]
        return [name for name in found if any(word in name for word in ("nixpatch", "one", "two", "opener"))]
