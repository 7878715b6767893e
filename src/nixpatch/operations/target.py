"""The target of a tree for every command: the Python that loads it, or for an output of Nix its loader."""

from __future__ import annotations

import functools
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping

from nixpatch.errors import RequestError
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.python_layout import only_version
from nixpatch.installed.target_python import ReadElf, Unusable, find_target, libc_of_start
from nixpatch.model import ElfFacts, Finding, Skip, Target, Tree, TreeKind
from nixpatch.resolve.ld_so import LoaderConfig, simulate
from nixpatch.resolve.search_path import inside
from nixpatch.store.programs import find_loader

_MAX_LIBRARIES = 16
"""libraries to look at; in a tree that loads, each leads to the same libc"""


def target_of_output(
    tree: Tree,
    python: str | None,
    path_env: str | None,
    read: ReadElf,
    store_dir: str,
    loader: str | None = None,
    replacement: Callable[[str], str | None] | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Target:
    """Return the target of a tree that may be an output of a build, which names no Python.

    Its files name what they were linked for: the interpreter of its programs, and the libc that its libraries
    of the store use. Without such a file any process of this store will do, as nixpatch's own.

    Args:
        tree: the tree.
        python: the Python that the user named.
        path_env: the value of PATH.
        read: reads ELF headers.
        store_dir: the directory of the store.
        loader: the loader of the stdenv, in a build or a shell of one.
        replacement: as for ``find_target``; None takes any of the store.
        note: as for ``find_target``.

    Raises:
        RequestError: there is no target.

    """
    if replacement is None:
        replacement = functools.partial(find_loader, store_dir)
    if not tree.root.startswith(store_dir.rstrip("/") + "/"):
        return find_target(tree, python, path_env, read, loader=loader, replacement=replacement, note=note)
    recorded = _recorded_loaders(tree, read) if loader is None else ()
    try:
        return find_target(
            tree,
            python,
            path_env,
            read,
            loader=loader,
            recorded=recorded,
            replacement=replacement,
            note=note,
        )
    except RequestError:
        own = read(os.path.realpath(sys.executable))
        own_loader = own.current.interp if isinstance(own, ElfFacts) else None
        if python is not None or own_loader is None or not inside(own_loader, store_dir):
            raise
        return find_target(tree, None, None, read, loader=own_loader)


def cannot_start(tree: Tree, target: Target) -> Iterator[Finding]:
    """Report a target that cannot start as it is, unless it is patched with the tree."""
    if target.cannot_start and all(file.path != target.python for file in tree.files):
        prefix = os.path.dirname(os.path.dirname(target.python))
        text = f"this Python, which loads the tree, cannot start here: it {target.cannot_start}"
        yield Finding("error", target.python, f"{text}; patch it, too: nixpatch {shlex.quote(prefix)}")


def without_loader(
    facts: Mapping[str, ElfFacts], read: ReadElf, ignored: Callable[[str, str], bool]
) -> Iterator[Finding]:
    """Report programs, not patched, that cannot start because the machine lacks the loader that they name.

    Args:
        facts: the files of a tree, by path.
        read: reads ELF headers.
        ignored: ``ignored(path, name)`` is whether a file may lack a loader of this name.

    """
    reasons: dict[str, str] = {}
    for path, file in sorted(facts.items()):
        loader = file.current.interp
        if loader is None or not file.executable or file.original_sha256 is not None:
            continue
        if loader not in reasons:
            reasons[loader] = ""
            try:
                libc_of_start(loader, file.machine, read)
            except Unusable as unusable:
                reasons[loader] = str(unusable)
        if reasons[loader] and not ignored(path, os.path.basename(loader)):
            yield Finding("error", path, f"cannot start: it {reasons[loader]}")


def python_of_prefix(prefix: str, store_dir: str, read: ReadElf) -> Target | None:
    """Return the Python in a prefix, with the reason why it cannot start; None if there is none to use."""
    tree = Tree(prefix, prefix, TreeKind.PREFIX, (), python_version=only_version(prefix))
    try:
        target = target_of_output(tree, None, None, read, store_dir)
    except RequestError:
        return None
    return target if target.python.startswith(prefix.rstrip("/") + "/") else None


def _recorded_loaders(tree: Tree, read: ReadElf) -> Iterator[str]:
    libraries: dict[str, None] = {}
    for dist in TreeRecords().of_all(tree):
        known = dist.usable_provenance()
        for entry in known.files.values() if known is not None else ():
            if entry.interp is not None:
                yield entry.interp
            libraries.update(dict.fromkeys(path for path in entry.needs.values() if path.startswith("/")))
    for library in list(libraries)[:_MAX_LIBRARIES]:
        try:
            facts = read(library)
        except OSError:
            continue
        loader = None if isinstance(facts, Skip) else loader_beside_libc(library, facts, read)
        if loader is not None:
            yield loader


def loader_beside_libc(file: str, facts: ElfFacts, read: ReadElf) -> str | None:
    """Return the loader in the directory of the libc that a library finds by its search path, as in Nix."""
    name = os.path.basename(facts.machine.arch.loader or "")

    def facts_of(path: str) -> ElfFacts | None:
        try:
            result = read(path)
        except OSError:
            return None
        return result if isinstance(result, ElfFacts) else None

    for need in simulate(file, LoaderConfig(facts_of), whole=True).needs:
        if name and need.need == "libc.so.6" and need.path is not None:
            loader = os.path.join(os.path.dirname(need.path), name)
            if os.path.exists(loader):
                return loader
    return None
