"""``nixpatch manylinux``: what a Python tells installers about manylinux wheels, and whether it is true."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.destinations import venv_of_pip
from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.options import takes
from nixpatch.cli.session import guarded
from nixpatch.escape import shown
from nixpatch.installed.manylinux_module import Mode
from nixpatch.operations import manylinux
from nixpatch.operations.options import PatchOptions
from nixpatch.operations.plan import PatchRequest, Reader
from nixpatch.report import manylinux as report

_LIBRARIES = ("python", "lib", "closure", "store", "pure", "locked")

manylinux_app = typer.Typer(
    help="Say what a Python tells installers about manylinux wheels, and change it.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Where = Annotated[
    str | None,
    typer.Argument(
        metavar="[PATH]", help="A venv, a prefix or a site-packages; by default the active venv, or ./.venv."
    ),
]


@manylinux_app.command()
@guarded
@takes(*_LIBRARIES)
def status(
    chosen: PatchOptions,
    path: Where = None,
    as_json: opt.Json = False,
    verbose: opt.Verbose = 0,
) -> ExitCode:
    """Say what is claimed, why, and policy by policy whether the libraries at hand keep it.

    Exit code 1: something is claimed and not kept.
    """
    request, reader = _request(path, chosen), Reader()
    claim = manylinux.claim(request, reader)
    promises = manylinux.promises(request, claim, reader)
    if as_json:
        import json  # noqa: PLC0415 - only who asks for it pays for it

        json.dump(report.json(claim, promises), sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        sys.stdout.write(report.text(claim, promises, verbose=verbose > 0))
    broken = any(one.claimed is not False and not one.kept for one in promises)
    return ExitCode.REMAINS if broken else ExitCode.SATISFIED


@manylinux_app.command()
@guarded
@takes("python")
def allow(chosen: PatchOptions, path: Where = None) -> ExitCode:
    """Write a _manylinux module that welcomes all manylinux wheels that glibc allows."""
    return _write(_request(path, chosen), Mode.ALLOW)


@manylinux_app.command()
@guarded
@takes("python")
def deny(chosen: PatchOptions, path: Where = None) -> ExitCode:
    """Write a _manylinux module that refuses every manylinux wheel."""
    return _write(_request(path, chosen), Mode.DENY)


@manylinux_app.command()
@guarded
@takes(*_LIBRARIES)
def honest(
    chosen: PatchOptions,
    path: Where = None,
) -> ExitCode:
    """Write a _manylinux module that answers by what the libraries at hand keep now."""
    return _write(_request(path, chosen), Mode.HONEST)


@manylinux_app.command()
@guarded
def reset(path: Where = None) -> ExitCode:
    """Take the _manylinux module away that nixpatch wrote."""
    removed = manylinux.reset(_path(path))
    told = f"{removed}: removed" if removed else f"{_path(path)}: nixpatch has written none there"
    sys.stdout.write(f"{shown(told)}\n")
    return ExitCode.SATISFIED


def _write(request: PatchRequest, mode: Mode) -> ExitCode:
    done = manylinux.write(request, mode)
    first, *rest = report.written(done, mode.value)
    sys.stdout.write(f"{first}\n")
    sys.stderr.writelines(f"nixpatch: {line}\n" for line in rest)
    return ExitCode.REMAINS if done.shadowed_by is not None else ExitCode.SATISFIED


def _request(path: str | None, chosen: PatchOptions) -> PatchRequest:
    return opt.request_for(_path(path), chosen)


def _path(path: str | None) -> str:
    return path if path is not None else venv_of_pip(None, os.environ)[0]
