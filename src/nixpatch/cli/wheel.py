"""``nixpatch wheel``: patch wheel files."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode, run_code
from nixpatch.cli.options import takes
from nixpatch.cli.session import Output, guarded
from nixpatch.operations.patch_options import PatchOptions


@guarded
@takes(
    *("python", "lib", "closure", "store", "pure", "nixpkgs", "locked", "policy", "runtime_dep"),
    *("ignore_missing", "strict", "append_rpath", "tag", "resolution_cache", "unvendor", "jobs"),
)
def wheel_command(
    chosen: PatchOptions,
    wheels: Annotated[list[str], typer.Argument(metavar="WHEEL...", help="Wheel files.")],
    directory: Annotated[
        str, typer.Option("--wheel-dir", "-w", metavar="DIR", help="Where the patched wheels go.")
    ] = "wheelhouse",
    beside: opt.Beside = None,
    dry_run: opt.DryRun = False,
    as_json: opt.Json = False,
    html: opt.Html = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Patch wheel files, for an index or a --find-links directory of your own.

    The new wheel has the same tags and a build tag that ends with nixpatch: pip and uv prefer it to the same
    version without one. Nothing is written for a wheel that lacks a library. A wheel in which nothing has to
    change is copied. Wheels that one of them requires serve it.
    """
    from nixpatch.installed.wheel_file import read_wheel  # noqa: PLC0415 - no other command needs it
    from nixpatch.operations.wheel import patch_wheel  # noqa: PLC0415 - as above
    from nixpatch.operations.wheel_tree import wheels_beside  # noqa: PLC0415 - as above

    output = Output(
        "wheel",
        as_json=as_json,
        verbosity=-1 if quiet else verbose,
        html=html,
        options=chosen,
        several=len(wheels) > 1,
    )
    code = ExitCode.SATISFIED
    with output:
        for wheel in (*wheels, *(beside or ())):  # an error in the last must not leave the first one written
            read_wheel(wheel)
        for wheel in wheels:
            begun = time.monotonic()
            done = patch_wheel(
                wheel,
                directory,
                opt.request_for(wheel, chosen),
                chosen,
                is_right=lambda outcome: run_code(outcome.plan, outcome) is ExitCode.SATISFIED,
                others=wheels_beside(wheel, beside or (), wheels),
                dry_run=dry_run,
                events=output.events(),
            )
            output.wheel(wheel, done, time.monotonic() - begun)
            code = max(code, run_code(done.plan, done.outcome))
    return code
