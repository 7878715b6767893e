"""``nixpatch tree``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode, refused_code, trace_code
from nixpatch.cli.named_trees import named_trees, results_of, tree_at
from nixpatch.cli.options import takes
from nixpatch.cli.session import guarded, print_document
from nixpatch.cli.terminal import is_watched
from nixpatch.errors import NixpatchError, RequestError
from nixpatch.installed.tree_roots import tree_of_file
from nixpatch.operations.patch_options import PatchOptions, text_of
from nixpatch.operations.request import cache_file
from nixpatch.store.nix_store import find_store

if TYPE_CHECKING:
    from nixpatch.model import Plan
    from nixpatch.model.trace import Trace
    from nixpatch.operations.trace import TraceOptions
    from nixpatch.operations.wheel_tree import WheelTree

    _TreeOf = Callable[[str], AbstractContextManager[WheelTree | None]]


@guarded
@takes("python", "store")
def tree_command(
    chosen: PatchOptions,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PATH|FILE]...",
            help="A tree, a part of one, a directory above several, any ELF file, or a wheel file "
            "(default: the active venv, ./.venv).",
            show_default=False,
        ),
    ] = None,
    why: Annotated[
        str | None,
        typer.Option("--why", metavar="SONAME", help="Show each step of the search for this library."),
    ] = None,
    depth: Annotated[
        int | None, typer.Option("--depth", metavar="N", min=1, help="Draw N levels below the file.")
    ] = None,
    beside: opt.Beside = None,
    as_json: opt.Json = False,
    verbose: Annotated[
        int,
        typer.Option(
            "--verbose", "-v", count=True, help="Show libc, whole store paths, and each file of a tree."
        ),
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show missing libraries only.")] = False,
) -> ExitCode:
    """Show the libraries that files need, and where ld.so finds each. Works on unpatched files, too."""
    from nixpatch.operations.trace import TraceOptions  # noqa: PLC0415 - no other command needs it

    store_dir = find_store(text_of(chosen.store), os.environ).directory
    options = TraceOptions(
        python=text_of(chosen.python),
        path_env=os.environ.get("PATH"),
        ld_library_path=os.environ.get("LD_LIBRARY_PATH"),
        current_directory=os.getcwd(),
        cache=cache_file(os.environ),
        store_dir=store_dir,
    )
    named = named_trees(paths)
    tree_of = partial(tree_at, chosen=chosen, beside=beside, named=named.paths)
    traces, errors = results_of(named, lambda path: _trace(path, tree_of, options))
    if why is not None and not any(trace.needs_of(why) for trace in traces):
        raise RequestError(f"--why {why}: no file needs it; name a library as nixpatch tree shows it")
    if as_json:
        from nixpatch.report.as_json import trace_entry  # noqa: PLC0415 - for JSON only

        print_document("tree", [trace_entry(trace, why) for trace in traces], refused=errors)
    else:
        plans = [_plan_for(trace, tree_of, chosen) for trace in traces]
        _print(traces, plans, why, depth, store_dir, -1 if quiet else verbose)
    return max(trace_code(traces, why), refused_code(errors.values()))


def _plan_for(trace: Trace, tree_of: _TreeOf, chosen: PatchOptions) -> Plan | None:
    """Return the plan of the tree of a trace: what a run does about needs that are not met.

    None if all are met, or if nixpatch cannot patch that tree.
    """
    if not trace.unmet:
        return None
    from nixpatch.operations.plan import make_plan  # noqa: PLC0415 - a patched tree needs no plan

    tree = trace.tree or tree_of_file(trace.root)
    root = tree.root if tree is not None else trace.root
    request = replace(opt.request_for(root, chosen), follow_links=True)
    try:
        with tree_of(root) as wheel:
            return make_plan(request) if wheel is None else wheel.plan(request)
    except NixpatchError:
        return None


def _trace(path: str, tree_of: _TreeOf, options: TraceOptions) -> Trace:
    """Trace a tree, a file or a wheel file."""
    from nixpatch.operations.trace import trace_file, trace_tree  # noqa: PLC0415 - as above

    with tree_of(path) as wheel:
        if wheel is not None:
            return wheel.shown(wheel.trace_of_wheel(trace_tree(wheel.prefix, options)))
        return trace_tree(path, options) if os.path.isdir(path) else trace_file(path, options)


def _print(
    traces: Sequence[Trace],
    plans: Sequence[Plan | None],
    why: str | None,
    depth: int | None,
    store_dir: str,
    verbosity: int,
) -> None:
    from nixpatch.report.phrases import from_here  # noqa: PLC0415 - for text only
    from nixpatch.report.text import console  # noqa: PLC0415 - rich is slow to import
    from nixpatch.report.trace import tree_report, why_report  # noqa: PLC0415

    screen = console(plain=not is_watched(os.environ), wrap=True)
    for trace, plan in zip(traces, plans, strict=True):
        if why is not None and not trace.needs_of(why):
            continue
        if len(traces) > 1 and trace.tree is not None and (verbosity >= 0 or trace.unmet):
            screen.print(from_here(trace.root), style="bold", markup=False)
        if why is None:
            screen.print(tree_report(trace, store_dir=store_dir, verbosity=verbosity, depth=depth, plan=plan))
        else:
            screen.print(why_report(trace, why, store_dir=store_dir, plan=plan))
