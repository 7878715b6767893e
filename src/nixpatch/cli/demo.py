"""``nixpatch demo``, told step by step."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.session import guarded
from nixpatch.escape import shown
from nixpatch.operations import demo
from nixpatch.operations.apply import apply
from nixpatch.operations.demo import Sighting
from nixpatch.operations.plan import Reader
from nixpatch.operations.verify_provenance import verify
from nixpatch.policy import default_policy
from nixpatch.report.summary import totals
from nixpatch.store import find_store


@guarded
def demo_command(
    keep: Annotated[
        str | None, typer.Option(metavar="DIR", help="Work in this new directory and leave it there.")
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Use an embedded store even if the machine has one.")
    ] = False,
) -> ExitCode:
    """Try it: install real wheels into a scratch venv, patch them, show what a process maps from where."""
    from nixpatch.report.text import console, plan_report  # noqa: PLC0415 - rich comes when there is a report

    scratch = _new_directory(keep)
    try:
        begun = time.monotonic()
        _say(f"1. A scratch venv in {scratch} with {', '.join(demo.WHEELS)} from PyPI ...")
        venv = demo.install(scratch, os.environ)
        _say(f"   installed in {time.monotonic() - begun:.1f} s. What its processes map now:")
        _tell(demo.look(venv), "")
        store = find_store(None, os.environ)
        begun = time.monotonic()
        plan, is_embedded = demo.plan_for(venv, store, scratch, embedded=embedded)
        what = "an embedded store, made from this machine's own libraries" if is_embedded else "the Nix store"
        _say(f"2. Patching against {what}: {plan.store_dir}")
        outcome = apply(plan)
        seconds = time.monotonic() - begun
        console().print(plan_report(plan, outcome, verbosity=0, seconds=seconds))
        assert plan.target is not None
        verdict = verify(plan.tree, plan.target, Reader())
        checked = f"{verdict.patched} patched files, {verdict.rows} RECORD rows"
        _say(f"3. Verified {checked}: {verdict.errors} wrong.")
        _say("4. What the same processes map after it:")
        after = demo.look(venv)
        _tell(after, plan.store_dir)
    finally:
        if keep is None:
            shutil.rmtree(scratch, ignore_errors=True)
    served = all(not sight.error and _from(sight, plan.store_dir) for sight in after)
    well = served and not verdict.errors and totals(plan, outcome).satisfied
    _say("Every process runs on the store's libraries." if well else "Something is not as it should be.")
    return ExitCode.SATISFIED if well else ExitCode.REMAINS


def _new_directory(keep: str | None) -> str:
    if keep is None:
        return os.path.realpath(tempfile.mkdtemp(prefix="nixpatch-demo-"))
    os.makedirs(keep)
    return os.path.realpath(keep)


def _tell(sightings: Sequence[Sighting], store_dir: str) -> None:
    for sight in sightings:
        _say(f"   {sight.name}: {shown(sight.error) if sight.error else 'runs'}")
        for path in _from(sight, store_dir) if store_dir else _of_the_system(sight):
            _say(f"      {shown(path)}")


def _from(sight: Sighting, store_dir: str) -> list[str]:
    return [path for path in sight.mapped if path.startswith(store_dir.rstrip("/") + "/")]


def _of_the_system(sight: Sighting) -> list[str]:
    """Leave out what the wheels brought along themselves, Python's own modules, and libc."""
    policy = default_policy()
    return [
        path
        for path in sight.mapped
        if "/site-packages/" not in path
        and "/lib-dynload/" not in path
        and policy.libc_of(os.path.basename(path)) is None
    ]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
