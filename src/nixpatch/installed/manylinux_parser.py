"""The answers of a ``_manylinux`` module, from its source by ``ast``; the module is not run.

Three attributes answer for one policy each (PEP 513, 571, 599), a function for all of them (PEP 600). Only
simple forms are evaluated: literals, comparisons of the parameters, ``if``, ``and``, ``or``, ``not``.

Why an evaluator: the function of PEP 600 gets version and architecture to compare, and ours (``honest``)
compares both, so a reader of literals alone could not answer for it; to import the module would run code of
the tree.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FUNCTION = "manylinux_compatible"
ATTRIBUTES: Mapping[tuple[int, int], str] = {
    (2, 5): "manylinux1_compatible",
    (2, 12): "manylinux2010_compatible",
    (2, 17): "manylinux2014_compatible",
}
"""glibc of a policy -> the attribute that answers for it alone"""

_COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}

_MAX_ITEMS = 200
"""values in one tuple, those of nested tuples included"""


class Computed(Exception):  # noqa: N818 - an answer, not an error
    """The module computes its answers. The message names the place."""


@dataclass(frozen=True)
class Answers:
    """The answers of a module to an installer."""

    attributes: Mapping[str, bool] = field(default_factory=dict)
    """those of ``ATTRIBUTES`` that it has"""
    function: ast.FunctionDef | None = None
    constants: Mapping[str, Any] = field(default_factory=dict)
    computed: str = ""
    """why the answers are unknown without running the module; "" if they are known"""

    def allows(self, version: tuple[int, int], arch: str) -> bool | None:
        """Return the answer for one policy, as ``packaging.tags`` takes it; None if it is computed.

        The function takes precedence over the attributes; without an answer, the policy is allowed.
        """
        if self.computed:
            return None
        if self.function is None:
            return self.attributes.get(ATTRIBUTES.get(version, ""), True)
        try:
            result = _call(self.function, (*version, arch), self.constants)
        except (Computed, RecursionError):
            return None
        return result is None or bool(result)


def answers(source: bytes) -> Answers:
    """Return the answers of a module; any source gives a value."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the module: they would end up in our output
            module = ast.parse(source)
        return _module(module.body)
    except Computed as computed:
        return Answers(computed=str(computed))
    # Deep nesting ends the parser (RecursionError, MemoryError). Installers fail on it, too.
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Answers(computed=f"it is not valid Python ({type(error).__name__})")


def _module(body: Sequence[ast.stmt]) -> Answers:
    names: dict[str, Any] = {}
    function: ast.FunctionDef | None = None
    for statement in body:
        match statement:
            case ast.Expr(value=ast.Constant()) | ast.Pass() | ast.ImportFrom(module="__future__"):
                pass
            case ast.FunctionDef(name=name):
                if name == FUNCTION:
                    function = statement
                else:
                    names.pop(name, None)
            case ast.Assign(targets=targets, value=value) if all(isinstance(t, ast.Name) for t in targets):
                result = _value(value, names)
                names.update((target.id, result) for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                names[name] = _value(value, names)
            case _:
                raise Computed(f"line {statement.lineno} is more than a literal or a function")
    if FUNCTION in names:
        raise Computed(f"{FUNCTION} is no function of its own")
    if function is not None:
        _check(function, names)
    known = set(ATTRIBUTES.values())
    return Answers({name: bool(names[name]) for name in names if name in known}, function, names)


def _check(function: ast.FunctionDef, constants: Mapping[str, Any]) -> None:
    """Check that a function takes three plain parameters and can be evaluated."""
    arguments = function.args
    is_plain = not (arguments.vararg or arguments.kwarg or arguments.kwonlyargs or function.decorator_list)
    if not is_plain or len(arguments.posonlyargs) + len(arguments.args) != 3:
        raise Computed(f"{FUNCTION} (line {function.lineno}) does not take three plain parameters")
    _call(function, (2, 17, "x86_64"), constants)


def _call(function: ast.FunctionDef, given: tuple[int, int, str], constants: Mapping[str, Any]) -> Any:
    parameters = [*function.args.posonlyargs, *function.args.args]
    scope = {
        **constants,
        **{parameter.arg: value for parameter, value in zip(parameters, given, strict=True)},
    }
    _, result = _run(function.body, scope)
    return result


def _run(body: Sequence[ast.stmt], scope: Mapping[str, Any]) -> tuple[bool, Any]:
    """Return whether these statements return, and the value."""
    for statement in body:
        match statement:
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                continue
            case ast.Return(value=value):
                return True, None if value is None else _value(value, scope)
            case ast.If(test=test, body=then, orelse=otherwise):
                returned, result = _run(then if _value(test, scope) else otherwise, scope)
                if returned:
                    return True, result
            case _:
                raise Computed(f"line {statement.lineno} computes something")
    return False, None


def _value(node: ast.expr, scope: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in scope:
            return scope[name]
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return _bounded(node, tuple(_value(item, scope) for item in items[: _MAX_ITEMS + 1]))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, scope)
        case ast.BoolOp(op=ast.And(), values=values):
            return _until(values, scope, wanted=False)
        case ast.BoolOp(values=values):
            return _until(values, scope, wanted=True)
        case ast.IfExp(test=test, body=then, orelse=otherwise):
            return _value(then if _value(test, scope) else otherwise, scope)
        case ast.Compare(left=left, ops=operators, comparators=others):
            return _compared(node, _value(left, scope), zip(operators, others, strict=True), scope)
        case _:
            raise Computed(f"line {node.lineno} computes something")


def _bounded(node: ast.expr, items: tuple[Any, ...]) -> tuple[Any, ...]:
    """Reject tuples of tuples of tuples: a few lines of them take years to compare."""
    inner = [item for item in items if isinstance(item, tuple)]
    is_deep = any(isinstance(value, tuple) for item in inner for value in item)
    if is_deep or len(items) + sum(map(len, inner)) > _MAX_ITEMS:
        raise Computed(f"line {node.lineno} has more than a list of versions")
    return items


def _until(values: Sequence[ast.expr], scope: Mapping[str, Any], *, wanted: bool) -> Any:
    """Return the value at which ``and`` (False) or ``or`` (True) stops, else the last."""
    result: Any = None
    for value in values:
        result = _value(value, scope)
        if bool(result) is wanted:
            break
    return result


def _compared(node: ast.expr, left: Any, pairs: Any, scope: Mapping[str, Any]) -> bool:
    for operation, other in pairs:
        right = _value(other, scope)
        try:
            if not _COMPARISONS[type(operation)](left, right):
                return False
        except TypeError as error:
            raise Computed(f"line {node.lineno} compares what cannot be compared") from error
        left = right
    return True
