"""Patch a wheel file: unpack it as it would be installed, patch that, and write a wheel of the result.

A patched wheel is for an index or a directory of one's own. It serves where nothing can be patched after the
installation, as in the isolated environments in which pip and uv build other packages.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import IO

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from nixpatch.errors import FileRefused, MachineError, RequestError
from nixpatch.escape import reason, shown
from nixpatch.fs import replacement, sweep
from nixpatch.installed import provenance
from nixpatch.installed.hashing import has_sha256
from nixpatch.installed.wheel_archive import origin_of, pack, rebuild, unchanged_members
from nixpatch.installed.wheel_file import WheelFile, read_wheel, readable
from nixpatch.installed.wheel_origin import WheelOrigin
from nixpatch.model import Outcome, Plan
from nixpatch.operations.patch import PatchEvents, patch, restore
from nixpatch.operations.patch_options import ApplyOptions
from nixpatch.operations.request import PatchRequest
from nixpatch.operations.restore import plan_restore
from nixpatch.operations.wheel_tree import WheelTree, unpacked

_ELSEWHERE = "remove it, or name another directory with -w"
_MAX_PROVENANCE = 16 << 20  # bytes, as provenance.read takes


@dataclass(frozen=True, slots=True)
class WheelOutcome:
    """What became of a wheel file."""

    plan: Plan
    outcome: Outcome | None
    """None for a plan"""
    output: str | None = None
    """the wheel; None where none was written, as something stands against it or it was only planned"""
    note: str = ""
    """what was done, or why nothing was"""
    refused: bool = False
    """the bytes of the original cannot be made again"""


def patch_wheel(
    path: str,
    directory: str,
    request: PatchRequest,
    options: ApplyOptions,
    *,
    is_right: Callable[[Outcome], bool],
    others: Sequence[str] = (),
    dry_run: bool = False,
    events: PatchEvents | None = None,
) -> WheelOutcome:
    """Write a patched wheel into a directory, with the same tags and a build tag that installers prefer.

    A wheel in which nothing has to change is copied. Nothing is written if a library is missing or anything
    else is wrong.

    Args:
        path: the wheel.
        directory: where the new one goes.
        request: what to patch it against.
        options: how to carry out the plan. No roots are made: the wheel is not where it will be.
        is_right: whether the outcome leaves nothing to be done; if not, no wheel is written.
        others: wheels that will be installed beside it, and whose libraries serve it.
        dry_run: plan only.
        events: callbacks.

    Raises:
        RequestError: a wheel cannot be used, or the target is wrong.
        MachineError: a file cannot be written.

    """
    with unpacked(path, python=request.python, path_env=request.path_env, others=others) as tree:
        if dry_run:
            return WheelOutcome(tree.plan(request), None)
        request = replace(request, path=tree.prefix, cache=None)
        before = frozenset(tree.files())
        events = _shown_events(events or PatchEvents(), tree)
        options = replace(options, gc_roots=False)
        outcome = patch(request, options, events, restrict=tree.plan_of_wheel)
        visible = tree.shown(outcome)
        if not is_right(outcome):
            return WheelOutcome(visible.plan, visible, None, "nothing was written for it")
        added = {
            os.path.relpath(file, tree.site): file
            for file in tree.files()
            if file not in before and _is_of(outcome.plan, file, tree.info)
        }
        unchanged = unchanged_members(tree.wheel, tree.members)
        if not added and _only_rewritten(tree.wheel, unchanged):
            output = os.path.join(os.path.realpath(directory), os.path.basename(path))
            note = f"nothing in it has to change; {_copy(path, output)}"
        else:
            output = os.path.join(os.path.realpath(directory), tree.wheel.patched_name)
            _must_be_ours(output)
            _keep_origin(tree, unchanged)
            _write(output, lambda file: pack(tree.wheel, file, tree.members, unchanged, added))
            note = f"wrote {output}"
        return WheelOutcome(visible.plan, visible, output, note)


def _only_rewritten(wheel: WheelFile, unchanged: frozenset[str]) -> bool:
    """Whether every member is as it was, but for those that are written in any case."""
    return {info.filename for info in wheel.members} - wheel.rewritten == unchanged


def _copy(path: str, output: str) -> str:
    """Copy a wheel in which nothing has to change; return what to say about it."""
    if os.path.realpath(path) == output:
        return "it stays"
    if os.path.exists(output) and not filecmp.cmp(path, output, shallow=False):
        raise RequestError(f"{output} exists, and is another file: {_ELSEWHERE}")

    def copied(file: IO[bytes]) -> None:
        with open(path, "rb") as original:
            shutil.copyfileobj(original, file, 1 << 20)

    _write(output, copied)
    return f"copied to {output}"


def _must_be_ours(output: str) -> None:
    """Refuse to replace a file that nixpatch did not write.

    Raises:
        RequestError: there is such a file.

    """
    if not os.path.lexists(output):
        return
    try:
        known = _known_provenance(output)
    except RequestError:
        known = None
    if known is None:
        raise RequestError(f"{output} exists, and nixpatch did not write it: {_ELSEWHERE}")


def _known_provenance(path: str) -> provenance.Provenance | None:
    """Return the provenance in a wheel, None if it has none.

    Raises:
        RequestError: it is no wheel, or its provenance cannot be used.

    """
    wheel = read_wheel(path)
    name = f"{wheel.info}/{provenance.NAME}"
    if not any(info.filename == name for info in wheel.members):
        return None
    with readable(wheel), zipfile.ZipFile(path) as archive, archive.open(name) as file:
        data = file.read(_MAX_PROVENANCE)
    try:
        return provenance.load(data)
    except provenance.ProvenanceError as error:
        text = f"{name} in it cannot be used: {shown(str(error))}; get the wheel again"
        raise RequestError(f"{path}: {text}") from error


def _write(output: str, write: Callable[[IO[bytes]], None]) -> None:
    """Write a wheel atomically.

    Raises:
        MachineError: it cannot be written.

    """
    try:
        os.makedirs(os.path.dirname(output), exist_ok=True)
        sweep(output)
        with (
            replacement(output, keep_times=False) as descriptor,
            os.fdopen(os.dup(descriptor), "wb") as file,
        ):
            write(file)
    except OSError as error:
        text = f"{output}: cannot be written: {reason(error)}; what was there is as it was"
        raise MachineError(text) from error


def _keep_origin(tree: WheelTree, unchanged: frozenset[str]) -> None:
    """Note in the provenance that a wheel file was patched, and how to write the original again."""
    path = os.path.join(tree.info, provenance.NAME)
    known = provenance.read(path)
    if known is None:
        return
    tool = known.tool.removesuffix(provenance.IN_WHEEL) + provenance.IN_WHEEL
    origin = origin_of(tree.wheel, unchanged, known.wheel)
    with open(path, "wb") as file:
        file.write(provenance.dump(replace(known, tool=tool, wheel=origin)))


def _is_of(plan: Plan, file: str, info: str) -> bool:
    """Whether a new file is the wheel's, and not of one beside it."""
    return file.startswith(info + "/") or any(text.path == file and text.info == info for text in plan.texts)


def _shown_events(events: PatchEvents, tree: WheelTree) -> PatchEvents:
    return replace(events, on_message=tree.shown_by(events.on_message))


def restore_wheel(
    path: str,
    directory: str | None,
    options: ApplyOptions,
    *,
    is_right: Callable[[Outcome], bool],
    dry_run: bool = False,
    events: PatchEvents | None = None,
) -> WheelOutcome:
    """Write the wheel that a patched wheel was made from, byte for byte and with its name.

    Args:
        path: the patched wheel, which stays.
        directory: where the original goes; None is the directory of the patched wheel.
        options: how to restore the files.
        is_right: whether every file could be restored.
        dry_run: make the original, compare it, and write nothing.
        events: callbacks.

    Raises:
        RequestError: it cannot be used, or another file has the name of the original.
        MachineError: a file cannot be written.

    """
    read_wheel(path)
    known = _known_provenance(path)
    if known is None:
        return _not_patched(path, directory, dry_run=dry_run)
    origin = known.wheel
    if origin is None:
        text = "does not say what its archive was like: get the original from where it came from"
        raise RequestError(f"{path}: {provenance.NAME} in it {text}")
    output = os.path.join(os.path.realpath(directory or os.path.dirname(path)), _original_name(path, origin))
    is_there = os.path.lexists(output)
    if is_there and not (os.path.isfile(output) and has_sha256(os.path.realpath(output), origin.sha256)):
        raise RequestError(f"{output} exists, and is another file: {_ELSEWHERE}")
    with unpacked(path, python=None, path_env=None) as tree:
        outcome = restore(
            tree.prefix, replace(options, gc_roots=False), _shown_events(events or PatchEvents(), tree)
        )
        visible = tree.shown(outcome)
        if not is_right(outcome):
            return WheelOutcome(visible.plan, visible, None, "nothing was written for it", refused=True)

        def write(file: IO[bytes]) -> None:
            rebuild(tree.wheel, origin, lambda name: tree.wheel.path_of(name, tree.prefix, tree.site), file)

        try:
            if dry_run:
                with open(os.devnull, "wb") as file:
                    write(file)
                return WheelOutcome(visible.plan, visible, output, f"would write {output}")
            _write(output, write)
        except FileRefused as error:
            digest = origin.sha256.removeprefix("sha256=")
            text = (
                f"cannot be restored byte for byte: {tree.shown(str(error))}; nothing was written: "
                f"get {origin.name} with sha256 {digest} from where it came from"
            )
            return WheelOutcome(visible.plan, visible, None, text, refused=True)
    return WheelOutcome(visible.plan, visible, output, f"wrote {output}, the original byte for byte")


def _not_patched(path: str, directory: str | None, *, dry_run: bool) -> WheelOutcome:
    """Copy a wheel in which ``nixpatch wheel`` had nothing to change, and which it copied, too."""
    with unpacked(path, python=None, path_env=None) as tree:
        plan = tree.shown(plan_restore(tree.prefix))
    note = f"nixpatch did not patch it (no {provenance.NAME}): nothing to restore"
    output = os.path.join(os.path.realpath(directory or os.path.dirname(path)), os.path.basename(path))
    if not dry_run and output != os.path.realpath(path):
        note = f"{note}; {_copy(path, output)}"
    return WheelOutcome(plan, None, output, note)


def _original_name(path: str, origin: WheelOrigin) -> str:
    """Return the file name of the original, which is not trusted.

    Raises:
        RequestError: it is not the name of this wheel without or with another build tag.

    """
    try:
        same = parse_wheel_filename(os.path.basename(path)), parse_wheel_filename(origin.name)
    except InvalidWheelFilename:
        same = None
    if same is None or same[0][:2] != same[1][:2]:
        text = f"was made from {origin.name}, which is no name that the original of it can have"
        raise RequestError(f"{path}: {provenance.NAME} in it says that it {shown(text)}")
    return origin.name
