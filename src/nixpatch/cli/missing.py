"""``nixpatch missing``: what a tree needs that nothing provides, and what to add for it."""

from __future__ import annotations

import enum
import sys
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.options import takes
from nixpatch.cli.session import guarded
from nixpatch.operations.options import PatchOptions
from nixpatch.operations.plan import make_plan
from nixpatch.report import missing as report


class Format(enum.StrEnum):
    """How to tell it."""

    TEXT = "text"
    NIX = "nix"
    JSON = "json"


@guarded
@takes("python", "lib", "closure", "store", "pure", "policy", "runtime_dep", "ignore_missing")
def missing_command(
    paths: opt.Paths,
    chosen: PatchOptions,
    as_format: Annotated[
        Format, typer.Option("--format", help="text for people; nix: a function from pkgs to a list; json.")
    ] = Format.TEXT,
    as_json: opt.Json = False,
) -> ExitCode:
    """Say what is needed and not there, by dist, with the nixpkgs attribute and the line to paste."""
    plans = [make_plan(opt.request_for(path, chosen)) for path in paths]
    match Format.JSON if as_json else as_format:
        case Format.TEXT:
            sys.stdout.write(report.text(plans))
        case Format.NIX:
            sys.stdout.write(report.nix(plans))
        case Format.JSON:
            import json  # noqa: PLC0415 - only who asks for it pays for it

            json.dump(report.json(plans), sys.stdout, indent=1)
            sys.stdout.write("\n")
    lacking = any(file.missing for plan in plans for file in plan.files)
    return ExitCode.REMAINS if lacking else ExitCode.SATISFIED
