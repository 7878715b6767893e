"""What a ``_manylinux`` module answers: held against Python running it and packaging asking it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nixpatch.installed.manylinux_module import Mode, source
from nixpatch.installed.manylinux_parser import answers

ARCH = "x86_64"
VERSIONS = [(2, 5), (2, 12), (2, 17), (2, 18), (2, 28), (2, 34), (2, 36)]

SIMPLE = {
    "empty": "",
    "old nixpkgs": "manylinux1_compatible=False\n",
    "attributes": "manylinux1_compatible = False\nmanylinux2014_compatible: bool = 1\n",
    "chained": "manylinux2010_compatible = manylinux2014_compatible = False\n",
    "constant": "def manylinux_compatible(*, a): pass\ndef manylinux_compatible(x, y, z, /): return False",
    "nothing": "manylinux1_compatible = False\ndef manylinux_compatible(a, b, c): pass",
    "ceiling": "T = 2, 17\ndef manylinux_compatible(a, b, c): return (a, b) <= T and c in ('x86_64', 'arm')",
    "branches": (
        "from __future__ import annotations\n"
        "def helper(): return 1/0\n"
        "def manylinux_compatible(tag_major, tag_minor, tag_arch):\n"
        "    if tag_arch != 'x86_64' or not tag_major == 2:\n"
        "        return False\n"
        "    elif 12 < tag_minor < 30:\n"
        "        return None\n"
        "    return True if tag_minor == 5 else False\n"
    ),
}
COMPUTED = {
    "import": "import platform\nmanylinux1_compatible = False",
    "condition": "import sys\nif sys.version_info > (3,): manylinux1_compatible = False",
    "call": "manylinux1_compatible = bool(0)",
    "function calls": "def manylinux_compatible(a, b, c):\n    return check(a)",
    "decorated": "@cache\ndef manylinux_compatible(a, b, c): return True",
    "keyword only": "def manylinux_compatible(a, b, *, c): return True",
    "no function": "manylinux_compatible = None",
    "unordered": "def manylinux_compatible(a, b, c): return a < c",
    "no Python": "manylinux1_compatible = ",
    "zero byte": "a = 1\0",
    "deep": "a = " + "(" * 5000 + "1" + ")" * 5000,
    "deep chain": "a = " + "not " * 50_000 + "1",
    "loop": "def manylinux_compatible(a, b, c):\n    while True: pass",
}


# Asks what is installed here, in a Python of its own: packaging looks for the module once in a process.
PROBE = """
from packaging import _manylinux as tags
tags._get_glibc_version = lambda: (2, 40)
for version in {versions}:
    print(int(tags._is_compatible({arch!r}, tags._GLibCVersion(*version))))
"""


def _really(text: str, directory: str) -> list[bool]:
    """What packaging answers for each version when it imports the module."""
    with open(os.path.join(directory, "_manylinux.py"), "w", encoding="utf-8") as file:
        file.write(text)
    command = [sys.executable, "-c", PROBE.format(versions=VERSIONS, arch=ARCH)]
    environment = {**os.environ, "PYTHONPATH": directory}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return [line == "1" for line in done.stdout.split()]


@pytest.mark.parametrize("name", SIMPLE)
def test_simple_ones_are_read_as_packaging_reads_them(name: str, tmp_path: os.PathLike[str]) -> None:
    said = answers(SIMPLE[name].encode())

    assert said.computed == ""
    assert [said.allows(version, ARCH) for version in VERSIONS] == _really(SIMPLE[name], str(tmp_path))


@pytest.mark.parametrize("name", COMPUTED)
def test_what_computes_something_is_not_told(name: str) -> None:
    said = answers(COMPUTED[name].encode())

    assert said.computed
    assert said.allows((2, 17), ARCH) is None


def test_a_branch_that_computes_is_not_told_for_the_tags_it_is_for() -> None:
    said = answers(b"def manylinux_compatible(a, b, c):\n    return True if b < 20 else check()")

    assert (said.allows((2, 17), ARCH), said.allows((2, 28), ARCH)) == (True, None)


@pytest.mark.parametrize(
    ("mode", "limit", "expected"),
    [
        (Mode.ALLOW, None, VERSIONS),
        (Mode.DENY, None, []),
        (Mode.HONEST, (2, 17), VERSIONS[:3]),
        (Mode.HONEST, (2, 5), VERSIONS[:1]),
        (Mode.HONEST, None, []),
    ],
)
def test_what_we_write_answers_old_and_new_installers(
    mode: Mode,
    limit: tuple[int, int] | None,
    expected: list[tuple[int, int]],
    tmp_path: os.PathLike[str],
) -> None:
    text = source(mode, ARCH, limit).decode()
    said = answers(text.encode())

    answer = [version in expected for version in VERSIONS]
    assert [said.allows(version, ARCH) for version in VERSIONS] == answer
    assert _really(text, str(tmp_path)) == answer
    old: dict[str, object] = {}
    exec(text, old)
    for version, attribute in zip(VERSIONS, ("manylinux1", "manylinux2010", "manylinux2014"), strict=False):
        assert old[f"{attribute}_compatible"] is (version in expected)


def test_an_honest_one_answers_for_its_own_machine() -> None:
    said = answers(source(Mode.HONEST, "aarch64", (2, 36)))

    assert (said.allows((2, 28), "aarch64"), said.allows((2, 28), "x86_64")) == (True, False)
