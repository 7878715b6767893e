"""The store at large: which of its many thousand directories have a library of some name.

To look at every path takes seconds, so what was found is remembered as a whole, under the state of the store
directory, which changes with every path that comes or goes. A store path that Nix has sealed (no write bit,
every time stamp 1: "canonicalisation" in the Nix manual) does not change any more. Every other one is looked
at again in each run: one that is being built, and all of a store that is none of Nix's.
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
from dataclasses import dataclass
from itertools import pairwise

from nixpatch.errors import MachineError
from nixpatch.store.cache import Cache, Kind, settled, stamp_of
from nixpatch.store.nix_store import Store
from nixpatch.store.sources import is_stubs
from nixpatch.store.store_paths import is_store_entry

_NOT_FOR_LOADING = ("-dev", "-devdoc", "-debug", "-doc", "-man", "-info", "-stubs")
"""outputs to build with or to read: what they hold under library names is not for loading"""
_NOT_PATHS = (".drv", ".lock", ".chroot", ".check")
"""what Nix itself leaves in the store directory beside the store paths"""
_SEALED_TIME = 1_000_000_000  # ns: one second after the epoch
_WRITE = 0o222

# Lists of names within one value: no file name holds a NUL or a slash.
_NAME, _GROUP = b"\0", b"/"
_HEAD = struct.Struct("<16sQQQ")


@dataclass(frozen=True, slots=True)
class AtLarge:
    """Every library name of the store and the directories that have it. Made by :func:`look`."""

    names: Sequence[bytes] = ()
    """sorted"""
    directories: Sequence[bytes] = ()
    """sorted by store path, ``lib`` before ``lib64``"""
    starts: Sequence[int] = (0,)
    """where the directories of each name begin in ``places``, and at last where those of the last end"""
    places: Sequence[int] = ()

    def having(self, name: str) -> list[str]:
        """Return the directories that have a library of this file name, in order."""
        wanted = os.fsencode(name)
        at = bisect_left(self.names, wanted)
        if at == len(self.names) or self.names[at] != wanted:
            return []
        return [os.fsdecode(self.directories[i]) for i in self.places[self.starts[at] : self.starts[at + 1]]]


def look(store: Store, cache: Cache) -> AtLarge:
    """Return what the store holds now, without looking at what cannot have changed since the last time.

    Raises:
        MachineError: the store cannot be listed.

    """
    try:
        status = os.stat(store.directory)
        stamp = stamp_of(status)
        remembered = unpacked(cache.get(Kind.STORE, store.directory, stamp))
        if remembered is not None:
            found, state, loose = remembered
            if state == _state(_look_into(store, os.fsdecode(path)) for path in loose):
                return found
        with os.scandir(store.directory) as entries:
            listed = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return AtLarge()
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
    listings, whole = _listings(store, cache, paths)
    found = _turned_round(listings)
    if whole and settled(status):
        loose = [os.fsencode(path.path) for path in paths if not path.sealed]
        state = _state(path for path in paths if not path.sealed)
        cache.put(Kind.STORE, store.directory, stamp, packed(found, state, loose))
    return found


@dataclass(frozen=True, slots=True)
class _Path:
    """A store path as it is now."""

    path: str
    libraries: tuple[tuple[str, bytes, bool], ...]
    """the real directories that serve libraries, the stamp of each, and whether that is worth anything"""
    sealed: bool


def _look_into(store: Store, path: str) -> _Path:
    found: list[tuple[str, bytes, bool]] = []
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
            found.append((directory, stamp_of(status), settled(status)))
            sealed = _is_sealed(status) and sealed is not False
    if sealed is None:
        try:
            sealed = _is_sealed(os.lstat(path))
        except OSError:
            sealed = False
    return _Path(path, tuple(found), sealed)


def _is_sealed(status: os.stat_result) -> bool:
    return status.st_mtime_ns == _SEALED_TIME and not status.st_mode & _WRITE


def _state(paths: Iterable[_Path]) -> bytes:
    """Return what changes with any change of these paths that would change what they serve."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        digest.update(os.fsencode(path.path) + _NAME)
        for directory, stamp, _ in path.libraries:
            digest.update(os.fsencode(directory) + _NAME + stamp)
    return digest.digest()


def _listings(store: Store, cache: Cache, paths: Iterable[_Path]) -> tuple[dict[str, bytes], bool]:
    """Return the library names of each directory, a NUL after each; and whether all of it may be kept.

    Only those directories are listed that are not as they were the last time.
    """
    known = unpacked_listings(cache.get(Kind.LISTINGS, store.directory, b""))
    found: dict[str, bytes] = {}
    stamps: dict[str, bytes] = {}
    whole, news = True, False
    for path in paths:
        for directory, stamp, certain in path.libraries:
            if directory in found:
                continue
            names = known.get(os.fsencode(directory) + _NAME + stamp)
            if names is None:
                names = _library_names(directory)
                news = True
            found[directory] = names or b""
            if names is not None and certain:
                stamps[directory] = stamp
            else:
                whole = False
    if news or len(known) != len(stamps):
        kept = {directory: found[directory] for directory in stamps}
        cache.put(Kind.LISTINGS, store.directory, b"", packed_listings(kept, stamps))
    return found, whole


def _library_names(directory: str) -> bytes | None:
    """List a directory; None for one that cannot be read: empty to ld.so, and perhaps not to another user."""
    try:
        listed = os.listdir(os.fsencode(directory))
    except OSError:
        return None
    names = [name for name in listed if b".so" in name]
    names.sort()
    return _NAME.join([*names, b""])


def _turned_round(listings: dict[str, bytes]) -> AtLarge:
    """From the names of each directory to the directories of each name."""
    numbers: defaultdict[bytes, list[int]] = defaultdict(list)
    for number, its_names in enumerate(listings.values()):
        for name in its_names.split(_NAME)[:-1]:
            numbers[name].append(number)
    names = sorted(numbers)
    starts, places = array("I", [0]), array("I")
    for name in names:
        places.extend(numbers[name])
        starts.append(len(places))
    return AtLarge(names, [os.fsencode(directory) for directory in listings], starts, places)


def packed(found: AtLarge, state: bytes, loose: Sequence[bytes]) -> bytes:
    """Write what is known of a store: three lists of names, then two of numbers."""
    parts = [_NAME.join(loose), _NAME.join(found.directories), _NAME.join(found.names)]
    head = _HEAD.pack(state, *map(len, parts))
    return b"".join([head, *parts, bytes(array("I", found.starts)), bytes(array("I", found.places))])


def unpacked(value: bytes | None) -> tuple[AtLarge, bytes, list[bytes]] | None:
    """Return the inverse of :func:`packed`; None for anything else. A checksum is no signature."""
    if value is None or len(value) < _HEAD.size:
        return None
    state, *lengths = _HEAD.unpack_from(value)
    at = _HEAD.size
    parts: list[list[bytes]] = []
    for length in lengths:
        part = value[at : at + length]
        at += length
        parts.append(part.split(_NAME) if part else [])
    loose, directories, names = parts
    numbers = array("I")
    if at > len(value) or (len(value) - at) % numbers.itemsize:
        return None
    numbers.frombytes(value[at:])
    starts, places = numbers[: len(names) + 1], numbers[len(names) + 1 :]
    if len(starts) != len(names) + 1 or max(places, default=-1) >= len(directories):
        return None
    return AtLarge(names, directories, starts, places), state, loose


def packed_listings(listings: dict[str, bytes], stamps: dict[str, bytes]) -> bytes:
    """Write them as three columns: what is split by the interpreter's own code takes no time to read."""
    keys = b"".join([os.fsencode(directory) + _NAME for directory in listings])
    states = b"".join([stamps[directory] for directory in listings])
    return struct.pack("<QQ", len(keys), len(states)) + keys + states + _GROUP.join(listings.values())


def unpacked_listings(value: bytes | None) -> dict[bytes, bytes]:
    """Return the names by directory and stamp, a NUL between the two; nothing where it is none of ours."""
    if value is None or len(value) < 16:
        return {}
    first, second = struct.unpack_from("<QQ", value)
    directories = value[16 : 16 + first].split(_NAME)[:-1]
    states = value[16 + first : 16 + first + second]
    names = value[16 + first + second :].split(_GROUP)
    if len(directories) != len(names) or len(states) != len(directories) * _STAMP:
        return {}
    cuts: Iterator[tuple[int, int]] = pairwise(range(0, len(states) + 1, _STAMP))
    keys = (directory + _NAME + states[a:b] for directory, (a, b) in zip(directories, cuts, strict=True))
    return dict(zip(keys, names, strict=True))


_STAMP = 40  # bytes: see stamp_of
