"""From what somebody asks for to a request: the command line and the Python API ask alike."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from nixpatch.model import Tag
from nixpatch.operations.plan import Request
from nixpatch.operations.rules import tables_of
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
