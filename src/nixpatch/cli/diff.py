"""``nixpatch diff``."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode, diff_code
from nixpatch.cli.session import guarded
from nixpatch.cli.terminal import is_watched


@guarded
def diff_command(
    before: Annotated[
        str, typer.Argument(metavar="BEFORE", help="The output of nixpatch plan --json, or a nixpatch.lock.")
    ],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Another file of the same kind.")],
    as_json: opt.Json = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="List every file.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing.")] = False,
) -> ExitCode:
    """Compare two plans or two lockfiles. Exit code 1 if they differ."""
    from nixpatch.operations.diff import diff_files  # noqa: PLC0415 - no other command needs it

    difference = diff_files(before, after)
    if as_json:
        from nixpatch.report.as_json import difference_object, document, write  # noqa: PLC0415 - for JSON only

        write(document("diff", [], diff=difference_object(difference, before, after)), sys.stdout)
    elif not quiet:
        from nixpatch.report import diff as report  # noqa: PLC0415 - rich is slow to import
        from nixpatch.report.text import console  # noqa: PLC0415

        console(plain=not is_watched(os.environ)).print(report.text(difference, verbosity=verbose))
    return diff_code(difference)
