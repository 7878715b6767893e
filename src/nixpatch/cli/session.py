"""The output of a command, and how its errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FrameType, MappingProxyType
from typing import TYPE_CHECKING, Any, ParamSpec, Self

import typer

from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.progress import Bar
from nixpatch.cli.terminal import is_watched
from nixpatch.errors import MachineError, NixpatchError
from nixpatch.escape import shown
from nixpatch.fs import is_stream, replace_bytes, sweep
from nixpatch.model import Outcome, Plan, Tree, Verdict
from nixpatch.report.closing import RunSum, with_duration

if TYPE_CHECKING:
    from nixpatch.operations.patch import PatchEvents
    from nixpatch.operations.patch_options import PatchOptions
    from nixpatch.operations.tree_state import Printed
    from nixpatch.operations.wheel import WheelOutcome

_P = ParamSpec("_P")
_ANSI = {"bold green": "\x1b[1;32m", "dim": "\x1b[2m"}
"""SGR of ECMA-48 for the styles of lines that are printed without rich"""
_NAMES = {"status": "manylinux"}
"""commands whose functions have another name than the document"""


class Output:
    """Prints reports to standard output and messages to standard error."""

    def __init__(
        self,
        command: str,
        *,
        as_json: bool,
        verbosity: int,
        html: str | None = None,
        options: PatchOptions | None = None,
        several: bool = False,
        are_found: bool = False,
    ) -> None:
        """Prepare the output of one command.

        Args:
            command: its name in the JSON document.
            as_json: print one JSON document at the end instead of text.
            verbosity: -1 quiet, 0 the default, 1 and 2 more.
            html: the file to write the page to.
            options: the options for the JSON document.
            several: print the path of each tree, as there is more than one.
            are_found: print a line for each tree and a sum, as they were found and not named.

        Raises:
            MachineError: the page cannot be written.

        """
        self.label = ""
        """the tree that the next report is about, as the command line or the search names it"""
        self._are_found = are_found
        self._sum = RunSum()
        self._refused: dict[str, NixpatchError] = {}
        self._options = options
        self._several = several
        self.as_json = as_json
        self.verbosity = verbosity
        self._watched = is_watched(os.environ)
        self._command = command
        self.bar = Bar(wanted=verbosity >= 0 and self._watched)
        self._trees: list[dict[str, Any]] = []
        if html is not None:
            check_output(html, option="--html")
        self._html = html
        self._pages: list[dict[str, Any]] = []

    def plan(self, plan: Plan, outcome: Outcome | None, seconds: float) -> None:
        """Print a plan or its outcome as text, or keep it for the JSON document and the page."""
        if self._html is not None:
            from nixpatch.report.html import plan_page  # noqa: PLC0415 - slow to import, rarely needed

            self._pages.append(plan_page(plan, outcome, seconds))
        if self.as_json:
            from nixpatch.report.as_json import plan_entry  # noqa: PLC0415 - as above

            self._trees.append(plan_entry(plan, outcome))
            return
        from nixpatch.report.text import console, plan_report  # noqa: PLC0415 - JSON needs no rich

        self._print_root(plan.tree)
        self._sum.add_plan(plan, outcome, seconds)
        report = plan_report(
            plan, outcome, verbosity=self.verbosity, seconds=seconds, label=self._line_label()
        )
        console(plain=not self._watched).print(report)

    @property
    def is_brief(self) -> bool:
        """Whether the report is a few lines of text on one tree."""
        return not self.as_json and self._html is None and self.verbosity <= 0 and not self._several

    def known(self, printed: Printed, seconds: float) -> None:
        """Print what an earlier run printed of a tree; rich is slow to import."""
        lines = printed.lines if self.verbosity == 0 else printed.quiet_lines
        coloured = self._watched and sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        if lines:
            lines = (*lines[:-1], (with_duration(lines[-1][0], seconds), lines[-1][1]))
        for text, style in lines:
            code = _ANSI.get(style, "") if coloured else ""
            sys.stdout.write(f"{code}{text}\x1b[0m\n" if code else f"{text}\n")

    def verdict(self, verdict: Verdict, store_dir: str) -> None:
        """Print a verdict as text, or keep it for the JSON document and the page."""
        if self._html is not None:
            from nixpatch.report.html import verdict_page  # noqa: PLC0415 - as above

            self._pages.append(verdict_page(verdict, store_dir))
        if self.as_json:
            from nixpatch.report.as_json import verdict_entry  # noqa: PLC0415 - as above

            self._trees.append(verdict_entry(verdict, store_dir))
            return
        from nixpatch.report.text import console, verdict_report  # noqa: PLC0415 - as above

        self._print_root(verdict.tree)
        self._sum.add_verdict(verdict)
        report = verdict_report(
            verdict, store_dir=store_dir, verbosity=self.verbosity, label=self._line_label()
        )
        console(plain=not self._watched).print(report)

    def refuse(self, path: str, error: NixpatchError) -> None:
        """Report that a tree that was found cannot be used; the others go on."""
        self._refused[path] = error
        if not self.as_json:
            text = str(error) if path in str(error) else f"{path}: {error}"
            sys.stdout.flush()
            sys.stderr.write(f"nixpatch: {shown(text)}\n")

    def _line_label(self) -> str:
        """Return the name before the closing line of a tree that was found; "" for the whole report."""
        return self.label if self._are_found and self.verbosity <= 0 else ""

    def _print_root(self, tree: Tree) -> None:
        if self._several and self.verbosity >= 0 and not self._line_label():
            sys.stdout.write(f"{shown(tree.root)}\n")

    def _print_sum(self) -> None:
        refused = len(self._refused)
        if (
            self._are_found
            and self._sum.trees + refused > 1
            and not self.as_json
            and (self.verbosity >= 0 or refused)
        ):
            sys.stdout.write(f"{self._sum.text(refused)}\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        """Print the JSON document and write the page.

        If an error ends the run early, the document has the finished trees and the error, so that a program
        that reads it never gets an incomplete document or none.

        Raises:
            MachineError: the page cannot be written.

        """
        if error is not None and not isinstance(error, NixpatchError):
            return
        if self.as_json:
            print_document(
                self._command, self._trees, options=self._options, error=error, refused=self._refused
            )
        if error is None:
            self._print_sum()
        if error is None and self._html is not None:
            self._write_page(self._html)

    def _write_page(self, path: str) -> None:
        from nixpatch.report.html import page  # noqa: PLC0415 - as above

        write_output(path, page(f"nixpatch {self._command}", self._pages), option="--html")

    def events(self) -> PatchEvents:
        """Return the callbacks that show a run's progress here."""
        from nixpatch.operations.patch import PatchEvents  # noqa: PLC0415 - not every command runs on a tree

        return PatchEvents(self.say, self.bar.reading, self.bar.writing)

    def wheel(self, path: str, done: WheelOutcome, seconds: float) -> None:
        """Print what became of a wheel file, and what was written."""
        self.plan(done.plan, done.outcome, seconds)
        if self.as_json:
            self._trees[-1]["wheel"] = {
                "output": done.output and shown(done.output),
                "note": shown(done.note),
            }
        if done.note and (self.verbosity >= 0 or done.output is None):
            sys.stdout.flush()
            sys.stderr.write(f"nixpatch: {shown(path)}: {shown(done.note)}\n")

    def say(self, text: str) -> None:
        """Print a message."""
        if self.verbosity >= 0:
            sys.stderr.write(f"nixpatch: {shown(text)}\n")


def print_document(
    command: str,
    trees: Sequence[dict[str, Any]],
    *,
    options: PatchOptions | None = None,
    error: NixpatchError | None = None,
    refused: Mapping[str, NixpatchError] = MappingProxyType({}),
) -> None:
    """Print a whole JSON document to standard output, with the error that ended the run early.

    ``refused`` are the trees that were found and cannot be used, each with an error.
    """
    from nixpatch.operations.patch_options import as_json  # noqa: PLC0415 - for JSON only
    from nixpatch.report.as_json import document, write  # noqa: PLC0415

    extra: dict[str, Any] = {}
    if options is not None:
        extra["options"] = as_json(options)
    if refused:
        extra["refused"] = [{"path": path, "error": shown(str(reason))} for path, reason in refused.items()]
    if error is not None:
        extra["error"] = shown(str(error))
        error.is_in_document = True
    write(document(command, trees, **extra), sys.stdout)


def check_output(path: str, *, option: str) -> None:
    """Check that a file that the user named can be written, before a run changes anything.

    Raises:
        MachineError: its directory does not exist or cannot be written, or it is a directory itself.

    """
    real = os.path.realpath(path)
    directory = os.path.dirname(real)
    if is_stream(path):  # what /dev/stdout is a link to may have no directory
        reason = 0 if os.access(path, os.W_OK) else errno.EACCES
    elif os.path.isdir(real) or path.endswith("/"):
        reason = errno.EISDIR
    elif not os.path.isdir(directory):
        reason = errno.ENOTDIR if os.path.exists(directory) else errno.ENOENT
    else:
        reason = 0 if os.access(directory, os.W_OK) else errno.EACCES
    if reason:
        raise MachineError(f"{option} {path}: cannot be written: {os.strerror(reason)}; nothing was changed")


def write_output(path: str, data: bytes, *, option: str) -> None:
    """Write a file that the user named: a regular file atomically, a pipe or a device in place.

    Raises:
        MachineError: it cannot be written; a regular file is unchanged.

    """
    real = os.path.realpath(path)
    try:
        if is_stream(path):
            with open(path, "wb") as file:
                file.write(data)
            return
        sweep(real)
        replace_bytes(real, data)
    except OSError as error:
        text = f"{option} {path}: cannot be written: {error.strerror}; the file is as it was"
        raise MachineError(text) from error


def guarded(command: Callable[_P, int]) -> Callable[_P, None]:
    """Turn the result of a command into its exit code, and an error into a message and an exit code."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        signal.signal(signal.SIGTERM, _terminated)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            code = int(command(*args, **kwargs))
            sys.stdout.flush()
        except NixpatchError as error:
            if kwargs.get("as_json") and not error.is_in_document:
                print_document(
                    _NAMES.get(command.__name__) or command.__name__.removesuffix("_command"), (), error=error
                )
            sys.stderr.write(f"nixpatch: {shown(str(error))}\n")
            code = error.exit_code
        except BrokenPipeError:
            # The reader of the report has closed it (nixpatch ... | head); Python would complain at exit,
            # too.
            _forget_output()
            code = ExitCode.REMAINS
        except OSError as error:
            # Errors that no operation handles: standard output on a full disk, no free descriptor.
            sys.stderr.write(f"nixpatch: {shown(_os_error_text(error))}\n")
            _forget_output()
            code = ExitCode.MACHINE
        except ImportError as error:
            # A module that is imported late is gone: an incomplete installation, or no free descriptor.
            text = f"its own files cannot be read ({error}); every file is whole: install it again"
            sys.stderr.write(f"nixpatch: {text}\n")
            code = ExitCode.MACHINE
        except MemoryError:
            sys.stderr.write("nixpatch: not enough memory; every file is whole: free some and run it again\n")
            code = ExitCode.MACHINE
        except KeyboardInterrupt:
            sys.stderr.write("nixpatch: interrupted; every file is whole, run it again to finish\n")
            code = ExitCode.INTERRUPTED
        raise typer.Exit(code)

    # typer reads the parameters from here.
    run.__annotations__ = {**command.__annotations__, "return": None}
    return run


def _os_error_text(error: OSError) -> str:
    name = error.filename if isinstance(error.filename, str) else "standard output or a file of the run"
    return f"{name}: {error.strerror or error}; every file is whole, fix this and run nixpatch again"


def _forget_output() -> None:
    """Keep Python from reporting unwritten output at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _terminated(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
