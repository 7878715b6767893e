"""The hook in nixpkgs' own builders, and nixpatch as nixpkgs builds programs of Python, over the stand-in."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from nix.standin import HERE, bring_strip, download
from support.programs import need
from support.shop import make_wheel
from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore, nix_environment
from support.testbed.venv import StoreVenvFactory
from support.world import shared

REPOSITORY = os.path.realpath(os.path.join(__file__, "..", "..", ".."))
SITE = "lib/python3.11/site-packages"
ZMQ = "import zmq; zmq.Context().term()"


@dataclass(frozen=True, slots=True)
class Builders:
    """Builds expressions about the stand-in for nixpkgs, in which ``pkgs`` is its attributes."""

    store: NixStore
    tool: str
    strip: str

    def run(self, expression: str, *options: str) -> subprocess.CompletedProcess[str]:
        work = os.path.join(self.store.work, "store.json")
        given = f'store = "{work}"; tool = "{self.tool}"; installer = "{self.tool}"; strip = "{self.strip}";'
        whole = (
            f"let pkgs = import {HERE} {{ {given} }}; inherit (pkgs) packages nixpatchHook;"
            " wheel = path: builtins.path { inherit path; name = baseNameOf path; };"
            f" in {expression}"
        )
        return subprocess.run(
            ["nix-build", "--no-out-link", *options, "-E", whole],
            env=nix_environment(),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )

    def build(self, expression: str, *options: str) -> str:
        done = self.run(expression, *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()[0]

    def refused(self, expression: str) -> str:
        done = self.run(expression)
        assert done.returncode != 0, done.stderr
        return done.stderr

    def nixpatch(
        self, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the nixpatch that Nix built."""
        program = os.path.join(self.build("pkgs.nixpatch"), "bin", "nixpatch")
        return subprocess.run(
            [program, *arguments],
            env={"PATH": "/nowhere", "HOME": "", **(environ or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    def verified(self, path: str) -> str:
        done = self.nixpatch("verify", path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def builders(
    nix_store: NixStore, store_venv: StoreVenvFactory, tmp_path_factory: pytest.TempPathFactory
) -> Builders:
    if not shutil.which("strip"):
        pytest.skip("not installed: strip")
    venv = store_venv("installer")
    venv.install_project(REPOSITORY)
    return Builders(nix_store, venv.site_packages, bring_strip(str(tmp_path_factory.mktemp("strip"))))


@pytest.fixture(scope="module")
def pyzmq(nix_store: NixStore) -> str:
    return download(nix_store, "pyzmq")[0]


def package(wheel: str, more: str = "", inputs: str = "gccLib") -> str:
    name = os.path.basename(wheel).split("-")[0]
    return (
        f'(pkgs.buildPythonPackage {{ name = "{name}"; wheel = wheel {wheel};'
        f" nativeBuildInputs = [ nixpatchHook ]; buildInputs = with packages; [ {inputs} ]; {more} }})"
    )


def imported(sandbox: Sandbox, out: str, code: str) -> tuple[str, str]:
    """Run Python code with nothing but the closure of the result and Python."""
    env = {"PYTHONPATH": os.path.join(out, SITE), "PYTHONDONTWRITEBYTECODE": "1"}
    done = sandbox.run([sandbox.store.python, "-c", code], env=env, closure=[out, "python3"])
    return done.stdout, done.stderr


# ---------------------------------------------------------------------------------------------- packages


@pytest.mark.parametrize(
    "more",
    [
        "",
        "strictDeps = false;",
        "__structuredAttrs = true;",
        'outputs = [ "out" "doc" "dev" ]; postInstall = "mkdir -p $dev $doc; echo >$dev/a.h";',
    ],
)
def test_a_python_package_with_its_outputs(
    builders: Builders, sandbox: Sandbox, pyzmq: str, more: str
) -> None:
    out = builders.build(package(pyzmq, more), "-A", "out")

    assert imported(sandbox, out, ZMQ) == ("", "")
    assert "no errors" in builders.verified(out)
    again = builders.run(package(pyzmq, more), "-A", "out", "--check")
    assert again.returncode == 0, again.stderr


def test_what_a_package_depends_on_is_not_imported_by_nixpatch(
    builders: Builders, sandbox: Sandbox, tmp_path: Path, pyzmq: str
) -> None:
    poison = b"raise ImportError('not this typer')\n"
    files = {f"{name}.py": poison for name in ("typer", "click", "rich", "packaging", "elftools")}
    old = package(make_wheel(str(tmp_path), "old", "1.0", more_files=files), inputs="")

    out = builders.build(package(pyzmq, f"dependencies = [ {old} ];"), "-A", "out")

    assert imported(sandbox, out, ZMQ) == ("", "")


def test_strip_stays_off_wheels_and_cannot_break_them(
    builders: Builders, sandbox: Sandbox, nix_store: NixStore
) -> None:
    (numpy,) = download(nix_store, "numpy")
    code = "import numpy; print(numpy.linalg.inv(numpy.eye(2))[0][0])"

    as_it_is = builders.build(package(numpy, inputs="gccLib zlib"), "-A", "out")
    asked = builders.run(package(numpy, "dontStrip = false;", inputs="gccLib zlib"), "-A", "out")

    assert imported(sandbox, as_it_is, code) == ("1.0\n", "")
    assert "no errors" in builders.verified(as_it_is)
    assert asked.returncode == 0, asked.stderr
    assert "strip broke " in asked.stderr
    assert "it is left unstripped" in asked.stderr
    assert imported(sandbox, asked.stdout.strip(), code) == ("1.0\n", "")
    assert "no errors" in builders.verified(asked.stdout.strip())


def test_every_file_that_a_build_changes_is_recorded(builders: Builders, tmp_path: Path) -> None:
    script = b"#!/bin/bash\necho hello\n"
    files = {"changes/__init__.py": b"", "changes-1.0.data/scripts/changes": script}
    wheel = make_wheel(str(tmp_path), "changes", "1.0", more_files=files)
    # As wrapPythonPrograms does, a step writes the path of the output into a script.
    steps = (
        f'postInstall = "rm $out/{SITE}/changes/__init__.py";'
        ' postFixup = "echo \\"# $out\\" >>$out/bin/changes";'
    )

    out = builders.build(package(wheel, steps), "-A", "out")

    with open(os.path.join(out, "bin", "changes"), encoding="utf-8") as file:
        assert file.readline().startswith("#!/nix/store/")
    assert "no errors" in builders.verified(out)
    # Nix builds it under another name, and replaces that in the files.
    again = builders.run(package(wheel, steps), "-A", "out", "--check")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(
    "said", ["dependencies = [ {base} ];", 'nixpatchFlags = [ "--closure" "${{{base}}}" ];']
)
def test_a_library_in_the_site_packages_of_another_package(
    builders: Builders, sandbox: Sandbox, tmp_path: Path, said: str
) -> None:
    need("gcc")
    sources = {
        "base": "int base(void) { return 41; }",
        "user": "int base(void); int user(void) { return base() + 1; }",
    }
    wheels: dict[str, str] = {}
    libraries: list[str] = []
    for name, source in sources.items():
        (tmp_path / f"{name}.c").write_text(source + "\n", encoding="utf-8")
        path = shared(
            str(tmp_path / f"{name}.c"),
            str(tmp_path / f"lib{name}.so"),
            f"-Wl,-soname,lib{name}.so",
            *libraries,
        )
        libraries.append(path)
        with open(path, "rb") as file:
            files = {f"{name}/lib/lib{name}.so": file.read()}
        tag = "py3-none-manylinux_2_17_x86_64"
        wheels[name] = make_wheel(str(tmp_path), name, "1.0", more_files=files, tag=tag)
    base = package(wheels["base"], inputs="")

    out = builders.build(package(wheels["user"], said.format(base=base), inputs=""), "-A", "out")

    code = f"import ctypes; print(ctypes.CDLL('{out}/{SITE}/user/lib/libuser.so').user())"
    assert imported(sandbox, out, code) == ("42\n", "")


def test_a_wheel_for_another_machine_fails_the_build(builders: Builders, tmp_path: Path) -> None:
    need("gcc")
    path = shared("extension.c", str(tmp_path / "libanswer.so"))
    with open(path, "r+b") as file:
        file.seek(18)
        file.write((183).to_bytes(2, "little"))
    wheel = make_wheel(str(tmp_path), "foreign", "1.0", path, tag="py3-none-manylinux_2_28_aarch64")

    stderr = builders.refused(package(wheel))

    assert "foreign 1.0 was built for aarch64, the target is x86_64: install the build for that" in stderr


# ---------------------------------------------------------------------------------------- environments


def test_an_environment_of_links_is_read_through_them(
    builders: Builders, nix_store: NixStore, sandbox: Sandbox, pyzmq: str
) -> None:
    (ruff,) = download(nix_store, "ruff")
    libraries = "buildInputs = [ packages.gccLib ];"
    own = f'(pkgs.environment {{ name = "own"; wheels = [ (wheel {ruff}) ]; {libraries} }})'
    modules = f"[ {package(pyzmq)} {own} ]"
    done = builders.run(f"assert {own}.pythonModule.outPath == packages.python3.outPath; pkgs.nixpatch")
    assert done.returncode == 0, done.stderr
    env = builders.build(f"pkgs.withPackages {modules}")
    broken = builders.build(f"pkgs.withPackages [ {package(pyzmq, 'dontNixpatch = true;')} ]")

    verified = builders.verified(env)
    assert "made of links" in verified
    assert "no errors" in verified
    assert "checked 2 patched files" in verified
    tree = builders.nixpatch("tree", env)
    assert tree.returncode == 0, tree.stdout
    assert "libzmq" in tree.stdout
    for command in (["missing"], ["plan"]):
        assert builders.nixpatch(*command, env).returncode == 0
        named = builders.nixpatch(*command, "--pure", broken)
        assert named.returncode == 1
        assert "libstdc++.so.6" in named.stdout
    assert builders.nixpatch("verify", broken).returncode == 1


# -------------------------------------------------------------------------------------------- the program


def test_the_program_runs_the_users_python_and_hands_on_nothing(
    builders: Builders, store_venv: StoreVenvFactory, tmp_path: Path
) -> None:
    venv = store_venv().path
    environ = {"PATH": f"{venv}/bin", "VIRTUAL_ENV": venv, "PYTHONPATH": str(tmp_path)}
    (tmp_path / "typer.py").write_text("raise ImportError('not this one')\n", encoding="utf-8")
    code = "import sys; print(sys.prefix)"

    for command in ("env", "wrap"):
        done = builders.nixpatch(command, "--", "python3", "-c", code, environ=environ)
        assert done.stdout.splitlines()[-1:] == [venv], done.stderr

    out = builders.build("pkgs.nixpatch")
    assert not os.path.exists(os.path.join(out, "nix-support", "propagated-build-inputs"))


# ------------------------------------------------------------------------------- derivations of any kind


def program(tmp_path: Path, more: str, inputs: str = "") -> str:
    """Return a derivation of one program that needs libz.so.1, by the loader of this machine."""
    need("gcc")
    source = tmp_path / "tool.c"
    source.write_text("const char *zlibVersion(void);\nint main(void) { return zlibVersion()[0] != '1'; }\n")
    stub = tmp_path / "libz.c"
    stub.write_text("const char *zlibVersion(void) { return 0; }\n")
    shared(str(stub), str(tmp_path / "libz.so.1"), "-Wl,-soname,libz.so.1")
    command = ["gcc", "-o", str(tmp_path / "tool"), str(source), str(tmp_path / "libz.so.1")]
    subprocess.run(command, check=True, capture_output=True)
    return (
        f'pkgs.stdenv.mkDerivation {{ name = "tool"; unpackPhase = ":"; tool = wheel {tmp_path}/tool;'
        f" buildInputs = with packages; [ {inputs} ];"
        f' installPhase = "mkdir -p $out/bin; cp $tool $out/bin/tool; chmod +x $out/bin/tool"; {more} }}'
    )


def test_a_program_without_any_python_is_linked_for_the_stdenv(
    builders: Builders, sandbox: Sandbox, tmp_path: Path
) -> None:
    out = builders.build(program(tmp_path, "nativeBuildInputs = [ nixpatchHook ];", "zlib"))

    assert sandbox.run([os.path.join(out, "bin", "tool")], closure=[out]).returncode == 0
    assert "no errors" in builders.verified(out)


def test_the_hook_among_the_wrong_inputs_says_so(builders: Builders, tmp_path: Path) -> None:
    wrong = program(tmp_path, "strictDeps = true;", "zlib ] ++ [ nixpatchHook")
    lenient = program(tmp_path, "", "zlib ] ++ [ nixpatchHook")

    assert "put it into nativeBuildInputs" in builders.refused(wrong)
    assert builders.build(lenient)


@pytest.mark.parametrize(
    "said",
    [
        'preFixup = "addAutoPatchelfSearchPath ${packages.zlib}";',
        'preFixup = "addAutoPatchelfSearchPath --no-recurse -- ${packages.zlib}/lib";',
        'preFixup = "autoPatchelfLibs+=(${packages.zlib}/lib)";',
        "runtimeDependencies = [ packages.zlib ];",
        'appendRunpaths = [ "${packages.zlib}/lib" ]; autoPatchelfIgnoreMissingDeps = [ "libz.so.*" ];',
        'dontAutoPatchelf = true; postFixup = "addAutoPatchelfSearchPath ${packages.zlib}; autoPatchelf";',
    ],
)
@pytest.mark.parametrize("structured", ["false", "true"])
def test_the_vocabulary_of_autopatchelf_keeps_its_meaning(
    builders: Builders, sandbox: Sandbox, tmp_path: Path, said: str, structured: str
) -> None:
    hook = f"nativeBuildInputs = [ nixpatchHook ]; __structuredAttrs = {structured}; {said}"

    out = builders.build(program(tmp_path, hook))

    assert sandbox.run([os.path.join(out, "bin", "tool")], closure=[out]).returncode == 0


def test_what_autopatchelf_would_ignore_or_leave_alone(builders: Builders, tmp_path: Path) -> None:
    hook = "nativeBuildInputs = [ nixpatchHook ];"

    assert "libz.so.1" in builders.refused(program(tmp_path, hook))
    assert builders.build(program(tmp_path, f"{hook} autoPatchelfIgnoreMissingDeps = true;"))
    assert builders.build(program(tmp_path, f'{hook} autoPatchelfIgnoreMissingDeps = [ "libz*" ];'))
    assert builders.build(program(tmp_path, f"{hook} dontAutoPatchelf = true;"))
