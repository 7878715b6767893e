"""The local store as a whole: which of its many thousand directories have a library of a given name.

Looking into every store path takes seconds, so the result is cached as one value under the state of the store
directory, which changes with every path that comes or goes. A store path that Nix has sealed (no write bit,
every time stamp 1: "canonicalisation" in the Nix manual) does not change any more. All others are looked into
in each run: those that are being built, and every path of a store that Nix does not manage.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from nixpatch.errors import MachineError
from nixpatch.store.cache import STAMP_SIZE, Cache, RowKind, settled, stamp_of
from nixpatch.store.nix_store import Store, is_sealed
from nixpatch.store.sources import is_stubs
from nixpatch.store_paths import is_store_entry

_NOT_FOR_LOADING = ("-dev", "-devdoc", "-debug", "-doc", "-man", "-info", "-stubs")
"""outputs to build with or to read: files with the names of libraries in them are not for loading"""
_NOT_PATHS = (".drv", ".lock", ".chroot", ".check")
"""files of Nix itself in the store directory beside the store paths"""
_DIRECTORIES = ("lib", "lib64", "bin")
"""where libraries and programs are looked for"""

# Lists of names within one value: no file name holds a NUL or a slash.
_NAME, _GROUP = b"\0", b"/"
_HEAD = struct.Struct("<16sQQQ")


@dataclass(frozen=True, slots=True)
class StoreNames:
    """Every library name of the store and the directories that have it. Made by :func:`list_store`."""

    names: Sequence[bytes] = ()
    """sorted"""
    directories: Sequence[bytes] = ()
    """sorted by store path, ``lib`` before ``lib64``"""
    starts: Sequence[int] = (0,)
    """where the directories of each name begin in ``numbers``, and then where those of the last one end"""
    numbers: Sequence[int] = ()
    """indices into ``directories``"""
    changeable: tuple[str, ...] = ()
    """the store paths that are not sealed, and the directories in them that count"""

    def directories_of(self, name: str) -> list[str]:
        """Return the directories that have a library of this file name, in order."""
        wanted = os.fsencode(name)
        row = bisect_left(self.names, wanted)
        if row == len(self.names) or self.names[row] != wanted:
            return []
        return [
            os.fsdecode(self.directories[i]) for i in self.numbers[self.starts[row] : self.starts[row + 1]]
        ]


def list_store(store: Store, cache: Cache) -> StoreNames:
    """Return the library names of the store as it is now. Skips paths that cannot have changed.

    Raises:
        MachineError: the store cannot be listed.

    """
    try:
        status = os.stat(store.directory)
        stamp = stamp_of(status)
        cached = unpacked(cache.get(RowKind.STORE, store.directory, stamp))
        if cached is not None:
            names, state, unsealed = cached
            if state == _state(_look_into(store, os.fsdecode(path)) for path in unsealed):
                return replace(names, changeable=_changeable(map(os.fsdecode, unsealed)))
        with os.scandir(store.directory) as entries:
            listed = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return StoreNames()
    except OSError as error:
        raise MachineError(
            f"{store.directory}: {error.strerror}; --pure does without the store at large"
        ) from None
    skipped = (*_NOT_FOR_LOADING, *_NOT_PATHS)
    paths = [
        _look_into(store, f"{store.directory}/{name}")
        for name in listed
        if not name.endswith(skipped) and is_store_entry(name)
    ]
    listings, complete = _listings(store, cache, paths)
    names = _invert_index(listings)
    if complete and settled(status):
        unsealed = [os.fsencode(path.path) for path in paths if not path.sealed]
        state = _state(path for path in paths if not path.sealed)
        cache.put(RowKind.STORE, store.directory, stamp, packed(names, state, unsealed))
    return replace(names, changeable=_changeable(path.path for path in paths if not path.sealed))


def _changeable(paths: Iterable[str]) -> tuple[str, ...]:
    return tuple(place for path in paths for place in (path, *(f"{path}/{name}" for name in _DIRECTORIES)))


@dataclass(frozen=True, slots=True)
class _PathState:
    """A store path as it is now."""

    path: str
    libraries: tuple[tuple[str, bytes, bool], ...]
    """the real directories that serve libraries, the stamp of each, and whether the stamp is settled"""
    sealed: bool


def _look_into(store: Store, path: str) -> _PathState:
    directories: list[tuple[str, bytes, bool]] = []
    sealed: bool | None = None
    for name in ("lib", "lib64"):
        directory = f"{path}/{name}"
        try:
            status = os.lstat(directory)
            if stat.S_ISLNK(status.st_mode):
                # One may be a link to the other. If it leads to another store path, that one may go.
                directory = store.canonical(directory)
                if not directory.startswith(path + "/"):
                    sealed = False
                status = os.lstat(directory)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode) and not is_stubs(directory):
            directories.append((directory, stamp_of(status), settled(status)))
            sealed = is_sealed(status) and sealed is not False
    if sealed is None:
        try:
            sealed = is_sealed(os.lstat(path))
        except OSError:
            sealed = False
    return _PathState(path, tuple(directories), sealed)


def _state(paths: Iterable[_PathState]) -> bytes:
    """Return a digest that changes whenever the libraries of these paths do."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(os.fsencode(path.path) + _NAME)
        for directory, stamp, _ in path.libraries:
            digest.update(os.fsencode(directory) + _NAME + stamp)
    return digest.digest()


def _listings(store: Store, cache: Cache, paths: Iterable[_PathState]) -> tuple[dict[str, bytes], bool]:
    """Return the library names of each directory, a NUL after each; and whether all of it may be cached.

    Only directories that changed since the last run are listed.
    """
    known = unpacked_listings(cache.get(RowKind.LISTINGS, store.directory, b""))
    listings: dict[str, bytes] = {}
    stamps: dict[str, bytes] = {}
    complete, changed = True, False
    for path in paths:
        for directory, stamp, is_settled in path.libraries:
            if directory in listings:
                continue
            names = known.get(os.fsencode(directory) + _NAME + stamp)
            if names is None:
                names = _library_names(directory)
                changed = True
            listings[directory] = names or b""
            if names is not None and is_settled:
                stamps[directory] = stamp
            else:
                complete = False
    if changed or len(known) != len(stamps):
        kept = {directory: listings[directory] for directory in stamps}
        cache.put(RowKind.LISTINGS, store.directory, b"", packed_listings(kept, stamps))
    return listings, complete


def _library_names(directory: str) -> bytes | None:
    """List a directory; None for one that cannot be read: ld.so takes it for empty, another user may not."""
    try:
        listed = os.listdir(os.fsencode(directory))
    except OSError:
        return None
    names = [name for name in listed if b".so" in name]
    names.sort()
    return _NAME.join([*names, b""])


def _invert_index(listings: dict[str, bytes]) -> StoreNames:
    """Turn the names of each directory into the directories of each name."""
    rows: defaultdict[bytes, list[int]] = defaultdict(list)
    for number, listing in enumerate(listings.values()):
        for name in listing.split(_NAME)[:-1]:
            rows[name].append(number)
    names = sorted(rows)
    starts, numbers = array("I", [0]), array("I")
    for name in names:
        numbers.extend(rows[name])
        starts.append(len(numbers))
    return StoreNames(names, [os.fsencode(directory) for directory in listings], starts, numbers)


def packed(names: StoreNames, state: bytes, unsealed: Sequence[bytes]) -> bytes:
    """Return a value for the cache: three lists of names, then two of numbers."""
    parts = [_NAME.join(unsealed), _NAME.join(names.directories), _NAME.join(names.names)]
    head = _HEAD.pack(state, *map(len, parts))
    return b"".join([head, *parts, bytes(array("I", names.starts)), bytes(array("I", names.numbers))])


def unpacked(value: bytes | None) -> tuple[StoreNames, bytes, list[bytes]] | None:
    """Return the inverse of :func:`packed`; None for anything else: a checksum is not a signature."""
    if value is None or len(value) < _HEAD.size:
        return None
    state, *lengths = _HEAD.unpack_from(value)
    offset = _HEAD.size
    parts: list[list[bytes]] = []
    for length in lengths:
        part = value[offset : offset + length]
        offset += length
        parts.append(part.split(_NAME) if part else [])
    unsealed, directories, names = parts
    integers = array("I")
    if offset > len(value) or (len(value) - offset) % integers.itemsize:
        return None
    integers.frombytes(value[offset:])
    starts, numbers = integers[: len(names) + 1], integers[len(names) + 1 :]
    if len(starts) != len(names) + 1 or max(numbers, default=-1) >= len(directories):
        return None
    return StoreNames(names, directories, starts, numbers), state, unsealed


def packed_listings(listings: dict[str, bytes], stamps: dict[str, bytes]) -> bytes:
    """Return a value of three columns: bytes.split reads them in no time."""
    keys = b"".join([os.fsencode(directory) + _NAME for directory in listings])
    states = b"".join([stamps[directory] for directory in listings])
    return struct.pack("<QQ", len(keys), len(states)) + keys + states + _GROUP.join(listings.values())


def unpacked_listings(value: bytes | None) -> dict[bytes, bytes]:
    """Return the names by directory and stamp, a NUL between the two; nothing for a value of another form."""
    if value is None or len(value) < 16:
        return {}
    first, second = struct.unpack_from("<QQ", value)
    directories = value[16 : 16 + first].split(_NAME)[:-1]
    states = value[16 + first : 16 + first + second]
    names = value[16 + first + second :].split(_GROUP)
    if len(directories) != len(names) or len(states) != len(directories) * STAMP_SIZE:
        return {}
    cuts: Iterator[tuple[int, int]] = pairwise(range(0, len(states) + 1, STAMP_SIZE))
    keys = (directory + _NAME + states[a:b] for directory, (a, b) in zip(directories, cuts, strict=True))
    return dict(zip(keys, names, strict=True))
