"""nixpatch env in a NixOS-like root: ctypes finds a library of the real store, and nothing beside it."""

from __future__ import annotations

import os
import subprocess
import sys

from support.testbed.sandbox import Sandbox
from support.testbed.store import NixStore, nix_environment
from support.testbed.venv import create

OPEN = "import ctypes\nprint(ctypes.CDLL('libgomp.so.1').omp_get_max_threads() > 0)\n"


def test_ctypes_finds_what_the_code_names(
    nix_store: NixStore, sandbox: Sandbox, tmp_path: os.PathLike[str]
) -> None:
    venv = create(nix_store, os.path.join(os.path.realpath(tmp_path), "venv"))
    with open(os.path.join(venv.site_packages, "opens.py"), "w", encoding="utf-8") as file:
        file.write(OPEN)
    look = [venv.python, "-c", "import opens"]
    before = sandbox.run(look, read_only=[venv.path])
    assert "libgomp.so.1: cannot open shared object file" in before.stderr

    command = [sys.executable, "-m", "nixpatch", "env", "--print", venv.path]
    told = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)

    assert told.returncode == 0, told.stderr
    value = told.stdout.strip()
    after = sandbox.run(look, read_only=[venv.path], env={"LD_LIBRARY_PATH": value})
    assert (after.stdout, after.stderr) == ("True\n", "")
    # libstdc++ lies beside it in the store, and must not come along.
    assert os.listdir(value) == ["libgomp.so.1"]
    roots = os.path.join(venv.path, ".nixpatch-roots")
    assert [os.readlink(os.path.join(roots, name)) for name in os.listdir(roots)] == [nix_store["gccLib"]]
