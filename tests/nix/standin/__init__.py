"""A small stdenv on the test store, and what it takes from outside: nixpatch, wheels, Debian's strip."""

import glob
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from support.testbed.store import NixStore, locked, nix_environment
from support.testbed.venv import CONSTRAINTS

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass(frozen=True, slots=True)
class Standin:
    """Builds environments of wheels with the derivations that nixpatch ships."""

    store: NixStore
    tool: str
    """a site-packages with nixpatch and the PyPI package ``installer``"""
    strip: str

    def build(
        self,
        wheels: Sequence[str],
        inputs: str,
        *options: str,
        tools: str = "",
        more: dict[str, object] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run nix-build; ``inputs`` and ``tools`` are attributes, ``more`` goes to the derivation."""
        arguments = {
            "store": os.path.join(self.store.work, "store.json"),
            "tool": self.tool,
            "installer": self.tool,
            "strip": self.strip,
            "wheels": " ".join(wheels),
            "inputs": inputs,
            "tools": tools,
            "more": json.dumps(more or {}),
        }
        command = ["nix-build", "--no-out-link", os.path.join(HERE, "wheels.nix"), *options]
        for name, value in arguments.items():
            command += ["--argstr", name, value]
        environment = nix_environment()
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, errors="replace", check=False
        )

    def references(self, path: str) -> list[str]:
        """The store paths that a store path refers to."""
        command = ["nix-store", "--query", "--references", path]
        done = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=True)
        return sorted(done.stdout.split())


def download(store: NixStore, *names: str) -> list[str]:
    """The wheels of these names for the store's Python, in the versions of the constraints."""
    directory = os.path.join(store.work, "wheels", "hook")
    os.makedirs(directory, exist_ok=True)

    def present(name: str) -> list[str]:
        return glob.glob(os.path.join(directory, f"{name.replace('-', '_')}-*.whl"))

    with locked(os.path.join(store.work, "download.lock")):
        missing = [name for name in names if not present(name)]
        if missing:
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
            for platform in ("manylinux_2_28_x86_64", "manylinux2014_x86_64"):
                command += ["--platform", platform]
            command += ["--python-version", "3.11", "--constraint", CONSTRAINTS, "-d", directory]
            subprocess.run([*command, *missing], check=True)
    return [present(name)[0] for name in names]


def bring_strip(directory: str) -> str:
    """Copy Debian's strip and the libraries that it loads."""
    program = shutil.which("strip") or ""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    for place, files in {"bin": [program], "lib": [word for word in told.split() if word[0] == "/"]}.items():
        os.makedirs(os.path.join(directory, place))
        for file in files:
            shutil.copy(file, os.path.join(directory, place))
    return directory
