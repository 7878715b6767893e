"""nixpatch from Python: decide, look, carry out, with the guarantees of the command line.

    >>> import nixpatch
    >>> plan = nixpatch.plan(".venv", lib=["/nix/store/...-zlib-1.3.1"])
    >>> [library.soname for library in nixpatch.missing(plan)]
    []
    >>> outcome = nixpatch.apply(plan)
    >>> nixpatch.summary(plan, outcome).satisfied
    True

Everything that these functions take and return is a frozen value. A path is given as ``str`` or
``os.PathLike`` and returned as ``str`` as ``os.fsdecode`` makes it (PEP 383). Nothing is printed; nothing of
the tree is run, except by ``verify(load=True)``, and by ``plan(nixpkgs=...)``, which has Nix build. Names in
``nixpatch.__all__`` stay; all others may move.
"""

from __future__ import annotations

import functools
import inspect
import os
import re
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Concatenate, ParamSpec, TypeVar, cast, get_args

from nixpatch.errors import MachineError, NixpatchError, RequestError
from nixpatch.model import (
    Answer,
    FileOutcome,
    FilePlan,
    Finding,
    Origin,
    Outcome,
    Plan,
    SkipReason,
    Tag,
    Verdict,
    Writer,
)
from nixpatch.model.diff import Difference
from nixpatch.model.missing import Missing
from nixpatch.model.summary import Totals
from nixpatch.model.trace import Trace
from nixpatch.operations.diff import diff_files
from nixpatch.operations.dlopen_names import find_dlopen_names, ld_library_path, write_links
from nixpatch.operations.lockfile import lock_of
from nixpatch.operations.missing import find_missing, find_optional
from nixpatch.operations.patch import PatchEvents, carry_out
from nixpatch.operations.patch import restore as _restore
from nixpatch.operations.patch_options import (
    ApplyOptions,
    PatchOptions,
    PlanOptions,
    StrPath,
    text_of,
    types_of,
    words_of,
)
from nixpatch.operations.plan import make_plan
from nixpatch.operations.request import PatchRequest, cache_file, request_for
from nixpatch.operations.trace import TraceOptions, trace_file, trace_tree
from nixpatch.operations.verify import check_tree
from nixpatch.report import as_json
from nixpatch.report.summary import totals
from nixpatch.store.lockfile import dump
from nixpatch.store.nix_store import find_store
from nixpatch.tree_lock import hold_tree

_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_P = ParamSpec("_P")
_A = TypeVar("_A")
_O = TypeVar("_O")
_R = TypeVar("_R")


def _ignore(_: object) -> None:
    pass


def _argument(flag: str) -> str | None:
    """Return the argument that an option stands for, None for an option of another tool."""
    if flag in {"--load", "--deep"}:
        return f"{flag[2:]}=True"
    for name, annotated in types_of(PatchOptions).items():
        words = words_of(annotated)
        if words is not None and flag in (words.flags or ("--" + name.replace("_", "-"),)):
            value = "=False" if flag.startswith("--no-") else "=True"
            return f"{name}{value}" if get_args(annotated)[0] is bool else name
    return None


def _in_arguments(text: str) -> str:
    """Return a message with arguments for options: ``lib /x: ...`` for ``--lib /x: ...``."""
    return _FLAG.sub(lambda match: _argument(match[0]) or match[0], text)


def _naming_arguments(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let the exceptions and findings of a function name its arguments, not options of the command line."""

    @functools.wraps(function)
    def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            result = function(*args, **kwargs)
        except NixpatchError as error:
            error.args = (_in_arguments(str(error)),)
            raise
        if isinstance(result, Plan | Outcome | Verdict):
            findings = tuple(
                replace(finding, text=_in_arguments(finding.text)) for finding in result.findings
            )
            return cast("_R", replace(result, findings=findings))
        return result

    return call


@dataclass(frozen=True, kw_only=True)
class _PlanKeywords(PlanOptions):
    project: StrPath | None = None
    environment: Mapping[str, str] | None = None
    say: Callable[[str], None] = _ignore


@dataclass(frozen=True, kw_only=True)
class _ApplyKeywords(ApplyOptions):
    environment: Mapping[str, str] | None = None
    progress: Callable[[FileOutcome], None] = _ignore
    waiting: Callable[[str], None] = _ignore


def _keywords(
    keywords: Callable[_P, _O],
) -> Callable[[Callable[[_A, _O], _R]], Callable[Concatenate[_A, _P], _R]]:
    """Give a function of an argument and a dataclass the fields of the dataclass as keywords.

    The options and their help stand in one place, ``operations.patch_options``.
    """

    def decorate(function: Callable[[_A, _O], _R]) -> Callable[Concatenate[_A, _P], _R]:
        first, _ = inspect.signature(function).parameters.values()
        signature = inspect.Signature([first, *inspect.signature(keywords).parameters.values()])

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> _R:
            given = signature.bind(*args, **kwargs).arguments
            argument = given.pop(first.name)
            return function(argument, cast("Callable[..., _O]", keywords)(**given))

        call.__signature__ = signature  # type: ignore[attr-defined]
        listed = (
            f"        {name}: {words.help}"
            for name, annotated in types_of(keywords).items()
            if (words := words_of(annotated)) is not None
        )
        call.__doc__ = (function.__doc__ or "").replace("        OPTIONS", "\n".join(listed))
        return cast("Callable[Concatenate[_A, _P], _R]", call)

    return decorate


@_naming_arguments
@_keywords(_PlanKeywords)
def plan(path: StrPath, keywords: _PlanKeywords) -> Plan:  # noqa: D417 - callers see its fields
    """Decide what to do with a tree, and write nothing.

    Args:
        path: a site-packages, a venv, a prefix, a build's output, a directory of ELF files, or one of them.
        OPTIONS
        project: a ``pyproject.toml`` whose ``[tool.nixpatch]`` counts.
        environment: instead of the process's own: PATH, HOME, XDG_CACHE_HOME and Nix's variables count.
        say: called with a line of text before a slow step.

    Raises:
        RequestError: a path, an option, the target or the lockfile is wrong.
        MachineError: there is no store, what is locked is gone or changed, or Nix failed.

    """
    return make_plan(_request(path, keywords), keywords.say)


def _request(path: StrPath, keywords: _PlanKeywords) -> PatchRequest:
    environ = os.environ if keywords.environment is None else keywords.environment
    options = PatchOptions(**{name: getattr(keywords, name) for name in types_of(PlanOptions)})
    return request_for(os.fspath(path), options, environ, project=text_of(keywords.project))


@_naming_arguments
@_keywords(_ApplyKeywords)
def apply(plan: Plan, keywords: _ApplyKeywords) -> Outcome:  # noqa: D417 - callers see its fields
    """Carry a plan out: each file is at every moment the old one or a verified new one.

    Args:
        plan: what :func:`plan` decided. A file that changed since is not written, but reported.
        OPTIONS
        environment: as for :func:`plan`; it says which Nix makes the roots.
        progress: called after each file.
        waiting: called if another run holds the tree.

    Raises:
        MachineError: a directory cannot be written, or a root not made. Nothing was changed then. Trouble
            with one file is no exception: it is in the outcome.

    """
    environ = os.environ if keywords.environment is None else keywords.environment
    store = find_store(plan.store_dir or None, environ)
    events = PatchEvents(keywords.waiting, writing=lambda _: nullcontext(keywords.progress))
    with hold_tree(plan.tree.prefix, keywords.waiting):
        return carry_out(plan, store, keywords, events)


@_naming_arguments
def restore(path: StrPath, *, fsync: bool = False, jobs: int = 0) -> Outcome:
    """Put every patched file of a tree back, byte for byte, and RECORD with it.

    Raises:
        RequestError: there is no such tree.
        MachineError: a directory cannot be written. Nothing was changed then.

    """
    return _restore(os.fspath(path), ApplyOptions(fsync=fsync, jobs=jobs))


@_naming_arguments
def verify(
    path: StrPath,
    *,
    python: StrPath | None = None,
    store: StrPath | None = None,
    locked: StrPath | None = None,
    load: bool = False,
    deep: bool = False,
    accept_modified: bool = False,
    jobs: int = 0,
    environment: Mapping[str, str] | None = None,
) -> Verdict:
    """Hold a patched tree against what was promised; with ``load`` the target Python opens every file.

    With ``deep`` pyelftools and LIEF read the patched files again, and their originals: ``Verdict.reread``.

    Raises:
        RequestError: there is no such tree, or the target or the lock is wrong.
        MachineError: Nix failed, or the target cannot be started.

    """
    environ = os.environ if environment is None else environment
    return check_tree(
        os.fspath(path),
        find_store(text_of(store), environ),
        python=text_of(python),
        path_env=environ.get("PATH"),
        locked=text_of(locked),
        load=load,
        deep=deep,
        workers=jobs,
        accept_modified=accept_modified,
    )


def missing(plan: Plan) -> tuple[Missing, ...]:
    """Return what nothing provides and an import or a program fails without, by soname.

    Each comes with the nixpkgs attribute that has it.
    """
    return find_missing(plan)


def optional(plan: Plan) -> tuple[Missing, ...]:
    """Return what nothing provides and only optional parts need, or code opens by name: no error."""
    return find_optional(plan)


@_naming_arguments
def lock(plan: Plan, *, environment: Mapping[str, str] | None = None) -> bytes:
    """Return the contents of a lockfile for ``locked``: the store path of each soname that a plan uses.

    Raises:
        RequestError: a library is in no store, or the plan is one to restore.
        MachineError: a library cannot be read.

    """
    if plan.target is None:
        raise RequestError(f"{plan.tree.root}: a plan to restore uses no libraries; make one with plan")
    environ = os.environ if environment is None else environment
    lockfile, left_out = lock_of(plan, find_store(plan.store_dir or None, environ))
    if left_out:
        raise RequestError(left_out[0].text)
    return dump(lockfile)


@_naming_arguments
def tree(
    path: StrPath,
    *,
    python: StrPath | None = None,
    store: StrPath | None = None,
    environment: Mapping[str, str] | None = None,
) -> Trace:
    """Trace the needs of an ELF file or of a whole tree, patched or not, by the rules of ld.so(8).

    Raises:
        RequestError: there is no such file or tree, or no loader could map it, or its Python cannot be used.

    """
    environ = os.environ if environment is None else environment
    options = TraceOptions(
        python=text_of(python),
        path_env=environ.get("PATH"),
        ld_library_path=environ.get("LD_LIBRARY_PATH"),
        current_directory=os.getcwd(),
        cache=cache_file(environ),
        store_dir=find_store(text_of(store), environ).directory,
    )
    trace = trace_tree if os.path.isdir(path) else trace_file
    return trace(os.fspath(path), options)


@_naming_arguments
def diff(before: StrPath, after: StrPath) -> Difference:
    """Compare two files of the same kind: the JSON of plans (:func:`as_document`), or lockfiles.

    Raises:
        RequestError: one of them is neither, or they are of different kinds.

    """
    return diff_files(os.fspath(before), os.fspath(after))


@_naming_arguments
@_keywords(_PlanKeywords)
def env(path: StrPath, keywords: _PlanKeywords) -> str:  # noqa: D417 - callers see its fields
    """Return the value of LD_LIBRARY_PATH for what the code of a tree opens by name; "" if it needs none.

    It names a directory of links, which this makes in the tree.

    Args:
        path: as for :func:`plan`.
        OPTIONS
        project: as for :func:`plan`.
        environment: as for :func:`plan`.
        say: as for :func:`plan`.

    Raises:
        RequestError: as for :func:`plan`.
        MachineError: as for :func:`plan`, or the links cannot be made.

    """
    request = _request(path, keywords)
    names = find_dlopen_names(request)
    write_links(names, request)
    return ld_library_path(names)


def summary(plan: Plan, outcome: Outcome | None = None) -> Totals:
    """Count a plan, or what became of it; ``satisfied`` is what makes the command line exit with 0."""
    return totals(plan, outcome)


def as_document(plan: Plan, outcome: Outcome | None = None) -> dict[str, Any]:
    """Return what ``--json`` prints of a plan or of what became of it (``data/report.schema.json``)."""
    command = "plan" if outcome is None else "patch" if plan.target is not None else "restore"
    return as_json.document(command, [as_json.plan_entry(plan, outcome)])
