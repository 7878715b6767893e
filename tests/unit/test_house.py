"""Rules of the house that a machine can check: one meaning a name."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

import nixpatch

PACKAGE = os.path.dirname(nixpatch.__file__)

# Modules whose renames are still to be merged; a rule does not look at them until then.
IDENTIFIERS_PENDING = ("resolve/dlopen_calls.py",)

NO_IDENTIFIERS = frozenset(
    ("told", "found", "late", "wish", "matter", "around", "one", "its", "mine", "where", "at")
)
"""words that say nothing about the value"""


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Yield every module of the package, by path below it."""
    for directory, _, names in os.walk(PACKAGE):
        for name in sorted(names):
            if name.endswith(".py"):
                path = os.path.join(directory, name)
                with open(path, encoding="utf-8") as file:
                    yield os.path.relpath(path, PACKAGE), ast.parse(file.read(), path)


def bound_names(module: ast.Module) -> Iterator[tuple[str, int]]:
    """Yield the names that a module gives to values, functions and parameters, each with its line."""
    for node in ast.walk(module):
        match node:
            case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield name, node.lineno
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case _:
                continue


def test_no_two_classes_have_the_same_name() -> None:
    homes: dict[str, list[str]] = {}
    for path, module in modules():
        for node in ast.walk(module):
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name, []).append(f"{path}:{node.lineno}")
    assert {name: places for name, places in homes.items() if len(places) > 1} == {}


def test_names_mean_something() -> None:
    wrong = [
        f"{path}:{line}: {name}"
        for path, module in modules()
        if not path.startswith(IDENTIFIERS_PENDING)
        for name, line in bound_names(module)
        if name in NO_IDENTIFIERS
    ]
    assert wrong == []


DIRECTORIES = frozenset(
    {"prefix", "root", "site", "store", "store_dir", "directory", "base", "libc_dir", "info"}
)


def test_no_directory_is_compared_as_a_text() -> None:
    """``/venv2/x`` starts with ``/venv``: ``inside`` of ``resolve.search_path`` tells them apart."""
    wrong = [
        f"{path}:{node.lineno}"
        for path, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "startswith"
        and any(_is_directory(argument) for argument in node.args)
    ]
    assert wrong == []


def _is_directory(argument: ast.expr) -> bool:
    """Whether an argument is an attribute that holds a directory; a local name has its slash from nearby."""
    return isinstance(argument, ast.Attribute) and argument.attr in DIRECTORIES
