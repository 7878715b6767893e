"""Files in the cache directory that hold what is known of one tree each, under a digest of themselves.

A file that is broken, too large, or of another user is as if it were not there, and one that cannot be
written is not kept. The oldest go when there are too many.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import Any

from nixpatch.fs import read_regular, remove, replace_bytes

_LARGEST = 32 << 20  # bytes; what is known of 1,200 ELF files takes one million
_MOST = 100
"""trees that are remembered"""


def path_of(cache: str | None, kind: str, tree: str) -> str | None:
    """Return the path of the file for a tree.

    Args:
        cache: the file with what is known of the store; None keeps nothing.
        kind: name of the directory beside it.
        tree: a path to the tree.

    """
    if cache is None:
        return None
    name = hashlib.sha256(os.fsencode(os.path.realpath(tree))).hexdigest()
    return os.path.join(os.path.dirname(cache), kind, name)


def read(path: str) -> Any:
    """Return the value in a file.

    Raises:
        OSError: there is none, or it cannot be read.
        ValueError: it is none of ours, or broken.

    """
    data = read_regular(path, _LARGEST)
    head, _, body = data.partition(b"\n")
    if os.stat(path).st_uid != os.geteuid() or head != hashlib.sha256(body).hexdigest().encode():
        raise ValueError("not written by this user, or broken")
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def write(path: str, value: Any) -> None:
    """Write a value that JSON can hold, atomically; never fails."""
    body = json.dumps(value, sort_keys=True).encode("ascii")
    if len(body) >= _LARGEST - 100:
        return
    directory = os.path.dirname(path)
    with contextlib.suppress(OSError):
        os.makedirs(directory, mode=0o700, exist_ok=True)
        replace_bytes(path, hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
        _drop_oldest(directory)


def _drop_oldest(directory: str) -> None:
    with os.scandir(directory) as entries:
        times = sorted((entry.stat(follow_symlinks=False).st_mtime_ns, entry.path) for entry in entries)
    for _, path in times[:-_MOST]:
        remove(path)
