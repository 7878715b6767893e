"""A whole run on one tree, from top to bottom: lock, plan, roots, apply, prune, unlock. Start reading here.

The command line, the Python API and the wrappers round installers all come through these three functions.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.tree_roots import root_of
from nixpatch.model import FileOutcome, Outcome, Plan, TreeFile
from nixpatch.operations import gc_roots
from nixpatch.operations.patch_options import ApplyOptions
from nixpatch.operations.plan import make_plan, refuse_system_directory
from nixpatch.operations.request import PatchRequest
from nixpatch.store.nix_store import Store
from nixpatch.tree_lock import hold_tree


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
    with hold_tree(root_of(request.path), events.on_message):
        records = TreeRecords()
        plan = restrict(make_plan(request, events.on_message, events.reading, records))
        return carry_out(plan, request.store, options, events, records)


def restore(path: str, options: ApplyOptions, events: PatchEvents = _NO_EVENTS) -> Outcome:
    """Put the patched files of a tree back as they were installed.

    Raises:
        RequestError: there is no such tree.
        MachineError: a directory cannot be written. Nothing was changed.

    """
    from nixpatch.operations.restore import plan_restore  # noqa: PLC0415 - patching needs none of it

    with hold_tree(root_of(path), events.on_message):
        records = TreeRecords()
        return carry_out(plan_restore(path, records), None, options, events, records)


def prune_roots(path: str, on_message: Callable[[str], None]) -> None:
    """Drop the garbage-collector roots of a tree that an installer took dists out of.

    Raises:
        MachineError: the directory of the roots cannot be written.

    """
    with hold_tree(root_of(path), on_message):
        gc_roots.prune(os.path.realpath(path))


def carry_out(
    plan: Plan,
    store: Store | None,
    options: ApplyOptions,
    events: PatchEvents = _NO_EVENTS,
    records: TreeRecords | None = None,
) -> Outcome:
    """Carry a plan out: roots first, then files and RECORD, then drop the roots that nothing uses any more.

    A root is there before the first file names the store path, and goes after the last file stopped naming
    it, so the garbage collector can run at any moment. The caller holds the tree.

    Args:
        plan: what to do.
        store: where to add roots; None adds none (a plan that restores).
        options: how to do it.
        events: callbacks.
        records: RECORDs and provenance as the plan read them; None reads them again.

    Raises:
        MachineError: a directory cannot be written, or Nix refused a root. Nothing was changed.

    """
    from nixpatch.operations.apply import apply  # noqa: PLC0415 - a plan that is only shown needs none of it

    if store is not None and options.gc_roots:
        gc_roots.add(plan, store, events.on_message)
    elif store is not None:
        gc_roots.decline(plan, store)
    with events.writing(plan) as on_file:
        outcome = apply(plan, options, records=records, progress=on_file)
    if options.accept_modified and not plan.keeps_originals:  # elsewhere, restore has to bring the rows back
        from nixpatch.operations.record_update import refresh_tree  # noqa: PLC0415 - for this option only

        own = store.store_path_of(plan.tree.prefix) if store is not None else None
        refreshed = refresh_tree(
            plan.tree,
            records or TreeRecords(),
            own_hash=os.path.basename(own).partition("-")[0] if own else "",
            durable=options.fsync,
        )
        outcome = replace(outcome, findings=(*outcome.findings, *refreshed))
    if options.gc_roots:
        gc_roots.prune(plan.tree.prefix, expected=gc_roots.used(plan))
    return outcome
