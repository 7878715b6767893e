"""``nixpatch bundle``: the libraries that manylinux promises, as a Nix expression."""

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
"""what src/nixpatch/nix/bundle.nix is for, too"""


@guarded
def bundle_command(
    policy: Annotated[
        str, typer.Option("--policy", metavar="NAME", help="Such as manylinux2014 or manylinux_2_34.")
    ] = DEFAULT,
) -> ExitCode:
    """Print a Nix expression: the libraries that a manylinux policy promises, as one directory for --lib."""
    from nixpatch.report import bundle as report  # noqa: PLC0415 - no other command needs it
    from nixpatch.resolve.manylinux import named, policies  # noqa: PLC0415

    found = named(policy)
    if found is None:
        known = ", ".join(one.alias or one.name for one in policies())
        raise RequestError(f"--policy {policy}: no such manylinux policy; there are {known}")
    sys.stdout.write(report.nix(found, lambda soname: default_policy().libc_of(soname) is Libc.GLIBC))
    return ExitCode.SATISFIED
