"""A store of pretended libraries: the ELF magic, and then the facts as JSON instead of headers."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nixpatch.model import ElfFacts, Libc, Linkage, Machine, Skip, SkipReason, Source, Target, VersionNeed
from nixpatch.store.cache import Cache
from nixpatch.store.index import ProviderIndex, open_index
from nixpatch.store.nix_store import Store, find_store
from nixpatch.store.sources import LibraryDirectory, LibrarySources
from nixpatch.store_paths import BASE32

X86_64 = Machine(62, 64, "little")
I686 = Machine(3, 32, "little")
AARCH64 = Machine(183, 64, "little")


@dataclass
class FakeReader:
    """Reads what :func:`library` writes, and remembers which files it was asked about."""

    asked: list[str] = field(default_factory=list)

    def __call__(self, path: str) -> ElfFacts | Skip:
        self.asked.append(path)
        data = Path(path).read_bytes()
        if not data.startswith(b"\x7fELF"):
            return Skip(SkipReason.NOT_ELF)
        row = json.loads(data[4:])
        linkage = Linkage(row["search_path"], None, row["interp"])
        return ElfFacts(
            machine=Machine(*row["machine"]),
            executable=row["executable"],
            soname=row["soname"],
            needed=tuple(row["needed"]),
            current=linkage,
            original=linkage,
            original_sha256=None,
            version_needs=tuple(VersionNeed(name, tuple(versions)) for name, versions in row["needs"]),
            version_defs=tuple(row["defs"]),
        )


def library(
    path: str,
    *,
    soname: str | None = None,
    machine: Machine = X86_64,
    needed: Sequence[str] = ("libc.so.6",),
    needs: Sequence[tuple[str, Sequence[str]]] = (),
    defs: Sequence[str] = (),
    search_path: str | None = None,
    interp: str | None = None,
    executable: bool = False,
) -> str:
    """Write a pretended ELF file (replacing one) and return its path."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    row = {
        "machine": [machine.number, machine.bits, machine.byteorder],
        "executable": executable,
        "soname": soname or os.path.basename(path),
        "needed": list(needed),
        "needs": [[name, list(versions)] for name, versions in needs],
        "defs": list(defs),
        "search_path": search_path,
        "interp": interp,
    }
    scratch = path + "~"
    Path(scratch).write_bytes(b"\x7fELF" + json.dumps(row).encode())
    os.replace(scratch, path)
    return path


def symlink(path: str, target: str) -> str:
    """Make a symlink and its directory."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink(target, path)
    return path


@dataclass
class World:
    """A store in a scratch directory, and a Python that may come from it."""

    root: str
    reader: FakeReader = field(default_factory=FakeReader)
    python: str = "/usr/bin/python3"
    loader: str = "/lib64/ld-linux-x86-64.so.2"
    libc_dir: str = "/lib/x86_64-linux-gnu"

    @property
    def store(self) -> Store:
        return find_store(os.path.join(self.root, "nix", "store"), {})

    def path(self, package: str, salt: str = "") -> str:
        """Return the store path of a package, making it."""
        number = int.from_bytes(hashlib.sha256((package + salt).encode()).digest()[:20], "big")
        name = "".join(BASE32[number >> 5 * place & 31] for place in range(32))
        path = os.path.join(self.root, "nix", "store", f"{name}-{package}")
        os.makedirs(path, exist_ok=True)
        return path

    @property
    def target(self) -> Target:
        return Target(
            python=self.python,
            found_by="--python",
            version=(3, 12),
            machine=X86_64,
            loader=self.loader,
            libc=Libc.GLIBC,
            libc_version=(2, 40),
            libc_versions=frozenset({"GLIBC_2.40"}),
            libc_dir=self.libc_dir,
        )

    def index(
        self,
        *libs: str,
        closures: Sequence[str] = (),
        pure: bool = False,
        cache: str | None = None,
        edition: str = "",
    ) -> ProviderIndex:
        sources = LibrarySources(libs=libs, closures=tuple(closures), pure=pure)
        return open_index(self.store, self.target, self.reader, sources, cache=Cache(cache, edition))

    def found(self, name: str, *libs: str, pure: bool = False) -> list[str]:
        """Return the directories of the providers, best first."""
        return [provider.directory for provider in self.index(*libs, pure=pure).providers(name)]


def searched(index: ProviderIndex) -> list[LibraryDirectory]:
    """Return the directories that an index takes libraries from, by source; those of ``--lib`` as given."""
    names = {os.fsdecode(name) for name in (*index._named, *index._store_names.names)}
    directories = {found.path: found for name in sorted(names) for found in index._candidates(name)}
    return sorted(
        directories.values(), key=lambda found: (found.source, found.source is not Source.LIB and found.path)
    )


def world(scratch: Path) -> World:
    """Return an empty store."""
    os.makedirs(scratch / "nix" / "store")
    return World(os.path.realpath(scratch))
