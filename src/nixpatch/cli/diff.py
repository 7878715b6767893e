"""``nixpatch diff``: what changes when nixpkgs, a wheel or an option does."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.session import guarded
from nixpatch.cli.terminal import is_watched
from nixpatch.report.as_json import document


@guarded
def diff_command(
    before: Annotated[
        str, typer.Argument(metavar="BEFORE", help="What nixpatch plan --json printed, or a nixpatch.lock.")
    ],
    after: Annotated[str, typer.Argument(metavar="AFTER", help="Another one of the same kind.")],
    as_json: opt.Json = False,
    verbose: Annotated[int, typer.Option("--verbose", "-v", count=True, help="Every file.")] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only the exit code.")] = False,
) -> ExitCode:
    """Show what differs between two plans or two locks. Exit code 0: nothing; 1: something."""
    from nixpatch.operations.diff import difference  # noqa: PLC0415 - no other command needs it

    found = difference(before, after)
    if as_json:
        import json  # noqa: PLC0415 - only who asks for it pays for it

        from nixpatch.report import diff as report  # noqa: PLC0415

        told = {**document("diff", []), "diff": report.json(found, before, after)}
        json.dump(told, sys.stdout, indent=1)
        sys.stdout.write("\n")
    elif not quiet:
        from nixpatch.report import diff as report  # noqa: PLC0415
        from nixpatch.report.text import console  # noqa: PLC0415

        console(plain=not is_watched(os.environ)).print(report.text(found, verbosity=verbose))
    return ExitCode.SATISFIED if found.same else ExitCode.REMAINS
