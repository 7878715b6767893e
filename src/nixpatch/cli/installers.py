"""``nixpatch pip``, ``nixpatch uv`` and ``nixpatch wrap``: run an installer, then patch what it installed.

Standard output belongs to the installer; nixpatch prints to standard error.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from nixpatch.cli import destinations
from nixpatch.cli import options as opt
from nixpatch.cli.exit_codes import ExitCode, run_code
from nixpatch.cli.options import takes
from nixpatch.cli.session import Output, guarded
from nixpatch.errors import MachineError, NixpatchError
from nixpatch.escape import shown
from nixpatch.installed import python_layout
from nixpatch.operations.installer_changes import InstallerChanges, Snapshot, difference, restrict, snapshot
from nixpatch.operations.patch import patch, prune_roots
from nixpatch.operations.patch_options import PatchOptions, text_of


@dataclass(frozen=True, slots=True)
class Call:
    """One installer to run."""

    name: str
    """its name in messages"""
    command: tuple[str, ...]
    trees: Callable[[], Iterable[str]]
    """returns the directories that it may install to; called before and after, as new ones may appear"""
    python: str | None = None
    """the Python of a tree, if it cannot be found from the tree"""
    preparation: tuple[str, ...] | None = None
    """a command that only installs, if ``command`` also starts what it installed"""


Words = Annotated[
    list[str],
    typer.Argument(
        metavar="COMMAND...", help="The arguments of the installer, passed on unchanged.", show_default=False
    ),
]
Trees = Annotated[
    list[str] | None,
    typer.Option(
        "--tree", metavar="PATH", help="The directory that it installs to, if nixpatch cannot find it."
    ),
]


# Installed files belong to dists, and bundled libraries stay, as the user has not seen a plan.
_TAKEN = tuple(name for name in opt.ALL if name not in {"owned_only", "unvendor", "accept_modified"})


def _command(call: Callable[[tuple[str, ...], str | None], Call], doc: str) -> Callable[..., None]:
    """Return a command; ``call`` makes a ``Call`` from the installer's arguments and ``--python``."""

    @takes(
        *_TAKEN, python="The Python that will load the tree; for pip, the Python of the venv to install to."
    )
    def command(
        words: Words,
        chosen: PatchOptions,
        tree: Trees = None,
        verbose: opt.Verbose = 0,
        quiet: opt.Quiet = False,
    ) -> int:
        installer = call(tuple(words), text_of(chosen.python))
        output = Output("patch", as_json=False, verbosity=-1 if quiet else verbose)
        return _install(replace(installer, trees=lambda: tree) if tree else installer, chosen, output)

    command.__doc__ = doc
    return guarded(command)


def _pip(words: tuple[str, ...], python: str | None) -> Call:
    venv, interpreter = destinations.venv_of_pip(python, os.environ)
    trees = (venv, *destinations.pip_targets(words))
    return Call("pip", (interpreter, "-m", "pip", *words), lambda: trees, interpreter)


def _uv(words: tuple[str, ...], python: str | None) -> Call:
    preparation = destinations.uv_run_preparation(words)
    return Call(
        "uv",
        ("uv", *words),
        lambda: destinations.uv_trees(words, os.environ),
        python,
        ("uv", *preparation) if preparation else None,
    )


def _wrap(words: tuple[str, ...], python: str | None) -> Call:
    return Call(words[0], words, lambda: [destinations.active_venv(os.environ)], python)


pip_command = _command(_pip, "Run pip in the venv, then patch what it installed: nixpatch pip install numpy.")
uv_command = _command(
    _uv, "Run uv, then patch what it installed: nixpatch uv sync, nixpatch uv pip install numpy."
)
wrap_command = _command(
    _wrap, "Run any installer, then patch what it installed: nixpatch wrap -- poetry install."
)


def _install(call: Call, chosen: PatchOptions, output: Output) -> int:
    """Run an installer and patch what it changed; return its exit code if it failed, else that of the patch.

    The changes of a failed installer are patched, too: some install one dist after the other.

    Raises:
        RequestError: an option is wrong. The installer was not run.
        MachineError: the installer cannot be started.

    """
    # Report wrong options before the download.
    opt.request_for(".", chosen)
    code = ExitCode.SATISFIED
    for command in filter(None, (call.preparation, call.command)):
        before = _snapshots(call)
        failed = _run(command)
        try:
            after = _snapshots(call)
        except NixpatchError as error:
            return failed or _print_error(error)
        for tree, now in after.items():
            changes = difference(before.get(tree, Snapshot()), now)
            code = max(code, _patch_changes(tree, changes, call, chosen, output))
        if failed:
            return failed
    return code


def _print_error(error: NixpatchError) -> ExitCode:
    sys.stderr.write(f"nixpatch: {shown(str(error))}\n")
    return ExitCode(error.exit_code)


def _snapshots(call: Call) -> dict[str, Snapshot]:
    """Return the state of every directory that the installer may install to, by real path."""
    return {tree: snapshot(tree) for tree in sorted({os.path.realpath(tree) for tree in call.trees()})}


def _run(command: Sequence[str]) -> int:
    """Run a command on this terminal; return its exit code, or 128 plus its signal, as a shell does.

    Raises:
        MachineError: it cannot be started.

    """
    # Ctrl-C reaches the installer, too, which cleans up and ends. A handler, unlike SIG_IGN, is not inherited
    # by it (execve(2)).
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        process = subprocess.Popen(command)
        try:
            code = process.wait()
        except BaseException:  # SIGTERM was sent to nixpatch only
            process.terminate()
            process.wait()
            raise
    except OSError as error:
        raise MachineError(f"{command[0]}: cannot be started: {error.strerror}") from error
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def _patch_changes(
    tree: str, changes: InstallerChanges, call: Call, chosen: PatchOptions, output: Output
) -> ExitCode:
    """Patch the changes in one tree; an error is printed, not raised, as the installer has finished."""
    code = ExitCode.SATISFIED
    try:
        if changes.anything:
            code = _patch(tree, changes, call, chosen, output)
        elif changes.gone and chosen.gc_roots:
            prune_roots(tree, output.say)
    except NixpatchError as error:
        code = _print_error(error)
    if code is not ExitCode.SATISFIED:
        text = (
            f"some files that {call.name} installed into {tree} could not be patched; they are as installed"
        )
        sys.stderr.write(f"nixpatch: {shown(text)}\n")
    return code


def _patch(
    tree: str, changes: InstallerChanges, call: Call, chosen: PatchOptions, output: Output
) -> ExitCode:
    begun = time.monotonic()
    if chosen.python is None and python_layout.read_config(tree) is None:
        chosen = replace(chosen, python=call.python)
    request = opt.request_for(tree, chosen)
    outcome = patch(request, chosen, output.events(), restrict=lambda plan: restrict(plan, changes))
    plan = outcome.plan
    if plan.files or plan.findings:
        from nixpatch.report.text import console, plan_report  # noqa: PLC0415 - rich is slow to import

        report = plan_report(plan, outcome, verbosity=output.verbosity, seconds=time.monotonic() - begun)
        console(stderr=True).print(report)
    return run_code(plan, outcome)
