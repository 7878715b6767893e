"""``nixpatch`` and ``python -m nixpatch``: the quick answers, then the command line proper."""

from __future__ import annotations

import gc
import os
import signal
import sys

TYPE_CHECKING = False  # as in __init__
if TYPE_CHECKING:
    from types import FrameType
    from typing import NoReturn


def main() -> None:
    """Run the command line and exit with its code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupted)
    if sys.argv[1:] == ["--version"]:
        from nixpatch.version import __version__  # noqa: PLC0415 - no command line is needed for one line

        sys.stdout.write(f"nixpatch {__version__}\n")
        return
    # A run is short and makes many small values that all stay to its end: looking through them for cycles
    # takes a sixth of its time and finds none.
    gc.disable()
    try:
        from nixpatch.cli import run  # noqa: PLC0415 - typer takes longer to import than the version to print

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # after the command ended, which has words of its own
        _interrupted()
    except MemoryError:
        sys.stderr.write("nixpatch: not enough memory; every file is whole: free some and run it again\n")
        code = 3
    sys.exit(code)


def _interrupted(_number: int = 0, _frame: FrameType | None = None) -> NoReturn:
    """End at once: no command has begun yet (``cli.session`` lets Ctrl-C raise), so there is nothing to undo.

    An exception would be lost, or be printed, where Python imports a module or runs a callback.
    """
    sys.stderr.write("nixpatch: interrupted\n")
    sys.stderr.flush()
    os._exit(130)


if __name__ == "__main__":
    main()
