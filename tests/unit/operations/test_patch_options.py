"""An option is written down once: the command line, the API and the JSON report have it from there."""

from __future__ import annotations

import inspect
from dataclasses import fields

import pytest

import nixpatch
from nixpatch.cli import app
from nixpatch.model import Tag, Writer
from nixpatch.operations.patch_options import (
    ApplyOptions,
    PatchOptions,
    PlanOptions,
    as_json,
    types_of,
    words_of,
)

NAMES = [field.name for field in fields(PatchOptions)]


def flags() -> set[str]:
    from typer.main import get_command

    command = get_command(app.command_line({"patch"})).commands["patch"]  # type: ignore[attr-defined]
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("name", NAMES)
def test_each_option_is_a_flag_of_patch(name: str) -> None:
    words = words_of(types_of(PatchOptions)[name])
    assert words is not None
    expected = words.flags or (f"--{name.replace('_', '-')}",)
    assert set(expected) <= flags()


@pytest.mark.parametrize("name", NAMES)
def test_each_option_is_a_documented_keyword_of_the_api(name: str) -> None:
    function = nixpatch.plan if name in types_of(PlanOptions) else nixpatch.apply
    assert name in inspect.signature(function).parameters
    words = words_of(types_of(PatchOptions)[name])
    assert words is not None
    assert f"{name}: {words.help}" in str(function.__doc__)


def test_a_keyword_that_is_no_option_is_an_error() -> None:
    with pytest.raises(TypeError, match="libs"):
        nixpatch.plan(".", libs=[])  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["lib", "closure", "policy", "append_rpath", "unvendor"])
def test_a_string_is_no_list_of_strings(name: str) -> None:
    with pytest.raises(nixpatch.RequestError, match=f"{name}: a list of strings is meant"):
        PatchOptions(**{name: "/nix/store/x"})  # type: ignore[arg-type]


def test_only_what_differs_from_the_default_is_reported() -> None:
    assert as_json(PatchOptions()) == {}
    options = PatchOptions(lib=["a", "b"], tag=Tag.RPATH, gc_roots=False, writer=Writer.LIEF, jobs=2)
    assert as_json(options) == {
        "lib": ("a", "b"),
        "tag": "RPATH",
        "writer": "lief",
        "gc_roots": False,
        "jobs": 2,
    }


def test_every_option_belongs_to_the_plan_or_to_how_it_is_carried_out() -> None:
    assert set(types_of(PlanOptions)).isdisjoint(types_of(ApplyOptions))
    assert set(types_of(PatchOptions)) == {*types_of(PlanOptions), *types_of(ApplyOptions)}
