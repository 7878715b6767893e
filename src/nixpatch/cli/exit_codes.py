"""Exit codes, and which result of a command gives which code.

Every command takes its code from here. An exception that ends a command has its own (``errors.py``).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from nixpatch.errors import MachineError, NixpatchError, RequestError
from nixpatch.model import Outcome, Plan, Verdict
from nixpatch.report.summary import totals

if TYPE_CHECKING:  # most runs need none of these
    from nixpatch.model.diff import Difference
    from nixpatch.model.dlopen_names import DlopenNames
    from nixpatch.model.manylinux import Promise
    from nixpatch.model.trace import Trace
    from nixpatch.operations.tree_state import Printed


class ExitCode(enum.IntEnum):
    """Exit codes of all commands."""

    SATISFIED = 0
    REMAINS = 1
    """a library is missing, a file failed, a finding is an error, or with ``--check`` changes are pending"""
    REQUEST = RequestError.exit_code
    """the request is wrong"""
    MACHINE = MachineError.exit_code
    """the machine lacks something: a store, a permission, a working Nix"""
    INTERRUPTED = 130
    """Ctrl-C or SIGTERM; every file is whole"""


def run_code(plan: Plan, outcome: Outcome | None = None, *, check: bool = False) -> ExitCode:
    """Return the code of patch, plan, restore, lock and the installers.

    ``Totals.satisfied`` decides: no file failed, no need is missing, no finding is an error.
    """
    return _code(not totals(plan, outcome).satisfied or (check and plan.pending))


def known_code(printed: Printed) -> ExitCode:
    """Return the code of patch on a tree in which nothing changed since the last run: that of this run."""
    return _code(not printed.satisfied)


def verdict_code(verdict: Verdict) -> ExitCode:
    """Return the code of verify: 1 for an error finding."""
    return _code(verdict.errors > 0)


def missing_code(plans: Sequence[Plan]) -> ExitCode:
    """Return the code of missing: 1 if an unmet need stops an import or a program, or is met wrongly."""
    return _code(
        any(file.blocking for plan in plans for file in plan.files)
        or any(not conflict.ignored for plan in plans for conflict in plan.conflicts)
    )


def trace_code(traces: Iterable[Trace], soname: str | None) -> ExitCode:
    """Return the code of tree: 1 if a need is not found; with ``--why`` only that soname counts."""
    return _code(any(soname in {None, link.need} for trace in traces for link in trace.unmet))


def diff_code(difference: Difference) -> ExitCode:
    """Return the code of diff: 1 for any difference."""
    return _code(not difference.same)


def manylinux_code(promises: Iterable[Promise]) -> ExitCode:
    """Return the code of manylinux status: 1 if a policy is claimed, or may be, and not met."""
    return _code(any(promise.claimed is not False and not promise.kept for promise in promises))


def dlopen_code(names: DlopenNames) -> ExitCode:
    """Return the code of env --print: 1 if nothing provides a name."""
    return _code(bool(names.missing))


def refused_code(errors: Iterable[NixpatchError]) -> ExitCode:
    """Return the code for trees that were found below a path and cannot be used."""
    return max((ExitCode(error.exit_code) for error in errors), default=ExitCode.SATISFIED)


def _code(remains: bool) -> ExitCode:
    return ExitCode.REMAINS if remains else ExitCode.SATISFIED
