"""nixpatch missing: what to add, on compiled files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import typer

from nixpatch.cli.missing import missing_command
from support.world import World, shared

pytestmark = pytest.mark.gcc

Call = Callable[..., tuple[int, str]]


@pytest.fixture
def missing(world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Run the command against the world's store; return exit code and standard output."""
    monkeypatch.setenv("NIX_STORE_DIR", world.store)
    monkeypatch.delenv("NIX_BUILD_TOP", raising=False)
    app = typer.Typer()
    app.command("missing")(missing_command)

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            app(list(arguments), prog_name="nixpatch missing")
        assert isinstance(end.value.code, int)
        return end.value.code, capsys.readouterr().out

    return call


@pytest.fixture
def lacking(world: World) -> World:
    """A venv that needs, beside what the store has, four libraries that it has not."""
    for soname in ("libxkbcommon.so.0", "libssl.so.3", "libsodium.so.23", "libnobody.so.1"):
        library = os.path.join(world.root, "gone", soname)
        shared("library.c", library, f"-Wl,-soname,{soname}")
        shared("extension.c", os.path.join(world.site, "pkg", f"_{soname[3:6]}.so"), library)
        os.remove(library)
    return world


def test_nothing_is_missing(world: World, missing: Call) -> None:
    assert missing(world.venv) == (0, "Nothing is missing.\n")
    assert missing(world.venv, "--format", "nix") == (0, "pkgs: [ ]\n")
    code, out = missing(world.venv, "--format", "json")
    assert (code, json.loads(out)["trees"][0]["missing"]) == (0, [])


def test_text_names_who_needs_what_and_the_line_to_paste(lacking: World, missing: Call) -> None:
    code, out = missing(lacking.venv)

    assert code == 1
    assert "libxkbcommon.so.0, needed by lib/" in out
    assert "nixpkgs has it in libxkbcommon\n" in out
    assert "no nixpkgs package is known to have this version; nixpkgs has libsodium.so." in out
    assert "no nixpkgs package is known to have it\n" in out
    assert out.endswith(
        "buildInputs = with pkgs; [ libxkbcommon (lib.getLib openssl) ];\n"
        "No nixpkgs attribute has 2 of these 4: see above.\n"
    )


def test_text_goes_by_dist(lacking: World, missing: Call) -> None:
    lacking.write_record(f"{os.path.relpath(os.path.join(lacking.site, 'pkg', '_ssl.so'), lacking.site)},,")

    _, out = missing(lacking.venv)

    assert out.startswith("(no dist)\n")
    assert out.partition("pkg 1.0\n")[2].startswith("  libssl.so.3, needed by ")


def test_json(lacking: World, missing: Call) -> None:
    code, out = missing(lacking.venv, "--format", "json")
    document: dict[str, Any] = json.loads(out)

    assert code == 1
    assert (document["version"], document["command"]) == (1, "missing")
    (tree,) = document["trees"]
    assert tree["tree"]["root"] == lacking.venv
    assert tree["build_inputs"] == ["libxkbcommon", "(lib.getLib openssl)"]
    found = {one["soname"]: one for one in tree["missing"]}
    assert found["libssl.so.3"]["provided_by"] == {
        "kind": "package",
        "attribute": "openssl",
        "output": "out",
        "expression": "lib.getLib openssl",
        "note": "",
    }
    assert found["libssl.so.3"]["files"] == [os.path.join(lacking.site, "pkg", "_ssl.so")]
    assert found["libsodium.so.23"]["provided_by"] is None
    assert found["libsodium.so.23"]["near"][0]["attribute"] == "libsodium"


@pytest.mark.nix
def test_nix_is_a_function_that_nix_evaluates(lacking: World, missing: Call) -> None:
    code, out = missing(lacking.venv, "--format", "nix")

    assert code == 1
    assert out.splitlines()[-1] == "pkgs: with pkgs; [ libxkbcommon (lib.getLib openssl) ]"
    assert "# libnobody.so.1: no nixpkgs package is known to have it\n" in out
    if shutil.which("nix-instantiate") is None:
        pytest.skip("not installed: nix-instantiate")
    pkgs = '{ libxkbcommon = "xkb"; openssl = "ssl"; lib.getLib = name: "lib of ${name}"; }'
    with open(os.path.join(lacking.root, "missing.nix"), "w", encoding="utf-8") as file:
        file.write(out)
    expression = f'builtins.concatStringsSep ", " (import {lacking.root}/missing.nix {pkgs})'
    done = subprocess.run(
        ["nix-instantiate", "--eval", "--readonly-mode", "-E", expression],
        env={**os.environ, "NIX_STORE_DIR": "/nix/store"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == '"xkb, lib of ssl"'


def test_what_is_ignored_is_not_missing(lacking: World, missing: Call) -> None:
    code, out = missing(lacking.venv, "--ignore-missing", "lib*")

    assert (code, out) == (0, "Nothing is missing.\n")


def test_several_trees_make_one_list(lacking: World, missing: Call) -> None:
    other = lacking.copy("other")

    _, out = missing(lacking.venv, other.venv, "--format", "nix")

    assert out.splitlines()[-1] == "pkgs: with pkgs; [ libxkbcommon (lib.getLib openssl) ]"


def test_the_line_to_paste_is_for_the_place(
    lacking: World, missing: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, out = missing(lacking.venv)
    command = f"nixpatch --nixpkgs nixpkgs {lacking.venv}"
    assert f"\n\nTo add what nixpkgs has: {command}\nIn a Nix build:\nbuildInputs = with pkgs; " in out

    monkeypatch.setenv("NIX_BUILD_TOP", lacking.root)
    _, out = missing(lacking.venv, "--lib", lacking.library)
    assert "\n\nbuildInputs = with pkgs; " in out
    assert "--nixpkgs" not in out
