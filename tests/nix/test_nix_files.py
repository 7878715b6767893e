"""flake.nix, default.nix and the files of the package: Nix reads them, and evaluates them against a stub."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess

import pytest

from support.testbed.store import NixStore, nix_environment
from support.testbed.venv import StoreVenvFactory

REPOSITORY = os.path.realpath(os.path.join(__file__, "..", "..", ".."))
STUB = os.path.join(REPOSITORY, "tests", "nix", "standin", "nixpkgs.nix")
SHIPPED = sorted(glob.glob(os.path.join(REPOSITORY, "src", "nixpatch", "nix", "*.nix")))
FLAKES = [
    os.path.join(REPOSITORY, "flake.nix"),
    *sorted(glob.glob(os.path.join(REPOSITORY, "templates", "*", "flake.nix"))),
]
FLAKE = f"""
let
  nixpkgs = import {STUB};
  flake = (import {REPOSITORY}/flake.nix).outputs {{ self = flake; inherit nixpkgs; }};
  names = builtins.mapAttrs (_: builtins.mapAttrs (_: one: one.drvPath));
  overlay = flake.overlays.default nixpkgs.legacyPackages.x86_64-linux {{ }};
  wheel = builtins.toFile "example-1.0-py3-none-any.whl" "";
in
{{
  packages = names flake.packages;
  checks = names flake.checks;
  devShells = names flake.devShells;
  apps = builtins.mapAttrs (_: builtins.mapAttrs (_: one: one.program)) flake.apps;
  formatter = builtins.mapAttrs (_: one: one.drvPath) flake.formatter;
  legacyPackages = builtins.mapAttrs (_: builtins.attrNames) flake.legacyPackages;
  templates = builtins.mapAttrs
    (_: one: (import (one.path + "/flake.nix")).description == one.description)
    flake.templates;
  overlay = builtins.attrNames overlay;
  wheel = (overlay.nixpatchWheel {{ inherit wheel; }}).name;
  environment = (overlay.nixpatchEnvironment {{ name = "both"; wheels = [ wheel wheel ]; }}).drvPath;
}}
"""


@pytest.mark.parametrize("file", [*FLAKES, os.path.join(REPOSITORY, "default.nix"), *SHIPPED])
def test_nix_reads_it(nix_store: NixStore, file: str) -> None:
    subprocess.run(
        ["nix-instantiate", "--parse", file], env=nix_environment(), capture_output=True, check=True
    )


def test_the_flake_evaluates(nix_store: NixStore) -> None:
    command = ["nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode", "--expr", FLAKE]
    done = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for_pythons = {"nixpatchEnvironment", "nixpatchEnvironmentFor", "nixpatchWheel", "nixpatchWheelFor"}
    programs = {"nixpatch", "nixpatchBundle", "nixpatchHook", "nixpatchUv"}
    for kind, expected in {
        "packages": {"default", *programs},
        "checks": {"hook", "nixpatch"},
        "devShells": {"default", "uv"},
        "apps": {"default", "uv"},
        "legacyPackages": programs | for_pythons,
    }.items():
        assert {system: set(named) for system, named in told[kind].items()} == {
            "x86_64-linux": expected,
            "aarch64-linux": expected,
        }
    assert set(told["overlay"]) == programs | for_pythons
    assert set(told["formatter"]) == {"x86_64-linux", "aarch64-linux"}
    assert told["templates"] == {"default": True, "shell": True, "uv2nix": True}
    assert told["wheel"] == "example-1.0"


def test_the_hook_is_sound_bash(nix_store: NixStore) -> None:
    hook = os.path.join(REPOSITORY, "src", "nixpatch", "nix", "setup-hook.sh")
    subprocess.run([f"{nix_store['bash']}/bin/bash", "-n", hook], check=True)


def test_the_package_ships_them(store_venv: StoreVenvFactory) -> None:
    venv = store_venv()
    venv.install_project(REPOSITORY)

    shipped = os.listdir(os.path.join(venv.site_packages, "nixpatch", "nix"))

    assert {"setup-hook.sh", *map(os.path.basename, SHIPPED)} <= set(shipped)


def test_the_readme_shows_the_templates() -> None:
    with open(os.path.join(REPOSITORY, "README.md"), encoding="utf-8") as file:
        text = file.read()
    blocks = re.findall(r"<!-- (file|part of): (\S+) -->\n```nix\n(.*?)```\n", text, re.DOTALL)

    assert [name for _, name, _ in blocks] == ["templates/shell/flake.nix", "templates/uv2nix/flake.nix"]
    for kind, name, block in blocks:
        with open(os.path.join(REPOSITORY, name), encoding="utf-8") as file:
            whole = file.read()
        assert block == whole if kind == "file" else block in whole
        assert block.count("\n") < 20
