"""``nixpatch tree``: who needs what, found where and how."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.options import takes
from nixpatch.cli.session import guarded
from nixpatch.cli.terminal import is_watched
from nixpatch.errors import RequestError
from nixpatch.operations.options import PatchOptions
from nixpatch.report.as_json import document
from nixpatch.store import find_store

if TYPE_CHECKING:
    from nixpatch.model.trace import Trace
    from nixpatch.operations.trace import Request


@guarded
@takes("python", "store")
def tree_command(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH|FILE...", help="A tree, or any ELF file of the machine.")
    ],
    chosen: PatchOptions,
    why: Annotated[
        str | None,
        typer.Option(
            "--why", metavar="SONAME", help="Every place where this was looked for, and what came of it."
        ),
    ] = None,
    depth: Annotated[
        int | None, typer.Option("--depth", metavar="N", min=1, help="Draw so many steps from the file.")
    ] = None,
    as_json: opt.Json = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, help="libc's libraries, whole store paths, each file of a tree."
        ),
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only what is not found.")] = False,
) -> ExitCode:
    """Show who needs what, found where and how; patched or not, in the store or not. Nothing is run."""
    from nixpatch.operations.trace import Request  # noqa: PLC0415 - no other command needs it

    request = Request(
        python=chosen.python,
        search_path=os.environ.get("PATH"),
        library_path=os.environ.get("LD_LIBRARY_PATH"),
        directory=os.getcwd(),
    )
    traces = [_traced(path, request) for path in paths]
    store_dir = find_store(chosen.store, os.environ).directory
    if why is not None and not any(link.need == why for trace in traces for link in trace.links):
        raise RequestError(
            f"--why {why}: nothing there needs it; a need is a DT_NEEDED as nixpatch tree shows it"
        )
    if as_json:
        from nixpatch.report.trace import trace_entry  # noqa: PLC0415 - only who asks for it pays for it

        told = document("tree", [trace_entry(trace, why) for trace in traces])
        json.dump(told, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        _print(traces, why, depth, store_dir, -1 if quiet else verbose)
    relevant = [link for trace in traces for link in trace.unmet if why is None or link.need == why]
    return ExitCode.REMAINS if relevant else ExitCode.SATISFIED


def _traced(path: str, request: Request) -> Trace:
    from nixpatch.operations.trace import trace_file, trace_tree  # noqa: PLC0415 - as above

    return trace_tree(path, request) if os.path.isdir(path) else trace_file(path, request)


def _print(
    traces: Sequence[Trace], why: str | None, depth: int | None, store_dir: str, verbosity: int
) -> None:
    from nixpatch.report.text import console  # noqa: PLC0415 - JSON needs no rich
    from nixpatch.report.tree import tree_report, why_report  # noqa: PLC0415

    screen = console(plain=not is_watched(os.environ), wrap=True)
    for trace in traces:
        if why is not None:
            if any(link.need == why for link in trace.links):
                screen.print(why_report(trace, why, store_dir=store_dir))
        else:
            screen.print(tree_report(trace, store_dir=store_dir, verbosity=verbosity, depth=depth))
