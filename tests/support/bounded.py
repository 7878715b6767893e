"""Running a piece of code in a process of its own that may take so much memory and no more."""

import os
import subprocess
import sys
import textwrap

import nixpatch

MEMORY = 200 << 20
"""bytes by which the process may grow"""
SECONDS = 60
"""a generous cap: what is quadratic would take hours"""

_PREAMBLE = """
import resource, sys
from nixpatch.elf import *
from nixpatch.elf.check_inplace import check
from nixpatch.elf.inplace_writer import write_edited, write_original
from nixpatch.elf.writer import write_checked
from nixpatch.elf.lief.writer import write_lief
from nixpatch.installed import dists, provenance, python_layout, record, record_paths
from nixpatch.installed.scan import scan
from nixpatch.errors import FileRefused, RequestError
from nixpatch.model import ElfEdit, ElfFacts, Skip
from nixpatch import policy
from nixpatch.resolve import dist_graph, search_path
from nixpatch.store import catalog, lockfile
from nixpatch.store.cache import Cache, RowKind
import hashlib, json, os, sqlite3, tempfile
path = sys.argv[1]
with open("/proc/self/statm") as file:
    size = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(sys.argv[2]),) * 2)
resource.setrlimit(resource.RLIMIT_CPU, (int(sys.argv[3]),) * 2)
"""


def run(code: str, path: str = "", *, memory: int = MEMORY, seconds: int = SECONDS) -> str:
    """Run code with ``path``, within limits, and return what it prints.

    The limits hold from the moment on when all modules are there. Anything raised fails the test.
    """
    source = os.path.dirname(os.path.dirname(os.path.abspath(nixpatch.__file__)))
    done = subprocess.run(
        [sys.executable, "-c", _PREAMBLE + textwrap.dedent(code), path, str(memory), str(seconds)],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        env={**os.environ, "PYTHONPATH": source},
        timeout=4 * SECONDS,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()
