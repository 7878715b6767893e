"""What it costs to know a store: the provider index over thousands of paths, cold and cached.

usage: python benchmarks/store_index.py [--paths N] [--libraries N] [--ask N]

Makes a store in a scratch directory whose libraries are hard links to one small real library, so that every
name has to be listed and every header that is asked for has to be read, and every path is sealed as Nix does
it. Opens the index without a cache, with an empty one, with one that knows the store, and once more after
a path came in. CPU seconds count where others are at work on the machine. Without the collector of cycles, as
the command runs.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import subprocess
import sys
import tempfile
import time

from nixpatch import elf
from nixpatch.installed.scan import scan
from nixpatch.installed.target_python import find_target
from nixpatch.store.cache import Cache
from nixpatch.store.index import open_index
from nixpatch.store.nix_store import find_store

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
        for path in (lib, os.path.dirname(lib)):
            os.chmod(path, 0o555)
            os.utime(path, (1, 1))
    return store


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--paths", type=int, default=50_000)
    parser.add_argument("--libraries", type=int, default=8, help="in each path")
    parser.add_argument("--ask", type=int, default=1000, help="names asked for")
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="nixpatch-store-")
    gc.disable()
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
        runs = ("without cache", None), ("cold", cache), ("warm", cache), ("warm", cache), ("one came", cache)
        for run, file in runs:
            if run == "one came":
                os.makedirs(os.path.join(store.directory, f"{'1' * 32}-new-1", "lib"))
            wall, cpu = time.monotonic(), time.process_time()
            with open_index(store, target, elf.read, cache=Cache(file)) as index:
                opened = time.process_time() - cpu
                found = sum(len(index.providers(f"lib{number}.so.1")) for number in range(options.ask))
            wall, cpu = time.monotonic() - wall, time.process_time() - cpu
            print(
                f"{run:14}  open {opened:.2f}  ask {cpu - opened:.2f}  total {cpu:.2f} s of CPU, "
                f"{wall:.2f} s, {found} found"
            )
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
