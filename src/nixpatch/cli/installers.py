"""``nixpatch pip``, ``nixpatch uv`` and ``nixpatch wrap``: run an installer, then patch what it installed.

The installer has the terminal and standard output to itself; what nixpatch says goes to standard error.
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
from nixpatch.operations.gc_roots import prune
from nixpatch.operations.installer_changes import InstallerChanges, Snapshot, difference, restrict, snapshot
from nixpatch.operations.options import PatchOptions
from nixpatch.operations.patch import patch


@dataclass(frozen=True, slots=True)
class Call:
    """One installer to run."""

    name: str
    """what people call it"""
    command: tuple[str, ...]
    trees: Callable[[], Iterable[str]]
    """where it may install to; asked before and after, since an installer may make new places"""
    python: str | None = None
    """the Python of a tree that does not tell by itself"""
    preparation: tuple[str, ...] | None = None
    """what only installs, where ``command`` also starts what it has installed"""


Words = Annotated[
    list[str],
    typer.Argument(
        metavar="COMMAND...", help="The installer's own words, taken as they are.", show_default=False
    ),
]
Trees = Annotated[
    list[str] | None,
    typer.Option("--tree", metavar="PATH", help="What it installs to, if that is not found by itself."),
]


# What is installed is owned by dists, and its copies of libraries stay: nobody looked at the plan.
_TAKEN = tuple(name for name in opt.ALL if name not in {"owned_only", "unvendor", "accept_modified"})


def _command(call: Callable[[tuple[str, ...], str | None], Call], doc: str) -> Callable[..., None]:
    """Make a command: ``call`` turns the installer's words and ``--python`` into what is to be run."""

    @takes(*_TAKEN, python="The Python that will load the tree; for pip, that of the venv to install into.")
    def command(
        words: Words,
        chosen: PatchOptions,
        tree: Trees = None,
        verbose: opt.Verbose = 0,
        quiet: opt.Quiet = False,
    ) -> int:
        made = call(tuple(words), chosen.python)
        output = Output("patch", as_json=False, verbosity=-1 if quiet else verbose)
        return _install(replace(made, trees=lambda: tree) if tree else made, chosen, output)

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
    """Run an installer and patch what it changed; its exit code if it failed, else that of the patch.

    What a failed installer did change is patched, too: some install one dist after the other.

    Raises:
        RequestError: an option is wrong. Nothing was run yet.
        MachineError: the installer cannot be started.

    """
    # A slip in the options shall not be found after the download.
    opt.request_for(".", chosen)
    code = ExitCode.SATISFIED
    for command in filter(None, (call.preparation, call.command)):
        before = _look(call)
        failed = _run(command)
        try:
            after = _look(call)
        except NixpatchError as error:
            return failed or _told(error)
        for tree, now in after.items():
            change = difference(before.get(tree, Snapshot()), now)
            code = max(code, _answer(tree, change, call, chosen, output))
        if failed:
            return failed
    return code


def _told(error: NixpatchError) -> ExitCode:
    sys.stderr.write(f"nixpatch: {shown(str(error))}\n")
    return ExitCode(error.exit_code)


def _look(call: Call) -> dict[str, Snapshot]:
    """Look at every place that the installer may install to, each once however it is called."""
    return {tree: snapshot(tree) for tree in sorted({os.path.realpath(tree) for tree in call.trees()})}


def _run(command: Sequence[str]) -> int:
    """Run a command with our terminal; return its exit code, 128 and the signal as a shell does.

    Raises:
        MachineError: it cannot be started.

    """
    # Ctrl-C reaches the installer, too, and it is for the installer to clean up and to end. A handler is not
    # passed on to it (execve(2)); an ignored signal would be.
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        process = subprocess.Popen(command)
        try:
            code = process.wait()
        except BaseException:  # SIGTERM was for us alone
            process.terminate()
            process.wait()
            raise
    except OSError as error:
        raise MachineError(f"{command[0]}: cannot be started: {error.strerror}") from error
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code


def _answer(
    tree: str, change: InstallerChanges, call: Call, chosen: PatchOptions, output: Output
) -> ExitCode:
    """Patch what an installer changed in one tree; report trouble, since the installer is done."""
    code = ExitCode.SATISFIED
    try:
        if change.anything:
            code = _patch(tree, change, call, chosen, output)
        elif change.gone and chosen.gc_roots:
            prune(os.path.realpath(tree))
    except NixpatchError as error:
        code = _told(error)
    if code is not ExitCode.SATISFIED:
        text = f"not all that {call.name} installed into {tree} could be patched; what is not is as installed"
        sys.stderr.write(f"nixpatch: {shown(text)}\n")
    return code


def _patch(tree: str, change: InstallerChanges, call: Call, chosen: PatchOptions, output: Output) -> ExitCode:
    begun = time.monotonic()
    if chosen.python is None and python_layout.read_config(tree) is None:
        chosen = replace(chosen, python=call.python)
    request = opt.request_for(tree, chosen)
    outcome = patch(request, chosen, output.events(), restrict=lambda plan: restrict(plan, change))
    plan = outcome.plan
    if plan.files or plan.findings:
        from nixpatch.report.text import console, plan_report  # noqa: PLC0415 - rich is for the report alone

        report = plan_report(plan, outcome, verbosity=output.verbosity, seconds=time.monotonic() - begun)
        console(stderr=True).print(report)
    return run_code(plan, outcome)
