"""``nixpatch missing``."""

from __future__ import annotations

import enum
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode, missing_code, refused_code
from nixpatch.cli.named_trees import named_trees, results_of, tree_at
from nixpatch.cli.options import takes
from nixpatch.cli.session import guarded, print_document
from nixpatch.escape import shown
from nixpatch.model import Plan
from nixpatch.operations.patch_options import PatchOptions
from nixpatch.operations.plan import make_plan
from nixpatch.report import missing as report
from nixpatch.report.phrases import command_for


class Format(enum.StrEnum):
    """Formats of the list."""

    TEXT = "text"
    NIX = "nix"
    JSON = "json"


@guarded
@takes("python", "lib", "closure", "store", "pure", "policy", "runtime_dep", "ignore_missing", "strict")
def missing_command(
    chosen: PatchOptions,
    paths: opt.PathsOrWheels = None,
    beside: opt.Beside = None,
    output_format: Annotated[
        Format,
        typer.Option("--format", help="text; nix, a function from pkgs to a list of packages; or json."),
    ] = Format.TEXT,
    as_json: opt.Json = False,
) -> ExitCode:
    """List the libraries that files need and nothing provides, with the nixpkgs attribute for each.

    What stops an import or a program comes first. What only optional parts need (plugins, backends), or code
    opens by name, is listed apart, as optional: it does not change the exit code.
    """
    named = named_trees(paths)
    plans, errors = results_of(
        named,
        lambda path: _plan(path, chosen, beside, named.paths),
    )
    match Format.JSON if as_json else output_format:
        case Format.TEXT:
            sys.stdout.write(report.text(plans))
            sys.stdout.flush()
            for tree in (plan.tree for plan in plans if plan.pending):
                command = f"{command_for(tree)} {shlex.quote(shown(tree.root))}"
                sys.stderr.write(
                    f"nixpatch: {shown(tree.root)}: not linked yet against what is there: {command}\n"
                )
        case Format.NIX:
            sys.stdout.write(report.nix(plans))
        case Format.JSON:
            from nixpatch.report.as_json import missing_entry  # noqa: PLC0415 - for JSON only

            print_document("missing", [missing_entry(plan) for plan in plans], refused=errors)
    return max(missing_code(plans), refused_code(errors.values()))


def _plan(path: str, chosen: PatchOptions, beside: list[str] | None, named: Sequence[str]) -> Plan:
    """Plan a tree or a wheel file."""
    request = replace(opt.request_for(path, chosen), follow_links=True)
    with tree_at(path, chosen, beside, named) as wheel:
        return make_plan(request) if wheel is None else wheel.plan(request)
