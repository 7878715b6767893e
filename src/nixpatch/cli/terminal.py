"""Whether a person watches the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from nixpatch.operations.request import in_nix_build


def is_watched(environ: Mapping[str, str]) -> bool:
    """Return whether output to a terminal is read there.

    Nix and many CI systems give a build a terminal and log its output; a progress bar in a log is thousands
    of control characters.
    """
    return not in_nix_build(environ) and not environ.get("CI")
