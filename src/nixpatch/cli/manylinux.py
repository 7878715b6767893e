"""``nixpatch manylinux``: show and change the manylinux tags that a Python claims."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode, manylinux_code
from nixpatch.cli.named_trees import one_tree
from nixpatch.cli.options import takes
from nixpatch.cli.session import guarded
from nixpatch.escape import shown
from nixpatch.installed.manylinux_module import Mode
from nixpatch.operations import manylinux
from nixpatch.operations.patch_options import PatchOptions
from nixpatch.operations.plan import Reader
from nixpatch.operations.request import PatchRequest
from nixpatch.report import manylinux as report

manylinux_app = typer.Typer(
    help="Show or change which manylinux wheels a Python accepts.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_LIBRARIES = ("python", "lib", "closure", "store", "pure", "locked")

TreePath = Annotated[
    str | None,
    typer.Argument(
        metavar="[PATH]", help="A venv, prefix or site-packages (default: the active venv, ./.venv)."
    ),
]


@manylinux_app.command()
@guarded
@takes(*_LIBRARIES)
def status(
    chosen: PatchOptions,
    path: TreePath = None,
    as_json: opt.Json = False,
    verbose: opt.Verbose = 0,
) -> ExitCode:
    """Show the claimed tags, and for each policy whether the available libraries meet it.

    Exit code 1 if a claimed policy is not met.
    """
    request, reader = _request(path, chosen), Reader()
    claim = manylinux.read_claim(request, reader)
    promises = manylinux.promises(request, claim, reader)
    if as_json:
        from nixpatch.report.as_json import document, manylinux_entry, write  # noqa: PLC0415 - for JSON only

        write(document("manylinux", [manylinux_entry(claim, promises)]), sys.stdout)
    else:
        sys.stdout.write(report.text(claim, promises, verbose=verbose > 0))
    return manylinux_code(promises)


@manylinux_app.command()
@guarded
@takes("python")
def allow(chosen: PatchOptions, path: TreePath = None) -> ExitCode:
    """Write a _manylinux module that accepts all manylinux wheels that the glibc version allows."""
    return _write(_request(path, chosen), Mode.ALLOW)


@manylinux_app.command()
@guarded
@takes("python")
def deny(chosen: PatchOptions, path: TreePath = None) -> ExitCode:
    """Write a _manylinux module that refuses all manylinux wheels."""
    return _write(_request(path, chosen), Mode.DENY)


@manylinux_app.command()
@guarded
@takes(*_LIBRARIES)
def honest(
    chosen: PatchOptions,
    path: TreePath = None,
) -> ExitCode:
    """Write a _manylinux module that accepts the policies that the available libraries meet now."""
    return _write(_request(path, chosen), Mode.HONEST)


@manylinux_app.command()
@guarded
def reset(path: TreePath = None) -> ExitCode:
    """Remove the _manylinux module that nixpatch wrote."""
    removed = manylinux.reset(_path(path))
    text = f"{removed}: removed" if removed else f"{_path(path)}: no _manylinux module by nixpatch"
    sys.stdout.write(f"{shown(text)}\n")
    return ExitCode.SATISFIED


def _write(request: PatchRequest, mode: Mode) -> ExitCode:
    module = manylinux.write(request, mode)
    first, *rest = report.written(module, mode.value)
    sys.stdout.write(f"{first}\n")
    sys.stderr.writelines(f"nixpatch: {line}\n" for line in rest)
    return ExitCode.REMAINS if module.shadowed_by is not None else ExitCode.SATISFIED


def _request(path: str | None, chosen: PatchOptions) -> PatchRequest:
    return opt.request_for(_path(path), chosen)


def _path(path: str | None) -> str:
    return one_tree(path)
