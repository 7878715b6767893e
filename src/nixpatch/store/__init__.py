"""Where libraries come from: the Nix store, and what the user adds to it.

``find_store`` says which store and whether Nix answers for it; ``open_index`` turns the sources (``--lib``,
``--closure``, the closure of the target Python, the local store at large) into an index that answers one
question: which files can serve the name that ld.so looks for. Names are listed for all of the store, headers
are read only of files that someone asks for, and a cache keyed on the state of every file and directory makes
the second run quick without ever making it wrong. ``assemble`` builds a small store from the host's own
libraries for a demonstration on a machine without Nix. How an ELF file is read is handed in; this package
knows the store and nothing else.
"""

from nixpatch.store.cache import Cache
from nixpatch.store.cached_reads import Headers, Reader
from nixpatch.store.closure import closure, closure_by_reading
from nixpatch.store.host_store import assemble
from nixpatch.store.index import ProviderIndex, open_index
from nixpatch.store.nix_store import DEFAULT_STORE_DIR, Store, find_store
from nixpatch.store.sources import LibraryDirectory, Request

__all__ = [
    "DEFAULT_STORE_DIR",
    "Cache",
    "Headers",
    "LibraryDirectory",
    "ProviderIndex",
    "Reader",
    "Request",
    "Store",
    "assemble",
    "closure",
    "closure_by_reading",
    "find_store",
    "open_index",
]
