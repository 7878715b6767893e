"""Pythons, loaders and C libraries made of files that only a stand-in reader takes for ELF."""

from __future__ import annotations

import os

import pytest

from nixpatch.errors import RequestError
from nixpatch.installed.scan import scan
from nixpatch.installed.target_python import find_target
from nixpatch.model import ElfFacts, Linkage, Machine, Skip, SkipReason, Target, Tree
from support.installed_trees import SITE, dist, write

X86_64 = Machine(62, 64, "little")
AARCH64 = Machine(183, 64, "little")


def facts(*, interp: str | None = None, defs: tuple[str, ...] = (), machine: Machine = X86_64) -> ElfFacts:
    linkage = Linkage(None, None, interp)
    return ElfFacts(machine, interp is not None, None, (), linkage, linkage, None, version_defs=defs)


class World:
    """Files in a directory, and what a reader of ELF headers would say of them."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.elf: dict[str, ElfFacts | Skip] = {}

    def path(self, name: str) -> str:
        return os.path.join(self.base, name)

    def read(self, path: str) -> ElfFacts | Skip:
        real = os.path.realpath(path)
        if real not in self.elf:
            with open(real, "rb"):  # OSError where there is none, as of the real reader
                return Skip(SkipReason.NOT_ELF)
        return self.elf[real]

    def glibc(self, directory: str, version: str = "2.36", machine: Machine = X86_64) -> str:
        """A loader and a libc.so.6; returns the loader."""
        loader = write(self.path(f"{directory}/ld-linux-x86-64.so.2"))
        libc = write(self.path(f"{directory}/libc.so.6"))
        defs = ("GLIBC_2.2.5", "GLIBC_2.9", f"GLIBC_{version}", "GLIBC_PRIVATE", "GLIBC_ABI_DT_RELR")
        self.elf[libc] = facts(interp=loader, defs=defs, machine=machine)
        self.elf[loader] = facts(machine=machine)
        return loader

    def python(self, name: str, loader: str, machine: Machine = X86_64) -> str:
        path = write(self.path(name), mode=0o755)
        self.elf[path] = facts(interp=loader, machine=machine)
        return path

    def script(self, name: str, text: str) -> str:
        return write(self.path(name), text.encode(), 0o755)

    def venv(self, name: str = "venv", config: str = "") -> Tree:
        write(self.path(f"{name}/pyvenv.cfg"), config.encode())
        os.makedirs(self.path(f"{name}/{SITE}"))
        os.makedirs(self.path(f"{name}/bin"))
        return scan(self.path(name))

    def out(self, name: str = "out") -> Tree:
        dist(self.path(f"{name}/{SITE}"), "pkg", {})
        return scan(self.path(name))

    def find(
        self,
        tree: Tree,
        python: str | None = None,
        search_path: str | None = None,
        loader: str | None = None,
    ) -> Target:
        return find_target(tree, python, search_path, self.read, loader=loader)

    def refused(self, tree: Tree, python: str | None = None, search_path: str | None = None) -> str:
        with pytest.raises(RequestError) as caught:
            self.find(tree, python, search_path)
        message = str(caught.value)
        assert "--python" in message
        assert len(message.splitlines()) == 1
        return message
