"""From options to a request: what the command line and the Python API share.

A user adds to the policy tables by ``--policy``, by options, and by ``[tool.nixpatch]`` of a project.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nixpatch.errors import RequestError
from nixpatch.fs import read_regular
from nixpatch.installed.target_python import stdenv_loader
from nixpatch.model import Tag, Writer
from nixpatch.operations.patch_options import PatchOptions, text_of, texts_of
from nixpatch.policy import MAX_SIZE, Policy, PolicyError, Rule, default_policy, parse, toml
from nixpatch.store.nix_store import Store, find_store

_MENTION = b"nixpatch"


@dataclass(frozen=True, slots=True)
class PatchRequest:
    """What the user asked for, and what of the process's environment counts. All values, no look-ups."""

    path: str
    store: Store
    python: str | None = None
    libs: tuple[str, ...] = ()
    closures: tuple[str, ...] = ()
    pure: bool = False
    """only what was named and the target's closure: the store at large is not searched"""
    nixpkgs: str | None = None
    """a flake reference or a path: what nothing before the store at large provides is realised from it"""
    locked: str | None = None
    """a lock: the store serves what it has and nothing else"""
    policy: Policy = field(default_factory=default_policy)
    """the tables of the package, and what the user adds to them"""
    append: tuple[str, ...] = ()
    tag: Tag | None = None
    owned_only: bool = False
    strict: bool = False
    """what only optional parts need counts as missing, too"""
    path_env: str | None = None
    """value of PATH"""
    loader: str | None = None
    """the dynamic loader of the stdenv that builds the tree, for programs without Python"""
    project: str | None = None
    """the ``pyproject.toml`` that ``policy`` has rules of"""
    home: str | None = None
    """value of HOME"""
    system: bool = False
    """directories of the system may be patched, too"""
    resolution_cache: bool = False
    """files get a resolution cache"""
    startup_files: bool = True
    """dists that open libraries from Python get a start-up file"""
    unvendor: tuple[str, ...] = ()
    """globs for the grafted libraries that are to give way to the store's; empty: none"""
    cache: str | None = None
    """file for what is known of the store; None keeps nothing"""
    follow_links: bool = False
    """read what links of the tree lead to outside it, too: for commands that do not write"""
    in_nix_build: bool = False
    """a derivation is being built: its output can never be restored"""
    workers: int = 0
    """processes that read a large tree; 0 is one per core"""


def request_for(
    path: str, options: PatchOptions, environ: Mapping[str, str], *, project: str | None = None
) -> PatchRequest:
    """Put a request together from options and the environment of the process.

    ``project`` is a ``pyproject.toml`` whose ``[tool.nixpatch]`` counts; None reads none.

    Raises:
        RequestError: ``store`` is not a directory, or a policy cannot be used.

    """
    append = texts_of(options.append_rpath)
    for directory in append:
        if not directory.startswith(("/", "$ORIGIN", "${ORIGIN}")):
            raise RequestError(
                f"--append-rpath {directory}: a relative directory would be that of the process (ld.so(8)); "
                "name an absolute one, or one that begins with $ORIGIN"
            )
    if options.resolution_cache and options.writer is Writer.LIEF:
        raise RequestError("--resolution-cache needs the in-place writer; leave --writer lief out")
    building = in_nix_build(environ)
    store = find_store(text_of(options.store), environ)
    return PatchRequest(
        path=path,
        # A builder may or may not reach Nix; the answer must not depend on it.
        store=replace(store, program=None) if building else store,
        python=text_of(options.python),
        libs=texts_of(options.lib),
        closures=texts_of(options.closure),
        # What lies in the builder's store by chance must not decide the output of a build.
        pure=options.pure or building,
        nixpkgs=text_of(options.nixpkgs),
        locked=text_of(options.locked),
        policy=policy_with(
            texts_of(options.policy), options.ignore_missing, options.runtime_dep, project=project
        ),
        append=append,
        tag=options.tag,
        owned_only=options.owned_only,
        strict=options.strict,
        unvendor=tuple(options.unvendor),
        home=environ.get("HOME"),
        system=options.system,
        project=project,
        startup_files=options.startup_files,
        resolution_cache=options.resolution_cache,
        path_env=environ.get("PATH"),
        loader=stdenv_loader(environ),
        cache=cache_file(environ) if options.cache else None,
        in_nix_build=building,
        workers=options.jobs,
    )


def cache_file(environ: Mapping[str, str]) -> str | None:
    """Return where the provider index is kept (XDG base directory specification), None in a build."""
    base = environ.get("XDG_CACHE_HOME") or os.path.join(environ.get("HOME", ""), ".cache")
    if in_nix_build(environ) or not os.path.isabs(base):
        return None
    return os.path.join(base, "nixpatch", "providers.sqlite")


def project_of(path: str, directory: str) -> str | None:
    """Return the ``pyproject.toml`` whose ``[tool.nixpatch]`` counts for a tree.

    Looked for from the tree upwards, then from a directory upwards; the first that has the table counts.
    """
    for start in (path, directory):
        above = os.path.realpath(start)
        while True:
            project = os.path.join(above, "pyproject.toml")
            with contextlib.suppress(OSError):
                data = read_regular(os.path.realpath(project), MAX_SIZE)
                if _MENTION in data and _has_table(data):
                    return project
            if above == "/":
                break
            above = os.path.dirname(above)
    return None


def _has_table(data: bytes) -> bool:
    """Whether a ``pyproject.toml`` has the table, or cannot be read: then the user has to hear why."""
    try:
        return bool(_project(toml(data)))
    except PolicyError:
        return True


def in_nix_build(environ: Mapping[str, str]) -> bool:
    """Whether a derivation is being built; ``nix-shell`` sets the same variables and one more."""
    return "NIX_BUILD_TOP" in environ and "IN_NIX_SHELL" not in environ


def policy_with(
    files: Sequence[str], ignored: Sequence[str], opened: Sequence[str], *, project: str | None = None
) -> Policy:
    """Return the package's tables with what is added to them, the user's own rows first.

    ``files`` are given with ``--policy``; ``[tool.nixpatch]`` of ``project``, a ``pyproject.toml``, comes
    before the package's own tables and after everything else.

    Raises:
        RequestError: a file cannot be read, is no TOML, or says something that is no rule.

    """
    policy = default_policy()
    if project is not None:
        policy = policy.extended(_parsed(f"{project}, [tool.nixpatch]", _project(_read(project))))
    for file in reversed(files):
        policy = policy.extended(_parsed(file, _read(file)))
    return policy.extended(
        Policy(
            ignore=(Rule("*", tuple(ignored), "--ignore-missing"),) if ignored else (),
            runtime=tuple(_runtime(text) for text in opened),
        )
    )


def _runtime(text: str) -> Rule:
    soname, _, glob = text.partition("@")
    if not soname or "/" in soname:
        raise RequestError(
            f"--runtime-dep {text}: not SONAME or SONAME@GLOB, such as libfoo.so.1@*/plugins/*"
        )
    return Rule(glob or "*", (soname,), "--runtime-dep")


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return toml(file.read(MAX_SIZE + 1))
    except OSError as error:
        raise RequestError(f"{path}: cannot be read: {error.strerror}") from error
    except PolicyError as error:
        raise RequestError(f"{path}: {error}") from error


def _project(document: dict[str, Any]) -> dict[str, Any]:
    tool = document.get("tool", {})
    table = tool.get("nixpatch", {}) if isinstance(tool, dict) else {}
    return table if isinstance(table, dict) else {"tool.nixpatch": table}


def _parsed(name: str, data: dict[str, Any]) -> Policy:
    if "libc" in data:
        raise RequestError(f"{name}: libc: what belongs to a libc is not a matter of taste")
    try:
        return parse(data)
    except PolicyError as error:
        raise RequestError(f"{name}: {error}") from error
