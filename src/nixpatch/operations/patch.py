"""A whole run on one tree, from top to bottom: lock, plan, roots, apply, prune, unlock. Start reading here.

The command line, the Python API and the wrappers round installers all come through these three functions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from nixpatch.model import FileOutcome, Manner, Outcome, Plan, TreeFile
from nixpatch.operations import gc_roots
from nixpatch.operations.options import ApplyOptions
from nixpatch.operations.plan import PatchRequest, make_plan, refuse_system_directory
from nixpatch.store import Store
from nixpatch.tree_lock import held


@contextlib.contextmanager
def _silent(_plan: Plan) -> Iterator[Callable[[FileOutcome], None]]:
    yield lambda _: None


@dataclass(frozen=True, slots=True)
class PatchEvents:
    """Callbacks through which a run reports its progress."""

    on_message: Callable[[str], None] = lambda _: None
    """called with a line of text before a slow step, and if another run holds the tree"""
    reading: Callable[[Iterable[TreeFile]], Iterable[TreeFile]] = iter
    """passes on the files whose headers are read"""
    writing: Callable[[Plan], AbstractContextManager[Callable[[FileOutcome], None]]] = _silent
    """opened around the edits of a plan; yields what is called after each file"""


_NO_EVENTS = PatchEvents()
_AS_IT_IS: Callable[[Plan], Plan] = lambda plan: plan  # noqa: E731 - a default, shown in the signature


def patch(
    request: PatchRequest,
    options: ApplyOptions,
    events: PatchEvents = _NO_EVENTS,
    *,
    restrict: Callable[[Plan], Plan] = _AS_IT_IS,
) -> Outcome:
    """Plan a tree and carry the plan out; no other run gets in between.

    Args:
        request: what to patch, against what.
        options: how to carry the plan out.
        events: callbacks.
        restrict: returns the part of the plan to carry out.

    Raises:
        RequestError: a path, an option, the target or the lockfile is wrong.
        MachineError: there is no store, Nix failed, or a directory cannot be written. Nothing was changed.

    """
    refuse_system_directory(request)
    with held(request.path, events.on_message):
        plan = restrict(make_plan(request, events.on_message, events.reading))
        return carry_out(plan, request.store, options, events)


def restore(path: str, options: ApplyOptions, events: PatchEvents = _NO_EVENTS) -> Outcome:
    """Put the patched files of a tree back as they were installed.

    Raises:
        RequestError: there is no such tree.
        MachineError: a directory cannot be written. Nothing was changed.

    """
    from nixpatch.operations.restore import plan_restore  # noqa: PLC0415 - patching needs none of it

    with held(path, events.on_message):
        return carry_out(plan_restore(path), None, options, events)


def carry_out(
    plan: Plan, store: Store | None, options: ApplyOptions, events: PatchEvents = _NO_EVENTS
) -> Outcome:
    """Carry a plan out: roots first, then files and RECORD, then drop the roots that nothing uses any more.

    A root is there before the first file names the store path, and goes after the last file stopped naming
    it, so the garbage collector can run at any moment. ``store`` None adds no roots (a plan that restores).

    Raises:
        MachineError: a directory cannot be written, or Nix refused a root. Nothing was changed.

    """
    from nixpatch.operations.apply import apply  # noqa: PLC0415 - a plan that is only shown needs none of it

    how = Manner(options.jobs, options.writer, options.fsync, options.accept_modified, plan.keeps_originals)
    with held(plan.tree.root, events.on_message):
        if store is not None and options.gc_roots:
            gc_roots.add(plan, store)
        with events.writing(plan) as on_file:
            outcome = apply(plan, how, progress=on_file, waiting=events.on_message)
        if options.gc_roots:
            gc_roots.prune(plan.tree.prefix, expected=gc_roots.used(plan))
    return outcome
