"""Patch a wheel file: unpack it as it would be installed, patch that, and write a wheel of the result.

A patched wheel is for an index or a directory of one's own. It serves where nothing can be patched after the
installation, as in the isolated environments in which pip and uv build other packages.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import IO

from nixpatch.errors import MachineError, RequestError
from nixpatch.fs import replacement
from nixpatch.installed import provenance
from nixpatch.installed.target_python import find_target
from nixpatch.installed.wheel_file import WheelFile, pack, read_wheel, unpack
from nixpatch.model import Outcome, Plan, Tree, TreeKind
from nixpatch.operations.patch import PatchEvents, patch
from nixpatch.operations.patch_options import ApplyOptions
from nixpatch.operations.plan import Reader, make_plan
from nixpatch.operations.request import PatchRequest


@dataclass(frozen=True, slots=True)
class WheelOutcome:
    """What became of a wheel file."""

    wheel: WheelFile
    plan: Plan
    outcome: Outcome | None
    """None for a plan"""
    output: str | None
    """the file that was written; None where something stands against it, or nothing was to be done"""


def patch_wheel(
    path: str,
    directory: str,
    request: Callable[[str], PatchRequest],
    options: ApplyOptions,
    *,
    is_right: Callable[[Outcome], bool],
    others: Sequence[str] = (),
    dry_run: bool = False,
    events: PatchEvents | None = None,
) -> WheelOutcome:
    """Write a patched wheel into a directory, with the same tags and a build tag that installers prefer.

    Nothing is written if a library is missing or anything else is wrong.

    Args:
        path: the wheel.
        directory: where the new one goes.
        request: makes a request for the directory that the wheel is unpacked to.
        options: how to carry out the plan. No roots are made: the wheel is not where it will be.
        is_right: whether the outcome leaves nothing to be done; if not, no wheel is written.
        others: wheels that will be installed beside it, and whose libraries serve it.
        dry_run: plan only.
        events: callbacks.

    Raises:
        RequestError: a wheel cannot be used, or the target is wrong.
        MachineError: a file cannot be written.

    """
    wheel = read_wheel(path)
    beside = [read_wheel(other) for other in others]
    with tempfile.TemporaryDirectory(prefix="nixpatch-wheel-") as scratch:
        prefix = os.path.join(os.path.realpath(scratch), "prefix")
        asked = request(prefix)
        site = _site(prefix, wheel, asked)
        try:
            paths = unpack(wheel, prefix, site, _write)
            before = set(_files(prefix))
            for other in beside:
                unpack(other, prefix, site, _write)
        except FileExistsError as error:
            raise RequestError(f"{error.filename}: two of the wheels would install this file") from error
        except OSError as error:
            raise MachineError(f"{path}: cannot be unpacked: {error}; nothing was written") from error
        asked, info = replace(asked, path=prefix, cache=None), os.path.join(site, wheel.info)
        if dry_run:
            return WheelOutcome(wheel, _part(make_plan(asked), info), None, None)
        events, options = events or PatchEvents(), replace(options, gc_roots=False)
        outcome = patch(asked, options, events, restrict=lambda plan: _part(plan, info))
        if not is_right(outcome):
            return WheelOutcome(wheel, outcome.plan, outcome, None)
        _mark(os.path.join(info, provenance.NAME))
        added = {
            os.path.relpath(file, site): file
            for file in _files(prefix)
            if file not in before and _is_of(outcome.plan, file, info)
        }
        output = os.path.join(os.path.realpath(directory), wheel.patched_name)
        try:
            os.makedirs(os.path.dirname(output), exist_ok=True)
            with (
                replacement(output, keep_times=False) as descriptor,
                os.fdopen(os.dup(descriptor), "wb") as file,
            ):
                pack(wheel, file, paths, added)
        except OSError as error:
            text = f"{output}: cannot be written: {error.strerror}; the file is as it was"
            raise MachineError(text) from error
        return WheelOutcome(wheel, outcome.plan, outcome, output)


def _mark(path: str) -> None:
    """Note in the provenance, if there is one, that a wheel file was patched."""
    with contextlib.suppress(FileNotFoundError):
        with open(path, "rb") as file:
            known = provenance.load(file.read())
        tool = known.tool.removesuffix(provenance.IN_WHEEL) + provenance.IN_WHEEL
        with open(path, "wb") as file:
            file.write(provenance.dump(replace(known, tool=tool)))


def _site(prefix: str, wheel: WheelFile, request: PatchRequest) -> str:
    """Make the site-packages for the version that the wheel is for, else for that of the target."""
    version = wheel.python_version
    if version is None:
        os.makedirs(prefix)
        tree = Tree(prefix, prefix, TreeKind.PLAIN, ())
        version = find_target(tree, request.python, request.path_env, Reader()).version or (3, 11)
    site = os.path.join(prefix, "lib", f"python{version[0]}.{version[1]}", "site-packages")
    os.makedirs(site)
    return site


def _part(plan: Plan, info: str) -> Plan:
    """Return the part of a plan that is about one dist: those beside it only serve it."""
    others = {path for dist in plan.tree.dists if dist.info != info for path in dist.files}
    return replace(
        plan,
        files=tuple(file for file in plan.files if info in file.file.owners),
        texts=tuple(text for text in plan.texts if text.info == info),
        vendored=tuple(library for library in plan.vendored if info in library.file.owners),
        opened_unmet=tuple(
            library for library in plan.opened_unmet if any(owner == info for _, owner in library.openers)
        ),
        findings=tuple(finding for finding in plan.findings if finding.path not in others),
    )


def _is_of(plan: Plan, file: str, info: str) -> bool:
    """Whether a new file is the wheel's, and not of one beside it."""
    return file.startswith(info + "/") or any(text.path == file and text.info == info for text in plan.texts)


def _files(prefix: str) -> Iterator[str]:
    for directory, _, names in os.walk(prefix):
        yield from (os.path.join(directory, name) for name in names)


def _write(path: str, contents: IO[bytes], executable: bool) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "xb") as file:
        shutil.copyfileobj(contents, file, 1 << 20)
    os.chmod(path, 0o755 if executable else 0o644)
