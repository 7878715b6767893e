"""The options, each written down once, and how they become a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import typer

from nixpatch.model import Tag, Writer
from nixpatch.operations import request as requests
from nixpatch.operations.plan import Request

Choices = requests.Choices

_PROJECT = "pyproject.toml"  # in the current directory
_SOURCES = "Where libraries come from"
_SEARCH_PATHS = "Search paths"
_OUTPUT = "Output"

Paths = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH...", help="A site-packages, a venv, a prefix, a build's $out, or ELF files."
    ),
]
Python = Annotated[
    str | None,
    typer.Option(help="The Python that will load the tree, if the tree itself does not tell."),
]
Lib = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIR|STORE-PATH", help="Take libraries from here, before all else.", rich_help_panel=_SOURCES
    ),
]
Closure = Annotated[
    list[str] | None,
    typer.Option(
        metavar="STORE-PATH", help="Take libraries from this store path's closure.", rich_help_panel=_SOURCES
    ),
]
StoreDir = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="The store directory [NIX_STORE_DIR, /nix/store].",
        rich_help_panel=_SOURCES,
    ),
]
Pure = Annotated[
    bool,
    typer.Option("--pure", help="Only what was named and the target's closure.", rich_help_panel=_SOURCES),
]
Nixpkgs = Annotated[
    str | None,
    typer.Option(
        "--nixpkgs",
        metavar="REF",
        help="Build or fetch what is missing from this nixpkgs: a flake, or a path.",
        rich_help_panel=_SOURCES,
    ),
]
Locked = Annotated[
    str | None,
    typer.Option(
        "--locked",
        metavar="FILE",
        help="From the store only what this lock has; nixpatch lock makes it.",
        rich_help_panel=_SOURCES,
    ),
]
IgnoreMissing = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="Sonames that may be missing.", rich_help_panel=_SEARCH_PATHS),
]
RuntimeDep = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SONAME[@GLOB]",
        help="A library that files, or those whose path fits, open at run time.",
        rich_help_panel=_SEARCH_PATHS,
    ),
]
PolicyFile = Annotated[
    list[str] | None,
    typer.Option(
        "--policy", metavar="FILE", help="More rules, as in policy.toml.", rich_help_panel=_SEARCH_PATHS
    ),
]
AppendRpath = Annotated[
    list[str] | None,
    typer.Option(
        metavar="DIR", help="A directory to put last, in every file.", rich_help_panel=_SEARCH_PATHS
    ),
]
TagOption = Annotated[
    Tag | None,
    typer.Option(
        "--tag",
        case_sensitive=False,
        help="Use this tag; by default each keeps its own.",
        rich_help_panel=_SEARCH_PATHS,
    ),
]
WriterOption = Annotated[
    Writer,
    typer.Option(
        "--writer",
        case_sensitive=False,
        help="Edit in place; or let LIEF lay each file out anew, which restore cannot undo.",
    ),
]
OwnedOnly = Annotated[bool, typer.Option("--owned-only", help="Leave files alone that no dist claims.")]
AcceptModified = Annotated[
    bool,
    typer.Option("--accept-modified", help="Update RECORD rows that were wrong before the patch, too."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Show the plan, write nothing.")]
Unvendor = Annotated[
    list[str] | None,
    typer.Option(
        "--unvendor",
        metavar="[=GLOB]",
        help="Let the store's libraries take the place of copies in wheels, where that is safe.",
    ),
]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if something would change.")]
NoGcRoots = Annotated[
    bool,
    typer.Option("--no-gc-roots", help="Make no garbage-collector roots for the store paths that are used."),
]
Fsync = Annotated[
    bool,
    typer.Option(
        "--fsync", help="Put each file on the disk before it gets its name: safe in a power failure."
    ),
]
Jobs = Annotated[
    int, typer.Option("--jobs", "-j", min=0, help="Processes; 0 is one per core for large work.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print a JSON document to standard output.", rich_help_panel=_OUTPUT)
]
Html = Annotated[
    str | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Also write a page: dists and store paths as a graph, a table of files, findings.",
        rich_help_panel=_OUTPUT,
    ),
]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose", "-v", count=True, help="Every changed file; -vv: every need.", rich_help_panel=_OUTPUT
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="Only what remains to be done.", rich_help_panel=_OUTPUT)
]


def request(path: str, choices: Choices, environment: Mapping[str, str]) -> Request:
    """Put a request together, with the rules of the project in the current directory.

    Raises:
        RequestError: ``--store`` is not a directory, or a policy cannot be used.

    """
    return requests.request(path, choices, environment, project=_PROJECT)
