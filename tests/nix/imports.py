"""Import every module of many wheels: in a plain Debian venv, and in a NixOS-like root after nixpatch.

usage: python tests/nix/imports.py [--keep DIR] [WHEEL...]

Installs the wheels (by default those of benchmarks/corpus.txt) twice, with Debian's Python and with the
store's, runs nixpatch once over the second venv, without options, and imports every top-level package and
every extension module in a process of its own. What imports on Debian has to import in the sandbox. Prints
the numbers and every difference; exit status 1 if there is one that is not for a library that nixpatch
reported as missing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from uv import find_uv_bin  # noqa: E402

from support.testbed import store as testbed  # noqa: E402
from support.testbed.sandbox import Sandbox  # noqa: E402
from support.testbed.venv import StoreVenv, create  # noqa: E402

REPOSITORY = os.path.dirname(os.path.dirname(HERE))
CORPUS = os.path.join(REPOSITORY, "benchmarks", "corpus.txt")

# Run by each Python: fork, import, tell. Standard library only.
PROBE = r"""
import importlib, json, os, signal, sys
def told(name):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        signal.alarm(60)
        try:
            importlib.import_module(name)
            said = ""
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"[:300]
        os.write(writing, said.encode("utf-8", "replace"))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode("utf-8", "replace")
    status = os.waitpid(child, 0)[1]
    return said if os.WIFEXITED(status) else f"died of signal {status & 0x7f}"
print(json.dumps({name: told(name) for name in json.load(sys.stdin)}))
"""


def modules(site: str) -> list[str]:
    """Return the top-level packages and the extension modules of a site-packages."""
    found: set[str] = set()
    for directory, names, files in os.walk(site):
        names[:] = [name for name in names if name.isidentifier() and not name.startswith("test")]
        package = os.path.relpath(directory, site).replace(os.sep, ".")
        if "." not in package and package != "." and "__init__.py" in files:
            found.add(package)
        for file in files:
            stem, _, rest = file.partition(".")
            if rest in {"so", "abi3.so", "cpython-311-x86_64-linux-gnu.so"} and stem.isidentifier():
                found.add(stem if package == "." else f"{package}.{stem}")
    return sorted(found)


def install(python: str, wheels: list[str]) -> None:
    """Install the wheels and what they require."""
    command = [find_uv_bin(), "pip", "install", "--quiet", "--link-mode", "copy"]
    subprocess.run([*command, "--only-binary", ":all:", "--python", python, *wheels], check=True)


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheels", nargs="*")
    parser.add_argument("--keep", metavar="DIR", help="work here and leave it")
    options = parser.parse_args()
    with open(CORPUS, encoding="utf-8") as file:
        corpus = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    directory = os.path.realpath(options.keep or tempfile.mkdtemp(prefix="nixpatch-imports-"))
    os.makedirs(directory, exist_ok=True)
    try:
        return compare(directory, options.wheels or corpus)
    finally:
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)


def compare(directory: str, wheels: list[str]) -> int:
    """Install, patch, import on both sides, and tell."""
    store = testbed.build()
    plain = os.path.join(directory, "debian")
    if not os.path.isdir(plain):
        subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", plain], check=True)
        install(os.path.join(plain, "bin", "python"), wheels)
    venv = StoreVenv(os.path.join(directory, "store"), store)
    if not os.path.isdir(venv.path):
        create(store, venv.path)
        install(venv.python, wheels)
    done = subprocess.run(
        [sys.executable, "-m", "nixpatch", "--json", venv.path], capture_output=True, text=True, check=False
    )
    (tree,) = json.loads(done.stdout)["trees"]
    files = tree["files"]
    missing = sorted(
        {need["soname"] for file in files for need in file["needs"] if need["origin"] == "missing"}
    )
    names = modules(venv.site_packages)
    asked = json.dumps(names)
    probe = [os.path.join(plain, "bin", "python"), "-c", PROBE]
    offscreen = {"HOME": "/tmp", "QT_QPA_PLATFORM": "offscreen"}
    here = subprocess.run(probe, input=asked, capture_output=True, text=True, check=True, env=offscreen)
    environment = {"QT_QPA_PLATFORM": "offscreen", "LC_ALL": "C.UTF-8"}
    inside = Sandbox(store).run(
        [venv.python, "-c", PROBE], stdin=asked, read_only=[venv.path], env=environment, timeout=3600
    )
    on_debian, on_nixos = json.loads(here.stdout), json.loads(inside.stdout)
    works = [name for name in names if not on_debian[name]]
    lost = {name: on_nixos[name] for name in works if on_nixos[name]}
    gained = [name for name in names if on_debian[name] and not on_nixos[name]]
    excused = {name: why for name, why in lost.items() if any(soname in why for soname in missing)}
    summary = tree["summary"]
    kept = len(works) - len(lost)
    print(f"{len(wheels)} wheels, {summary['files']} ELF files, {summary['changed']} patched")
    print(f"not in the store: {', '.join(missing) or 'nothing'}")
    print(f"{len(names)} modules: {len(works)} import on Debian, {kept} of these in the sandbox")
    print(f"{len(gained)} import only in the sandbox; {len(excused)} lack a library reported as missing")
    for name, why in sorted(lost.items()):
        print(f"  {'(missing) ' if name in excused else ''}{name}: {why}")
    return int(len(lost) > len(excused))


if __name__ == "__main__":
    sys.exit(main())
