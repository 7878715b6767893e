"""Which file names belong to the C library and its loader. They are never served from a store directory."""

from __future__ import annotations

from collections.abc import Iterable

from nixpatch.model import Libc

_LOADERS = ("ld-linux", "ld-musl-", "ld64.so.", "ld.so.1", "ld-2.")
_LIBC = ("libc.so.6", "libc.musl-", "libc-2.")
_BESIDE = (
    "libm.so.6", "libmvec.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1",
    "libresolv.so.2", "libanl.so.1", "libnsl.so.1", "libBrokenLocale.so.1", "libthread_db.so.1",
    "libc_malloc_debug.so.0", "libnss_",
)  # fmt: skip
"""what glibc installs next to libc.so.6 (its shlib-versions)"""


def is_libc_name(name: str) -> bool:
    """Whether a soname is one of libc's own, the loader's included."""
    return name == "libc.so" or name.startswith((*_LOADERS, *_LIBC, *_BESIDE))


def holds_libc(names: Iterable[str]) -> bool:
    """Whether a directory with these names holds a C library: in a search path it would break the process.

    ``libc.so`` is musl's libc. It is glibc's linker script too, which lies beside no library worth a search
    path.
    """
    return any(name == "libc.so" or name.startswith((*_LOADERS, *_LIBC)) for name in names)


def libc_of(needed: Iterable[str]) -> Libc | None:
    """Return the libc that a file with these needs was built for, None if it names none."""
    for name in needed:
        if name == "libc.so" or name.startswith(("libc.musl-", "ld-musl-")):
            return Libc.MUSL
        if is_libc_name(name):
            return Libc.GLIBC
    return None
