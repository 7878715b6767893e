"""``nixpatch bundle``: print a Nix expression for the libraries of a manylinux policy."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.session import guarded
from nixpatch.errors import RequestError
from nixpatch.model import Libc
from nixpatch.policy import default_policy

DEFAULT = "manylinux_2_28"
"""the policy of src/nixpatch/nix/bundle.nix, too"""


@guarded
def bundle_command(
    policy: Annotated[
        str,
        typer.Option("--policy", metavar="NAME", help="The policy, such as manylinux2014 or manylinux_2_34."),
    ] = DEFAULT,
) -> ExitCode:
    """Print a Nix expression for a directory with the libraries of a manylinux policy, for --lib."""
    from nixpatch.report import bundle as report  # noqa: PLC0415 - no other command needs it
    from nixpatch.resolve.manylinux import named, policies  # noqa: PLC0415

    manylinux = named(policy)
    if manylinux is None:
        known = ", ".join(item.alias or item.name for item in policies())
        raise RequestError(f"--policy {policy}: no such manylinux policy; known are {known}")
    sys.stdout.write(report.nix(manylinux, lambda soname: default_policy().libc_of(soname) is Libc.GLIBC))
    return ExitCode.SATISFIED
