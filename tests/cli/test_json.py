"""The JSON documents are what the published schema says."""

from __future__ import annotations

import json
import os
from importlib import resources

import jsonschema
import pytest

from support.world import Run, World, shared

pytestmark = pytest.mark.gcc

SCHEMA = json.loads(resources.files("nixpatch").joinpath("data/report.schema.json").read_text("utf-8"))


def test_every_command_keeps_to_the_schema(world: World, nixpatch: Run) -> None:
    gone = os.path.join(world.root, "libgone.so.3")
    shared("library.c", gone, "-Wl,-soname,libgone.so.3")
    shared("extension.c", os.path.join(world.site, "pkg", "_other.so"), gone, "-Wl,-rpath,:/usr/lib")
    with open(os.path.join(world.site, "pkg", "odd\n\x1b[31m.so"), "wb") as file:
        file.write(b"\x7fELF" + bytes(100))

    lock = ["lock", "--output", os.path.join(world.root, "nixpatch.lock")]
    commands = (
        ["plan"],
        ["missing"],
        lock,
        ["tree"],
        ["patch"],
        ["verify"],
        ["verify", "--load"],
        ["verify", "--deep"],
        ["restore"],
    )
    for command in commands:
        _, out, _ = nixpatch(*command, "--json", world.venv)
        document = json.loads(out)
        jsonschema.validate(document, SCHEMA)
        assert document["command"] == command[0]


def test_several_trees_make_one_document(world: World, nixpatch: Run) -> None:
    other = world.copy("other")

    _, out, _ = nixpatch("plan", "--json", world.venv, other.venv)

    assert [tree["tree"]["root"] for tree in json.loads(out)["trees"]] == [world.venv, other.venv]


def test_a_name_with_control_characters_cannot_write_on_the_terminal(world: World, nixpatch: Run) -> None:
    with open(os.path.join(world.site, "pkg", "odd\n\x1b[31m.so"), "wb") as file:
        file.write(b"\x7fELF" + bytes(100))

    _, out, _ = nixpatch("plan", "-v", world.venv)

    assert "\x1b" not in out
    assert "odd\\n\\x1b[31m.so: skipped" in out
