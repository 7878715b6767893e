"""nixpatch uv run, uvx and uv tool: what uv installs is patched before it starts. The real uv, no index."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import pytest

from nixpatch.cli import run
from support.shop import Call, Shop, make_wheel
from support.world import compile_c

pytestmark = pytest.mark.gcc

ASK = "import ctypes, {0}; print('answer', ctypes.CDLL({0}.__path__[0] + '/native/_ext.so').ask())"
OPTIONS = ("--no-index", "--find-links")


@pytest.fixture(autouse=True)
def outside(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The shop, in a directory without a project, and no active venv."""
    for name in ("one", "two"):
        shop.wheel(name)
    monkeypatch.delenv("VIRTUAL_ENV")
    monkeypatch.setenv("UV_PYTHON", os.path.realpath(sys.executable))
    monkeypatch.setenv("UV_FIND_LINKS", shop.wheels)
    monkeypatch.setenv("UV_TOOL_DIR", os.path.join(shop.world.root, "tools"))
    monkeypatch.setenv("UV_TOOL_BIN_DIR", os.path.join(shop.world.root, "bin"))
    directory = os.path.join(shop.world.root, "outside")
    os.makedirs(directory)
    monkeypatch.chdir(directory)
    return shop


def script(name: str = "s.py", requirement: str = "one", code: str = ASK.format("one")) -> str:
    """Write a script with inline metadata (PEP 723)."""
    with open(name, "w", encoding="utf-8") as file:
        file.write(f"# /// script\n# dependencies = [{json.dumps(requirement)}]\n# ///\n{code}\n")
    return name


def tool(shop: Shop) -> str:
    """Make a wheel with a program that needs a library and a loader, as ruff's is; return its name."""
    program = os.path.join(shop.world.root, "program")
    link = os.path.join(shop.world.library, "libanswer.so.1")
    compile_c("program.c", program, link, "-Wl,--dynamic-linker=/nowhere/ld.so")
    with open(program, "rb") as file:
        files = {"sometool-1.0.data/scripts/sometool": file.read()}
    make_wheel(shop.wheels, "sometool", "1.0", more_files=files)
    return "sometool"


def archives(shop: Shop) -> dict[str, str]:
    """Return a digest of every unpacked wheel in uv's cache; environments are not among them."""
    digests = {}
    for directory, folders, names in os.walk(os.path.join(shop.world.root, "uv")):
        if "pyvenv.cfg" in names:
            folders.clear()
            continue
        for name in names:
            if name.endswith((".so", "sometool", "RECORD")):
                path = os.path.join(directory, name)
                with open(path, "rb") as file:
                    digests[path] = hashlib.sha256(file.read()).hexdigest()
    return digests


class TestRun:
    """nixpatch uv run."""

    def test_a_script_with_metadata(self, call: Call) -> None:
        name = script()

        code, out, err = call("uv", "run", name)
        assert (code, out) == (0, "answer 42\n"), err
        assert err.count("Patched 1 of 1") == 1

        code, out, err = call("uv", "run", name)
        assert (code, out) == (0, "answer 42\n"), err
        assert "Patched" not in err

    def test_a_script_with_metadata_and_more_packages(self, call: Call) -> None:
        name = script(code=ASK.format("one") + "\n" + ASK.format("two"))

        code, out, err = call("uv", "run", "-q", "--with", "two", name, "argument")

        assert (code, out) == (0, "answer 42\nanswer 42\n"), err
        assert err.count("Patched 1 of 1") == 2

    def test_a_script_that_keeps_its_name_and_arguments(self, call: Call) -> None:
        name = script("tool", code="import sys; print(sys.argv, sys.flags.isolated)")

        code, out, err = call("uv", "run", "--script", name, "-v", "--with", "x")

        assert (code, out) == (0, "['tool', '-v', '--with', 'x'] 0\n"), err

    def test_a_script_from_standard_input(self) -> None:
        with open(script(), "rb") as file:
            done = subprocess.run(
                [sys.executable, "-m", "nixpatch", "uv", "run", "-"],
                stdin=file,
                capture_output=True,
                text=True,
                check=False,
            )

        assert (done.returncode, done.stdout) == (0, "answer 42\n"), done.stderr

    def test_packages_for_a_command(self, call: Call) -> None:
        code, out, err = call("uv", "run", "--with", "one", "python", "-c", ASK.format("one"))

        assert (code, out) == (0, "answer 42\n"), err

    def test_a_module(self, call: Call) -> None:
        with open("module.py", "w", encoding="utf-8") as file:
            file.write(ASK.format("one"))

        code, out, err = call("uv", "run", "--with", "one", "-m", "module")

        assert (code, out) == (0, "answer 42\n"), err

    def test_a_program_of_a_wheel(self, outside: Shop, call: Call) -> None:
        code, _, err = call("uv", "run", "--with", tool(outside), "sometool")

        assert "Patched 1 of 1" in err
        assert code == 42, err

    def test_an_environment_for_this_run_alone(self, call: Call) -> None:
        """uv makes it anew for each run, so it can be patched only between its making and the command."""
        os.makedirs("project")
        with open("project/pyproject.toml", "w", encoding="utf-8") as file:
            file.write('[project]\nname = "p"\nversion = "1"\ndependencies = ["one"]\n')
        command = ["uv", "run", "--project", "project", "--isolated", "python", "-c", ASK.format("one")]

        for _ in range(2):
            code, out, err = call(*command)
            assert (code, out) == (0, "answer 42\n"), err
        code, out, err = call("uv", "run", "--project", "project", "--reinstall", *command[5:])
        assert (code, out) == (0, "answer 42\n"), err

    def test_what_an_earlier_uv_has_installed(self, call: Call) -> None:
        name = script()
        assert subprocess.run(["uv", "run", name], capture_output=True, check=False).returncode == 1

        code, out, err = call("uv", "run", name)

        assert (code, out) == (0, "answer 42\n"), err

    def test_the_venv_below_is_left_alone(
        self, outside: Shop, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """uv lays its environment over the venv of the first Python on PATH, which is not the call's."""
        monkeypatch.delenv("UV_PYTHON")
        monkeypatch.setenv("PATH", f"{outside.world.venv}/bin:{os.environ['PATH']}")
        before = outside.world.snapshot()

        code, out, err = call("uv", "run", "--with", "one", "python", "-c", ASK.format("one"))

        assert (code, out) == (0, "answer 42\n"), err
        assert outside.world.snapshot() == before

    @pytest.mark.parametrize("mode", ["hardlink", "clone", "copy", "symlink"])
    def test_the_cache_stays(
        self, outside: Shop, call: Call, mode: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UV_LINK_MODE", mode)
        target = os.path.join(outside.world.root, "filled")
        subprocess.run(["uv", "pip", "install", "-q", "--target", target, "one", tool(outside)], check=True)
        before = archives(outside)
        assert before

        assert call("uv", "run", "--with", "one", "python", "-c", ASK.format("one"))[0] == 0
        assert call("uv", "run", script())[0] == 0
        assert call("uvx", "sometool")[0] == 42

        assert {path: digest for path, digest in archives(outside).items() if path in before} == before

    def test_the_exit_code_and_messages_are_uvs(self, call: Call) -> None:
        assert call("uv", "run", script(code="raise SystemExit(7)"))[0] == 7
        assert call("uv", "run", "--with", "one", "sh", "-c", "exit 5")[0] == 5
        code, _, err = call("uv", "run", "--with", "one", "no-such-command")
        plain = subprocess.run(
            ["uv", "run", "--with", "one", "no-such-command"], capture_output=True, text=True, check=False
        )
        assert (code, err.endswith(plain.stderr)) == (plain.returncode, True)
        code, _, err = call("uv", "run", "--with", "nobody-made-this", "sh", "-c", "exit 5")
        assert (code, "nobody-made-this" in err) == (1, True)

    def test_the_command_has_the_environment_that_uv_gives_it(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        code = (
            "import os, sys; print(sys.argv, *(i for i in sorted(os.environ.items()) if '.tmp' not in i[1]))"
        )
        for name, value in {"PYTHONPATH": "/srv/mine", "PYTHONSAFEPATH": "1"}.items():
            monkeypatch.setenv(name, value)
        words = ["run", "--with", "one", "python", "-c", code, "a b", "*"]
        name = script(code=code)

        assert run(["uv", *words]) == 0
        assert run(["uv", "run", name, "x"]) == 0
        ours = capfd.readouterr().out
        for command in (words, ["run", name, "x"]):
            subprocess.run(["uv", *command], check=True)

        assert ours == capfd.readouterr().out


class TestTool:
    """nixpatch uvx, uv tool run and uv tool install."""

    def test_a_tool_starts_patched(self, outside: Shop, call: Call) -> None:
        tool(outside)

        for words in (["uvx", "sometool"], ["uv", "tool", "run", "--from", "sometool==1.0", "sometool"]):
            code, _, err = call(*words)
            assert code == 42, err
        code, _, err = call("uvx", "--isolated", "--with", "one", "sometool@1.0")
        assert code == 42, err
        assert "Patched 2 of 2" in err

    def test_a_python_with_packages(self, call: Call) -> None:
        code, out, err = call("uvx", "--with", "one", "python", "-c", ASK.format("one"))

        assert (code, out) == (0, "answer 42\n"), err

    def test_a_wheel_whose_name_is_not_in_the_command(self, outside: Shop, call: Call) -> None:
        tool(outside)
        wheel = os.path.join(outside.wheels, "sometool-1.0-py3-none-any.whl")

        code, _, err = call("uvx", wheel)

        assert code == 42, err

    def test_a_tool_that_is_not_there(self, call: Call) -> None:
        code, _, err = call("uvx", "--from", "one", "nothing-of-it")

        plain = subprocess.run(
            ["uvx", "--from", "one", "nothing-of-it"], capture_output=True, text=True, check=False
        )
        assert (code, err.endswith(plain.stderr)) == (plain.returncode, True)

    def test_an_installed_tool(self, outside: Shop, call: Call) -> None:
        code, _, err = call("uv", "tool", "install", tool(outside))

        assert code == 0, err
        program = os.path.join(outside.world.root, "bin", "sometool")
        assert subprocess.run([program], check=False).returncode == 42
        assert call("uvx", "sometool")[0] == 42
        assert call("verify", os.path.join(outside.world.root, "tools", "sometool"))[0] == 0

    def test_wrap_knows_uv(self, outside: Shop, call: Call) -> None:
        tool(outside)

        assert call("wrap", "--", "uvx", "sometool")[0] == 42
        code, out, err = call("wrap", "--", "uv", "run", script())
        assert (code, out) == (0, "answer 42\n"), err
