"""Virtual environments of the store's Python, with wheels from PyPI as a user of NixOS gets them."""

import os
import subprocess
from dataclasses import dataclass
from typing import Literal, Protocol

from uv import find_uv_bin

from support.testbed.store import NixStore, locked

HERE = os.path.dirname(os.path.abspath(__file__))
CONSTRAINTS = os.path.join(HERE, "constraints.txt")

LinkMode = Literal["copy", "hardlink", "symlink", "clone"]


@dataclass(frozen=True, slots=True)
class StoreVenv:
    """A virtual environment of the store's Python."""

    path: str
    store: NixStore

    @property
    def bin(self) -> str:
        """Its programs."""
        return os.path.join(self.path, "bin")

    @property
    def python(self) -> str:
        """Its Python, a link into the store."""
        return os.path.join(self.bin, "python")

    @property
    def site_packages(self) -> str:
        """Where its packages are."""
        return os.path.join(self.path, "lib", "python3.11", "site-packages")

    def install(self, *requirements: str, dependencies: bool = True, link_mode: LinkMode = "copy") -> None:
        """Install wheels with the uv of the tests; what was downloaded once is taken from the work directory.

        Files are copied out of uv's cache: what a test writes into a hard link would change the cache.
        """
        command = [find_uv_bin(), "pip", "install", "--quiet", "--python", self.python]
        command += ["--only-binary", ":all:", "--constraint", CONSTRAINTS, "--link-mode", link_mode]
        if not dependencies:
            command.append("--no-deps")
        # Offline first: with a full cache nobody is asked, not even whether there is something newer.
        if self._uv([*command, "--offline", *requirements]).returncode == 0:
            return
        # One at a time: two tests that want the same wheel shall not both download it.
        with locked(os.path.join(self.store.work, "download.lock")):
            done = self._uv([*command, *requirements])
        if done.returncode:
            raise RuntimeError(f"cannot install {' '.join(requirements)}:\n{done.stderr}")

    def install_project(self, directory: str) -> None:
        """Build and install a project from its sources as they are now; uv would take an older build."""
        command = [find_uv_bin(), "pip", "install", "--quiet", "--python", self.python]
        command += ["--link-mode", "copy", "--refresh-package", "nixpatch", directory]
        with locked(os.path.join(self.store.work, "download.lock")):
            done = self._uv(command)
        if done.returncode:
            raise RuntimeError(f"cannot install {directory}:\n{done.stderr}")

    def _uv(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        # The machine's certificates: where there is a proxy or a mirror, it is they that know it.
        env = {"UV_SYSTEM_CERTS": "true", **os.environ, "UV_CACHE_DIR": os.path.join(self.store.work, "uv")}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


class StoreVenvFactory(Protocol):
    """The type of the fixture `store_venv`."""

    def __call__(self, *requirements: str, pip: bool = False) -> StoreVenv:
        """A new virtual environment of the store's Python with these wheels."""


def create(store: NixStore, path: str, *, pip: bool = False) -> StoreVenv:
    """Make an empty virtual environment; without pip unless asked for, which takes 3 s instead of 0.1 s."""
    command = [store.python, "-I", "-m", "venv", path]
    if not pip:
        command.append("--without-pip")
    subprocess.run(command, check=True, capture_output=True)
    return StoreVenv(path, store)
