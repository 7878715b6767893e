"""``nixpatch patch``, ``plan``, ``restore`` and ``verify``.

The options of patch are declared in ``operations.patch_options``.
"""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode, known_code, run_code, verdict_code
from nixpatch.cli.known_trees import keep
from nixpatch.cli.named_trees import for_each, is_wheel, named_trees, tree_at
from nixpatch.cli.options import takes
from nixpatch.cli.session import Output, guarded
from nixpatch.errors import RequestError
from nixpatch.model import Outcome, Plan, Verdict, Writer
from nixpatch.operations import patch_options
from nixpatch.operations.patch_options import PatchOptions, PlanOptions, text_of
from nixpatch.operations.request import PatchRequest
from nixpatch.operations.tree_state import recall
from nixpatch.store.nix_store import find_store


@guarded
@takes(*opt.ALL)
def patch_command(
    chosen: PatchOptions,
    paths: opt.Paths = None,
    dry_run: opt.DryRun = False,
    check: opt.Check = False,
    as_json: opt.Json = False,
    html: opt.Html = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Patch trees. nixpatch PATH... is short for it; nixpatch alone patches the active venv, or ./.venv."""
    writing = not (dry_run or check)
    verbosity = -1 if quiet else verbose
    return _patch(
        paths, chosen, writing=writing, check=check, as_json=as_json, html=html, verbosity=verbosity
    )


@guarded
@takes(*(name for name in opt.ALL if name in patch_options.types_of(PlanOptions)))
def plan_command(
    chosen: PatchOptions,
    paths: opt.PathsOrWheels = None,
    beside: opt.Beside = None,
    check: opt.Check = False,
    as_json: opt.Json = False,
    html: opt.Html = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Print what patch would do, or wheel for a wheel file, and write nothing."""
    verbosity = -1 if quiet else verbose
    return _patch(
        paths,
        chosen,
        writing=False,
        check=check,
        as_json=as_json,
        html=html,
        verbosity=verbosity,
        takes_wheels=True,
        beside=beside,
    )


def _patch(
    paths: list[str] | None,
    chosen: PatchOptions,
    *,
    writing: bool,
    check: bool,
    as_json: bool,
    html: str | None,
    verbosity: int,
    takes_wheels: bool = False,
    beside: list[str] | None = None,
) -> ExitCode:
    """Patch or plan each tree."""
    if chosen.unvendor and chosen.writer is Writer.LIEF:
        raise RequestError("--unvendor: only the in-place writer can rename what a file needs")
    named = named_trees(paths)
    output = Output(
        "patch" if writing else "plan",
        as_json=as_json,
        verbosity=verbosity,
        html=html,
        options=chosen,
        several=len(named.paths) > 1 or not paths,
        are_found=named.are_found,
    )

    def request(path: str) -> PatchRequest:
        return replace(opt.request_for(path, chosen), follow_links=not writing)

    def work(path: str) -> ExitCode:
        begun = time.monotonic()
        if writing:
            return _patch_tree(request(path), chosen, output, begun)
        from nixpatch.operations.plan import make_plan  # noqa: PLC0415 - a tree that is known needs no plan

        with tree_at(path, chosen, beside, named.paths) if takes_wheels else nullcontext() as wheel:
            if wheel is None:
                plan = make_plan(request(path), output.say, output.bar.reading)
            else:
                plan = wheel.plan(request(path), output.say, output.bar.reading)
        return _report(plan, None, output, begun, check=check)

    def look(path: str) -> None:
        # Before anything is written: an error in the last path must not leave the first one patched.
        if writing:
            from nixpatch.operations.plan import check_request  # noqa: PLC0415 - as above

            check_request(request(path))

    with output:
        return for_each(named, output, work, look)


def _patch_tree(request: PatchRequest, chosen: PatchOptions, output: Output, begun: float) -> ExitCode:
    """Patch one tree; of a tree in which nothing has changed since the last run, say what that run said."""
    begun_ns = time.time_ns()
    if output.is_brief:
        known = recall(request, chosen)
        if known is not None:
            output.known(known.printed, time.monotonic() - begun)
            return known_code(known.printed)
    from nixpatch.operations.patch import patch  # noqa: PLC0415 - as above

    outcome = patch(request, chosen, output.events())
    code = _report(outcome.plan, outcome, output, begun)
    if output.is_brief and not outcome.plan.pending and not outcome.files:
        keep(request, chosen, outcome, begun_ns)
    return code


def _report(
    plan: Plan, outcome: Outcome | None, output: Output, begun: float, *, check: bool = False
) -> ExitCode:
    """Print a plan or its outcome, and return the exit code; ``begun`` is the start (``time.monotonic``)."""
    output.plan(plan, outcome, time.monotonic() - begun)
    return run_code(plan, outcome, check=check)


@guarded
@takes("fsync", "jobs")
def restore_command(
    chosen: PatchOptions,
    paths: opt.PathsOrWheels = None,
    directory: Annotated[
        str | None,
        typer.Option(
            "--wheel-dir",
            "-w",
            metavar="DIR",
            help="Where the original of a wheel file goes (default: beside the file).",
        ),
    ] = None,
    dry_run: opt.DryRun = False,
    as_json: opt.Json = False,
    html: opt.Html = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Restore every patched file byte for byte, and RECORD.

    Of a wheel file that nixpatch wheel wrote, the original is written, and the patched one stays.
    """
    named = named_trees(paths)
    output = Output(
        "restore",
        as_json=as_json,
        verbosity=-1 if quiet else verbose,
        html=html,
        several=len(named.paths) > 1 or not paths,
        are_found=named.are_found,
    )

    def work(path: str) -> ExitCode:
        begun = time.monotonic()
        if is_wheel(path):
            return _restore_wheel(path, directory, chosen, output, dry_run=dry_run)
        if dry_run:
            from nixpatch.operations.restore import plan_restore  # noqa: PLC0415 - no other command needs it

            return _report(plan_restore(path), None, output, begun)
        from nixpatch.operations.patch import restore  # noqa: PLC0415 - as above

        outcome = restore(path, chosen, output.events())
        return _report(outcome.plan, outcome, output, begun)

    def look(path: str) -> None:
        from nixpatch.installed.scan import scan  # noqa: PLC0415 - as above
        from nixpatch.installed.wheel_file import read_wheel  # noqa: PLC0415 - as above

        if is_wheel(path):
            read_wheel(path)
        else:
            scan(path)

    with output:
        return for_each(named, output, work, look)


def _restore_wheel(
    path: str, directory: str | None, chosen: PatchOptions, output: Output, *, dry_run: bool
) -> ExitCode:
    """Write the original of a patched wheel file."""
    from nixpatch.operations.wheel import restore_wheel  # noqa: PLC0415 - for wheel files only

    begun = time.monotonic()
    done = restore_wheel(
        path,
        directory,
        chosen,
        is_right=lambda outcome: run_code(outcome.plan, outcome) is ExitCode.SATISFIED,
        dry_run=dry_run,
        events=output.events(),
    )
    output.wheel(path, done, time.monotonic() - begun)
    return max(run_code(done.plan, done.outcome), ExitCode.REMAINS if done.refused else ExitCode.SATISFIED)


@guarded
@takes(
    "python",
    "store",
    "locked",
    "policy",
    "ignore_missing",
    "accept_modified",
    "jobs",
    accept_modified="RECORD rows that were wrong before the patch are no errors.",
)
def verify_command(
    chosen: PatchOptions,
    paths: opt.PathsOrWheels = None,
    beside: opt.Beside = None,
    load: Annotated[
        bool,
        typer.Option(
            "--load", help="Also open each file in the target Python, and check the mapped libraries."
        ),
    ] = False,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read each patched file with pyelftools and LIEF and compare.")
    ] = False,
    as_json: opt.Json = False,
    html: opt.Html = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Check trees or wheel files: files, RECORD, needs, store paths and garbage-collector roots."""
    from nixpatch.operations.verify import check_tree  # noqa: PLC0415 - no other command needs it

    named = named_trees(paths)
    output = Output(
        "verify",
        as_json=as_json,
        verbosity=-1 if quiet else verbose,
        html=html,
        several=len(named.paths) > 1 or not paths,
        are_found=named.are_found,
    )
    store = find_store(text_of(chosen.store), os.environ)

    def check(tree: str, path: str) -> Verdict:
        return check_tree(
            tree,
            store,
            python=text_of(chosen.python),
            path_env=os.environ.get("PATH"),
            locked=text_of(chosen.locked),
            load=load,
            deep=deep,
            workers=chosen.jobs,
            accept_modified=chosen.accept_modified,
            policy=opt.policy_for(path, chosen),
        )

    def work(path: str) -> ExitCode:
        with tree_at(path, chosen, beside, named.paths) as wheel:
            if wheel is None:
                verdict = check(path, path)
            else:
                verdict = wheel.shown(wheel.verdict_of_wheel(check(wheel.prefix, path)))
        output.verdict(verdict, store.directory)
        return verdict_code(verdict)

    with output:
        return for_each(named, output, work)
