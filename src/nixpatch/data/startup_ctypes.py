# mypy: ignore-errors
# ruff: noqa: B905, BLE001, F821, PLW2901, S110, S307, SIM105, SLF001
"""Run when the target Python (3.8 and later) imports ``ctypes`` or ``ctypes.util``, by ``startup.py``.

What is loaded already, or is in LD_LIBRARY_PATH, comes first: the tables count where ld.so finds nothing. A
path of a table that is not there is as if the table did not have it.
"""

import os
import sys


def tables():
    """Return what all dists of this process know: libraries to open and answers of ``find_library``."""
    libraries, answers = {}, {}
    for other in [finder, *sys.meta_path]:
        if getattr(other, "nixpatch", None) == 1:
            for table, rows in zip((libraries, answers), eval(other.tables)):
                for name, path in rows.items():
                    if "/" in path and path[0] != "/":
                        path = os.path.join(other.site, path) if other.site else ""
                    if "/" not in path or os.path.exists(path):
                        table.setdefault(name, path)
    return libraries, answers


def add_libraries(module):
    """Make ``ctypes.CDLL`` and all that is built on it open a library of the table where its name fails."""
    dlopen = module._dlopen

    def _dlopen(name, *mode):
        try:
            return dlopen(name, *mode)
        except OSError:
            try:
                return dlopen(libraries[os.fsdecode(name)], *mode)
            except (KeyError, OSError, TypeError, ValueError):
                pass
            raise

    module._dlopen = _dlopen


def add_answers(module):
    """Make ``ctypes.util.find_library`` answer from the table, whatever linkers the machine has."""
    search = module.find_library

    def find_library(name, *rest, **options):
        try:
            return answers[name]
        except (KeyError, TypeError):
            return search(name, *rest, **options)

    find_library.__doc__, find_library.__module__ = search.__doc__, search.__module__
    find_library.__wrapped__ = search
    module.find_library = find_library


def find_spec(name, path, target):
    """Ask the finders that are not of this kind, and let the loader add to the module afterwards."""
    for other in list(sys.meta_path):
        if hasattr(other, "nixpatch") or not hasattr(other, "find_spec"):
            continue
        spec = other.find_spec(name, path, target)
        if spec is not None:
            break
    else:
        return None
    try:
        loader = spec.loader
        execute = loader.exec_module

        def exec_module(module):
            del loader.exec_module
            execute(module)
            add(module)

        loader.exec_module = exec_module
    except AttributeError:
        pass  # a loader of another kind: the module stays as it is
    return spec


def add(module):
    """Add to one module; never in the way of its import."""
    try:
        ADDITIONS[module.__name__](module)
    except Exception:
        pass


def catch_up():
    """Add to the modules that were imported before."""
    for name in ADDITIONS:
        if name in sys.modules:
            add(sys.modules[name])


ADDITIONS = {"ctypes": add_libraries, "ctypes.util": add_answers}
try:
    libraries, answers = tables()
except Exception:
    libraries, answers = {}, {}
