"""The Nix store and the other sources of libraries.

``find_store`` returns the store to work with. ``open_index`` turns the sources (``--lib``, ``--closure``,
the closure of the target Python, ``--nixpkgs``, the whole local store) into a ``ProviderIndex``, which
returns the libraries of a file name, best first. It lists the names of the whole store but reads the headers
only of files that are asked for, and a cache keyed on the state of every file and directory makes the second
run quick. ``lockfile`` and ``catalog`` hold their formats, ``nixpkgs`` builds, ``gc_roots`` protects store
paths, and ``assemble`` makes a small store from the host's own libraries. The reader of ELF files is a
parameter: this package does not depend on ``elf``.
"""

from nixpatch.store.cache import Cache
from nixpatch.store.cached_reads import CachedHeaders, ElfReader
from nixpatch.store.closure import closure, closure_by_reading
from nixpatch.store.host_store import assemble
from nixpatch.store.index import ProviderIndex, open_index
from nixpatch.store.nix_store import DEFAULT_STORE_DIR, Store, find_store
from nixpatch.store.sources import LibraryDirectory, LibrarySources

__all__ = [
    "DEFAULT_STORE_DIR",
    "Cache",
    "CachedHeaders",
    "ElfReader",
    "LibraryDirectory",
    "LibrarySources",
    "ProviderIndex",
    "Store",
    "assemble",
    "closure",
    "closure_by_reading",
    "find_store",
    "open_index",
]
