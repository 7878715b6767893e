"""``nixpatch env``: run a command with LD_LIBRARY_PATH for libraries opened by bare name."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode, dlopen_code
from nixpatch.cli.named_trees import one_tree
from nixpatch.cli.options import takes
from nixpatch.cli.session import guarded
from nixpatch.errors import MachineError, RequestError
from nixpatch.escape import shown
from nixpatch.operations.patch_options import PatchOptions

_VARIABLE = "LD_LIBRARY_PATH"


@guarded
@takes("python", "lib", "closure", "store", "pure", "locked", "policy", "ignore_missing")
def env_command(
    chosen: PatchOptions,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="COMMAND...|PATH", help="The command to run; with --print, the tree."),
    ] = None,
    printing: Annotated[
        bool, typer.Option("--print", help="Print the value for a tree, run nothing.")
    ] = False,
    tree: Annotated[
        str | None,
        typer.Option("--tree", metavar="PATH", help="The tree (default: the active venv, ./.venv)."),
    ] = None,
    verbose: opt.Verbose = 0,
    quiet: opt.Quiet = False,
) -> ExitCode:
    """Run a command with LD_LIBRARY_PATH set for libraries that code opens by name (ctypes, cffi).

    nixpatch PATH serves most of them without it. This is for what that cannot reach: names that code
    computes, which the libraries in the directories of --lib may have; code that no installed dist owns;
    trees that must not be written. Use it as a last resort: LD_LIBRARY_PATH comes before RUNPATH, and every
    child process inherits it.
    """
    words = words or []
    if printing and len(words) > 1:
        raise RequestError("env --print takes one tree and no command")
    if not printing and not words:
        raise RequestError("env: name a command to run, or --print; to patch a directory of this name: ./env")
    request = opt.request_for(one_tree(words[0] if printing and words else tree), chosen)
    from nixpatch.operations import dlopen_names  # noqa: PLC0415
    from nixpatch.report import dlopen_names as report  # noqa: PLC0415 - no other command needs it

    names = dlopen_names.find_dlopen_names(request)
    dlopen_names.write_links(names, request)
    value = dlopen_names.ld_library_path(names)
    if not quiet:
        lines = report.lines(names) if verbose else report.missing(names)
        sys.stderr.writelines(f"nixpatch: {line}\n" for line in lines)
        if value:
            sys.stderr.write(f"nixpatch: {report.WARNING}\n")
    if printing:
        sys.stdout.write(f"{value}\n")
        return dlopen_code(names)
    environ = dict(os.environ)
    if value:
        environ[_VARIABLE] = ":".join(filter(None, (value, environ.get(_VARIABLE))))
    try:
        os.execvpe(words[0], words, environ)  # noqa: S606 - the command that the user named
    except OSError as error:
        raise MachineError(f"{shown(words[0])}: cannot be started: {error.strerror}") from error
