"""Patching, restoring and verifying trees: options to a request, a value to a report and an exit code."""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.session import Output, guarded
from nixpatch.errors import RequestError
from nixpatch.model import Manner, Outcome, Plan, Writer
from nixpatch.operations.gc_roots import hold, let_go
from nixpatch.operations.plan import Request, make_plan
from nixpatch.operations.request import in_nix_build
from nixpatch.report.summary import totals
from nixpatch.store import find_store
from nixpatch.tree_lock import held


@guarded
def patch_command(
    paths: opt.Paths,
    python: opt.Python = None,
    lib: opt.Lib = None,
    closure: opt.Closure = None,
    store: opt.StoreDir = None,
    pure: opt.Pure = False,
    nixpkgs: opt.Nixpkgs = None,
    locked: opt.Locked = None,
    policy: opt.PolicyFile = None,
    runtime_dep: opt.RuntimeDep = None,
    ignore_missing: opt.IgnoreMissing = None,
    append_rpath: opt.AppendRpath = None,
    tag: opt.TagOption = None,
    writer: opt.WriterOption = Writer.INPLACE,
    owned_only: opt.OwnedOnly = False,
    unvendor: opt.Unvendor = None,
    accept_modified: opt.AcceptModified = False,
    no_gc_roots: opt.NoGcRoots = False,
    fsync: opt.Fsync = False,
    dry_run: opt.DryRun = False,
    check: opt.Check = False,
    jobs: opt.Jobs = 0,
    as_json: opt.Json = False,
    html: opt.Html = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Patch trees: this is what nixpatch PATH... does."""
    choices = opt.Choices(
        python=python,
        lib=lib,
        closure=closure,
        store=store,
        pure=pure,
        nixpkgs=nixpkgs,
        locked=locked,
        policy=policy,
        runtime_dep=runtime_dep,
        ignore_missing=ignore_missing,
        append_rpath=append_rpath,
        tag=tag,
        owned_only=owned_only,
        unvendor=unvendor,
    )
    if unvendor and writer is Writer.LIEF:
        raise RequestError("--unvendor: only the in-place writer can rename what a file needs")
    writing = not (dry_run or check)
    manner = Manner(workers=jobs, writer=writer, durable=fsync, accept_modified=accept_modified)
    output = Output(
        "patch" if writing else "plan", as_json=as_json, verbosity=-1 if quiet else verbose, html=html
    )
    code = ExitCode.SATISFIED
    for path in paths:
        begun = time.monotonic()
        request = opt.request(path, choices, os.environ)
        # In the store nobody can restore, and the copies would count in the closure.
        aside = not (in_nix_build(os.environ) or request.store.store_path_of(path, resolve=True))
        with held(path, output.say) if writing else nullcontext():
            made = make_plan(request, output.say, output.bar.reading)
            if writing and not no_gc_roots:
                hold(made, request.store)
            done = _carry_out(made, output, begun, replace(manner, keep_grafts=aside) if writing else None)
            if writing and not no_gc_roots:
                let_go(made)
        if verbose and not as_json:
            _tell_of_bare_names(request)
        code = max(code, ExitCode.REMAINS if check and made.pending else done)
    output.close()
    return code


def _tell_of_bare_names(request: Request) -> None:
    """Name what Python code opens by bare name, which no search path reaches."""
    from nixpatch.operations.dlopen_names import look  # noqa: PLC0415 - as above
    from nixpatch.report.dlopen_names import lines  # noqa: PLC0415 - reads the tree's sources: only for -v

    told = lines(look(request))
    if told:
        sys.stdout.write("Opened by bare name, which no search path reaches (see nixpatch env):\n")
        sys.stdout.writelines(f"  {line}\n" for line in told)


def _carry_out(made: Plan, output: Output, begun: float, manner: Manner | None) -> ExitCode:
    """Apply a plan, or with ``manner`` None only show it; ``begun`` is when its making began."""
    outcome: Outcome | None = None
    if manner is not None:
        from nixpatch.operations.apply import apply  # noqa: PLC0415 - a plan that is only shown needs none of it

        with output.bar.writing(made) as step:
            outcome = apply(made, manner, progress=step, waiting=output.say)
    output.plan(made, outcome, time.monotonic() - begun)
    return ExitCode.SATISFIED if totals(made, outcome).satisfied else ExitCode.REMAINS


def plan_command(_paths: opt.Paths) -> None:
    """Show what patch would do and write nothing: patch --dry-run, with the same options."""


@guarded
def restore_command(
    paths: opt.Paths,
    fsync: opt.Fsync = False,
    dry_run: opt.DryRun = False,
    jobs: opt.Jobs = 0,
    as_json: opt.Json = False,
    html: opt.Html = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Put every patched file back, byte for byte, and RECORD with it."""
    from nixpatch.operations.restore import plan_restore  # noqa: PLC0415 - no other command needs it

    output = Output("restore", as_json=as_json, verbosity=-1 if quiet else verbose, html=html)
    code = ExitCode.SATISFIED
    for path in paths:
        begun = time.monotonic()
        with nullcontext() if dry_run else held(path, output.say):
            made = plan_restore(path)
            done = _carry_out(made, output, begun, None if dry_run else Manner(workers=jobs, durable=fsync))
            if done is ExitCode.SATISFIED and not dry_run:
                let_go(made)
        code = max(code, done)
    output.close()
    return code


@guarded
def verify_command(
    paths: opt.Paths,
    python: opt.Python = None,
    store: opt.StoreDir = None,
    locked: opt.Locked = None,
    load: Annotated[
        bool, typer.Option("--load", help="Also open each file in the target Python and compare.")
    ] = False,
    jobs: opt.Jobs = 0,
    as_json: opt.Json = False,
    html: opt.Html = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Check that patched trees are what their provenance says."""
    from nixpatch.operations.verify import check_tree  # noqa: PLC0415 - no other command needs it

    output = Output("verify", as_json=as_json, verbosity=-1 if quiet else verbose, html=html)
    code = ExitCode.SATISFIED
    found_store = find_store(store, os.environ)
    for path in paths:
        verdict = check_tree(
            path,
            found_store,
            python=python,
            search_path=os.environ.get("PATH"),
            locked=locked,
            load=load,
            workers=jobs,
        )
        output.verdict(verdict, found_store.directory)
        code = ExitCode.REMAINS if verdict.errors else code
    output.close()
    return code
