"""From what somebody asks for to a request: the command line and the Python API ask alike.

Where the user adds to the policy tables: ``--policy``, options, and ``[tool.nixpatch]`` of a project.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nixpatch.errors import RequestError
from nixpatch.model import Tag
from nixpatch.operations.plan import Request
from nixpatch.policy import MAX_SIZE, Policy, PolicyError, Rule, default_policy, parse, toml
from nixpatch.store import find_store


@dataclass(frozen=True, slots=True)
class Choices:
    """What was asked for, but for the paths, named as the options are; None where nothing was said."""

    python: str | None = None
    lib: Sequence[str] | None = None
    closure: Sequence[str] | None = None
    store: str | None = None
    pure: bool = False
    nixpkgs: str | None = None
    locked: str | None = None
    policy: Sequence[str] | None = None
    runtime_dep: Sequence[str] | None = None
    ignore_missing: Sequence[str] | None = None
    append_rpath: Sequence[str] | None = None
    tag: Tag | None = None
    owned_only: bool = False
    unvendor: Sequence[str] | None = None


def request(
    path: str, choices: Choices, environment: Mapping[str, str], *, project: str | None = None
) -> Request:
    """Put a request together from choices and the process's environment.

    ``project`` is a ``pyproject.toml`` whose ``[tool.nixpatch]`` counts; None reads none.

    Raises:
        RequestError: ``store`` is not a directory, or a policy cannot be used.

    """
    building = in_nix_build(environment)
    store = find_store(choices.store, environment)
    return Request(
        path=path,
        # A builder may or may not reach Nix; the answer must not depend on it.
        store=replace(store, program=None) if building else store,
        python=choices.python,
        libs=tuple(choices.lib or ()),
        closures=tuple(choices.closure or ()),
        # What lies in the builder's store by chance must not decide what a build comes to.
        pure=choices.pure or building,
        nixpkgs=choices.nixpkgs,
        locked=choices.locked,
        policy=tables_of(
            choices.policy or (),
            choices.ignore_missing or (),
            choices.runtime_dep or (),
            project=project,
        ),
        append=tuple(choices.append_rpath or ()),
        tag=choices.tag,
        owned_only=choices.owned_only,
        unvendor=tuple(choices.unvendor or ()),
        search_path=environment.get("PATH"),
        cache=cache_file(environment),
    )


def cache_file(environment: Mapping[str, str]) -> str | None:
    """Return where the provider index is kept (XDG base directory specification), None in a build."""
    base = environment.get("XDG_CACHE_HOME") or os.path.join(environment.get("HOME", ""), ".cache")
    if in_nix_build(environment) or not os.path.isabs(base):
        return None
    return os.path.join(base, "nixpatch", "providers.sqlite")


def in_nix_build(environment: Mapping[str, str]) -> bool:
    """Whether a derivation is being built; ``nix-shell`` sets the same variables and one more."""
    return "NIX_BUILD_TOP" in environment and "IN_NIX_SHELL" not in environment


def tables_of(
    files: Sequence[str], ignored: Sequence[str], opened: Sequence[str], *, project: str | None = None
) -> Policy:
    """Return the package's tables with what is added to them, the asker's own rows first.

    ``files`` are given with ``--policy``; ``[tool.nixpatch]`` of ``project``, a ``pyproject.toml`` that need
    not exist, comes before the package's own tables and after everything else.

    Raises:
        RequestError: a file cannot be read, is no TOML, or says something that is no rule.

    """
    policy = default_policy()
    if project is not None and os.path.exists(project):
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
    found = tool.get("nixpatch", {}) if isinstance(tool, dict) else {}
    return found if isinstance(found, dict) else {"tool.nixpatch": found}


def _parsed(name: str, data: dict[str, Any]) -> Policy:
    if "libc" in data:
        raise RequestError(f"{name}: libc: what belongs to a libc is not a matter of taste")
    try:
        return parse(data)
    except PolicyError as error:
        raise RequestError(f"{name}: {error}") from error
