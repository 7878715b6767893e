"""The libraries that the Python sources of a dist open by name: ``ctypes``, ``find_library``, cffi. Pure.

The sources are parsed, never run. Strings are followed through constants, lists of alternatives, loops,
helper functions and their callers in the whole dist, whatever the order in which the code would run: a branch
for another system counts as well, since names of Windows and macOS do not look like sonames.
"""

from __future__ import annotations

import ast
import contextlib
import re
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, product

from nixpatch.model import OpenedName, Opener

WORDS = re.compile(rb"(?:CDLL|PyDLL|cdll|pydll|find_library|dlopen)\b")
"""what a source must contain to be worth parsing"""
_IN_WORDS = (b"DLL", b"dll", b"find_library", b"dlopen")
"""of which each match of :data:`WORDS` has one: plain strings are found ten times as fast"""

_LITERAL = re.compile(rb"""(['"])(lib[\w+.-]+\.so(?:\.[0-9][\w.]*)?)\1""")
_TOKEN = re.compile(rb"\w+|[\[({~+-]")
_TOKENS = 250_000  # of all sources of a dist: each becomes an object or two of half a kilobyte
_TEXTS = 256  # values of one expression; wand makes 121 suffixes
_DEPTH = 24  # of expressions and of names that stand for others
_WIDTH = 10_000  # ways to follow one expression: all orders of seven lines like ``x = x + y``
_STEPS = 200_000  # expressions looked at in one dist; PyOpenGL takes 9,000
_MAX_SOURCES = 5_000
_MAX_NAMES = 10_000
_MAX_CALLERS = 100
_ROUNDS = 4  # helper functions that call helper functions
_ALIASES = 64

# Marks inside a text. No string literal that names a file holds such characters.
_UNKNOWN = "\0"
_BY_FIND = "\1"
"""begins the name that find_library was asked for: the text is what it answered"""
_PARAM, _END = "\2", "\3"
"""around the name of a parameter of the function that the text belongs to"""

_SONAME = re.compile(r"(?:/(?:[\w+.-]+/)*)?[\w+.*-]+\.so(?:\.[\w.*]+)?", re.ASCII)
_STEM = re.compile(r"[\w+.*-]+", re.ASCII)
_FOREIGN = re.compile(r"\.(?:dll|dylib|so|framework)(?:\.|$)", re.IGNORECASE)
_TESTS = re.compile(r"(?:^|/)(?:tests?|_?examples?|docs?|benchmarks?)/|(?:^|/)(?:test_[^/]*|conftest)\.py$")
_SYSTEM_DIRECTORY = re.compile(r"/(?:usr|lib|lib64|opt)/")
_LOADER_ARGUMENT = re.compile(r"dll|load|cls", re.IGNORECASE)
_FORMAT_FIELD = re.compile(r"\{(\w*)(?:![rsa])?(?::[^{}]*)?\}|\{\{|\}\}")
_PERCENT_FIELD = re.compile(r"%(?:\((\w+)\))?[-#0 +]*\d*(?:\.\d+)?([sdir%])")

_PASSED_ON = frozenset(
    {"str", "bytes", "list", "tuple", "set", "frozenset", "sorted", "reversed", "iter", "fspath", "fsencode"}
    | {
        "fsdecode",
        "encode",
        "decode",
        "strip",
        "lower",
        "copy",
        "values",
        "items",
        "chain",
        "product",
        "cast",
    }
)
"""functions and methods whose result holds the strings of what they are given"""
_PATHS = frozenset(
    {
        "join",
        "joinpath",
        "dirname",
        "abspath",
        "realpath",
        "resolve",
        "absolute",
        "parent",
        "Path",
        "PurePath",
    }
    | {"glob", "iglob", "files", "as_file", "getcwd", "resource_filename", "expanduser", "with_name"}
)
"""functions, methods and attributes that give a path with a directory: not a bare name"""


@dataclass(frozen=True, slots=True)
class _Value:
    """The strings that an expression may be, or that a sequence may hold."""

    texts: tuple[str, ...] = ()
    many: bool = False
    """it is a sequence: ``+`` appends and does not concatenate"""


@dataclass(slots=True, eq=False)
class _Scope:
    """A module or a function: which expressions each of its names is ever bound to."""

    module: _Module
    parent: _Scope | None
    name: str = ""
    """under which others call the function: that of the class for ``__init__``"""
    params: tuple[str, ...] = ()
    """positional ones, without ``self``"""
    only_by_name: tuple[str, ...] = ()
    rest: str = ""
    """the name behind ``*``"""
    defaults: Mapping[str, ast.expr] = field(default_factory=dict)
    bound: defaultdict[str, list[ast.expr]] = field(default_factory=lambda: defaultdict(list))
    results: list[ast.expr] = field(default_factory=list)
    """what it returns and yields"""
    calls: list[ast.Call] = field(default_factory=list)

    @property
    def all_params(self) -> tuple[str, ...]:
        return (*self.params, *self.only_by_name, *([self.rest] if self.rest else []))


@dataclass(slots=True, eq=False)
class _Module:
    path: str
    tree: ast.Module
    scopes: list[_Scope] = field(default_factory=list)
    imported: dict[str, str] = field(default_factory=dict)
    """name here -> dotted name of what it stands for"""
    attributes: defaultdict[str, list[tuple[_Scope, ast.expr]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    """what attributes and names of classes are bound to, whatever the object"""


@dataclass(frozen=True, slots=True)
class _Helper:
    """A function that opens what it is given."""

    scope: _Scope
    opener: Opener
    text: str


class _Spent(Exception):  # noqa: N818 - ends the work, no error
    """The bound on the work for one dist is reached."""


def opened_names(sources: Mapping[str, bytes]) -> tuple[OpenedName, ...]:
    """Return what the sources of one dist open by name, sorted.

    Args:
        sources: contents of each Python source of the dist by path, asked for several times and not kept.
            What cannot be parsed opens nothing: Python could not run it either.

    Returns:
        Names as the code spells them. Those that are no file name of a library on Linux, and paths that begin
        at the source itself, are left out. A name of which nothing is known is one ``*`` for each line.

    """
    return _Dist(sources).opened()


class _Dist:
    def __init__(self, sources: Mapping[str, bytes]) -> None:
        self.modules: list[_Module] = []
        self.globals: defaultdict[str, list[tuple[_Scope, ast.expr]]] = defaultdict(list)
        self.functions: defaultdict[str, list[_Scope]] = defaultdict(list)
        self.loader_classes: set[str] = set()
        self.helpers: defaultdict[str, list[_Helper]] = defaultdict(list)
        self.calls: defaultdict[str, list[tuple[_Scope, ast.Call]]] = defaultdict(list)
        self.found: dict[OpenedName, None] = {}
        self.names: dict[tuple[int, str], _Value] = {}
        self.openers: dict[tuple[int, str], Opener | None] = {}
        self.following: set[int] = set()
        self.width = 1
        self.steps, self.tokens = _STEPS, _TOKENS
        self.sources = sources
        self.paths = [path for path in sources if not _TESTS.search(path)]
        self.rest = self.paths
        self._read(WORDS, _IN_WORDS)
        if not self.modules:
            return  # nothing here opens a library
        imported = {
            origin.split(".")[-2:][0] for module in self.modules for origin in module.imported.values()
        }
        self._read(_LITERAL, (b".so",), {f"{name}.py" for name in imported})

    def _read(
        self,
        words: re.Pattern[bytes],
        parts: Collection[bytes],
        names: Collection[str] = (),
        limit: int = _MAX_SOURCES,
    ) -> None:
        """Parse the sources that hold some words, and have one of the names where any are given.

        Each match of the words has one of ``parts``. Where more than ``limit`` sources hold them, the words
        are of everyday language and none is parsed.
        """
        wanted = {
            path: source
            for path in self.rest
            if (not names or path.rpartition("/")[2] in names)
            and any(map((source := self.sources.get(path, b"")).__contains__, parts))
            and words.search(source)
        }
        self.openers.clear()  # more functions may be known
        if len(wanted) <= limit:
            self.rest = [path for path in self.rest if path not in wanted]
            for path, source in wanted.items():
                self._add(path, source)

    def _add(self, path: str, source: bytes) -> None:
        tokens = sum(1 for _ in islice(_TOKEN.finditer(source), self.tokens + 1))
        if tokens > self.tokens:
            return
        self.tokens -= tokens
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of the code that is read, not of ours
                module = _Module(path, ast.parse(source))
            _Collector(self, module).visit(module.tree)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
        self.modules.append(module)

    def opened(self) -> tuple[OpenedName, ...]:
        with contextlib.suppress(_Spent):
            self._open()
        computed = {name.opener for name in self.found if name.name == "*"}
        if computed - {Opener.FIND_LIBRARY}:
            opener = Opener.CTYPES if Opener.CTYPES in computed else Opener.CFFI
            self.found.update(dict.fromkeys(islice(self._literals(opener), _MAX_NAMES)))
        return tuple(
            sorted(self.found, key=lambda name: (name.name, name.opener.value, name.path, name.line))
        )

    def _literals(self, opener: Opener) -> Iterator[OpenedName]:
        """Yield every soname that stands in a dist which computes what it opens: out of a table, perhaps."""
        known = {name.name for name in self.found}
        for path in self.paths:
            source = self.sources.get(path, b"")
            for match in _LITERAL.finditer(source):
                name = match[2].decode("ascii")
                if name not in known:
                    known.add(name)
                    line = source.count(b"\n", 0, match.start()) + 1
                    yield OpenedName(name, opener, path, line, traced=False)

    def _open(self) -> None:
        for calls in list(self.calls.values()):
            for scope, call in calls:
                opener = self._opener(scope, call.func)
                if opener is not None:
                    argument = _first(call, "name")
                    for text in self._value(scope, argument).texts if argument is not None else ():
                        self._meet(scope, call.lineno, opener, text)
        handled: set[_Helper] = set()
        for _ in range(_ROUNDS):
            fresh = [helper for group in self.helpers.values() for helper in group if helper not in handled]
            if not fresh:
                return
            handled.update(fresh)
            names = sorted({helper.scope.name.encode() for helper in fresh})
            words = re.compile(rb"\b(?:%s)\(" % b"|".join(map(re.escape, names)))
            self._read(words, names, limit=_MAX_CALLERS)
            for helper in fresh:
                self._meet_defaults(helper)
                for scope, call in self.calls.get(helper.scope.name, ()):
                    if self._opener(scope, call.func) is None:
                        bound = self._bind(helper.scope, scope, call)
                        for text in _substituted(helper.text, bound):
                            self._meet(scope, call.lineno, helper.opener, text)

    def _meet(self, scope: _Scope, line: int, opener: Opener, text: str) -> None:
        """Take in one text that reaches a function that opens libraries."""
        if _PARAM in text:
            name = text.partition(_PARAM)[2].partition(_END)[0]
            owner = scope
            while name not in owner.all_params and owner.parent is not None:
                owner = owner.parent
            group = self.helpers[owner.name]
            helper = _Helper(owner, opener, text)
            if owner.name and helper not in group and len(group) < _ALIASES:
                group.append(helper)
            return
        if text.startswith(_BY_FIND):
            if opener is not Opener.CFFI:
                return  # the call of find_library counts
            text = text[1:]
        name = re.sub(r"\*+", "*", text.replace(_UNKNOWN, "*"))
        if _BY_FIND in name or not _is_name(name, opener):
            return
        stem = name.partition(".so")[0]
        if "*" in stem and len(re.sub(r"^lib|\W", "", stem)) < 3:
            name = "*"
        if len(self.found) >= _MAX_NAMES:
            raise _Spent
        self.found[OpenedName(name, opener, scope.module.path, line)] = None

    def _meet_defaults(self, helper: _Helper) -> None:
        """Take in what a function opens that is called without arguments: by a user of the dist, perhaps."""
        scope = helper.scope
        defaults = {name: self._value(scope, value).texts for name, value in scope.defaults.items()}
        line = min((value.lineno for value in scope.defaults.values()), default=1)
        for text in _substituted(helper.text, defaults):
            self._meet(scope, line, helper.opener, text)

    def _bind(
        self, function: _Scope, caller: _Scope, call: ast.Call, depth: int = _DEPTH
    ) -> dict[str, tuple[str, ...]]:
        """Return what each parameter of a function may be in one call of it."""
        given = [self._value(caller, argument, depth).texts for argument in call.args]
        bound: dict[str, tuple[str, ...]] = dict(zip(function.params, given, strict=False))
        if function.rest:
            bound[function.rest] = tuple(text for texts in given[len(function.params) :] for text in texts)
        for keyword in call.keywords:
            if keyword.arg is not None:
                bound[keyword.arg] = self._value(caller, keyword.value, depth).texts
        for name, default in function.defaults.items():
            if name not in bound:
                bound[name] = self._value(function, default, depth).texts
        return bound

    def _opener(self, scope: _Scope, function: ast.expr) -> Opener | None:
        """Return in which way a function opens libraries, by its name and by what the name stands for."""
        if not isinstance(function, ast.Name):
            return self._opener_behind(scope, function, _DEPTH, set())
        key = (id(scope), function.id)
        if key not in self.openers:
            self.openers[key] = self._opener_behind(scope, function, _DEPTH, set())
        return self.openers[key]

    def _opener_behind(self, scope: _Scope, function: ast.expr, depth: int, seen: set[int]) -> Opener | None:
        seen.add(id(function))
        dotted = _dotted(function, scope.module)
        first, _, last = dotted.rpartition(".")
        of_python = first.startswith(("ctypes", "_ctypes"))
        if not of_python and last in self.functions:
            return Opener.CFFI if last == "dlopen" and "ffi" in first.lower() else None
        last = last.lstrip("_")
        if last in {"CDLL", "PyDLL"} or last in self.loader_classes:
            return Opener.CTYPES
        if last == "LoadLibrary":
            return Opener.CTYPES if "windll" not in first and "oledll" not in first else None
        if last == "find_library":
            return Opener.FIND_LIBRARY
        if last == "dlopen":
            return Opener.CTYPES if of_python else Opener.CFFI
        if isinstance(function, ast.Name) and depth:
            if _LOADER_ARGUMENT.search(function.id) and _is_param(scope, function.id):
                return Opener.CTYPES
            for owner, value in self._bindings(scope, function.id):
                if isinstance(value, ast.Name | ast.Attribute) and id(value) not in seen:
                    opener = self._opener_behind(owner, value, depth - 1, seen)
                    if opener is not None:
                        return opener
        return None

    def _bindings(self, scope: _Scope, name: str) -> Iterator[tuple[_Scope, ast.expr]]:
        """Yield what a name may stand for, each with the scope to read it in."""
        owner: _Scope | None = scope
        while owner is not None:
            if name in owner.bound or name in owner.all_params:
                yield from ((owner, value) for value in owner.bound.get(name, ()))
                return
            owner = owner.parent
        if name in scope.module.imported:
            yield from islice(self.globals[scope.module.imported[name].rpartition(".")[2]], _ALIASES)

    def _value(self, scope: _Scope, node: ast.expr, depth: int = _DEPTH) -> _Value:
        """Return the strings that an expression may be. Bounded in depth, steps and number."""
        self.steps -= 1
        if self.steps < 0:
            raise _Spent
        if depth == 0:
            return _Value((_UNKNOWN,))
        depth -= 1
        match node:
            case ast.Constant(value=str() as text):
                return _Value((text,)) if len(text) < 256 else _Value()
            case ast.Constant(value=bytes() as data):
                return _Value((data.decode("latin-1"),)) if len(data) < 256 else _Value()
            case ast.Constant(value=bool() | None):
                return _Value()
            case ast.Constant(value=int() as number):
                return _Value((str(number),)) if number.bit_length() <= 64 else _Value()
            case ast.Constant(value=value):
                return _Value((str(value),))
            case ast.Name(id="__file__"):
                return _Value((f"{_UNKNOWN}/",))
            case ast.Name(id=name):
                return self._name(scope, name, depth)
            case ast.Attribute(attr=name):
                return self._attribute(scope, name, depth)
            case ast.JoinedStr(values=parts):
                return _Value(_joined([self._value(scope, part, depth).texts for part in parts]))
            case ast.FormattedValue(value=inner) | ast.NamedExpr(value=inner) | ast.Starred(value=inner):
                return self._value(scope, inner, depth)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                values = (self._value(scope, left, depth), self._value(scope, right, depth))
                if (
                    all(value.many for value in values)
                    or isinstance(left, _LISTS)
                    or isinstance(right, _LISTS)
                ):
                    return _Value(_union(value.texts for value in values), many=True)
                return _Value(_joined([value.texts for value in values]))
            case ast.BinOp(left=left, op=ast.Mod(), right=right):
                given = right.elts if isinstance(right, ast.Tuple) else [right]
                texts = [self._value(scope, item, depth).texts for item in given]
                return _Value(_percent(self._value(scope, left, depth).texts, texts))
            case ast.BinOp(op=ast.Div()):
                return _Value((f"{_UNKNOWN}/",))
            case ast.IfExp(body=body, orelse=orelse):
                return self._either(scope, (body, orelse), depth)
            case ast.BoolOp(values=values):
                return self._either(scope, values, depth)
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                return _Value(self._either(scope, items, depth).texts, many=True)
            case ast.Dict(values=values):
                return _Value(self._either(scope, values, depth).texts, many=True)
            case ast.ListComp(elt=item) | ast.GeneratorExp(elt=item) | ast.SetComp(elt=item):
                return _Value(self._value(scope, item, depth).texts, many=True)
            case ast.DictComp(value=item):
                return _Value(self._value(scope, item, depth).texts, many=True)
            case ast.Subscript(value=container):
                if _dotted(container, scope.module) == "os.environ":
                    return _Value()  # what the user says
                return _Value(self._value(scope, container, depth).texts)
            case ast.Call():
                return self._call(scope, node, depth)
            case ast.Compare() | ast.Lambda() | ast.UnaryOp():
                return _Value()
            case _:
                return _Value((_UNKNOWN,))

    def _either(self, scope: _Scope, nodes: Sequence[ast.expr], depth: int) -> _Value:
        values = [self._value(scope, node, depth) for node in nodes]
        return _Value(_union(value.texts for value in values), many=any(value.many for value in values))

    def _name(self, scope: _Scope, name: str, depth: int) -> _Value:
        if self.following:  # part of a cycle, perhaps: then the value is not all of it
            return self._name_value(scope, name, depth)
        key = (id(scope), name)
        if key not in self.names:
            self.names[key] = self._name_value(scope, name, depth)
        return self.names[key]

    def _name_value(self, scope: _Scope, name: str, depth: int) -> _Value:
        values = [
            self._value(owner, value, depth) for owner, value in self._unfollowed(self._bindings(scope, name))
        ]
        texts = [value.texts for value in values]
        if _is_param(scope, name):
            texts.append((f"{_PARAM}{name}{_END}",))
        if not texts and not self._is_bound(scope, name):
            texts.append((_UNKNOWN,))
        return _Value(_union(texts), many=any(value.many for value in values))

    def _unfollowed(self, bindings: Iterable[tuple[_Scope, ast.expr]]) -> Iterator[tuple[_Scope, ast.expr]]:
        """Yield bindings, but none while it is being followed: ``x = x + ".so"``.

        Of ten such lines each order would be followed, so that the product of their numbers is bounded, too.
        """
        fresh = [(owner, value) for owner, value in bindings if id(value) not in self.following]
        before, width = self.width, self.width * len(fresh)
        for owner, value in fresh if width <= _WIDTH else ():
            self.following.add(id(value))
            self.width = width
            try:
                yield owner, value
            finally:
                self.following.discard(id(value))
                self.width = before

    def _is_bound(self, scope: _Scope, name: str) -> bool:
        return any(True for _ in self._bindings(scope, name))

    def _attribute(self, scope: _Scope, name: str, depth: int) -> _Value:
        if name in _PATHS:
            return _Value((f"{_UNKNOWN}/",))
        bound = scope.module.attributes.get(name) or self.globals.get(name, [])
        unfollowed = self._unfollowed(islice(bound, _ALIASES))
        values = [self._value(owner, value, depth) for owner, value in unfollowed]
        if not bound:
            return _Value((_UNKNOWN,))
        return _Value(_union(value.texts for value in values), many=any(value.many for value in values))

    def _call(self, scope: _Scope, node: ast.Call, depth: int) -> _Value:
        dotted = _dotted(node.func, scope.module)
        last = dotted.rpartition(".")[2]
        holder = node.func.value if isinstance(node.func, ast.Attribute) else None
        if self._opener(scope, node.func) is Opener.FIND_LIBRARY:
            argument = _first(node, "name")
            texts = self._value(scope, argument, depth).texts if argument is not None else ()
            return _Value(tuple(_BY_FIND + text.removeprefix(_BY_FIND) for text in texts))
        if last == "split" and holder is not None and len(node.args) < 2:
            by = (self._value(scope, node.args[0], depth).texts or (_UNKNOWN,))[0] if node.args else None
            words = (text.split(by) for text in self._value(scope, holder, depth).texts)
            return _Value(_union(words), many=True)
        if dotted in {"os.getenv", "os.environ.get"}:
            return self._either(scope, node.args[1:2], depth)
        if last == "format" and holder is not None:
            given = [self._value(scope, argument, depth).texts for argument in node.args]
            named = {
                word.arg: self._value(scope, word.value, depth).texts for word in node.keywords if word.arg
            }
            return _Value(_formatted(self._value(scope, holder, depth).texts, given, named))
        if last in {"get", "pop", "setdefault"} and holder is not None:
            return self._either(scope, [holder, *node.args[1:2]], depth)
        if last in _PATHS and not isinstance(holder, ast.Constant):
            return _Value((f"{_UNKNOWN}/",))
        if last in _PASSED_ON:
            module = holder is None or dotted.partition(".")[0] in scope.module.imported.values()
            passed = [*([] if module or holder is None else [holder]), *node.args[:4]]
            return _Value(
                self._either(scope, passed, depth).texts, many=last not in {"str", "bytes", "encode"}
            )
        return self._results(scope, node, last, depth)

    def _results(self, scope: _Scope, call: ast.Call, name: str, depth: int) -> _Value:
        """Return what functions of this name return for the arguments of a call."""
        texts: list[tuple[str, ...]] = []
        for function in self.functions.get(name, [])[:_ROUNDS]:
            if id(function) in self.following:
                continue
            self.following.add(id(function))
            bound = self._bind(function, scope, call, depth)
            for result in function.results:
                texts += (_substituted(text, bound) for text in self._value(function, result, depth).texts)
            self.following.discard(id(function))
        return _Value(_union(texts)) if texts else _Value((_UNKNOWN,))


class _Collector(ast.NodeVisitor):
    """Note the scopes, bindings and calls of one module."""

    def __init__(self, dist: _Dist, module: _Module) -> None:
        self.dist, self.module = dist, module
        self.scope = self.top = _Scope(module, None)
        self.classes: list[str] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            first = alias.name.partition(".")[0]
            self.module.imported[alias.asname or first] = alias.name if alias.asname else first

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            origin = f"{'.' * node.level}{node.module or ''}.{alias.name}"
            self.module.imported[alias.asname or alias.name] = origin

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if any(_dotted(base, self.module).endswith(("CDLL", "PyDLL")) for base in node.bases):
            self.dist.loader_classes.add(node.name.lstrip("_"))
        self.classes.append(node.name)
        self.generic_visit(node)
        self.classes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = node.args
        names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
        defaults = dict(zip(reversed(names), reversed(arguments.defaults), strict=False))
        only = [argument.arg for argument in arguments.kwonlyargs]
        defaults.update(
            (name, value) for name, value in zip(only, arguments.kw_defaults, strict=True) if value
        )
        if self.classes and names[:1] in (["self"], ["cls"], ["klass"]):
            names = names[1:]
        scope = _Scope(
            self.module,
            self.scope,
            self.classes[-1] if self.classes and node.name in {"__init__", "__new__"} else node.name,
            tuple(names),
            tuple(only),
            arguments.vararg.arg if arguments.vararg else "",
            {name: value for name, value in defaults.items() if name in names or name in only},
        )
        for decorator in node.decorator_list:
            self.visit(decorator)
        self.dist.functions[scope.name].append(scope)
        outer, self.scope = self.scope, scope
        classes, self.classes = self.classes, []
        for statement in node.body:
            self.visit(statement)
        self.scope, self.classes = outer, classes

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Call(self, node: ast.Call) -> None:
        name = _dotted(node.func, self.module).rpartition(".")[2]
        self.dist.calls[name].append((self.scope, node))
        if isinstance(node.func, ast.Name) and node.func.id != name:  # from x import find_library as _find
            self.dist.calls[node.func.id].append((self.scope, node))
        if (
            isinstance(node.func, ast.Attribute)
            and name in {"append", "extend", "add", "insert"}
            and node.args
        ):
            self._bind(node.func.value, node.args[-1])
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._bind(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self._bind(node.target, node.value)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._bind(node.target, node.value)
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._bind(node.target, node.value)
        self.generic_visit(node)

    def visit_For(self, node: ast.For | ast.AsyncFor | ast.comprehension) -> None:
        self._bind(node.target, _element(node.iter))
        self.generic_visit(node)

    visit_AsyncFor = visit_comprehension = visit_For  # noqa: N815

    def visit_Return(self, node: ast.Return | ast.Yield | ast.YieldFrom) -> None:
        if node.value is not None:
            self.scope.results.append(node.value)
        self.generic_visit(node)

    visit_Yield = visit_YieldFrom = visit_Return  # noqa: N815

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        match target:
            case ast.Name(id=name):
                if self.classes:
                    self.module.attributes[name].append((self.scope, value))
                self.scope.bound[name].append(value)
                if self.scope is self.top:
                    self.dist.globals[name].append((self.scope, value))
            case ast.Attribute(attr=name):
                self.module.attributes[name].append((self.scope, value))
            case ast.Tuple(elts=targets) | ast.List(elts=targets):
                pairs = value.elts if isinstance(value, ast.Tuple | ast.List) else []
                for index, item in enumerate(targets):
                    self._bind(item, pairs[index] if len(pairs) == len(targets) else _element(value))
            case ast.Starred(value=inner):
                self._bind(inner, value)
            case _:
                pass


_LISTS = (ast.List, ast.Tuple, ast.ListComp)


def _element(iterable: ast.expr) -> ast.expr:
    """Return an expression for what a loop gets out of another one."""
    return ast.copy_location(ast.Subscript(iterable, ast.Constant(0), ast.Load()), iterable)


def _first(call: ast.Call, keyword: str) -> ast.expr | None:
    named = [word.value for word in call.keywords if word.arg == keyword]
    return next(iter([*call.args[:1], *named]), None)


def _dotted(node: ast.expr, module: _Module) -> str:
    """Return the name of a function, as its origin has it where it is imported."""
    names: list[str] = []
    while True:
        match node:
            case ast.Attribute(value=value, attr=name):
                names.append(name)
                node = value
            case ast.Call(func=function):
                node = function
            case ast.Name(id=name):
                names.append(module.imported.get(name, name))
                return ".".join(reversed(names))
            case _:
                names.append("")
                return ".".join(reversed(names))


def _is_param(scope: _Scope, name: str) -> bool:
    owner: _Scope | None = scope
    while owner is not None:
        if name in owner.all_params:
            return True
        if name in owner.bound:
            return False
        owner = owner.parent
    return False


def _is_name(name: str, opener: Opener) -> bool:
    """Whether a text can be the name of a library on Linux, as this way of opening takes it."""
    if name == "*" or (opener is not Opener.FIND_LIBRARY and _SONAME.fullmatch(name)):
        return "/" not in name or (_SYSTEM_DIRECTORY.match(name) is not None and "*" not in name)
    # cffi asks find_library where dlopen fails.
    return opener is not Opener.CTYPES and bool(_STEM.fullmatch(name)) and not _FOREIGN.search(name)


def _union(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(islice(dict.fromkeys(text for group in groups for text in group), _TEXTS))


def _joined(parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Return each way to put one text of every part after another."""
    filled = [part or (_UNKNOWN,) for part in parts]
    return tuple(islice(dict.fromkeys(map("".join, product(*filled))), _TEXTS))


def _substituted(text: str, bound: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return a text with its parameters replaced by what they may be; nothing where one is not given."""
    parts = re.split(f"{_PARAM}([^{_END}]*){_END}", text)
    filled = [bound.get(part, ()) if index % 2 else (part,) for index, part in enumerate(parts)]
    return tuple(islice(dict.fromkeys(map("".join, product(*filled))), _TEXTS))


def _formatted(
    texts: Iterable[str], given: Sequence[Sequence[str]], named: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Return what ``str.format`` makes; fields that are not understood are unknown."""
    return _union(_filled(text, _FORMAT_FIELD, given, named) for text in texts)


def _percent(texts: Iterable[str], given: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return _union(_filled(text, _PERCENT_FIELD, given, {}) for text in texts)


def _filled(
    text: str, pattern: re.Pattern[str], given: Sequence[Sequence[str]], named: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    parts: list[Sequence[str]] = []
    end, position = 0, 0
    for match in pattern.finditer(text):
        parts.append((text[end : match.start()],))
        end = match.end()
        if match[0] in {"{{", "}}", "%%"}:
            parts.append((match[0][0],))
            continue
        name = match[1] or ""
        if name and not name.isdigit():
            parts.append(named.get(name, ()))
            continue
        index = int(name) if name else position
        position += 1
        parts.append(given[index] if index < len(given) else ())
    return _joined([*parts, (text[end:],)])
