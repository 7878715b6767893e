"""``nixpatch demo``."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from nixpatch.cli.exit_codes import ExitCode, run_code, verdict_code
from nixpatch.cli.session import guarded
from nixpatch.escape import shown
from nixpatch.operations import demo
from nixpatch.operations.apply import apply
from nixpatch.operations.demo import DemoProcess
from nixpatch.operations.plan import Reader
from nixpatch.operations.verify_provenance import check_provenance
from nixpatch.policy import default_policy
from nixpatch.report.closing import verdict_closing
from nixpatch.store.nix_store import find_store


@guarded
def demo_command(
    keep: Annotated[
        str | None, typer.Option(metavar="DIR", help="Use this new directory, and keep it.")
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Use an embedded store even if the machine has one.")
    ] = False,
) -> ExitCode:
    """Install real wheels into a scratch venv, patch them, and show which libraries their processes map."""
    from nixpatch.report.text import console, plan_report  # noqa: PLC0415 - rich is slow to import

    scratch = _new_directory(keep)
    try:
        begun = time.monotonic()
        _say(f"1. Installing {', '.join(demo.WHEELS)} from PyPI into a scratch venv in {scratch} ...")
        venv = demo.install(scratch, os.environ)
        _say(f"   installed in {time.monotonic() - begun:.1f} s. Its processes map these libraries:")
        _print_processes(demo.run_processes(venv), "")
        store = find_store(None, os.environ)
        begun = time.monotonic()
        plan, is_embedded = demo.plan_for(venv, store, scratch, embedded=embedded)
        kind = "an embedded store, made of this machine's libraries" if is_embedded else "the Nix store"
        _say(f"2. Patching against {kind}: {plan.store_dir}")
        outcome = apply(plan)
        seconds = time.monotonic() - begun
        console().print(plan_report(plan, outcome, verbosity=0, seconds=seconds))
        assert plan.target is not None
        verdict = check_provenance(plan.tree, plan.target, Reader())
        _say(f"3. Verifying. {verdict_closing(verdict, plan.store_dir)}")
        _say("4. The same processes map these libraries of the store now:")
        after = demo.run_processes(venv)
        _print_processes(after, plan.store_dir)
    finally:
        if keep is None:
            shutil.rmtree(scratch, ignore_errors=True)
    served = all(not process.error and _store_libraries(process, plan.store_dir) for process in after)
    code = max(
        run_code(plan, outcome), verdict_code(verdict), ExitCode.SATISFIED if served else ExitCode.REMAINS
    )
    _say("Failed: see above." if code else "OK: every process uses libraries of the store.")
    return code


def _new_directory(keep: str | None) -> str:
    if keep is None:
        return os.path.realpath(tempfile.mkdtemp(prefix="nixpatch-demo-"))
    os.makedirs(keep)
    return os.path.realpath(keep)


def _print_processes(processes: Sequence[DemoProcess], store_dir: str) -> None:
    for process in processes:
        _say(f"   {process.name}: {shown(process.error) if process.error else 'runs'}")
        for path in _store_libraries(process, store_dir) if store_dir else _system_libraries(process):
            _say(f"      {shown(path)}")


def _store_libraries(process: DemoProcess, store_dir: str) -> list[str]:
    return [path for path in process.mapped if path.startswith(store_dir.rstrip("/") + "/")]


def _system_libraries(process: DemoProcess) -> list[str]:
    """Return the libraries that belong neither to the wheels nor to Python nor to libc."""
    policy = default_policy()
    return [
        path
        for path in process.mapped
        if "/site-packages/" not in path
        and "/lib-dynload/" not in path
        and policy.libc_of(os.path.basename(path)) is None
    ]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
