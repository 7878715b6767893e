"""Facts of a machine, one row each: a new architecture is a row of ``ARCHES``, its tests are in CONTRIBUTING.

Sources: gABI and psABIs (e_machine, class, byte order); https://sourceware.org/glibc/wiki/ABIList (loaders);
https://wiki.debian.org/Multiarch/Tuples; ``lib/systems/parse.nix`` of nixpkgs; arch/*/Kconfig of Linux (page
sizes); ``packaging/_manylinux.py`` and auditwheel's ``manylinux-policy.json`` (manylinux).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_4_KIB: Final = 0x1000
_64_KIB: Final = 0x10000
_OPEN: Final = 1 << 10
"""end of a range of glibc versions that has no end yet"""
_RLD_MAP: Final = "MIPS: its debugger entry stores a distance inside the dynamic section"


@dataclass(frozen=True, slots=True)
class Arch:
    """One machine: a combination of ``e_machine``, class and byte order."""

    name: str
    """as ``platform.machine()`` and wheel tags spell it"""
    e_machine: int
    bits: int
    """32 or 64 (EI_CLASS)"""
    byteorder: str
    """``"little"`` or ``"big"`` (EI_DATA)"""
    max_page: int = _64_KIB
    """the largest page, in bytes, that a Linux kernel can be built with; 64 KiB is the careful answer"""
    loader: str | None = None
    """where the psABI puts glibc's dynamic loader; None if nixpatch does not look for one"""
    nix_cpu: str = ""
    """the CPU in nixpkgs' system double, if it is not ``name``"""
    debian_tuple: str = ""
    """Debian's multiarch tuple, if it is not ``<name>-linux-gnu``"""
    manylinux_since: int | None = None
    """``packaging.tags`` makes manylinux_2_N tags from this N on; None if it makes none"""
    auditwheel: range = range(0)
    """auditwheel has a manylinux_2_N policy for each N of the series in here"""
    hash_word: int = 4
    """size in bytes of the words of DT_HASH (gABI: 4; s390x and Alpha deviate)"""
    relative: int | None = None
    """number of the relocation R_*_RELATIVE (psABI); None if no check relies on it"""
    refused: str | None = None
    """why no file of this machine can be edited"""

    @property
    def nix_system(self) -> str:
        """The system double of nixpkgs, such as ``x86_64-linux``."""
        return f"{self.nix_cpu or self.name}-linux"

    @property
    def multiarch(self) -> str:
        """The directory below ``/usr/lib`` in which Debian keeps this machine's libraries."""
        return self.debian_tuple or f"{self.name}-linux-gnu"


# The first line of a row has identity, page and loader, the next one the rest.
# fmt: off
ARCHES: Final = (
    Arch("x86_64", 62, 64, "little", _4_KIB, "/lib64/ld-linux-x86-64.so.2",
         manylinux_since=5, auditwheel=range(5, _OPEN), relative=8),
    Arch("x32", 62, 32, "little", _4_KIB, debian_tuple="x86_64-linux-gnux32", relative=8),
    Arch("i686", 3, 32, "little", _4_KIB, "/lib/ld-linux.so.2",
         debian_tuple="i386-linux-gnu", manylinux_since=5, auditwheel=range(5, _OPEN), relative=8),
    Arch("aarch64", 183, 64, "little", _64_KIB, "/lib/ld-linux-aarch64.so.1",
         manylinux_since=17, auditwheel=range(17, _OPEN), relative=1027),
    Arch("armv7l", 40, 32, "little", _4_KIB, "/lib/ld-linux-armhf.so.3",
         debian_tuple="arm-linux-gnueabihf", manylinux_since=17, auditwheel=range(17, _OPEN), relative=23),
    Arch("armv7b", 40, 32, "big", _4_KIB, relative=23),
    Arch("ppc64le", 21, 64, "little", _64_KIB, "/lib64/ld64.so.2", nix_cpu="powerpc64le",
         debian_tuple="powerpc64le-linux-gnu", manylinux_since=17, auditwheel=range(17, _OPEN), relative=22),
    Arch("ppc64", 21, 64, "big", _64_KIB, nix_cpu="powerpc64",
         debian_tuple="powerpc64-linux-gnu", manylinux_since=17, auditwheel=range(17, 18), relative=22),
    Arch("s390x", 22, 64, "big", _4_KIB, "/lib/ld64.so.1",
         manylinux_since=17, auditwheel=range(17, _OPEN), hash_word=8, relative=12),
    Arch("s390", 22, 32, "big", _4_KIB, relative=12),
    Arch("riscv64", 243, 64, "little", _4_KIB, "/lib/ld-linux-riscv64-lp64d.so.1",
         manylinux_since=17, auditwheel=range(31, _OPEN), relative=3),
    Arch("riscv32", 243, 32, "little", _4_KIB, relative=3),
    Arch("loongarch64", 258, 64, "little", _64_KIB, "/lib64/ld-linux-loongarch-lp64d.so.1",
         manylinux_since=17, auditwheel=range(36, _OPEN), relative=3),
    Arch("alpha", 0x9026, 64, "little", hash_word=8, relative=27),
    Arch("mipsel", 8, 32, "little", refused=_RLD_MAP),
    Arch("mips", 8, 32, "big", refused=_RLD_MAP),
    Arch("mips64el", 8, 64, "little", debian_tuple="mips64el-linux-gnuabi64", refused=_RLD_MAP),
    Arch("mips64", 8, 64, "big", debian_tuple="mips64-linux-gnuabi64", refused=_RLD_MAP),
)
# fmt: on

_BY_HEADER: Final = {(arch.e_machine, arch.bits, arch.byteorder): arch for arch in ARCHES}


def arch_of(e_machine: int, bits: int, byteorder: str) -> Arch:
    """Return the row of a machine; for one without a row, ``machine <number>`` and the careful defaults."""
    row = _BY_HEADER.get((e_machine, bits, byteorder))
    return row or Arch(f"machine {e_machine}", e_machine, bits, byteorder)
