"""The same files, changed in other ways: what benchmarks/speed.py holds nixpatch against. It runs this file.

usage: python benchmarks/rivals.py {copy,digests,patchelf,auto-patchelf} --tree DIR --workers N < files.json

The files come as a list of [path in the tree, search path, tag, interpreter], as a plan of nixpatch has them.
Each is written beside the old one and renamed over it, since the tree's files are links into another one.

copy           the least that any such tool must do: copy each file, and hash the copy
digests        copy each file and digest the old and the new one, in one reading: who updates RECORD, and may
               do so only where it was right before, needs both
patchelf       patchelf, one process a file, and hash the outcome
auto-patchelf  the shape of nixpkgs' auto-patchelf: pyelftools reads every ELF file of the tree, then patchelf
               sets interpreter and search path, a process for each, one file after the other; nothing hashed
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment

_PIECE = 1 << 18  # bytes


@dataclass(frozen=True)
class Wish:
    """One file to change."""

    path: str
    search_path: str | None
    tag: str | None
    interp: str | None
    patchelf: str

    @property
    def commands(self) -> list[list[str]]:
        """The calls of patchelf that it takes, as auto-patchelf makes them: one for each thing."""
        calls = []
        if self.interp:
            calls.append([self.patchelf, "--set-interpreter", self.interp])
        if self.search_path is not None:
            force = ["--force-rpath"] if self.tag == "RPATH" else []
            calls.append([self.patchelf, *force, "--set-rpath", self.search_path])
        return calls


def copied(wish: Wish) -> None:
    """Copy in the kernel and hash the copy."""
    copy = wish.path + ".copy"
    with open(wish.path, "rb") as old, open(copy, "wb") as new:
        left = os.fstat(old.fileno()).st_size
        while left:
            left -= os.copy_file_range(old.fileno(), new.fileno(), left)
    _hash(copy)
    os.replace(copy, wish.path)


def copied_and_both_hashed(wish: Wish) -> None:
    """Read a piece, have both digests take it while the processor's cache has it, write it."""
    copy = wish.path + ".copy"
    before, after = hashlib.sha256(), hashlib.sha256()
    buffer = bytearray(_PIECE)
    view = memoryview(buffer)
    with open(wish.path, "rb", buffering=0) as old, open(copy, "wb", buffering=0) as new:
        while count := old.readinto(buffer):
            before.update(view[:count])
            after.update(view[:count])
            new.write(view[:count])
    os.replace(copy, wish.path)


def patched(wish: Wish) -> None:
    """Have patchelf do all at once, and hash what comes out."""
    copy = wish.path + ".copy"
    options = [option for command in wish.commands for option in command[1:]]
    subprocess.run([wish.patchelf, *options, "--output", copy, wish.path], check=True)
    _hash(copy)
    os.replace(copy, wish.path)


def auto_patched(tree: str, wishes: list[Wish]) -> None:
    """Scan, then patch file by file."""
    by_path = {wish.path: wish for wish in wishes}
    scanned = list(_scan(tree))
    for path in scanned:
        wish = by_path.get(path)
        if wish is None:
            continue
        copy = path + ".copy"
        for command in wish.commands:
            subprocess.run([*command, "--output", copy, path], check=True)
            os.replace(copy, path)


def _scan(tree: str) -> Iterator[str]:
    """Read of every ELF file what auto-patchelf reads: machine, OSABI, interpreter, needs and search path."""
    for directory, _, names in os.walk(tree):
        for name in names:
            path = os.path.join(directory, name)
            if os.path.islink(path):
                continue
            with open(path, "rb") as file:
                if file.read(4) != b"\x7fELF":
                    continue
                file.seek(0)
                try:
                    elf = ELFFile(file)
                    _ = elf.get_machine_arch(), elf.header["e_ident"]["EI_OSABI"]
                    dynamic = elf.get_section_by_name(".dynamic")
                    if isinstance(dynamic, DynamicSection):
                        _ = [tag.entry.d_val for tag in dynamic.iter_tags() if hasattr(tag, "needed")]
                    _ = [s.get_interp_name() for s in elf.iter_segments() if isinstance(s, InterpSegment)]
                except (ELFError, UnicodeDecodeError):
                    continue
            yield path


def _hash(path: str) -> bytes:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def main() -> None:
    """Do it one way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=["copy", "digests", "patchelf", "auto-patchelf"])
    parser.add_argument("--tree", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--patchelf", default="patchelf")
    options = parser.parse_args()
    wishes = [
        Wish(os.path.join(options.tree, path), search_path, tag, interp, options.patchelf)
        for path, search_path, tag, interp in json.load(sys.stdin)
    ]
    if options.way == "auto-patchelf":
        auto_patched(options.tree, wishes)
        return
    work = {"copy": copied, "digests": copied_and_both_hashed, "patchelf": patched}[options.way]
    # The largest first: the limit should not suffer from one file that is left over for one worker.
    wishes.sort(key=lambda wish: os.path.getsize(wish.path), reverse=True)
    with ProcessPoolExecutor(options.workers) as pool:
        list(pool.map(work, wishes))


if __name__ == "__main__":
    main()
