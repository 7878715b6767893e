"""The transcripts of README and docs are what the commands print, with wheels from PyPI in a NixOS-like root.

``NIXPATCH_WRITE_README=1 python -m pytest tests/nix/test_readme.py`` writes them anew.
"""

from __future__ import annotations

import glob
import os
import re

import pytest

from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore
from support.testbed.venv import StoreVenvFactory, create

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
PAGES = [os.path.join(ROOT, "README.md"), *sorted(glob.glob(os.path.join(ROOT, "docs", "*.md")))]

# In order, in one project: what a block shows is what the commands of those before it made of the venv.
_EXTENSION = ".venv/lib/python3.11/site-packages/numpy/fft/_pocketfft_umath.*.so"
SESSION = {
    "story-before": ("python -c 'import numpy' 2>&1 | grep -m 1 'cannot open'", "ruff --version"),
    "tree-before": (f"nixpatch tree --why libstdc++.so.6 {_EXTENSION}",),
    "story-after": ("nixpatch .venv", "python -c 'import numpy' && ruff --version"),
    "tree-after": ("nixpatch tree .venv",),
    "json": ("nixpatch verify --json .venv",),
    "help": ("nixpatch --help",),
}

_BLOCK = re.compile(r"(<!-- transcript: ([\w-]+) -->\n```console\n)(.*?)(```\n)", re.DOTALL)
# What differs from machine to machine: the hash of a store path, the time that it took.
_HASH = re.compile(r"/nix/store/([0-9a-z]{8})[0-9a-z]{24}-")
_TRAILING = re.compile(r" +$", re.MULTILINE)
_SECONDS = re.compile(r"\b\d+\.\d s\b")
_SHORT_HASH = re.compile(r"/nix/store/[0-9a-z]{8}\.\.\.-")


@pytest.fixture(scope="module")
def transcripts(
    nix_store: NixStore,
    sandbox: Sandbox,
    store_venv: StoreVenvFactory,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:
    """Run the whole session and return what a terminal would show, by block."""
    project = str(tmp_path_factory.mktemp("readme"))
    wheels = create(nix_store, os.path.join(project, ".venv"))
    wheels.install("numpy", "ruff")
    tool = store_venv()
    tool.install_project(ROOT)
    path = ":".join([wheels.bin, tool.bin, *(f"{nix_store[name]}/bin" for name in ("coreutils", "gnugrep"))])

    bash = f"{nix_store['bash']}/bin/bash"

    def shown(command: str) -> str:
        done = sandbox.run(
            [bash, "-c", f"exec 2>&1; {command}"],
            read_write=[project, tool.path],
            cwd=project,
            env={"PATH": path, "COLUMNS": "100"},
        )
        text = done.stdout.replace(f"{bash}: line 1: ", "bash: ").replace(project, "~/project")
        text = _TRAILING.sub("", _HASH.sub(r"/nix/store/\1...-", text))
        return f"$ {command}\n{text}"

    return {name: "".join(map(shown, commands)) for name, commands in SESSION.items()}


@pytest.mark.xdist_group("readme")
def test_the_pages_show_what_the_commands_print(transcripts: dict[str, str]) -> None:
    texts = {}
    for path in PAGES:
        with open(path, encoding="utf-8") as file:
            texts[path] = file.read()
    blocks = [match.groups() for text in texts.values() for match in _BLOCK.finditer(text)]
    assert {name for _, name, _, _ in blocks} == transcripts.keys()
    if os.environ.get("NIXPATCH_WRITE_README"):
        for path, text in texts.items():
            new = _BLOCK.sub(lambda block: block[1] + transcripts[block[2]] + block[4], text)
            if new != text:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(new)
        return
    for _, name, block, _ in blocks:
        assert _constant(block) == _constant(transcripts[name])


def _constant(text: str) -> str:
    return _SECONDS.sub("0.0 s", _SHORT_HASH.sub("/nix/store/-", text))
