"""A Python that can lie anywhere and starts nowhere: a stand-in for those that uv downloads, on NixOS.

python-build-standalone makes Pythons that need libc alone and find their standard library from where they
lie. This is the Python of the tests, copied, with an interpreter that no machine has.
"""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
import sysconfig

from nixpatch import elf
from nixpatch.model import ElfFacts
from support.world import HASH, World

_OF_LIBC = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1")
VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


def _facts(path: str) -> ElfFacts:
    facts = elf.read(path)
    assert isinstance(facts, ElfFacts)
    return facts


def _host() -> tuple[str, str]:
    """Return the Python of the tests and its loader, real paths."""
    python = os.path.realpath(sys.executable)
    interp = _facts(python).current.interp
    assert interp is not None
    return python, interp


def put_glibc(world: World) -> str:
    """Put the machine's glibc, and the libffi of ctypes, into the store of the world; return the loader."""
    _, interp = _host()
    home = os.path.dirname(os.path.realpath(interp))
    directory = os.path.join(world.store, f"{HASH[::-1]}-glibc-2.99", "lib")
    os.makedirs(directory)
    for name in (*_OF_LIBC, os.path.basename(interp)):
        shutil.copy2(os.path.join(home, name), os.path.join(directory, name))
    home = os.path.join(world.store, f"{HASH[1:]}0-libffi-3.4", "lib")
    os.makedirs(home)
    for soname, path in _libffi().items():
        shutil.copy2(path, os.path.join(home, soname))
    return os.path.join(directory, os.path.basename(interp))


def _libffi() -> dict[str, str]:
    """Return the libffi that this Python has loaded, by soname."""
    importlib.import_module("ctypes")
    with open("/proc/self/maps", encoding="utf-8") as file:
        paths = {line.split()[-1] for line in file if "/libffi.so" in line}
    return {_facts(path).soname or os.path.basename(path): path for path in paths}


def relocate(prefix: str, *, starts: bool = False) -> str:
    """Make the Python; return its interpreter. One that starts keeps all modules, and gets pip."""
    python, interp = _host()
    library = os.path.join(prefix, "lib")
    stdlib = os.path.join(library, f"python{VERSION}")
    ignored = shutil.ignore_patterns("__pycache__", "test", "tests", "idlelib", "site-packages", "config-*")
    shutil.copytree(sysconfig.get_path("stdlib"), stdlib, ignore=ignored)
    os.makedirs(os.path.join(stdlib, "site-packages"))
    program = os.path.join(prefix, "bin", f"python{VERSION}")
    os.makedirs(os.path.dirname(program))
    search_path = _facts(python).current.search_path
    own = {name for name in _facts(python).needed if name.startswith("libpython")}
    for name in own:
        shutil.copy2(os.path.join(sysconfig.get_config_var("LIBDIR"), name), library)
    with open(python, "rb") as file:
        data = file.read()
    directory = os.path.dirname(interp)
    if not starts:
        data = _replace(data, interp, "/" + "n" * (len(directory) - 1) + interp[len(directory) :])
    if own and search_path:
        data = _replace(data, search_path, "$ORIGIN/../lib".ljust(len(search_path), "\0"))
    with open(program, "wb") as file:
        file.write(data)
    os.chmod(program, 0o755)
    for name in ("python3", "python"):
        os.symlink(os.path.basename(program), os.path.join(prefix, "bin", name))
    if starts:
        command = [program, "-m", "ensurepip"]
        subprocess.run(command, check=True, capture_output=True)
        return program
    dynload = os.path.join(stdlib, "lib-dynload")
    for name in os.listdir(dynload):
        path = os.path.join(dynload, name)
        if not {*_OF_LIBC, os.path.basename(interp), *own, *_libffi()}.issuperset(_facts(path).needed):
            os.unlink(path)
    return program


def _replace(data: bytes, old: str, new: str) -> bytes:
    assert len(old) == len(new)
    assert old.encode() + b"\0" in data
    return data.replace(old.encode() + b"\0", new.encode() + b"\0")
