"""The start-up file of a dist that opens libraries from Python: a ``.pth`` in its site directory.

``site`` runs lines of a ``.pth`` that begin with ``import`` (https://docs.python.org/3/library/site.html): in
virtual environments, with ``-I``, in sub-interpreters, but not with ``-S``. One file and no module beside it:
one row in RECORD, nothing to byte-compile, nothing that a link farm could tear apart.

A meta path finder, not an audit hook (PEP 578): an audit hook is called for every ``id()``, ``open()`` and
attribute of many types from then on, and cannot make ``CDLL("libfoo.so")`` work where only ``libfoo.so.1`` is
there. Measured: 0.2 ms at start-up; 1 ms more in programs that import ``ctypes``, which takes 5.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from functools import lru_cache
from importlib import resources

_MARK = "# Written by nixpatch for "
_MEANING = (
    "# It tells Python where the libraries are that this project opens by name (ctypes, find_library).\n"
    "# `nixpatch restore` takes it away, and so does the removal of the project.\n"
)


def startup_name(dist: str) -> str:
    """Return the file name for a dist, by its normalized name."""
    return f"nixpatch-{dist}.pth"


def startup_file(
    dist: str,
    libraries: Mapping[str, str],
    answers: Mapping[str, str],
    switches: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Return the contents of a start-up file; the same for the same arguments, in whatever order. Pure.

    Args:
        dist: normalized name of the dist.
        libraries: name as the code opens it -> path of the library, absolute or from the site directory.
        answers: name as ``find_library`` is asked -> path as before, or a soname that is found without one.
        switches: environment variable and its value, a path: set where the user has not set the variable
            and the path is there.

    """
    tables = f"{_literal(libraries)}, {_literal(answers)}" if libraries or answers else ""
    paths = (*libraries.values(), *answers.values())
    scope = {
        # A local variable of site.addpackage, where this line is run; setuptools relies on it, too.
        "SITE": "locals().get('sitedir')" if any(map(_is_relative, paths)) else "None",
        "TABLES": ascii(tables),
        "SWITCHES": ascii(tuple(sorted(switches))),
        "CODE": ascii(_code("startup_ctypes.py")) if tables else "''",
    }
    names = ", ".join(f"{name!r}: {value}" for name, value in scope.items())
    line = f"import sys; exec({_code('startup.py')!a}, {{{names}}})\n"
    return f"{_MARK}{dist}.\n{_MEANING}{line}".encode("ascii")


def is_startup_file(data: bytes) -> bool:
    """Whether nixpatch wrote a file of this name."""
    return data.startswith(_MARK.encode("ascii"))


def startup_tables(data: bytes) -> tuple[dict[str, str], dict[str, str]]:
    """Return the ``libraries`` and ``answers`` of a start-up file; empty for any other file."""
    try:
        line = ast.parse(data.decode("ascii").splitlines()[-1])
        scope = next(node for node in ast.walk(line) if isinstance(node, ast.Dict))
        names = [ast.literal_eval(key) for key in scope.keys if key is not None]
        tables = ast.literal_eval(scope.values[names.index("TABLES")])
        libraries, answers = ast.literal_eval(tables) if tables else ({}, {})
        return dict(libraries), dict(answers)
    except (ValueError, SyntaxError, TypeError, IndexError, StopIteration, RecursionError, MemoryError):
        return {}, {}


def _literal(table: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{name!a}: {path!a}" for name, path in sorted(table.items())) + "}"


def _is_relative(path: str) -> bool:
    return "/" in path and not path.startswith("/")


@lru_cache(maxsize=2)
def _code(name: str) -> str:
    """Return a script of ours without its docstrings and comments, otherwise byte for byte."""
    text = resources.files("nixpatch").joinpath(f"data/{name}").read_text("utf-8")
    lines = text.splitlines()
    for node in ast.walk(ast.parse(text)):
        if (
            isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node) is not None
        ):
            docstring = node.body[0]
            lines[docstring.lineno - 1 : docstring.end_lineno] = [""] * (
                (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
            )
    code = (line.partition("  # ")[0].rstrip() for line in lines if not line.startswith("# "))
    return "".join(f"{line}\n" for line in code if line)
