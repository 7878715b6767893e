"""Keep what a run would print of a tree in which there is nothing to do, for the next run."""

from __future__ import annotations

from nixpatch.cli.exit_codes import ExitCode, run_code
from nixpatch.model import Outcome
from nixpatch.operations.patch_options import PatchOptions
from nixpatch.operations.request import PatchRequest
from nixpatch.operations.tree_state import Printed, remember


def keep(request: PatchRequest, options: PatchOptions, outcome: Outcome, begun: int) -> None:
    """Keep the report of a run that had nothing to do; ``begun`` is its start (``time.time_ns``)."""
    from nixpatch.operations.gc_roots import used  # noqa: PLC0415 - a tree that is known needs neither
    from nixpatch.report.text import brief_lines  # noqa: PLC0415 - rich is slow to import

    lines, quiet_lines = brief_lines(outcome, 0), brief_lines(outcome, -1)
    if lines is not None and quiet_lines is not None:
        satisfied = run_code(outcome.plan, outcome) is ExitCode.SATISFIED
        printed = Printed(lines, quiet_lines, satisfied)
        remember(request, options, outcome, used(outcome.plan), printed, begun)
