"""What a user can ask of a run: each option is one field, with its type, its default and its words.

The command line (``cli.options``), the keywords of the API (``api``) and the ``options`` of the JSON report
are made from these fields. To add an option, add a field here and use it where it counts.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

from nixpatch.errors import RequestError
from nixpatch.model import Tag, Writer

# The API takes any path; the command line, which is made from the same annotations, only text.
if TYPE_CHECKING:
    StrPath = str | os.PathLike[str]
else:
    StrPath = str

_SOURCES = "Where libraries come from"
_SEARCH_PATHS = "Search paths"


@dataclass(frozen=True, slots=True)
class Option:
    """The words of one option."""

    help: str
    flags: tuple[str, ...] = ()
    """as the command line spells it; empty: ``--`` and the name of the field; ``--no-x`` turns it off"""
    metavar: str | None = None
    panel: str | None = None
    """heading under which ``--help`` lists it"""


class _Options:
    """Options as fields of a dataclass. A list of strings may be any iterable of strings but a string."""

    def __post_init__(self) -> None:
        """Keep lists as tuples, and paths as text.

        Raises:
            RequestError: a string stands where a list of strings is meant.

        """
        own: Any = type(self)
        for name, annotated in types_of(own).items():
            value = getattr(self, name)
            if is_list(annotated):
                if isinstance(value, str | bytes | os.PathLike):
                    raise RequestError(f"{name}: a list of strings is meant, not {value!r} alone")
                object.__setattr__(self, name, texts_of(value or ()))
            elif isinstance(value, os.PathLike):
                object.__setattr__(self, name, os.fspath(value))


@dataclass(frozen=True, kw_only=True)
class PlanOptions(_Options):
    """What the plan of a tree depends on."""

    python: Annotated[
        StrPath | None, Option("The Python that will load the tree, if it cannot be found from the tree.")
    ] = None
    lib: Annotated[
        Sequence[StrPath],
        Option("Take libraries from here first.", metavar="DIR|STORE-PATH", panel=_SOURCES),
    ] = ()
    closure: Annotated[
        Sequence[StrPath],
        Option("Take libraries from the closure of this store path.", metavar="STORE-PATH", panel=_SOURCES),
    ] = ()
    store: Annotated[
        StrPath | None,
        Option("The store directory [NIX_STORE_DIR, /nix/store].", metavar="DIR", panel=_SOURCES),
    ] = None
    pure: Annotated[
        bool,
        Option(
            "Do not search the local store: use named sources and the target's closure only.",
            ("--pure",),
            panel=_SOURCES,
        ),
    ] = False
    nixpkgs: Annotated[
        StrPath | None,
        Option(
            "Build or fetch missing libraries from this nixpkgs: a flake or a path.",
            metavar="REF",
            panel=_SOURCES,
        ),
    ] = None
    locked: Annotated[
        StrPath | None,
        Option(
            "Use only the store paths of this lockfile, made by nixpatch lock.",
            metavar="FILE",
            panel=_SOURCES,
        ),
    ] = None
    policy: Annotated[
        Sequence[StrPath],
        Option("Add rules of the form of policy.toml.", metavar="FILE", panel=_SEARCH_PATHS),
    ] = ()
    runtime_dep: Annotated[
        Sequence[str],
        Option(
            "A library that files open at run time; GLOB selects files by path.",
            metavar="SONAME[@GLOB]",
            panel=_SEARCH_PATHS,
        ),
    ] = ()
    ignore_missing: Annotated[
        Sequence[str], Option("Sonames that may be missing.", metavar="GLOB", panel=_SEARCH_PATHS)
    ] = ()
    strict: Annotated[
        bool,
        Option(
            "Libraries that only optional parts need (plugins, backends) are errors, too.",
            ("--strict",),
            panel=_SEARCH_PATHS,
        ),
    ] = False
    append_rpath: Annotated[
        Sequence[StrPath],
        Option("Append this directory to every search path.", metavar="DIR", panel=_SEARCH_PATHS),
    ] = ()
    tag: Annotated[
        Tag | None,
        Option("Write search paths to this tag; by default each file keeps its own.", panel=_SEARCH_PATHS),
    ] = None
    resolution_cache: Annotated[
        bool,
        Option(
            "Write a note into each file that spares a loader that reads it the search path "
            "(patchelf --build-resolution-cache).",
            ("--resolution-cache",),
            panel=_SEARCH_PATHS,
        ),
    ] = False
    owned_only: Annotated[bool, Option("Skip files that belong to no dist.", ("--owned-only",))] = False
    startup_files: Annotated[
        bool,
        Option(
            "Make no start-up files (.pth) for dists whose Python code opens libraries by name.",
            ("--no-startup-files",),
        ),
    ] = True
    system: Annotated[
        bool,
        Option(
            "Allow a system directory: /, /usr, a home, the Python of a distribution.",
            ("--system",),
        ),
    ] = False
    cache: Annotated[
        bool,
        Option("Use and keep nothing that was known of the store and the tree.", ("--no-cache",)),
    ] = True
    unvendor: Annotated[
        Sequence[str],
        Option(
            "Replace copies of libraries in wheels by those of the store, where that is safe.",
            metavar="[=GLOB]",
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class ApplyOptions(_Options):
    """How a plan is carried out, whatever is in it."""

    writer: Annotated[Writer, Option("Edit in place, or with LIEF, whose edits restore cannot undo.")] = (
        Writer.INPLACE
    )
    accept_modified: Annotated[
        bool,
        Option(
            "Also update RECORD rows that were wrong before the patch; in a Nix build those of all files, "
            "and drop the rows of absent files.",
            ("--accept-modified",),
        ),
    ] = False
    gc_roots: Annotated[
        bool,
        Option("Make no garbage-collector roots for the used store paths.", ("--no-gc-roots",)),
    ] = True
    fsync: Annotated[
        bool,
        Option("Sync each file to the disk before it gets its name, against power failures.", ("--fsync",)),
    ] = False
    jobs: Annotated[
        int, Option("Number of processes; 0 is one per core for large trees.", ("--jobs", "-j"))
    ] = 0


@dataclass(frozen=True, kw_only=True)
class PatchOptions(ApplyOptions, PlanOptions):
    """All options of a run."""


def text_of(path: StrPath | None) -> str | None:
    """Return a path as text."""
    return None if path is None else os.fspath(path)


def texts_of(paths: Iterable[StrPath]) -> tuple[str, ...]:
    """Return paths as text."""
    return tuple(os.fspath(path) for path in paths)


@functools.cache  # resolving annotations takes a while
def types_of(options: Any) -> Mapping[str, Any]:
    """Return the annotated type of each option of a class, in the order in which ``--help`` lists them."""
    hints = get_type_hints(options, include_extras=True)
    names = [field.name for field in dataclasses.fields(options)]
    return {name: hints[name] for name in names if words_of(hints[name]) is not None}


def words_of(annotated: Any) -> Option | None:
    """Return the words of an option; None for a field that is none."""
    return next((extra for extra in get_args(annotated) if isinstance(extra, Option)), None)


def is_list(annotated: Any) -> bool:
    """Whether an option can be given more than once."""
    return get_origin(get_args(annotated)[0]) is Sequence


def as_json(options: PatchOptions) -> dict[str, Any]:
    """Return the options that differ from their defaults, for the report."""
    differing = {
        field.name: value
        for field in dataclasses.fields(options)
        if (value := getattr(options, field.name)) != field.default
    }
    return {name: value.value if isinstance(value, enum.Enum) else value for name, value in differing.items()}
