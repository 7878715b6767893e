"""Where the user adds to the policy tables: ``--policy``, options, and ``[tool.nixpatch]`` of a project."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from nixpatch.errors import RequestError
from nixpatch.policy import MAX_SIZE, Policy, PolicyError, Rule, default_policy, parse, toml


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
