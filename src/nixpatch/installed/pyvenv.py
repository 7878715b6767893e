"""``pyvenv.cfg``: what makes a directory a virtual environment (PEP 405)."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from nixpatch.fs import read_regular

NAME = "pyvenv.cfg"
_MAX_SIZE = 1 << 20
_VERSION = re.compile(r"([0-9]{1,4})\.([0-9]{1,4})(?![0-9])")


def read_config(prefix: str) -> Mapping[str, str] | None:
    """Return the keys, in lower case, and values of the file; None where ``prefix`` is no venv."""
    try:
        return parse_config(read_regular(os.path.realpath(os.path.join(prefix, NAME)), _MAX_SIZE))
    except OSError:
        return None


def parse_config(data: bytes) -> Mapping[str, str]:
    """Return the keys, in lower case, and values of the file's bytes."""
    lines = (line.partition("=") for line in os.fsdecode(data).splitlines())
    return {key.strip().lower(): value.strip() for key, equals, value in lines if equals}


def config_version(config: Mapping[str, str]) -> tuple[int, int] | None:
    """Return the Python version: ``version`` (venv) or ``version_info`` (virtualenv, uv)."""
    found = _VERSION.match(config.get("version") or config.get("version_info") or "")
    return (int(found[1]), int(found[2])) if found else None
