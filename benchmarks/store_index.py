"""What it costs to know a store: the provider index over thousands of paths, cold and cached.

usage: python benchmarks/store_index.py [--paths N] [--libraries N] [--ask N]

Makes a store in a scratch directory whose libraries are hard links to one small real library, so that every
name has to be listed and every header that is asked for has to be read, and opens the index three times.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

from nixpatch import elf
from nixpatch.environment import find_target, scan
from nixpatch.store import find_store, open_index

_DIGITS = "0123456789abcdfghijklmnpqrsvwxyz"  # Nix's base32


def make_store(directory: str, paths: int, libraries: int) -> str:
    """Fill a store directory and return it."""
    store = os.path.join(directory, "nix", "store")
    os.makedirs(store)
    template = os.path.join(directory, "libx.so")
    command = ["gcc", "-shared", "-nostdlib", "-Wl,-soname,libx.so.1", "-o", template, "-x", "c", "-"]
    subprocess.run(command, input="int x;", text=True, check=True)
    source = template
    for number in range(paths):
        if number % 900 == 0:  # a file system takes some thousand links to one inode at the most
            source = f"{template}.{number}"
            shutil.copy(template, source)
        tail = "".join(_DIGITS[number >> 5 * shift & 31] for shift in range(4))
        lib = os.path.join(store, f"{'0' * 28}{tail}-package{number}-1.{number % 7}", "lib")
        os.makedirs(lib)
        for library in range(libraries):
            os.link(source, os.path.join(lib, f"lib{(number * libraries + library) % (paths * 2)}.so.1"))
    return store


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--paths", type=int, default=5000)
    parser.add_argument("--libraries", type=int, default=8, help="in each path")
    parser.add_argument("--ask", type=int, default=1000, help="names asked for")
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="nixpatch-store-")
    try:
        store = find_store(make_store(directory, options.paths, options.libraries), {})
        venv = os.path.join(directory, "venv")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
        shutil.copy(os.path.join(directory, "libx.so"), venv)
        target = find_target(scan(venv), None, None, elf.read)
        time.sleep(2.5)  # what changed within the last two seconds is not cached, for good reason
        cache = os.path.join(directory, "cache.sqlite")
        print(
            f"{options.paths} store paths, {options.paths * options.libraries} libraries, {options.ask} names"
        )
        for run, file in (
            ("without cache", None),
            ("first run", cache),
            ("second run", cache),
            ("third run", cache),
        ):
            begun = time.monotonic()
            with open_index(store, target, elf.read, cache=file) as index:
                opened = time.monotonic()
                found = sum(len(index.providers(f"lib{number}.so.1")) for number in range(options.ask))
            done = time.monotonic()
            times = f"open {opened - begun:.2f} s  ask {done - opened:.2f} s  total {done - begun:.2f} s"
            print(f"{run:14}  {times}, {found} found")
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
