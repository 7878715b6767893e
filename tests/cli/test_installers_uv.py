"""nixpatch uv: the real installer, small wheels made here, no index."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile

import pytest

from support.shop import Call, Shop

pytestmark = pytest.mark.gcc


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

    @pytest.mark.parametrize("mode", ["hardlink", "clone", "copy", "symlink"])
    def test_what_was_installed_is_patched_and_the_cache_stays(
        self, shop: Shop, call: Call, mode: str
    ) -> None:
        wheel = shop.wheel("one")
        install = ["pip", "install", "--no-index", "--link-mode", mode]
        python = os.path.join(shop.world.venv, "bin", "python")
        other = shop.world.copy("other").venv
        subprocess.run(["uv", *install, "-q", "--python", f"{other}/bin/python", wheel], check=True)
        # What uv knows of the interpreter is in the cache, too.
        subprocess.run(["uv", "pip", "list", "-q", "--python", python], check=True)
        before = _digests(os.environ["UV_CACHE_DIR"])

        code, _, err = call("uv", *install, "--python", python, wheel)

        assert before == _digests(os.environ["UV_CACHE_DIR"])
        assert code == 0, err
        assert "Patched 1 of 1 ELF files" in err
        assert shop.ask("one") == "42"

    def test_links_into_the_cache_are_replaced_by_patched_copies_and_come_back(
        self, shop: Shop, call: Call
    ) -> None:
        wheel, extension = shop.wheel("one"), shop.extension("one")
        install = ["uv", "pip", "install", "-q", "--no-index", "--link-mode", "symlink", wheel]
        subprocess.run(install, check=True)
        link, before = os.readlink(extension), _digests(os.environ["UV_CACHE_DIR"])
        assert call("tree", shop.world.site)[0] == 1

        assert call(shop.world.venv)[0] == 0

        assert shop.ask("one") == "42"
        assert not os.path.islink(extension)
        assert stat.S_IMODE(os.lstat(extension).st_mode) == stat.S_IMODE(os.stat(link).st_mode)
        assert call("verify", shop.world.venv)[0] == 0
        assert call("patch", "--check", shop.world.venv)[0] == 0
        assert call("restore", shop.world.venv)[0] == 0
        assert os.readlink(extension) == link
        # A second patch, with other options, still knows the link.
        assert call(extension)[0] == 0
        assert call(shop.world.venv, "--append-rpath", "/nowhere")[0] == 0
        assert not os.path.islink(extension)
        assert call("restore", extension)[0] == 0
        assert os.readlink(extension) == link
        assert before == _digests(os.environ["UV_CACHE_DIR"])

    def test_without_the_cache_a_file_comes_back_instead_of_the_link(self, shop: Shop, call: Call) -> None:
        wheel, extension = shop.wheel("one"), shop.extension("one")
        install = ["uv", "pip", "install", "-q", "--no-index", "--link-mode", "symlink", wheel]
        subprocess.run(install, check=True)
        assert call(shop.world.venv)[0] == 0
        shutil.rmtree(os.environ["UV_CACHE_DIR"])

        assert call("restore", shop.world.venv)[0] == 0

        assert not os.path.islink(extension)
        with zipfile.ZipFile(wheel) as archive, open(extension, "rb") as file:
            assert file.read() == archive.read("one/native/_ext.so")

    def test_links_into_a_cache_that_was_cleaned_are_counted_by_dist(self, shop: Shop, call: Call) -> None:
        for name in ("one", "two"):
            install = ["uv", "pip", "install", "-q", "--no-index", "--link-mode", "symlink", shop.wheel(name)]
            subprocess.run(install, check=True)
        assert call(shop.world.venv)[0] == 0  # remembered: the next run has to look nevertheless
        assert call(shop.world.venv)[0] == 0
        subprocess.run(["uv", "cache", "clean", "-q"], check=True)

        for words in ((), ("plan",)):
            code, out, _ = call(*words, shop.world.venv)
            assert code == 1
            (line,) = [line for line in out.splitlines() if "links to what is gone" in line]
            assert re.search(r"^\d+ files .*: one \d+, two \d+: .* uv pip install --reinstall one two$", line)
        code, out, _ = call("plan", os.path.dirname(shop.extension("one")))
        assert (code, "two" in out) == (0, False)  # the extension is a patched copy
        code, out, _ = call("verify", shop.world.venv)
        assert code == 1
        assert "RECORD lists it, but it is a link to what is gone: install the dist again" in out

        again = ["uv", "pip", "install", "-q", "--no-index", "--find-links", shop.wheels, "--reinstall"]
        subprocess.run([*again, "one", "two"], check=True)
        assert call(shop.world.venv)[0] == 0
        assert call("verify", shop.world.venv)[0] == 0

    def test_the_same_version_again_is_patched_though_it_was_not_before(self, shop: Shop, call: Call) -> None:
        """Hard links have the inode of the cache, and RECORD the same bytes: the stamp of RECORD tells."""
        wheel = shop.wheel("one")
        subprocess.run(["uv", "pip", "install", "-q", "--no-index", wheel], check=True)
        assert shop.search_path("one") is None

        assert call("uv", "pip", "install", "--no-index", "--reinstall", wheel)[0] == 0

        assert shop.ask("one") == "42"

    def test_uninstalling_leaves_nothing_behind(self, shop: Shop, call: Call) -> None:
        assert call("uv", "pip", "install", "--no-index", shop.wheel("one"))[0] == 0

        assert call("uv", "pip", "uninstall", "one")[0] == 0

        assert shop.traces() == []

    def test_a_failed_uv_keeps_its_exit_code(self, call: Call) -> None:
        code, _, err = call("uv", "pip", "install", "--no-index", "nobody-made-this")

        assert code == 1
        assert "Patched" not in err
        assert call("uv", "no-such-command")[0] == 2

    def test_the_venv_of_a_project(self, shop: Shop, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
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

        code, out, err = call("uv", "run", "--python", sys.executable, "python", "-c", ask.format("one"))
        assert (code, out) == (0, "answer 42\n"), err
        assert err.count("Patched 1 of 1") == 1

        code, _, err = call("uv", "add", "two")
        assert code == 0, err
        code, out, err = call("uv", "run", "--", "python", "-c", ask.format("two"))
        assert (code, out) == (0, "answer 42\n"), err
        assert "Patched" not in err

        shutil.rmtree(os.path.join(project, ".venv"))
        code, _, err = call("uv", "sync", "--python", sys.executable)
        assert code == 0, err
        assert "Patched 2 of 2" in err

        assert call("uv", "run", "python", "-c", "raise SystemExit(7)")[0] == 7
