"""``nixpatch lock``: write a lockfile, which names the store path of each soname."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode, run_code
from nixpatch.cli.named_trees import one_tree
from nixpatch.cli.options import takes
from nixpatch.cli.session import Output, check_output, guarded, write_output
from nixpatch.escape import shown
from nixpatch.operations.lockfile import lock_of
from nixpatch.operations.patch_options import PatchOptions
from nixpatch.operations.plan import make_plan
from nixpatch.report import lockfile as report
from nixpatch.report import missing
from nixpatch.store.lockfile import NAME, dump


@guarded
@takes(
    *("python", "lib", "closure", "store", "pure", "nixpkgs", "policy", "runtime_dep", "ignore_missing"),
    "strict",
)
def lock_command(
    chosen: PatchOptions,
    path: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATH]",
            help="A venv, a prefix, a site-packages or a build's $out (default: the active venv, ./.venv).",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The lockfile to write.")
    ] = NAME,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Write a lockfile for --locked: the store path that serves each soname. Does not change the tree."""
    check_output(output, option="--output")
    session = Output("lock", as_json=as_json, verbosity=-1 if quiet else 0)
    request = replace(opt.request_for(one_tree(path), chosen), follow_links=True)
    plan = make_plan(request, session.say)
    lock, findings = lock_of(plan, request.store)
    plan = replace(plan, findings=(*plan.findings, *findings))
    changed = _write(output, dump(lock))
    if as_json:
        from nixpatch.report import as_json as fields  # noqa: PLC0415 - for JSON only

        lock_object = fields.lock_object(lock, output, changed=changed)
        fields.write(fields.document("lock", [fields.plan_entry(plan, None)], lock=lock_object), sys.stdout)
    else:
        errors = [finding for finding in plan.findings if finding.severity == "error"]
        sys.stdout.writelines(f"{shown(finding.path)}: {shown(finding.text)}\n" for finding in errors)
        if any(file.blocking for file in plan.files):
            sys.stdout.write(missing.text([plan]))
        if not quiet:
            sys.stdout.write(report.text(lock, output, changed=changed))
    return run_code(plan)


def _write(path: str, data: bytes) -> bool:
    """Write the lockfile unless it has these bytes; return whether it was written."""
    real = os.path.realpath(path)
    with contextlib.suppress(OSError):
        if os.path.isfile(real):
            with open(real, "rb") as file:
                if file.read(len(data) + 1) == data:
                    return False
    write_output(path, data, option="--output")
    return True
