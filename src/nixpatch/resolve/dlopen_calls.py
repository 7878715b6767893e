"""Where Python code opens libraries by bare name: ``ctypes.CDLL``, ``find_library``, ``ffi.dlopen``. Pure.

No search path of the tree reaches those: ld.so looks into that of dlopen's caller, which is Python itself.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from itertools import islice

from nixpatch.model.dlopen_names import FIND_LIBRARY, CallSite

WORDS = re.compile(rb"CDLL|PyDLL|LoadLibrary|find_library|dlopen")
"""what a source must contain to be worth parsing"""

_LOADS = frozenset({"CDLL", "PyDLL", "LoadLibrary", "dlopen"})
_SONAME = re.compile(r"[\w+.-]+\.so(?:\.[\w.]+)?", re.ASCII)
_STEM = re.compile(r"[\w+.-]+", re.ASCII)
_WORD = re.compile(rb"\w+|[\[({~+-]")
_WORDS = 100_000
"""of a source: each becomes an object or two of a kilobyte; a large source has half as many"""
_TEXTS = 16
"""strings that one name is bound to"""
_DEPTH = 8  # of conditions inside one argument: more is not written by people


def call_sites(source: bytes, path: str) -> tuple[CallSite, ...]:
    """Return what a source opens by bare name, sorted. A name that the code computes is not told.

    What cannot be parsed opens nothing: Python could not run it either.
    """
    if not WORDS.search(source) or sum(1 for _ in islice(_WORD.finditer(source), _WORDS)) == _WORDS:
        return ()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the code that is read, not of ours
            tree = ast.parse(source)
        return tuple(sorted(set(_sites(tree, path))))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()


def _sites(tree: ast.Module, path: str) -> Iterator[CallSite]:
    names = _constants(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        call = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if call not in _LOADS and call != FIND_LIBRARY:
            continue
        given = node.args[:1] or [word.value for word in node.keywords if word.arg == "name"]
        wanted = _STEM if call == FIND_LIBRARY else _SONAME
        for argument in given:
            for name in _strings(argument, names, _DEPTH):
                if wanted.fullmatch(name):
                    yield CallSite(name, path, node.lineno, call)


def _constants(tree: ast.Module) -> Mapping[str, list[str]]:
    """Return the strings that each name of the source is ever bound to."""
    found: dict[str, dict[str, None]] = {}
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                values = [value]
            case ast.For(target=ast.Name(id=name), iter=ast.Tuple(elts=items) | ast.List(elts=items)):
                values = items
            case _:
                continue
        texts = (text for one in values for text in _strings(one, {}, _DEPTH))
        bound = found.setdefault(name, {})
        bound.update(dict.fromkeys(islice(texts, _TEXTS - len(bound))))
    return {name: [*bound] for name, bound in found.items()}


def _strings(node: ast.expr, names: Mapping[str, list[str]], depth: int) -> Iterator[str]:
    """Yield the strings that an expression may be."""
    if depth == 0:
        return
    match node:
        case ast.Constant(value=str() as text):
            yield text
        case ast.Name(id=name):
            yield from names.get(name, ())
        case ast.IfExp(body=one, orelse=other):
            yield from _strings(one, names, depth - 1)
            yield from _strings(other, names, depth - 1)
        case ast.BoolOp(values=values):
            for value in values:
                yield from _strings(value, names, depth - 1)
        case _:
            return
