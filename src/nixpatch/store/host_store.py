"""A small store made from the host's own libraries, for ``nixpatch demo`` on a machine without Nix."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence

from nixpatch.errors import MachineError
from nixpatch.model import ElfFacts, Machine
from nixpatch.policy import default_policy
from nixpatch.store.cached_reads import ElfReader
from nixpatch.store_paths import BASE32, HASH_CHARS, library_stem, library_version

_HOST_DIRS = (
    "/lib/*-linux-*",
    "/usr/lib/*-linux-*",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
)
"""multiarch directories, Fedora's, and everyone else's (FHS 3.0, 4.10)"""
_GCC = ("libstdc++", "libgcc_s", "libgomp", "libatomic", "libquadmath", "libgfortran")
_GCC_LIB = "gcc-lib"


def assemble(
    directory: str,
    sonames: Sequence[str],
    reader: ElfReader,
    *,
    machine: Machine | None = None,
    search: Sequence[str] | None = None,
) -> str:
    """Build a store with copies of the host's libraries ``sonames`` and of all that they need but libc.

    Args:
        directory: a scratch directory; the store is ``nix/store`` in it.
        sonames: the libraries to offer.
        reader: reads the headers of one ELF file.
        machine: which machine's libraries; that of the running Python by default.
        search: the host's library directories; the usual ones by default.

    Returns:
        The store directory. The same libraries give the same names in it.

    Raises:
        MachineError: the host lacks one of the libraries, or the directory cannot be written.

    """
    wanted = machine or _own_machine(reader)
    directories = list(_host_directories() if search is None else search)
    packages: dict[str, dict[str, str]] = {}
    for soname, path in sorted(_transitive(sonames, reader, wanted, directories).items()):
        stem = library_stem(soname)
        key = _GCC_LIB if stem.removesuffix(".so") in _GCC else stem.removesuffix(".so")
        packages.setdefault(key, {})[soname] = path
    store = os.path.join(os.path.abspath(directory), "nix", "store")
    try:
        os.makedirs(store, exist_ok=True)
        for package, libraries in packages.items():
            _add(store, package, libraries)
    except OSError as error:
        raise MachineError(
            f"{error.filename or store}: {error.strerror}; choose another scratch directory"
        ) from None
    return store


def _own_machine(reader: ElfReader) -> Machine | None:
    facts = reader(os.path.realpath(sys.executable))
    return facts.machine if isinstance(facts, ElfFacts) else None


def _host_directories() -> Iterator[str]:
    for pattern in _HOST_DIRS:
        yield from sorted(glob.glob(pattern))


def _transitive(
    sonames: Sequence[str], reader: ElfReader, machine: Machine | None, directories: Sequence[str]
) -> dict[str, str]:
    """Return the regular file behind every soname that is needed, directly or not."""
    paths: dict[str, str] = {}
    waiting = deque((soname, "") for soname in sonames)
    while waiting:
        soname, parent = waiting.popleft()
        if soname in paths or default_policy().libc_of(soname) is not None:
            continue
        for directory in directories:
            path = os.path.realpath(os.path.join(directory, soname))
            facts = reader(path) if os.path.isfile(path) else None
            if isinstance(facts, ElfFacts) and machine in (None, facts.machine):
                paths[soname] = path
                waiting.extend((need, soname) for need in facts.needed)
                break
        else:
            why = f" (needed by {parent})" if parent else ""
            raise MachineError(
                f"{soname}{why} is in none of this machine's library directories ({', '.join(directories)}); "
                "install the package of your distribution that contains it"
            )
    return paths


def _add(store: str, package: str, libraries: dict[str, str]) -> None:
    """Add one store path: the files under their own names, the sonames as links to them."""
    main = next((name for name in libraries if name.startswith("libstdc++")), min(libraries))
    version = library_version(os.path.basename(libraries[main])) or library_version(main) or "0"
    digest = hashlib.sha256(f"{package}-{version}".encode())
    for soname, path in sorted(libraries.items()):
        with open(path, "rb") as file:
            contents = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"\n{contents} {os.path.basename(path)} {soname}".encode(errors="surrogateescape"))
    home = os.path.join(store, f"{_base32(digest.digest())}-{package}-{version}")
    if os.path.isdir(home):
        return  # the name depends on the contents
    scratch = tempfile.mkdtemp(prefix=".new-", dir=store)
    try:
        lib = os.path.join(scratch, "lib")
        os.mkdir(lib)
        for soname, path in libraries.items():
            name = os.path.basename(path)
            copy = os.path.join(lib, name)
            if not os.path.lexists(copy):
                shutil.copyfile(path, copy)
                os.chmod(copy, 0o555)  # noqa: S103 - as in a store
            if soname != name:
                os.symlink(name, os.path.join(lib, soname))
        os.chmod(scratch, 0o755)  # noqa: S103 - mkdtemp makes it private
        os.rename(scratch, home)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def _base32(digest: bytes) -> str:
    """Return the first 160 bits in Nix's alphabet, five bits a character."""
    number = int.from_bytes(digest[:20], "big")
    return "".join(BASE32[number >> 5 * position & 31] for position in reversed(range(HASH_CHARS)))
