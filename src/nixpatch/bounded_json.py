"""JSON of unknown origin, within bounds: a table of two bytes takes seventy in memory."""

from __future__ import annotations

import json
from typing import Any

_MAX_VALUES = 1 << 21


def parse(data: bytes, max_values: int = _MAX_VALUES) -> Any:
    """Parse a document.

    Raises:
        ValueError: it is not JSON, has more than ``max_values`` values, or is nested too deep.

    """
    if sum(map(data.count, (b",", b"[", b"{"))) > max_values:
        raise ValueError(f"more than {max_values} values")
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deep") from error
