"""The C library that a dynamic loader brings along."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nixpatch.escape import shown
from nixpatch.installed.interpreter import Unusable
from nixpatch.model import ElfFacts, Libc, Machine, Skip

Reader = Callable[[str], ElfFacts | Skip]
"""Reads the headers of one ELF file; may raise OSError."""

_GLIBC = "libc.so.6"
_GLIBC_VERSION = re.compile(r"GLIBC_([0-9]{1,9}(?:\.[0-9]{1,9})+)")

# Debian's multiarch tuples, where they are not "<machine>-linux-gnu".
_TUPLES = {
    "x32": "x86_64-linux-gnux32",
    "i686": "i386-linux-gnu",
    "armv7l": "arm-linux-gnueabihf",
    "ppc64le": "powerpc64le-linux-gnu",
    "ppc64": "powerpc64-linux-gnu",
    "mipsel": "mipsel-linux-gnu",
    "mips64el": "mips64el-linux-gnuabi64",
    "loongarch64": "loongarch64-linux-gnu",
}

# What nix-ld, whose own loader stands at the FHS path, starts unless NIX_LD says otherwise.
_NIX_LD_DEFAULT = "/run/current-system/sw/share/nix-ld/lib/ld.so"


@dataclass(frozen=True, slots=True)
class LibcFacts:
    """The fields of a ``Target`` that describe its libc."""

    libc: Libc
    version: tuple[int, ...]
    versions: frozenset[str]
    directory: str


def libc_of(loader: str, machine: Machine, read: Reader) -> LibcFacts:
    """Find the libc that programs with this PT_INTERP get.

    musl is loader and libc in one file and has no symbol versions, so ``version`` is empty for it.

    Raises:
        Unusable: no libc.so.6 of this machine lies where this loader looks.

    """
    if os.path.basename(loader).startswith("ld-musl-"):
        return LibcFacts(Libc.MUSL, (), frozenset(), os.path.dirname(os.path.realpath(loader)))
    for directory in dict.fromkeys(_directories(loader, machine)):
        try:
            facts = read(os.path.join(directory, _GLIBC))
        except OSError:
            continue
        if isinstance(facts, Skip) or facts.machine != machine:
            continue
        numbers = [found[1] for name in facts.version_defs if (found := _GLIBC_VERSION.fullmatch(name))]
        if numbers:
            version = max(tuple(map(int, number.split("."))) for number in numbers)
            return LibcFacts(Libc.GLIBC, version, frozenset(facts.version_defs), directory)
    raise Unusable(f"has the dynamic loader {shown(loader)}, but no {_GLIBC} of {machine.name} belongs to it")


def _directories(loader: str, machine: Machine) -> Iterator[str]:
    """Where its libc may lie, the surest first."""
    yield os.path.dirname(loader)
    yield os.path.dirname(os.path.realpath(loader))
    # /lib64/ld-linux-x86-64.so.2 is the name in every program; the distribution chooses where libc is.
    base = os.path.dirname(os.path.dirname(loader)).rstrip("/")
    name = _TUPLES.get(machine.name, f"{machine.name}-linux-gnu")
    for place in (f"lib/{name}", f"usr/lib/{name}", "lib64", "usr/lib64", "lib", "usr/lib"):
        yield f"{base}/{place}"
    yield os.path.dirname(os.path.realpath(_NIX_LD_DEFAULT))
