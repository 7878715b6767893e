"""``nixpatch tree`` against the real loader, on the programs of this machine: cache and directories."""

import os
import re
import subprocess
import sys

import pytest

from loader.graphs import loader, read
from nixpatch.installed.loader_defaults import read_loader_defaults
from nixpatch.operations.trace import TraceOptions, trace_file

_LINE = re.compile(r"^\s*(?P<name>\S+) => (?P<path>not found|/.*?)(?: \(0x[0-9a-f]+\))?$", re.MULTILINE)
_BIN = "/usr/bin"


def programs() -> list[str]:
    """Every eighth program of the machine that its usual loader starts, and Python."""
    found = []
    for name in sorted(os.listdir(_BIN)):
        path = f"{_BIN}/{name}"
        if os.path.islink(path):  # started by the kernel its $ORIGIN is where it leads, by ld.so it is not
            continue
        facts = read(path) if os.path.isfile(path) and os.access(path, os.R_OK) else None
        if facts is not None and facts.current.interp == loader():
            found.append(path)
    return [*found[::8], os.path.realpath(sys.executable)]


def test_the_directories_are_those_that_the_loader_tells_itself() -> None:
    told = subprocess.run([loader(), "--help"], capture_output=True, text=True, check=True).stdout
    system = re.findall(r"^  (/.*) \(system search path\)$", told, re.MULTILINE)
    if not system:
        pytest.skip("this ld.so does not say where it searches (glibc before 2.33)")
    assert list(read_loader_defaults(loader()).directories) == system


def test_every_library_is_found_where_the_loader_finds_it() -> None:
    compared = 0
    for path in programs():
        # What ldd does; with the cache, and without LD_LIBRARY_PATH.
        done = subprocess.run(
            [loader(), path],
            capture_output=True,
            text=True,
            check=False,
            env={"LD_TRACE_LOADED_OBJECTS": "1"},
        )
        real = {
            match["name"]: None if match["path"] == "not found" else os.path.realpath(match["path"])
            for match in _LINE.finditer(done.stdout)
        }
        trace = trace_file(path, TraceOptions())
        ours = {link.need: os.path.realpath(link.path) if link.path else None for link in trace.links}
        for name, where in real.items():
            if "glibc-hwcaps" not in (where or ""):
                assert ours[name] == where, path
                compared += 1
    assert compared > 20
