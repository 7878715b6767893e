"""nixpatch from Python: decide, look, carry out, with the guarantees of the command line.

    >>> import nixpatch
    >>> plan = nixpatch.plan(".venv", lib=["/nix/store/...-zlib-1.3.1"])
    >>> [lacking.soname for lacking in nixpatch.missing(plan)]
    []
    >>> outcome = nixpatch.apply(plan)
    >>> nixpatch.summary(plan, outcome).satisfied
    True

Everything that these functions take and return is a frozen value. Paths are ``str`` as ``os.fsdecode`` makes
them (PEP 383). Nothing is printed; nothing of the tree is run, except by ``verify(load=True)``, and by
``plan(nixpkgs=...)``, which has Nix build. Names that are in ``nixpatch.__all__`` stay; all others may move.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nixpatch.errors import MachineError, NixpatchError, RequestError
from nixpatch.model import (
    Answer,
    FileOutcome,
    FilePlan,
    Finding,
    Manner,
    Origin,
    Outcome,
    Plan,
    SkipReason,
    Tag,
    Verdict,
    Writer,
)
from nixpatch.operations import apply as _apply
from nixpatch.operations import gc_roots as rooting
from nixpatch.operations.plan import make_plan
from nixpatch.operations.request import Choices, request
from nixpatch.operations.restore import plan_restore
from nixpatch.operations.verify import check_tree
from nixpatch.report import as_json
from nixpatch.report import missing as _missing
from nixpatch.report.missing import Missing
from nixpatch.report.summary import Totals, totals
from nixpatch.store import find_store
from nixpatch.tree_lock import held


def plan(
    path: str,
    *,
    python: str | None = None,
    lib: Sequence[str] = (),
    closure: Sequence[str] = (),
    store: str | None = None,
    pure: bool = False,
    nixpkgs: str | None = None,
    locked: str | None = None,
    policy: Sequence[str] = (),
    runtime_dep: Sequence[str] = (),
    ignore_missing: Sequence[str] = (),
    append_rpath: Sequence[str] = (),
    tag: Tag | None = None,
    owned_only: bool = False,
    unvendor: Sequence[str] = (),
    project: str | None = None,
    environment: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Plan:
    """Decide what shall happen to a tree, and write nothing.

    Args:
        path: a site-packages, a venv, a prefix, a build's output, a directory of ELF files, or one of them.
        python: the Python that will load the tree, where the tree does not tell.
        lib: directories or store paths to take libraries from, before all else.
        closure: store paths whose closure serves libraries.
        store: the store directory; None takes NIX_STORE_DIR, else ``/nix/store``.
        pure: only what was named and the target's closure serve; always so in a Nix build.
        nixpkgs: a flake reference or a path that Nix builds from what nothing else provides.
        locked: a lock file; the store serves what it has and nothing else.
        policy: TOML files with more rules, of the form of ``policy.toml``.
        runtime_dep: ``SONAME`` or ``SONAME@GLOB`` of libraries that files open with dlopen(3).
        ignore_missing: globs of sonames that may be missing.
        append_rpath: directories that every search path ends with.
        tag: the entry to write search paths to; None keeps each file's own.
        owned_only: leave files alone that no dist claims.
        unvendor: globs of grafted libraries to replace with the store's, where that is safe; ``"*"`` is all.
        project: a ``pyproject.toml`` whose ``[tool.nixpatch]`` counts.
        environment: instead of the process's own: PATH, HOME, XDG_CACHE_HOME and Nix's variables count.
        say: hears of what takes its time.

    Raises:
        RequestError: a path, an option, the target or the lock is wrong.
        MachineError: there is no store, what is locked is gone or changed, or Nix failed.

    """
    choices = Choices(
        python=python,
        lib=lib,
        closure=closure,
        store=store,
        pure=pure,
        nixpkgs=nixpkgs,
        locked=locked,
        policy=policy,
        runtime_dep=runtime_dep,
        ignore_missing=ignore_missing,
        append_rpath=append_rpath,
        tag=tag,
        owned_only=owned_only,
        unvendor=unvendor,
    )
    found = os.environ if environment is None else environment
    return make_plan(request(path, choices, found, project=project), say)


def apply(
    plan: Plan,
    *,
    writer: Writer = Writer.INPLACE,
    fsync: bool = False,
    accept_modified: bool = False,
    gc_roots: bool = True,
    jobs: int = 0,
    environment: Mapping[str, str] | None = None,
    progress: Callable[[FileOutcome], None] = lambda _: None,
    waiting: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Carry a plan out: each file is at every moment the old one or a verified new one.

    Args:
        plan: what :func:`plan` decided. A file that changed since is not written, but reported.
        writer: edit in place, or have LIEF lay each file out anew.
        fsync: put each file on the disk before it gets its name: safe in a power failure.
        accept_modified: update RECORD rows that were wrong before, too.
        gc_roots: hold the store paths that the tree uses against the garbage collector.
        jobs: processes; 0 is one per core for large work.
        environment: as for :func:`plan`; it says which Nix makes the roots.
        progress: called after each file.
        waiting: called if another run holds the tree.

    Raises:
        MachineError: a directory cannot be written, or a root not made. Nothing was changed then. Trouble
            with one file is no exception: it is in the outcome.

    """
    store = find_store(plan.store_dir or None, os.environ if environment is None else environment)
    with held(plan.tree.root, waiting):
        if gc_roots:
            rooting.hold(plan, store)
        outcome = _apply.apply(
            plan,
            Manner(workers=jobs, writer=writer, durable=fsync, accept_modified=accept_modified),
            progress=progress,
            waiting=waiting,
        )
        if gc_roots:
            rooting.let_go(plan)
    return outcome


def restore(path: str, *, fsync: bool = False, jobs: int = 0) -> Outcome:
    """Put every patched file of a tree back, byte for byte, and RECORD with it.

    Raises:
        RequestError: there is no such tree.
        MachineError: a directory cannot be written. Nothing was changed then.

    """
    with held(path, lambda _: None):
        back = plan_restore(path)
        outcome = _apply.apply(back, Manner(workers=jobs, durable=fsync))
        if totals(back, outcome).satisfied:
            rooting.let_go(back)
    return outcome


def verify(
    path: str,
    *,
    python: str | None = None,
    store: str | None = None,
    locked: str | None = None,
    load: bool = False,
    jobs: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Verdict:
    """Hold a patched tree against what was promised; with ``load`` the target Python opens every file.

    Raises:
        RequestError: there is no such tree, or the target or the lock is wrong.
        MachineError: Nix failed, or the target cannot be started.

    """
    found = os.environ if environment is None else environment
    return check_tree(
        path,
        find_store(store, found),
        python=python,
        search_path=found.get("PATH"),
        locked=locked,
        load=load,
        workers=jobs,
    )


def missing(plan: Plan) -> tuple[Missing, ...]:
    """Return what nothing provides, by soname, with the nixpkgs attribute that has it."""
    return _missing.missing(plan)


def summary(plan: Plan, outcome: Outcome | None = None) -> Totals:
    """Count a plan, or what became of it; ``satisfied`` is what makes the command line exit with 0."""
    return totals(plan, outcome)


def as_document(plan: Plan, outcome: Outcome | None = None) -> dict[str, Any]:
    """Return what ``--json`` prints of a plan or of what became of it (``data/report.schema.json``)."""
    command = "plan" if outcome is None else "patch" if plan.target is not None else "restore"
    return as_json.document(command, [as_json.plan_entry(plan, outcome)])
