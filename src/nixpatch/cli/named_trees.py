"""The trees that the paths of a command line mean, and the loop over them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from nixpatch.cli.exit_codes import ExitCode
from nixpatch.cli.session import Output
from nixpatch.errors import NixpatchError, RequestError
from nixpatch.escape import shown
from nixpatch.installed.scan import EMPTY_PATH, scan
from nixpatch.installed.tree_roots import default_tree, find_roots
from nixpatch.operations.patch_options import PatchOptions, text_of
from nixpatch.operations.request import in_nix_build
from nixpatch.report.phrases import count_text, first_few

if TYPE_CHECKING:
    from nixpatch.operations.wheel_tree import WheelTree

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class NamedTrees:
    """The trees that the paths of a command line mean."""

    paths: tuple[str, ...]
    are_found: bool = False
    """some were not named, but found below a directory that was"""


def named_trees(paths: Sequence[str] | None) -> NamedTrees:
    """Return the trees that paths mean; without paths the active venv, else ``./.venv``.

    Raises:
        RequestError: there is no path and no venv.

    """
    trees: dict[str, str] = {}
    are_found = False
    for path in paths or [default_tree(os.environ)]:
        if not path:
            raise RequestError(EMPTY_PATH)
        roots = find_roots(path, os.environ.get("HOME"))
        if roots.unsearched:
            text = f"{count_text(roots.unsearched, 'directory', 'directories')} not searched for trees"
            sys.stderr.write(
                f"nixpatch: {shown(path)}: {text}: too many or too deep; name the trees in them\n"
            )
        are_found = are_found or roots.is_above or len(roots.roots) > 1
        loose = [path] if roots.is_above and in_nix_build(os.environ) and _has_files(path) else []
        for root in (*roots.roots, *loose):
            trees.setdefault(os.path.realpath(root) if "\0" not in root else root, root)
    return NamedTrees(tuple(trees.values()), are_found)


def one_tree(path: str | None) -> str:
    """Return the only tree that a path means, for a command that takes one.

    Raises:
        RequestError: there are several, or there is no path and no venv.

    """
    trees = named_trees(None if path is None else [path]).paths
    if len(trees) > 1:
        raise RequestError(f"{path}: has {len(trees)} trees: name one of them: {first_few(trees)}")
    return trees[0]


@contextlib.contextmanager
def tree_at(
    path: str, chosen: PatchOptions, beside: Sequence[str] | None, named: Sequence[str]
) -> Iterator[WheelTree | None]:
    """Unpack a path that is a wheel file; yield None for a tree.

    Args:
        path: as the command line names it.
        chosen: ``python`` counts.
        beside: the wheels of ``--with``.
        named: all paths of the command line: the wheels among them that this one requires lie beside it, too.

    Raises:
        RequestError: the wheel cannot be used, or there are wheels beside a tree.

    """
    if not is_wheel(path):
        if beside:
            raise RequestError(f"--with {beside[0]}: {path} is no wheel file: --with is for those")
        yield None
        return
    from nixpatch.operations.wheel_tree import unpacked, wheels_beside  # noqa: PLC0415 - for wheels only

    others = wheels_beside(path, beside or (), filter(is_wheel, named))
    python = text_of(chosen.python)
    with unpacked(path, python=python, path_env=os.environ.get("PATH"), others=others) as tree:
        yield tree


def is_wheel(path: str) -> bool:
    """Whether a path means a wheel file, which need not exist."""
    return path.lower().endswith(".whl") and not os.path.isdir(path)


def for_each(
    named: NamedTrees,
    output: Output,
    work: Callable[[str], ExitCode],
    check: Callable[[str], object] = lambda _: None,
) -> ExitCode:
    """Do something for each tree; return the highest exit code.

    ``check`` looks at every tree before ``work`` is done for the first. If a tree was found and not named, an
    error about it is reported with the results of the others.

    Raises:
        NixpatchError: a tree that was named cannot be used.

    """
    code = ExitCode.SATISFIED
    usable: list[str] = []

    def run(step: Callable[[str], ExitCode | None], path: str) -> None:
        nonlocal code
        output.label = path
        try:
            code = max(code, step(path) or ExitCode.SATISFIED)
            usable.append(path)
        except NixpatchError as error:
            if not named.are_found:
                raise
            output.refuse(path, error)
            code = max(code, ExitCode(error.exit_code))

    def looked_at(path: str) -> None:
        check(path)

    if len(named.paths) > 1:
        for path in named.paths:
            run(looked_at, path)
    for path in tuple(usable) if len(named.paths) > 1 else named.paths:
        run(work, path)
    return code


def results_of(
    named: NamedTrees, work: Callable[[str], _Result]
) -> tuple[list[_Result], dict[str, NixpatchError]]:
    """Return the result for each tree, and the errors about trees that were found, which are printed.

    Raises:
        NixpatchError: a tree that was named cannot be used.

    """
    results: list[_Result] = []
    errors: dict[str, NixpatchError] = {}
    for path in named.paths:
        try:
            results.append(work(path))
        except NixpatchError as error:
            if not named.are_found:
                raise
            errors[path] = error
            sys.stderr.write(f"nixpatch: {shown(str(error))}\n")
    return results, errors


def _has_files(path: str) -> bool:
    """Whether a directory above trees has ELF files of its own: all of a build's output is patched."""
    try:
        scan(path)
    except RequestError:
        return False
    return True
