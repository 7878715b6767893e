"""Keep what the headers of a tree's ELF files say, for the next run, under the state of each file.

As in git's index, a file that changed less than two seconds before it was read may change again without
another time stamp: then nothing is kept (https://git-scm.com/docs/racy-git).
"""

from __future__ import annotations

import contextlib
import enum
import functools
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from nixpatch.fs import can_be_path
from nixpatch.model import ElfFacts, Skip
from nixpatch.operations import kept_files
from nixpatch.store.cache import settled, stamp_of

_KIND = "headers"


class KnownHeaders:
    """The headers of the files of one tree as earlier runs read them."""

    def __init__(self, cache: str | None, tree: str, edition: str) -> None:
        """Load what is known.

        Args:
            cache: the cache file of the run; None keeps nothing.
            tree: the root of the tree.
            edition: version of the program. Another one may read files differently.

        """
        self._path = kept_files.path_of(cache, _KIND, tree)
        self._edition = edition
        self._rows: dict[str, Any] = {}
        self._known: dict[str, ElfFacts | Skip] = {}
        self._states: dict[str, os.stat_result] = {}
        self._moment = 0
        if self._path is not None:
            try:
                kept = kept_files.read(self._path)
                if kept["edition"] == edition:
                    self._rows = dict(kept["files"])
            except (OSError, ValueError, KeyError, TypeError):
                pass

    def of(self, paths: Iterable[str]) -> dict[str, ElfFacts | Skip]:
        """Return what is known of these files as they are now; none of them may have been read yet."""
        known = self._known
        if self._path is None:
            return known
        self._moment = time.time_ns()
        for path in paths:
            try:
                status = self._states[path] = os.stat(path)
            except OSError:
                continue
            row = self._rows.get(path)
            if isinstance(row, list) and len(row) == 2 and row[0] == stamp_of(status).hex():
                with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
                    known[path] = _unpacker(Skip if "reason" in row[1] else ElfFacts)(row[1])
        return known

    def keep(self, facts: Mapping[str, ElfFacts | Skip]) -> None:
        """Keep what was read of the files that were asked for."""
        if self._path is None:
            return
        rows = {
            path: self._rows[path]
            if result is self._known.get(path)
            else [stamp_of(self._states[path]).hex(), _packed(result)]
            for path, result in facts.items()
            if path in self._states and settled(self._states[path], self._moment)
        }
        if rows != self._rows:
            kept_files.write(self._path, {"edition": self._edition, "files": rows})


def _packed(value: Any) -> Any:
    """Return a value for JSON; of a dataclass the fields that differ from their defaults."""
    if is_dataclass(value):
        return {
            field.name: _packed(part)
            for field in fields(value)
            if (part := getattr(value, field.name)) != field.default
        }
    if isinstance(value, tuple):
        return list(map(_packed, value))
    if isinstance(value, enum.Enum):
        return value.name
    return value.hex() if isinstance(value, bytes) else value


@functools.cache
def _unpacker(hint: Any) -> Callable[[Any], Any]:
    """Return the inverse of :func:`_packed` for values of a type.

    It raises ValueError, TypeError, KeyError or AttributeError for what is no such value: the digest of a
    file in the cache is no signature.
    """
    if hint is str:
        return _text
    if hint is bytes:
        return bytes.fromhex
    if hint in {int, bool}:
        return functools.partial(_exactly, hint)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return hint.__getitem__
    if is_dataclass(hint):
        return functools.partial(
            _dataclass, hint, {name: _unpacker(part) for name, part in get_type_hints(hint).items()}
        )
    parts = get_args(hint)
    if get_origin(hint) is tuple and parts[-1] is Ellipsis:
        return functools.partial(_tuple, _unpacker(parts[0]))
    if get_origin(hint) is tuple:
        return functools.partial(_fixed_tuple, tuple(map(_unpacker, parts)))
    (kind,) = (part for part in parts if part is not NoneType)
    return functools.partial(_optional, _unpacker(kind))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not can_be_path(value):
        raise ValueError("not a text of an ELF file")
    return value


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise TypeError(f"not {kind.__name__}")
    return value


def _tuple(unpack: Callable[[Any], Any], values: list[Any]) -> tuple[Any, ...]:
    return tuple(map(unpack, _exactly(list, values)))


def _fixed_tuple(unpack: tuple[Callable[[Any], Any], ...], values: list[Any]) -> tuple[Any, ...]:
    return tuple(part(value) for part, value in zip(unpack, _exactly(list, values), strict=True))


def _optional(unpack: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else unpack(value)


def _dataclass(kind: Any, unpack: Mapping[str, Callable[[Any], Any]], values: dict[str, Any]) -> Any:
    return kind(**{name: unpack[name](value) for name, value in _exactly(dict, values).items()})
