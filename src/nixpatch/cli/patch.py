"""``nixpatch patch``, ``plan``, ``restore`` and ``verify``.

The options of patch are declared in ``operations.patch_options``.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode, run_code, verdict_code
from nixpatch.cli.options import takes
from nixpatch.cli.session import Output, guarded
from nixpatch.errors import RequestError
from nixpatch.installed import scan
from nixpatch.model import Outcome, Plan, Writer
from nixpatch.operations.patch import patch, restore
from nixpatch.operations.patch_options import PatchOptions, text_of
from nixpatch.operations.plan import check_request, make_plan
from nixpatch.store import find_store


@guarded
@takes(*opt.ALL)
def patch_command(
    paths: opt.Paths,
    chosen: PatchOptions,
    dry_run: opt.DryRun = False,
    check: opt.Check = False,
    as_json: opt.Json = False,
    html: opt.Html = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Patch trees. nixpatch PATH... is short for it."""
    if chosen.unvendor and chosen.writer is Writer.LIEF:
        raise RequestError("--unvendor: only the in-place writer can rename what a file needs")
    writing = not (dry_run or check)
    output = Output(
        "patch" if writing else "plan",
        as_json=as_json,
        verbosity=-1 if quiet else verbose,
        html=html,
        options=chosen,
        several=len(paths) > 1,
    )
    code = ExitCode.SATISFIED
    with output:
        requests = [replace(opt.request_for(path, chosen), follow_links=not writing) for path in paths]
        if writing and len(requests) > 1:
            # Before anything is written: an error in the last path must not leave the first one patched.
            for request in requests:
                check_request(request)
        for request in requests:
            begun = time.monotonic()
            if writing:
                outcome = patch(request, chosen, output.events())
                code = max(code, _report(outcome.plan, outcome, output, begun))
            else:
                plan = make_plan(request, output.say, output.bar.reading)
                code = max(code, _report(plan, None, output, begun, check=check))
    return code


def _report(
    plan: Plan, outcome: Outcome | None, output: Output, begun: float, *, check: bool = False
) -> ExitCode:
    """Print a plan or its outcome, and return the exit code; ``begun`` is the start (``time.monotonic``)."""
    output.plan(plan, outcome, time.monotonic() - begun)
    return run_code(plan, outcome, check=check)


def plan_command(_paths: opt.Paths) -> None:
    """Print what patch would do, and write nothing: patch --dry-run, with the same options."""


@guarded
@takes("fsync", "jobs")
def restore_command(
    paths: opt.Paths,
    chosen: PatchOptions,
    dry_run: opt.DryRun = False,
    as_json: opt.Json = False,
    html: opt.Html = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Restore every patched file byte for byte, and RECORD."""
    output = Output(
        "restore", as_json=as_json, verbosity=-1 if quiet else verbose, html=html, several=len(paths) > 1
    )
    code = ExitCode.SATISFIED
    with output:
        for path in paths if len(paths) > 1 else ():
            scan(path)  # as above
        for path in paths:
            begun = time.monotonic()
            if dry_run:
                from nixpatch.operations.restore import plan_restore  # noqa: PLC0415 - no other command needs it

                code = max(code, _report(plan_restore(path), None, output, begun))
            else:
                outcome = restore(path, chosen, output.events())
                code = max(code, _report(outcome.plan, outcome, output, begun))
    return code


@guarded
@takes(
    "python",
    "store",
    "locked",
    "accept_modified",
    "jobs",
    accept_modified="RECORD rows that were wrong before the patch are no errors.",
)
def verify_command(
    paths: opt.Paths,
    chosen: PatchOptions,
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
    """Check patched trees: files, RECORD, needs, store paths and garbage-collector roots."""
    from nixpatch.operations.verify import check_tree  # noqa: PLC0415 - no other command needs it

    output = Output(
        "verify", as_json=as_json, verbosity=-1 if quiet else verbose, html=html, several=len(paths) > 1
    )
    code = ExitCode.SATISFIED
    store = find_store(text_of(chosen.store), os.environ)
    with output:
        for path in paths:
            verdict = check_tree(
                path,
                store,
                python=text_of(chosen.python),
                path_env=os.environ.get("PATH"),
                locked=text_of(chosen.locked),
                load=load,
                deep=deep,
                workers=chosen.jobs,
                accept_modified=chosen.accept_modified,
            )
            output.verdict(verdict, store.directory)
            code = max(code, verdict_code(verdict))
    return code
