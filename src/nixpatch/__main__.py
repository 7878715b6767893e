"""``nixpatch`` and ``python -m nixpatch``: the quick answers, then the command line proper."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run the command line and exit with its code."""
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
    except KeyboardInterrupt:  # before the command began or after it ended, which has words of its own
        sys.stderr.write("nixpatch: interrupted\n")
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()
