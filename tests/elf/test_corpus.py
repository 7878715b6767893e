"""The corpus script on a few wheels: programs, C++, many libraries with an old patchelf's traces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.programs import need

SCRIPT = os.path.join(os.path.dirname(__file__), "..", "..", "benchmarks", "corpus.py")
WHEELS = (
    "numpy", "pillow", "psycopg2-binary", "lxml", "ninja", "cffi",
    "pyzmq", "cryptography", "greenlet", "orjson", "regex", "rpds-py",
)  # fmt: skip

pytestmark = pytest.mark.pypi


def test_both_writers_on_real_wheels(tmp_path: Path) -> None:
    for tool in ("strip", "patchelf"):
        need(tool)
    told = tmp_path / "told.json"

    done = subprocess.run([sys.executable, SCRIPT, "--json", told, *WHEELS], check=False)

    assert done.returncode == 0
    results = json.loads(told.read_text("utf-8"))
    assert results["inplace"]["written"] == results["inplace"]["files"] >= 50
    assert not any(tool["broken"] for tool in results["inplace"]["tools"].values())
    assert results["inplace"]["restored"] == results["inplace"]["files"]
    assert results["lief"]["by_lief"] >= 0.8 * results["lief"]["files"]
