"""nixpatch pip and wrap: the real installer, small wheels made here, no index."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import pytest

from nixpatch import elf
from nixpatch.model import ElfFacts
from support.shop import Call, Shop
from support.world import shared

pytestmark = pytest.mark.gcc


@pytest.fixture
def pip(shop: Shop, call: Call) -> Call:
    """Run nixpatch pip install with the wheels of the shop."""
    return lambda *words: call("pip", "install", "--no-index", "--find-links", shop.wheels, *words)


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
        assert "2 ELF files that were installed before need patching, too" in err

    def test_a_command_that_installs_nothing_patches_nothing(self, shop: Shop, call: Call) -> None:
        wheel = shop.wheel("one")
        before = shop.world.snapshot()

        for words in (
            ["list"],
            ["install", "--dry-run", wheel],
            ["download", "--no-index", "--dest", os.path.join(shop.world.root, "down"), wheel],
            ["--version"],
            ["--isolated", "install", "--dry-run", "--no-index", wheel],
        ):
            code, _, err = call("pip", *words)
            assert code == 0, (words, err)
            assert "Patched" not in err, words

        changed = {name for name, data in shop.world.snapshot().items() if before.get(name) != data}
        assert all("__pycache__" in name for name in changed)

    def test_a_failed_pip_keeps_its_exit_code(self, shop: Shop, pip: Call, call: Call) -> None:
        shop.wheel("one")

        code, _, err = pip("one", "nobody-made-this")
        assert code == 1
        assert "No matching distribution" in err
        assert "Patched" not in err
        assert shop.traces() == []

        assert (
            call("pip", "no-such-command")[0]
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
        monkeypatch.setattr("nixpatch.elf.writer.check_views", lambda *_: ("PT_LOADs overlap",))

        code, _, err = pip("one")

        assert code == 1
        assert "failed its checks and was thrown away" in err
        assert "some files that pip installed" in err
        with zipfile.ZipFile(wheel) as archive, open(shop.extension("one"), "rb") as file:
            assert file.read() == archive.read("one/native/_ext.so")
        assert not [name for name in shop.traces() if "nixpatch" in name]

    def test_a_missing_library_is_explained(self, shop: Shop, pip: Call) -> None:
        shop.wheel("one")
        shutil.rmtree(os.path.dirname(shop.world.library))

        code, _, err = pip("one")

        assert code == 1
        assert "libanswer.so.1, needed by " in err
        assert "some files that pip installed" in err

    def test_uninstalling_leaves_nothing_behind(self, shop: Shop, pip: Call, call: Call) -> None:
        shop.wheel("one")
        assert pip("one")[0] == 0
        assert [name for name in shop.traces() if name.endswith("nixpatch.json")]

        code, _, err = call("pip", "uninstall", "--yes", "one")

        assert (code, err) == (0, "")
        assert shop.traces() == []

    def test_an_upgrade_is_patched_and_leaves_nothing_of_the_old_one(self, shop: Shop, pip: Call) -> None:
        shop.wheel("one")
        assert pip("one")[0] == 0
        shop.wheel("one", "2.0")

        assert pip("--upgrade", "one")[0] == 0

        assert shop.ask("one") == "42"
        assert not [name for name in shop.traces() if "1.0" in name]

    def test_the_same_version_again_is_patched_again(self, shop: Shop, pip: Call, call: Call) -> None:
        wheel = shop.wheel("one")
        assert call(shop.world.venv)[0] == 0  # verify is about all dists
        assert pip("one")[0] == 0

        assert pip("--force-reinstall", "--no-deps", wheel)[0] == 0

        assert shop.ask("one") == "42"
        assert call("verify", shop.world.venv)[0] == 0

    def test_what_is_in_no_venv_is_refused_before_anything_runs(
        self, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("VIRTUAL_ENV")
        code, _, err = call("pip", "install", "one")
        assert (code, "no venv: activate one" in err) == (2, True)

        code, _, err = call("pip", "--python", "/usr/bin/env", "install", "one")
        assert (code, "not in a venv" in err) == (2, True)

    def test_a_venv_without_pip(self, shop: Shop, call: Call) -> None:
        shutil.rmtree(os.path.join(shop.world.site, "pip"))
        code, _, err = call("pip", "install", "one")
        assert (code, err.count("nixpatch: ")) == (1, 1)
        assert "this venv has no pip, as uv makes them: use nixpatch uv pip" in err

    def test_the_venv_is_found(self, shop: Shop, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("VIRTUAL_ENV")
        wheel = shop.wheel("one")
        install = ["install", "--no-index", "--force-reinstall", wheel]

        assert call("pip", "--python", shop.world.venv, *install)[0] == 0
        assert shop.ask("one") == "42"
        assert call("pip", "--python", os.path.join(shop.world.venv, "bin", "python"), *install)[0] == 0
        assert shop.ask("one") == "42"
        os.symlink(shop.world.venv, os.path.join(shop.world.root, ".venv"))
        assert call("pip", *install)[0] == 0
        assert shop.ask("one") == "42"

    def test_a_target_directory_is_patched(self, shop: Shop, pip: Call) -> None:
        shop.wheel("one")
        target = os.path.join(shop.world.root, "target")

        code, _, err = pip("--target", target, "one")

        assert code == 0, err
        facts = elf.read(os.path.join(target, "one", "native", "_ext.so"))
        assert isinstance(facts, ElfFacts)
        assert facts.current.search_path == shop.world.library

    def test_options_of_nixpatch_come_before_the_command(self, shop: Shop, call: Call) -> None:
        other = os.path.join(shop.world.root, "other")
        shared("library.c", os.path.join(other, "libanswer.so.1"), "-Wl,-soname,libanswer.so.1", "-DANSWER=7")

        code, out, _ = call("pip", "--lib", other, "-q", "install", "--no-index", shop.wheel("one"))

        assert (code, "Successfully installed" in out) == (0, True)
        assert shop.ask("one") == "7"

    def test_a_wrong_option_is_found_before_pip_runs(self, shop: Shop, call: Call) -> None:
        code, out, _ = call("pip", "--store", "/nowhere", "install", "--no-index", shop.wheel("one"))

        assert (code, out) == (2, "")
        assert shop.traces() == []


class TestWrap:
    """nixpatch wrap."""

    def test_any_installer(self, shop: Shop, call: Call) -> None:
        """What no RECORD lists is patched too, if it is new."""
        copy = os.path.join(shop.world.site, "loose.so")
        shop.wheel("one")

        code, _, err = call("wrap", "--", "cp", os.path.join(shop.world.root, "ext.so"), copy)

        assert code == 0, err
        assert "Patched 1 of 1" in err
        facts = elf.read(copy)
        assert isinstance(facts, ElfFacts)
        assert facts.current.search_path == shop.world.library

    def test_a_record_that_is_written_anew_in_its_place(self, shop: Shop, call: Call) -> None:
        """The same inode, the same bytes: the dist was installed again."""
        script = 'cat "$0" > copy; cat copy > "$0"'

        code, _, err = call("wrap", "--", "sh", "-c", script, shop.world.record)

        assert code == 0, err
        assert "Patched 2 of 2" in err
        assert shop.world.ask() == "42"

    def test_a_tree_that_was_not_there(self, shop: Shop, call: Call) -> None:
        tree = os.path.join(shop.world.root, "made")
        command = [sys.executable, "-m", "zipfile", "-e", shop.wheel("one"), tree]

        code, _, err = call("wrap", "--tree", tree, "--python", sys.executable, "--", *command)

        assert code == 0, err
        assert "Patched 1 of 1" in err

    def test_what_changed_nothing_says_where_was_looked(
        self, shop: Shop, call: Call, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Pending files are named with the command; otherwise the places, and how to name another."""
        monkeypatch.setattr("nixpatch.cli.installer_table._CLOCK_ERROR_NS", 0)  # the venv is a moment old
        code, _, err = call("wrap", "--", "true")
        assert (code, len(err.splitlines())) == (1, 1)
        assert f"2 ELF files need patching: run nixpatch {shop.world.venv}" in err

        assert call(shop.world.venv)[0] == 0
        code, _, err = call("wrap", "--", "true")
        assert (code, len(err.splitlines())) == (1, 1)
        assert "nothing that true changed was seen in" in err
        assert shop.world.venv in err
        assert "--tree PATH" in err

    def test_an_installer_that_had_nothing_to_do_says_what_is_not_patched(
        self, shop: Shop, call: Call
    ) -> None:
        wheel = shop.wheel("one")
        python = os.path.join(shop.world.venv, "bin", "python")
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-index", wheel], check=True)

        code, _, err = call("pip", "install", "--no-index", wheel)
        assert (code, f"run nixpatch {shop.world.venv}" in err) == (1, True)
        assert call(shop.world.venv)[0] == 0
        assert call("pip", "install", "--no-index", wheel)[0] == 0

    def test_the_exit_code_is_that_of_the_command(self, call: Call) -> None:
        assert call("wrap", "--", "sh", "-c", "exit 5")[0] == 5
        assert call("wrap", "--", "sh", "-c", "kill -TERM $$")[0] == 143

    def test_a_command_that_is_not_there(self, call: Call) -> None:
        code, _, err = call("wrap", "--", "/nowhere/poetry", "install")

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
