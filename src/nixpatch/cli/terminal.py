"""Who reads what is printed."""

from __future__ import annotations

from collections.abc import Mapping

from nixpatch.operations.request import in_nix_build


def is_watched(environment: Mapping[str, str]) -> bool:
    """Whether a terminal, if there is one, has somebody before it.

    Nix gives a builder a terminal, too, and writes a log of what it prints there; many a CI does the same. A
    progress bar in a log is thousands of control characters.
    """
    return not in_nix_build(environment) and not environment.get("CI")
