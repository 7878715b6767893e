"""JSON that somebody else wrote, within bounds: a table of two bytes takes seventy in memory."""

from __future__ import annotations

import json
from typing import Any

_VALUES = 1 << 21


def parse(data: bytes) -> Any:
    """Read a document.

    Raises:
        ValueError: it is not JSON, has more values than any that is honest, or is nested too deep.

    """
    if sum(map(data.count, (b",", b"[", b"{"))) > _VALUES:
        raise ValueError(f"more than {_VALUES} values")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
