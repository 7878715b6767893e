"""flake.nix, default.nix and the files of the package: Nix reads them, and evaluates them against a stub."""

from __future__ import annotations

import glob
import json
import os
import re
import subprocess
from pathlib import Path

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
  shell = names ((import {REPOSITORY}/templates/shell/flake.nix).outputs
    {{ inherit nixpkgs; nixpatch = flake; }}).devShells;
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
    assert {tuple(shells) for shells in told["shell"].values()} == {("default",)}
    assert set(told["formatter"]) == {"x86_64-linux", "aarch64-linux"}
    assert told["templates"] == {"default": True, "shell": True, "uv2nix": True}
    assert told["wheel"] == "example-1.0"


def test_a_cross_build_runs_the_tools_of_its_build_platform(nix_store: NixStore) -> None:
    expression = f"""
      let
        native = (import {STUB}).legacyPackages.x86_64-linux;
        pkgs = native // {{ buildPackages.callPackage = _: _: "nixpatch-of-build"; }};
        read = text: builtins.fromJSON (builtins.unsafeDiscardStringContext text);
        of = import {REPOSITORY}/default.nix {{ inherit pkgs; }};
        input = name: {{
          outPath = name;
          sitePackages = "lib/python3/site-packages";
          pkgs.installer = "installer-" + name;
        }};
        python = input "python-of-host" // {{ pythonOnBuildForHost = input "python-of-build"; }};
        wheel = builtins.toFile "example-1.0-py3-none-any.whl" "";
        made = of.wheelFor python {{ inherit wheel; buildInputs = [ "zlib-of-host" ]; }};
      in
      {{ hook = read of.nixpatchHook.made; wheel = read made.made; }}
    """
    command = ["nix-instantiate", "--eval", "--strict", "--json", "--read-write-mode", "--expr", expression]
    done = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["hook"]["substitutions"] == {"nixpatch": "nixpatch-of-build"}
    assert made["wheel"]["nativeBuildInputs"][0] == "python-of-build"
    assert made["wheel"]["buildInputs"] == ["python-of-host", "zlib-of-host"]
    assert "python-of-build/bin/python3 -m installer" in made["wheel"]["installPhase"]


def test_the_hook_is_sound_bash(nix_store: NixStore) -> None:
    hook = os.path.join(REPOSITORY, "src", "nixpatch", "nix", "setup-hook.sh")
    subprocess.run([f"{nix_store['bash']}/bin/bash", "-n", hook], check=True)


@pytest.mark.parametrize(
    ("variables", "has", "lacks"),
    [
        ("nixpatchStrict=1", "--strict", "--ignore-missing"),
        ("autoPatchelfIgnoreMissingDeps=1", "--ignore-missing *", "--strict"),
        ("NIX_BUILD_CORES=7", "--no-gc-roots", "--strict"),
        ("IN_NIX_SHELL=impure", "--jobs 1", "--no-gc-roots"),
    ],
)
def test_the_hook_hands_on_what_a_derivation_says(
    nix_store: NixStore, tmp_path: Path, variables: str, has: str, lacks: str
) -> None:
    bash = f"{nix_store['bash']}/bin/bash"
    program = tmp_path / "bin" / "nixpatch"
    program.parent.mkdir()
    program.write_text(f'#!{bash}\necho "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    with open(os.path.join(REPOSITORY, "src", "nixpatch", "nix", "setup-hook.sh"), encoding="utf-8") as file:
        hook = file.read().replace("@nixpatch@", str(tmp_path))
    script = f"addEnvHooks() {{ :; }}; targetOffset=0; {variables}\n{hook}\nnixpatchPatch tree"

    done = subprocess.run([bash, "-ec", script], env={}, capture_output=True, text=True, check=True)

    assert has in done.stdout
    assert lacks not in done.stdout


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
