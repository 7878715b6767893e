# mypy: ignore-errors
# ruff: noqa: F821, S102
"""Run by ``site`` of the target Python (3.8 and later) at every start: short, silent, imports nothing new.

SITE, TABLES, CODE and SWITCHES come with it. What costs time waits until the program imports ``ctypes``: that
is CODE, ``startup_ctypes.py``.
"""

import os
import sys


class Finder:
    """Meta path finder (PEP 451) that finds nothing by itself: it lets ``ctypes`` know more libraries."""

    nixpatch = 1  # the version of what the finders of several dists expect of each other
    site, tables, code = SITE, TABLES, CODE

    def find_spec(self, name, path=None, target=None):
        """Return the spec that other finders have for ``ctypes``, with a loader that adds to the module."""
        if name in ("ctypes", "ctypes.util"):
            return self.run()["find_spec"](name, path, target)
        return None

    def run(self):
        """Run the part that waited."""
        scope = {"finder": self}
        exec(self.code, scope)
        return scope


for variable, value in SWITCHES:
    if os.path.exists(value):
        os.environ.setdefault(variable, value)
if Finder.tables:
    sys.meta_path.insert(0, Finder())
    if "ctypes" in sys.modules:  # because of a start-up file before this one
        sys.meta_path[0].run()["catch_up"]()
