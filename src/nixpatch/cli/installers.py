"""``nixpatch pip``, ``uv``, ``uvx`` and ``wrap``: run an installer, then patch what it installed.

Standard output belongs to the installer; nixpatch prints to standard error.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import typer

from nixpatch.cli import destinations, installer_table
from nixpatch.cli import options as opt
from nixpatch.cli.destinations import UvStart
from nixpatch.cli.exit_codes import ExitCode, run_code
from nixpatch.cli.gate import Gate, gate
from nixpatch.cli.installer_table import EnvironmentStamp, Installer, WrappedCall
from nixpatch.cli.known_trees import keep
from nixpatch.cli.options import takes
from nixpatch.cli.session import Output, guarded
from nixpatch.errors import MachineError, NixpatchError, RequestError
from nixpatch.escape import shown
from nixpatch.installed import python_layout
from nixpatch.installed.scan import EMPTY_PATH
from nixpatch.model import Outcome, Plan
from nixpatch.operations.installer_changes import InstallerChanges, difference, restrict, snapshot
from nixpatch.operations.patch_options import PatchOptions, text_of
from nixpatch.operations.tree_state import KnownTree, Snapshot, is_unchanged, recall


@dataclass(frozen=True, slots=True)
class Call:
    """One installer to run."""

    name: str
    """its name in messages"""
    command: tuple[str, ...]
    trees: Callable[[], Iterable[str]]
    """returns the trees that it may install to; called before and after, as new ones may appear"""
    python: str | None = None
    """the Python of a tree, if it cannot be found from the tree"""
    start: UvStart | None = None
    """the command that it starts in an environment, to be held until that is patched"""
    uv: str = "uv"
    """the program for ``start``"""
    rows: tuple[Installer, ...] = ()
    """installers in whose places environments may appear: those are patched as a whole"""
    pythons: tuple[Installer, ...] = ()
    """installers that may download a Python"""
    wrapped: WrappedCall | None = None
    """the call, if its program is one of the table"""
    installs: bool = True
    """the command is there to install something"""
    is_tree_given: bool = False
    """``--tree`` was given"""


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
        # Report wrong options before the download.
        opt.request_for(".", chosen)
        installer = call(tuple(words), text_of(chosen.python))
        if "" in (tree or ()):
            raise RequestError(EMPTY_PATH)
        if tree:
            installer = replace(installer, trees=lambda: tree, rows=(), wrapped=None, is_tree_given=True)
        output = Output("patch", as_json=False, verbosity=-1 if quiet else verbose)
        return _InstallerRun(installer, chosen, output).run()

    command.__doc__ = doc
    return guarded(command)


def _pip(words: tuple[str, ...], python: str | None) -> Call:
    try:
        venv, interpreter = destinations.venv_of_pip(python, os.environ)
        trees, _ = destinations.pip_trees(words, interpreter, os.environ)
    except RequestError:
        # Outside any venv pip may still install to a directory that it is given.
        interpreter = python or shutil.which("python3") or "python3"
        trees, names = destinations.pip_trees(words, interpreter, os.environ)
        if not trees or names == ["python"]:
            raise
    else:
        trees.insert(0, venv)
    command = (interpreter, "-m", "pip", *words)
    return Call("pip", command, lambda: trees, interpreter, installs=destinations.installs(words))


def _uv(words: tuple[str, ...], python: str | None, program: str = "uv") -> Call:
    return Call(
        "uv",
        (program, *words),
        lambda: destinations.uv_trees(words, os.environ),
        python,
        destinations.uv_start(words, os.environ, program),
        program,
        pythons=(installer_table.installers()["uv"],),
        installs=destinations.installs(words),
    )


def _uvx(words: tuple[str, ...], python: str | None, program: str = "uvx") -> Call:
    uv = os.path.join(os.path.dirname(program), "uv")
    return replace(_uv(("tool", "run", *words), python, uv), name="uvx", command=(program, *words))


def _wrap(words: tuple[str, ...], python: str | None) -> Call:
    program = os.path.basename(words[0])
    if program in {"uv", "uvx"}:
        return (_uv if program == "uv" else _uvx)(words[1:], python, words[0])
    wrapped = installer_table.recognize(words)
    trees = [destinations.active_venv(os.environ)]
    venv = destinations.venv_of(words[0], os.environ)
    if venv is not None:
        trees.append(venv)
    is_module = installer_table.is_python(program) and words[1:3] == ("-m", "pip")
    if is_module or (program.startswith("pip") and wrapped is None):
        interpreter = words[0] if is_module else (venv and os.path.join(venv, "bin", "python")) or "python3"
        more, _ = destinations.pip_trees(words, interpreter, os.environ)
        trees += more
        python = python or (shutil.which(interpreter) if more else None)
    table = installer_table.installers()
    rows = (wrapped.installer,) if wrapped else tuple(table.values())
    pythons = (*rows, table["uv"])  # several installers use uv, if it is there
    return Call(program, words, lambda: trees, python, rows=rows, pythons=pythons, wrapped=wrapped)


pip_command = _command(_pip, "Run pip in the venv, then patch what it installed: nixpatch pip install numpy.")
uv_command = _command(
    _uv, "Run uv, then patch what it installed: nixpatch uv sync, nixpatch uv run script.py."
)
uvx_command = _command(_uvx, "Run uvx, with the tool patched before it starts: nixpatch uvx ruff check.")
wrap_command = _command(
    _wrap, "Run any installer, then patch what it installed: nixpatch wrap -- poetry install."
)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an installer may change, as it was before."""

    trees: Mapping[str, Snapshot]
    known: Mapping[str, KnownTree]
    """the trees in which nothing was to be done"""
    environments: Mapping[str, EnvironmentStamp]


class _InstallerRun:
    """One call of an installer, and the patches after it, or before what it starts."""

    def __init__(self, call: Call, chosen: PatchOptions, output: Output) -> None:
        self._call = call
        self._chosen = chosen
        self._output = output
        self._code = ExitCode.SATISFIED
        self._script = installer_table.script_of(call.wrapped) if call.wrapped else None
        """the script that it starts, to be held until its environment is patched"""
        self._visited: dict[str, EnvironmentStamp] = {}
        """the trees that were patched, or had something taken out, by real path, with a stamp of then"""
        self._untouched = frozenset[str]()
        """the trees in which nothing was to be done, and nothing changed"""

    def run(self) -> int:
        """Return the installer's exit code if it failed, else that of the patches.

        The changes of a failed installer are patched, too: some install one dist after the other.

        Raises:
            MachineError: the installer cannot be started.

        """
        call = self._call
        preparation = installer_table.install_first(call.wrapped, os.environ) if call.wrapped else None
        begin_ns = time.time_ns()
        is_quiet = preparation is not None and preparation.quiet
        environ = {**os.environ, **preparation.environ} if preparation and preparation.environ else None
        if is_quiet:
            self._output.say(f"{call.name} installs before the command starts")
        for command in (preparation.install, preparation.run) if preparation else (call.command,):
            before = self._look()
            failed = self._start(command, environ, is_quiet=is_quiet)
            if self._mend_pythons() and failed:
                # A Python that was just downloaded could not start: NixOS has no /lib64/ld-linux-x86-64.so.2.
                failed = self._start(command, environ, is_quiet=is_quiet)
            try:
                self._patch_changes(before)
            except NixpatchError as error:
                return failed or _print_error(error)
            if is_quiet:
                is_quiet = False
            elif failed:
                if call.name == "pip" and destinations.lacks_pip(command[0]):
                    text = "this venv has no pip, as uv makes them: use nixpatch uv pip"
                    sys.stderr.write(f"nixpatch: {text}, or run python -m ensurepip in it\n")
                return failed
        if call.rows and not self._visited:
            self._patch_wholes(installer_table.changed_since(begin_ns, call.command, os.environ))
        if call.installs and not self._visited:
            self._explain()
        return self._code

    def _look(self) -> Surroundings:
        environments = installer_table.environments(self._call.rows, os.environ)
        known = {tree: known for tree in _trees(self._call) if (known := self._recall(tree)) is not None}
        return Surroundings(
            {tree: known[tree].snapshot if tree in known else snapshot(tree) for tree in _trees(self._call)},
            known,
            {path: installer_table.stamp(path) for path in environments},
        )

    def _recall(self, tree: str) -> KnownTree | None:
        chosen = self._chosen_for(tree)
        with contextlib.suppress(NixpatchError):  # it is said when the tree is patched
            return recall(opt.request_for(tree, chosen), chosen)
        return None

    def _unchanged(self, before: Surroundings) -> frozenset[str]:
        """Return the trees that were known, and in which the installer changed nothing."""
        return frozenset(
            tree
            for tree, known in before.known.items()
            if is_unchanged(opt.request_for(tree, self._chosen_for(tree)), known)
        )

    def _mend_pythons(self) -> int:
        """Patch the downloaded Pythons that cannot start here; return how many there were."""
        prefixes = installer_table.pythons(self._call.pythons, os.environ)
        if not prefixes:
            return 0
        from nixpatch.operations.plan import Reader  # noqa: PLC0415 - most runs find no such Python
        from nixpatch.operations.target import python_of_prefix  # noqa: PLC0415 - as above

        store = opt.request_for(".", self._chosen).store
        mended = 0
        for prefix in prefixes:
            target = python_of_prefix(prefix, store.directory, Reader())
            if target is not None and target.cannot_start:
                self._output.say(f"{prefix}: this Python {target.cannot_start}")
                self._guarded(prefix, functools.partial(self._patch, prefix))
                mended += 1
        return mended

    def _start(self, command: Sequence[str], environ: Mapping[str, str] | None, *, is_quiet: bool) -> int:
        """Run the installer; what it starts is held until its environment is patched."""
        start = self._call.start
        if self._script is not None:
            with gate(self._on_arrival) as waiting:
                return _run(command, waiting, waiting.environ(environ or os.environ, self._script))
        if start is None:
            return _run(command, environ=environ, output=subprocess.DEVNULL if is_quiet else None)
        with gate(self._on_arrival) as waiting:
            if not start.is_python:
                code = _run((self._call.uv, *start.before, *waiting.command(start.command)), waiting)
                if not waiting.is_command_missing:
                    return code
            # uv knows what the command is; a Python that it starts in the environment waits, too.
            return _run(command, waiting, waiting.environ(environ or os.environ))

    def _on_arrival(self, environments: Iterable[str]) -> None:
        """Patch the environments of a command that uv is about to start, but for a base that is not uv's.

        That is the venv of the Python that PATH has: uv lays an environment of its own over it.
        """
        trees = set(map(os.path.realpath, self._call.trees()))
        directories = set(map(os.path.realpath, os.environ.get("PATH", "").split(os.pathsep)))
        for path in map(os.path.realpath, environments):
            if path in trees or os.path.join(path, "bin") not in directories:
                self._patch_wholes([path])

    def _patch_changes(self, before: Surroundings) -> None:
        """Patch what the installer has changed.

        Raises:
            RequestError: the trees cannot be determined, or not be read.

        """
        call = self._call
        if call.wrapped is not None:
            self._patch_wholes(installer_table.asked(call.wrapped, os.environ))
        self._patch_wholes(
            path
            for path in installer_table.environments(call.rows, os.environ)
            if before.environments.get(path) != installer_table.stamp(path)
        )
        self._untouched = self._unchanged(before)
        for tree in _trees(call):
            if tree not in self._untouched and self._has_changed(tree):
                changes = difference(before.trees.get(tree, Snapshot()), snapshot(tree))
                self._patch_difference(tree, changes)

    def _patch_wholes(self, paths: Iterable[str]) -> None:
        """Patch environments that belong to an installer, each as a whole; errors are printed."""
        for path in paths:
            real = os.path.realpath(path)
            sites = python_layout.site_directories(real) or (real,)
            if self._has_changed(real) and any(map(python_layout.has_dist_info, sites)):
                self._guarded(real, functools.partial(self._patch, real))

    def _has_changed(self, tree: str) -> bool:
        """Whether an installer was at a tree since we were."""
        return self._visited.get(tree) != installer_table.stamp(tree)

    def _patch_difference(self, tree: str, changes: InstallerChanges) -> None:
        """Patch the changes in one tree, or drop the roots of what is gone."""
        if changes.anything:
            self._guarded(tree, lambda: self._patch(tree, lambda plan: restrict(plan, changes)))
        elif changes.gone:
            self._guarded(tree, lambda: self._prune(tree))

    def _prune(self, tree: str) -> None:
        if self._chosen.gc_roots:
            from nixpatch.operations.patch import prune_roots  # noqa: PLC0415 - after changes only

            prune_roots(tree, self._output.say)

    def _guarded(self, tree: str, action: Callable[[], ExitCode | None]) -> None:
        """Act on a tree; an error is printed, not raised, as the installer has finished."""
        try:
            code = action() or ExitCode.SATISFIED
        except NixpatchError as error:
            code = _print_error(error)
        if code is not ExitCode.SATISFIED:
            _print(
                f"some files that {self._call.name} installed into {tree} could not be patched;"
                " they are as installed"
            )
        self._code = max(self._code, code)
        self._visited[tree] = installer_table.stamp(tree)

    def _patch(self, tree: str, part: Callable[[Plan], Plan] = lambda plan: plan) -> ExitCode:
        from nixpatch.operations.patch import patch  # noqa: PLC0415 - after changes only

        begun = time.monotonic()
        chosen = self._chosen_for(tree)
        outcome = patch(opt.request_for(tree, chosen), chosen, self._output.events(), restrict=part)
        plan = outcome.plan
        if (plan.files or plan.findings) and (plan.pending or (self._call.start or self._script) is None):
            from nixpatch.report.text import console, plan_report  # noqa: PLC0415 - rich is slow to import

            if self._call.wrapped is not None:
                self._output.say(tree)
            seconds = time.monotonic() - begun
            report = plan_report(plan, outcome, verbosity=self._output.verbosity, seconds=seconds)
            console(stderr=True).print(report)
        return run_code(plan, outcome)

    def _chosen_for(self, tree: str) -> PatchOptions:
        if self._chosen.python is None and python_layout.read_config(tree) is None:
            return replace(self._chosen, python=self._call.python)
        return self._chosen

    def _explain(self) -> None:
        """Say what an installer that changed nothing leaves unpatched, and where it was looked."""
        call = self._call
        trees = [tree for tree in dict.fromkeys(call.trees()) if os.path.isdir(tree)]
        for tree in trees:
            if os.path.realpath(tree) in self._untouched:
                continue
            with contextlib.suppress(NixpatchError):  # no tree, or not one of a Python
                from nixpatch.operations.plan import make_plan  # noqa: PLC0415 - a known tree needs no plan

                begun, chosen = time.time_ns(), self._chosen_for(tree)
                request = opt.request_for(tree, chosen)
                plan = make_plan(request)
                if not plan.pending:
                    keep(request, chosen, Outcome(plan, ()), begun)
                pending = sum(file.edit is not None for file in plan.files)
                if pending:
                    text = f"{call.name} changed nothing in {tree}, where {pending} ELF files need patching"
                    _print(f"{text}: run nixpatch {tree}")
                    self._code = max(self._code, ExitCode.REMAINS)
                    return
        if call.name not in {"pip", "uv", "uvx"}:
            looked = [*call.trees(), *installer_table.places(call.rows if call.wrapped else (), os.environ)]
            text = f"nothing that {call.name} changed was seen in {', '.join(looked)}"
            _print(f"{text}; if it installed elsewhere, name the place: nixpatch PATH, or wrap --tree PATH")
            self._code = max(self._code, ExitCode.REMAINS)


def _print(text: str) -> None:
    sys.stderr.write(f"nixpatch: {shown(text)}\n")


def _print_error(error: NixpatchError) -> ExitCode:
    _print(str(error))
    return ExitCode(error.exit_code)


def _trees(call: Call) -> list[str]:
    """Return the real path of every directory that the installer may install to."""
    return sorted({os.path.realpath(tree) for tree in call.trees()})


def _run(
    command: Sequence[str],
    waiting: Gate | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    output: int | None = None,
) -> int:
    """Run a command on this terminal; return its exit code, or 128 plus its signal, as a shell does.

    Raises:
        MachineError: it cannot be started.

    """
    # Ctrl-C reaches the installer, too, which cleans up and ends. A handler, unlike SIG_IGN, is not inherited
    # by it (execve(2)).
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        # What prints nothing asks nothing.
        stdin = None if output is None else subprocess.DEVNULL
        process = subprocess.Popen(command, env=environ, stdin=stdin, stdout=output, stderr=output)
        try:
            code = waiting.wait(process) if waiting else process.wait()
        except BaseException:  # SIGTERM was sent to nixpatch only
            process.terminate()
            process.wait()
            raise
    except OSError as error:
        raise MachineError(f"{command[0]}: cannot be started: {error.strerror}") from error
    finally:
        signal.signal(signal.SIGINT, before)
    return code if code >= 0 else 128 - code
