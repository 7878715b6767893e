"""Runs in a child process only (:mod:`nixpatch.elf.child_process`): describe files with pyelftools or LIEF.

The first answer is ``{"name": reader and version}``. One answer for each file follows, in the order of the
request: ``{"description": fields}``, or ``{"unreadable": reason}`` if the reader raises.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any


def answers(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Describe the files of the request, which are open descriptors with a number of symbols to digest."""
    reader = importlib.import_module(request["reader"])
    yield {"name": reader.NAME}
    for fd, symbols in request["files"]:
        try:
            yield {"description": asdict(reader.describe(f"/proc/self/fd/{fd}", symbols))}
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - any error of a reader is about this file
            yield {"unreadable": f"{type(error).__name__}: {error}"}
