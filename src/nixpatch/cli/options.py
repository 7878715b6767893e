"""Options on the command line: those of a run come from ``PatchOptions``, the others are declared here."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any, get_args

import typer

from nixpatch.operations import patch_options, request
from nixpatch.operations.patch_options import PatchOptions, texts_of
from nixpatch.operations.request import PatchRequest
from nixpatch.policy import Policy

_OUTPUT = "Output"

ALL = tuple(patch_options.types_of(PatchOptions))
"""the names of all options of a run, in the order of ``--help``"""

Paths = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH]...",
        help="A venv, a prefix, a site-packages, a part of one, a directory above several of them, a build's "
        "$out, or ELF files (default: the active venv, ./.venv).",
        show_default=False,
    ),
]
PathsOrWheels = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PATH]...",
        help="As for patch, or wheel files (default: the active venv, ./.venv).",
        show_default=False,
    ),
]
Beside = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="WHEEL",
        help="A wheel that will be installed beside a wheel file: its libraries serve.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", "-n", help="Print the plan, write nothing.")]
Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 if something would change.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print a JSON document to standard output.", rich_help_panel=_OUTPUT)
]
Html = Annotated[
    str | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Also write a page with a graph of dists and store paths, a table of files, and findings.",
        rich_help_panel=_OUTPUT,
    ),
]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        help="List every changed file; -vv every need.",
        rich_help_panel=_OUTPUT,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print problems only.", rich_help_panel=_OUTPUT)]


def takes(*names: str, **help_texts: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Add options of a run to a command, by the names of their fields.

    They replace the command's parameter ``chosen``, a ``PatchOptions``. ``help_texts`` overrides the help
    text of an option for this command.
    """

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name != "chosen":
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
                continue
            parameters += [_parameter(name, help_texts.get(name)) for name in names]

        def run(**given: Any) -> int:
            values = {name: given.pop(name) for name in names}
            values.update({name: not value for name, value in values.items() if _turns_off(name)})
            return command(chosen=PatchOptions(**values), **given)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return run

    return decorate


def _parameter(name: str, help_text: str | None) -> inspect.Parameter:
    """Return the parameter that typer makes an option of."""
    annotated = patch_options.types_of(PatchOptions)[name]
    words = patch_options.words_of(annotated)
    assert words is not None
    default = next(field.default for field in fields(PatchOptions) if field.name == name)
    kind = get_args(annotated)[0]
    if patch_options.is_list(annotated):
        kind, default = list[str] | None, None
    if _turns_off(name):
        default = False
    extra: dict[str, Any] = {"min": 0} if kind is int else {}
    option = typer.Option(
        *words.flags,
        help=help_text or words.help,
        metavar=words.metavar,
        rich_help_panel=words.panel,
        case_sensitive=False,
        **extra,
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, option]
    )


def _turns_off(name: str) -> bool:
    """Whether an option is spelled ``--no-x``."""
    words = patch_options.words_of(patch_options.types_of(PatchOptions)[name])
    return words is not None and any(flag.startswith("--no-") for flag in words.flags)


def request_for(path: str, chosen: PatchOptions, environ: Mapping[str, str] | None = None) -> PatchRequest:
    """Make a request, with the rules of the project of the tree or of the current directory.

    Raises:
        RequestError: ``--store`` is not a directory, or a policy cannot be used.

    """
    environ = os.environ if environ is None else environ
    return request.request_for(path, chosen, environ, project=request.project_of(path, "."))


def policy_for(path: str, chosen: PatchOptions) -> Policy:
    """Return the policy for a tree, with the rules of its project or that of the current directory.

    Raises:
        RequestError: a policy cannot be used.

    """
    return request.policy_with(
        texts_of(chosen.policy),
        chosen.ignore_missing,
        chosen.runtime_dep,
        project=request.project_of(path, "."),
    )
