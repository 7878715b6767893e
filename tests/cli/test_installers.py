"""nixpatch pip, uv and wrap: the real installers, small wheels made here, no index."""

from __future__ import annotations

import base64
import contextlib
import glob
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from uv import find_uv_bin

from cli.world import World, shared
from nixpatch import elf
from nixpatch.cli import run
from nixpatch.model import ElfFacts

pytestmark = pytest.mark.gcc

Call = Callable[..., tuple[int, str, str]]
"""runs a command line: exit code, standard output, standard error, those of the installer among them"""


def make_wheel(directory: str, name: str, version: str, extension: str | None = None) -> str:
    """Write a wheel of a package with one module, and with a copy of an extension if one is given."""
    files = {f"{name}/__init__.py": f"version = {version!r}\n".encode()}
    if extension is not None:
        with open(extension, "rb") as file:
            files[f"{name}/native/_ext.so"] = file.read()
    info = f"{name}-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: false\nTag: py3-none-any\n"
    )
    rows = []
    for path, data in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.append(f"{path},sha256={digest},{len(data)}\n")
    files[f"{info}/RECORD"] = "".join([*rows, f"{info}/RECORD,,\n"]).encode()
    os.makedirs(directory, exist_ok=True)
    wheel = os.path.join(directory, f"{name}-{version}-py3-none-any.whl")
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)
    return wheel


@dataclass(frozen=True)
class Shop:
    """The small world, with wheels to install into its venv."""

    world: World
    wheels: str

    def wheel(self, name: str, version: str = "1.0", *, native: bool = True) -> str:
        """Make a wheel; a native one needs the library of the world's store."""
        extension = os.path.join(self.world.root, "ext.so")
        if native and not os.path.exists(extension):
            shared("extension.c", extension, os.path.join(self.world.library, "libanswer.so.1"))
        return make_wheel(self.wheels, name, version, extension if native else None)

    def extension(self, name: str) -> str:
        """Return where the extension of an installed wheel is."""
        return os.path.join(self.world.site, name, "native", "_ext.so")

    def search_path(self, name: str) -> str | None:
        """Return the search path of an installed extension."""
        facts = elf.read(self.extension(name))
        assert isinstance(facts, ElfFacts)
        return facts.current.search_path

    def ask(self, name: str) -> str:
        """Load an installed extension with the venv's Python; return its answer."""
        code = f"import ctypes; print(ctypes.CDLL({self.extension(name)!r}).ask())"
        python = os.path.join(self.world.venv, "bin", "python")
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
        return done.stdout.strip() or done.stderr.strip().splitlines()[-1]

    def traces(self) -> list[str]:
        """Return what of ours, or of an installed dist, is in the venv, pkg's own files not counted."""
        venv = self.world.venv
        paths = (
            path
            for directory, _, names in os.walk(venv)
            for path in (directory, *(os.path.join(directory, name) for name in names))
        )
        found = [os.path.relpath(path, venv) for path in paths if "/pip/" not in path]
        return [name for name in found if any(word in name for word in ("nixpatch", "one", "two"))]


@pytest.fixture(scope="session")
def pip_venv(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A venv with pip, to be copied: it takes seconds to make one."""
    path = str(tmp_path_factory.mktemp("pip") / "venv")
    subprocess.run([sys.executable, "-m", "venv", path], check=True, capture_output=True)
    return path


@pytest.fixture
def shop(world: World, pip_venv: str, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """The world with a venv that has pip, and nothing installed but what the world's own dist is."""
    (pip,) = glob.glob(f"{pip_venv}/lib/python3*/site-packages/pip")
    shutil.copytree(pip, os.path.join(world.site, "pip"))
    monkeypatch.setenv("NIX_STORE_DIR", world.store)
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(world.root, "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", os.path.join(world.root, "uv"))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("VIRTUAL_ENV", world.venv)
    monkeypatch.setenv("PATH", f"{os.path.dirname(find_uv_bin())}:{os.environ['PATH']}")
    monkeypatch.delenv("NIX_BUILD_TOP", raising=False)
    monkeypatch.chdir(world.root)
    return Shop(world, os.path.join(world.root, "wheels"))


@pytest.fixture
def nixpatch(shop: Shop, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a command line in this process; the installer writes to our own descriptors."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run(arguments)
        told = capfd.readouterr()
        return code, told.out, told.err

    return call


@pytest.fixture
def pip(shop: Shop, nixpatch: Call) -> Call:
    """Run nixpatch pip install with the wheels of the shop."""
    return lambda *words: nixpatch("pip", "install", "--no-index", "--find-links", shop.wheels, *words)


class TestPip:
    """nixpatch pip."""

    def test_what_was_installed_is_patched_and_nothing_else(self, shop: Shop, pip: Call) -> None:
        shop.wheel("one")

        code, out, err = pip("one")

        assert code == 0, err
        assert "Successfully installed one-1.0" in out
        assert "Patched 1 of 1 ELF files" in err
        assert "Patched" not in out
        assert shop.ask("one") == "42"
        # The dist that was there before is as it was, and that is said.
        assert "libanswer.so.1: cannot open shared object file" in shop.world.ask()
        assert "2 ELF files that were there before would be linked anew, too" in err

    def test_a_command_that_installs_nothing_patches_nothing(self, shop: Shop, nixpatch: Call) -> None:
        wheel = shop.wheel("one")
        before = shop.world.snapshot()

        for words in (
            ["list"],
            ["install", "--dry-run", wheel],
            ["download", "--no-index", "--dest", os.path.join(shop.world.root, "down"), wheel],
            ["--version"],
            ["--isolated", "install", "--dry-run", "--no-index", wheel],
        ):
            code, _, err = nixpatch("pip", *words)
            assert code == 0, (words, err)
            assert "Patched" not in err, words

        changed = {name for name, data in shop.world.snapshot().items() if before.get(name) != data}
        assert all("__pycache__" in name for name in changed)

    def test_a_failed_pip_keeps_its_exit_code(self, shop: Shop, pip: Call, nixpatch: Call) -> None:
        shop.wheel("one")

        code, _, err = pip("one", "nobody-made-this")
        assert code == 1
        assert "No matching distribution" in err
        assert "Patched" not in err
        assert shop.traces() == []

        assert (
            nixpatch("pip", "no-such-command")[0]
            == subprocess.run(
                [os.path.join(shop.world.venv, "bin", "python"), "-m", "pip", "no-such-command"],
                capture_output=True,
                check=False,
            ).returncode
        )

    def test_a_failed_patch_says_so_and_leaves_what_pip_installed(
        self, shop: Shop, pip: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        wheel = shop.wheel("one")
        monkeypatch.setattr("nixpatch.elf.writers.check", lambda *_: ("PT_LOADs overlap",))

        code, _, err = pip("one")

        assert code == 1
        assert "failed its checks and was thrown away" in err
        assert "not all that pip installed" in err
        with zipfile.ZipFile(wheel) as archive, open(shop.extension("one"), "rb") as file:
            assert file.read() == archive.read("one/native/_ext.so")
        assert not [name for name in shop.traces() if "nixpatch" in name]

    def test_a_missing_library_is_explained(self, shop: Shop, pip: Call) -> None:
        shop.wheel("one")
        shutil.rmtree(os.path.dirname(shop.world.library))

        code, _, err = pip("one")

        assert code == 1
        assert "libanswer.so.1: nothing provides it" in err
        assert "not all that pip installed" in err

    def test_uninstalling_leaves_nothing_behind(self, shop: Shop, pip: Call, nixpatch: Call) -> None:
        shop.wheel("one")
        assert pip("one")[0] == 0
        assert [name for name in shop.traces() if name.endswith("nixpatch.json")]

        code, _, err = nixpatch("pip", "uninstall", "--yes", "one")

        assert (code, err) == (0, "")
        assert shop.traces() == []

    def test_an_upgrade_is_patched_and_leaves_nothing_of_the_old_one(self, shop: Shop, pip: Call) -> None:
        shop.wheel("one")
        assert pip("one")[0] == 0
        shop.wheel("one", "2.0")

        assert pip("--upgrade", "one")[0] == 0

        assert shop.ask("one") == "42"
        assert not [name for name in shop.traces() if "1.0" in name]

    def test_the_same_version_again_is_patched_again(self, shop: Shop, pip: Call, nixpatch: Call) -> None:
        wheel = shop.wheel("one")
        assert pip("one")[0] == 0

        assert pip("--force-reinstall", "--no-deps", wheel)[0] == 0

        assert shop.ask("one") == "42"
        assert nixpatch("verify", shop.world.venv)[0] == 0

    def test_what_is_in_no_venv_is_refused_before_anything_runs(
        self, nixpatch: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("VIRTUAL_ENV")
        code, _, err = nixpatch("pip", "install", "one")
        assert (code, "no venv: activate one" in err) == (2, True)

        code, _, err = nixpatch("pip", "--python", "/usr/bin/env", "install", "one")
        assert (code, "in no venv" in err) == (2, True)

    def test_the_venv_is_found(self, shop: Shop, nixpatch: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("VIRTUAL_ENV")
        wheel = shop.wheel("one")
        install = ["install", "--no-index", "--force-reinstall", wheel]

        assert nixpatch("pip", "--python", shop.world.venv, *install)[0] == 0
        assert shop.ask("one") == "42"
        assert nixpatch("pip", "--python", os.path.join(shop.world.venv, "bin", "python"), *install)[0] == 0
        assert shop.ask("one") == "42"
        os.symlink(shop.world.venv, os.path.join(shop.world.root, ".venv"))
        assert nixpatch("pip", *install)[0] == 0
        assert shop.ask("one") == "42"

    def test_a_target_directory_is_patched(self, shop: Shop, pip: Call) -> None:
        shop.wheel("one")
        target = os.path.join(shop.world.root, "target")

        code, _, err = pip("--target", target, "one")

        assert code == 0, err
        facts = elf.read(os.path.join(target, "one", "native", "_ext.so"))
        assert isinstance(facts, ElfFacts)
        assert facts.current.search_path == shop.world.library

    def test_options_of_nixpatch_come_before_the_command(self, shop: Shop, nixpatch: Call) -> None:
        other = os.path.join(shop.world.root, "other")
        shared("library.c", os.path.join(other, "libanswer.so.1"), "-Wl,-soname,libanswer.so.1", "-DANSWER=7")

        code, out, _ = nixpatch("pip", "--lib", other, "-q", "install", "--no-index", shop.wheel("one"))

        assert (code, "Successfully installed" in out) == (0, True)
        assert shop.ask("one") == "7"

    def test_a_wrong_option_is_found_before_pip_runs(self, shop: Shop, nixpatch: Call) -> None:
        code, out, _ = nixpatch("pip", "--store", "/nowhere", "install", "--no-index", shop.wheel("one"))

        assert (code, out) == (2, "")
        assert shop.traces() == []


def _digests(directory: str) -> dict[str, str]:
    found = {}
    for where, _, names in os.walk(directory):
        for name in names:
            path = os.path.join(where, name)
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    found[path] = hashlib.sha256(file.read()).hexdigest()
    return found


class TestUv:
    """nixpatch uv."""

    @pytest.mark.parametrize("mode", ["hardlink", "clone", "copy"])
    def test_what_was_installed_is_patched_and_the_cache_stays(
        self, shop: Shop, nixpatch: Call, mode: str
    ) -> None:
        wheel = shop.wheel("one")
        install = ["pip", "install", "--no-index", "--link-mode", mode]
        python = os.path.join(shop.world.venv, "bin", "python")
        other = shop.world.copy("other").venv
        subprocess.run(["uv", *install, "-q", "--python", f"{other}/bin/python", wheel], check=True)
        # What uv knows of the interpreter is in the cache, too.
        subprocess.run(["uv", "pip", "list", "-q", "--python", python], check=True)
        before = _digests(os.environ["UV_CACHE_DIR"])

        code, _, err = nixpatch("uv", *install, "--python", python, wheel)

        assert code == 0, err
        assert "Patched 1 of 1 ELF files" in err
        assert shop.ask("one") == "42"
        assert before == _digests(os.environ["UV_CACHE_DIR"])

    def test_links_into_the_cache_are_left_alone_and_told_of(self, shop: Shop, nixpatch: Call) -> None:
        wheel = shop.wheel("one")
        install = ["uv", "pip", "install", "--no-index", "--reinstall"]

        code, _, err = nixpatch(*install, "--link-mode", "symlink", wheel)

        assert code == 1
        assert "one/native/_ext.so: this of one: a link to " in err
        assert "--link-mode" in err
        assert os.path.islink(shop.extension("one"))
        with zipfile.ZipFile(wheel) as archive, open(shop.extension("one"), "rb") as file:
            assert file.read() == archive.read("one/native/_ext.so")

        assert nixpatch(*install, "--link-mode", "copy", wheel)[0] == 0
        assert shop.ask("one") == "42"

    def test_the_same_version_again_is_patched_though_it_was_not_before(
        self, shop: Shop, nixpatch: Call
    ) -> None:
        """Hard links have the inode of the cache, and RECORD the same bytes: the stamp of RECORD tells."""
        wheel = shop.wheel("one")
        subprocess.run(["uv", "pip", "install", "-q", "--no-index", wheel], check=True)
        assert shop.search_path("one") is None

        assert nixpatch("uv", "pip", "install", "--no-index", "--reinstall", wheel)[0] == 0

        assert shop.ask("one") == "42"

    def test_uninstalling_leaves_nothing_behind(self, shop: Shop, nixpatch: Call) -> None:
        assert nixpatch("uv", "pip", "install", "--no-index", shop.wheel("one"))[0] == 0

        assert nixpatch("uv", "pip", "uninstall", "one")[0] == 0

        assert shop.traces() == []

    def test_a_failed_uv_keeps_its_exit_code(self, nixpatch: Call) -> None:
        code, _, err = nixpatch("uv", "pip", "install", "--no-index", "nobody-made-this")

        assert code == 1
        assert "Patched" not in err
        assert nixpatch("uv", "no-such-command")[0] == 2

    def test_the_venv_of_a_project(self, shop: Shop, nixpatch: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        """uv sync makes the venv; uv add fills it; uv run finds it patched at its first start."""
        monkeypatch.delenv("VIRTUAL_ENV")
        shop.wheel("one")
        shop.wheel("two")
        project = os.path.join(shop.world.root, "project")
        os.makedirs(os.path.join(project, "below"))
        with open(os.path.join(project, "pyproject.toml"), "w", encoding="utf-8") as file:
            file.write(
                '[project]\nname = "p"\nversion = "1"\nrequires-python = ">=3.11"\ndependencies = ["one"]\n'
                f"[tool.uv]\nno-index = true\nfind-links = [{json.dumps(shop.wheels)}]\n"
            )
        monkeypatch.chdir(os.path.join(project, "below"))
        ask = "import ctypes, {0}; print('answer', ctypes.CDLL({0}.__path__[0] + '/native/_ext.so').ask())"

        code, out, err = nixpatch("uv", "run", "--python", sys.executable, "python", "-c", ask.format("one"))
        assert (code, out) == (0, "answer 42\n"), err
        assert err.count("Patched 1 of 1") == 1

        code, _, err = nixpatch("uv", "add", "two")
        assert code == 0, err
        code, out, err = nixpatch("uv", "run", "--", "python", "-c", ask.format("two"))
        assert (code, out) == (0, "answer 42\n"), err
        assert "Patched" not in err

        shutil.rmtree(os.path.join(project, ".venv"))
        code, _, err = nixpatch("uv", "sync", "--python", sys.executable)
        assert code == 0, err
        assert "Patched 2 of 2" in err

        assert nixpatch("uv", "run", "python", "-c", "raise SystemExit(7)")[0] == 7


class TestWrap:
    """nixpatch wrap."""

    def test_any_installer(self, shop: Shop, nixpatch: Call) -> None:
        """What no RECORD lists is patched too, if it is new."""
        copy = os.path.join(shop.world.site, "loose.so")
        shop.wheel("one")

        code, _, err = nixpatch("wrap", "--", "cp", os.path.join(shop.world.root, "ext.so"), copy)

        assert code == 0, err
        assert "Patched 1 of 1" in err
        facts = elf.read(copy)
        assert isinstance(facts, ElfFacts)
        assert facts.current.search_path == shop.world.library

    def test_a_tree_that_was_not_there(self, shop: Shop, nixpatch: Call) -> None:
        tree = os.path.join(shop.world.root, "made")
        command = [sys.executable, "-m", "zipfile", "-e", shop.wheel("one"), tree]

        code, _, err = nixpatch("wrap", "--tree", tree, "--python", sys.executable, "--", *command)

        assert code == 0, err
        assert "Patched 1 of 1" in err

    def test_the_exit_code_is_that_of_the_command(self, nixpatch: Call) -> None:
        assert nixpatch("wrap", "--", "sh", "-c", "exit 5")[0] == 5
        assert nixpatch("wrap", "--", "sh", "-c", "kill -TERM $$")[0] == 143

    def test_a_command_that_is_not_there(self, nixpatch: Call) -> None:
        code, _, err = nixpatch("wrap", "--", "/nowhere/poetry", "install")

        assert (code, err) == (3, "nixpatch: /nowhere/poetry: cannot be started: No such file or directory\n")

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 9), (signal.SIGTERM, 130)])
    def test_ctrl_c_is_for_the_installer(self, shop: Shop, number: signal.Signals, code: int) -> None:
        """It ends as it sees fit; a SIGTERM that only nixpatch gets is passed on."""
        ready, script = os.path.join(shop.world.root, "ready"), "trap 'sleep 0.5; exit 9' INT; touch $0"
        command = ["sh", "-c", f"{script}; sleep 60 & wait; echo not reached", ready]
        process = subprocess.Popen(
            [sys.executable, "-m", "nixpatch", "wrap", "--", *command],
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        while not os.path.exists(ready):
            assert process.poll() is None
            time.sleep(0.02)
        (os.killpg if number is signal.SIGINT else os.kill)(process.pid, number)

        assert process.wait(30) == code
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # the sleep in the background
        out, _ = process.communicate()
        assert out == b""
