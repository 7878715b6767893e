"""Both ELF writers on the files of many wheels: whatever worked before must still work.

usage: python benchmarks/corpus.py [--wheels N] [--tools sample|all|none] [--writers W...] [NAME...]

Installs the wheels of corpus.txt (or the named ones) without their dependencies, then, for each writer, gives
every dynamic ELF file of a copy a longer search path and, where it has one, a longer interpreter, by way of
``nixpatch.operations.apply``, and compares with the untouched tree: every byte (deep checks), what opens with
dlopen(3) in a child process of its own, what programs print, the same after strip and patchelf, and whether
restore gives back every byte. Exits 1 if a file that worked does not, or is not the same after restore; what
strip makes of LIEF's output is reported only.

Takes up to three times the room of the installed wheels (5 GB each for all of them) in the directory for
temporary files, and clears it. The libraries are loaded: their constructors run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

from corpus_behaviour import TOOLS, Behaviour, after_tool, observe, samples
from corpus_report import Result, Treated, table
from rich.console import Console

from nixpatch import elf
from nixpatch.elf.check_inplace import check
from nixpatch.elf.check_rewritten import check_rewritten
from nixpatch.installed.scan import scan
from nixpatch.model import ElfEdit, ElfFacts, FilePlan, Linkage, Outcome, Plan, Tag, Writer
from nixpatch.operations.apply import apply
from nixpatch.operations.patch_options import ApplyOptions
from nixpatch.operations.restore import plan_restore

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGE = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-nothing-1.0"
SAMPLE = 6  # every sixth library goes through the tools, and every program


@dataclass(frozen=True)
class Workplace:
    """Where things are."""

    directory: str

    @property
    def pristine(self) -> str:
        """The untouched venv."""
        return os.path.join(self.directory, "pristine")

    @property
    def copy(self) -> str:
        """The patched venv: a name as long, since programs print their path."""
        return os.path.join(self.directory, "patched1")

    @property
    def library(self) -> str:
        """A store directory with nothing in it but a loader."""
        return os.path.join(self.directory, "nix", "store", PACKAGE, "lib")


def install(work: Workplace, names: Sequence[str], *, dependencies: bool = False) -> None:
    """Make the untouched venv."""
    python = os.path.join(work.pristine, "bin", "python")
    options = ["--quiet", "--only-binary", ":all:", *([] if dependencies else ["--no-deps"]), *names]
    uv = shutil.which("uv")
    if uv:
        run([uv, "venv", "--quiet", "--python", sys.executable, work.pristine])
        run([uv, "pip", "install", "--python", python, *options])
    else:
        run([sys.executable, "-m", "venv", work.pristine])
        run([python, "-m", "pip", "install", *options])
    os.makedirs(work.library)


def run(command: Sequence[str]) -> None:
    """Run a command that must succeed."""
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def forced_plan(work: Workplace, root: str) -> Plan:
    """Plan to edit every file without changing what the loader does: a longer path, another interpreter.

    A file without a search path gets DT_RPATH, since DT_RUNPATH would switch off what it inherits (ld.so(8)).
    """
    tree = scan(root)
    files = []
    for file in tree.files:
        facts = elf.read(file.path)
        if not isinstance(facts, ElfFacts):
            files.append(FilePlan(file, None, facts))
            continue
        old = facts.original
        path = f"{old.search_path}:{work.library}" if old.search_path else work.library
        interp = loader_alias(work, old.interp)
        wished = Linkage(path, old.tag or Tag.RPATH, interp)
        edit = ElfEdit(path, wished.tag, None if interp == old.interp else interp)
        files.append(FilePlan(file, facts, edit=edit, after=wished))
    return Plan(tree, None, os.path.dirname(os.path.dirname(work.library)), tuple(files))


def loader_alias(work: Workplace, interp: str | None) -> str | None:
    """Return a long name of the same loader."""
    if interp is None or not os.path.exists(interp):
        return interp
    alias = os.path.join(work.library, os.path.basename(interp))
    if not os.path.lexists(alias):
        os.symlink(os.path.realpath(interp), alias)
    return alias


def deep(job: tuple[str, str, ElfEdit, bool]) -> tuple[str, list[str]]:
    """Compare every byte of one file."""
    before, after, edit, by_lief = job
    return after, list(
        check_rewritten(before, after, edit) if by_lief else check(before, after, edit, deep=True)
    )


def digests(root: str) -> dict[str, str]:
    """Every regular file of a venv but byte code: SHA-256 by relative path."""
    found = {}
    for directory, names, files in os.walk(root):
        names[:] = [name for name in names if name != "__pycache__"]
        for name in files:
            path = os.path.join(directory, name)
            if not os.path.islink(path):
                with open(path, "rb") as file:
                    found[os.path.relpath(path, root)] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def try_writer(
    work: Workplace,
    writer: Writer,
    plain: Behaviour,
    tools: dict[str, Behaviour],
    say: Callable[[str], None],
) -> Result:
    """Copy, patch, look, treat, restore, compare."""
    shutil.rmtree(work.copy, ignore_errors=True)
    run(["cp", "-a", "--reflink=auto", work.pristine, work.copy])
    plan = forced_plan(work, work.copy)
    begun = time.monotonic()
    outcome = apply(plan, options=ApplyOptions(writer=writer))
    result = Result(files=len(plan.changes), seconds=round(time.monotonic() - begun, 1))
    count(result, work, outcome)
    say(f"{writer.value}: {result.written} of {result.files} files written in {result.seconds} s")
    done = [file for file in outcome.files if file.error is None]
    jobs = [
        (
            os.path.join(work.pristine, relative),
            file.plan.file.path,
            file.plan.edit,
            file.writer is Writer.LIEF,
        )
        for file in done
        for relative in [os.path.relpath(file.plan.file.path, work.copy)]
        if file.plan.edit is not None
    ]
    with ProcessPoolExecutor() as pool:
        for path, found in pool.map(deep, jobs):
            if found:
                result.violations[os.path.relpath(path, work.copy)] = found
    say(f"{writer.value}: {len(result.violations)} files fail the deep checks")
    seen = observe(work.copy, list(plain.loads), list(plain.programs))
    broken = plain.broken(seen)
    result.opened = sum(error is None for error in seen.loads.values())
    result.opened_before = sum(error is None for error in plain.loads.values())
    result.no_longer_opened = {path: why for path, why in broken.items() if path in plain.loads}
    result.programs = len(seen.programs)
    result.programs_differ = {path: why for path, why in broken.items() if path in plain.programs}
    for name, before in tools.items():
        after = after_tool(work.copy, TOOLS[name], *samples(plain, before))
        lost = before.broken(after)
        works = sum(error is None for error in before.loads.values()) + len(before.programs)
        result.tools[name] = Treated(works, lost)
        say(f"{writer.value}: {name}: {len(lost)} broken")
    if writer is Writer.INPLACE:
        back = apply(plan_restore(work.copy))
        result.restored = sum(file.error is None for file in back.files)
        before_all, after_all = digests(work.pristine), digests(work.copy)
        differs = {path for path, digest in before_all.items() if after_all.get(path) != digest}
        result.restore_differs = sorted(differs | (after_all.keys() - before_all.keys()))
    shutil.rmtree(work.copy)
    return result


def count(result: Result, work: Workplace, outcome: Outcome) -> None:
    """Enter what was written."""
    for file in outcome.files:
        if file.error is not None:
            result.refused[os.path.relpath(file.plan.file.path, work.copy)] = file.error
        else:
            result.written += 1
            result.by_lief += file.writer is Writer.LIEF


def names_of(arguments: argparse.Namespace) -> list[str]:
    """Return the wheels to install."""
    if arguments.names:
        return list(arguments.names)
    with open(os.path.join(HERE, "corpus.txt"), encoding="utf-8") as file:
        names = [line.strip() for line in file if line.strip() and not line.startswith("#")]
    return names[: arguments.wheels] if arguments.wheels else names


def measure(work: Workplace, arguments: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Result]:
    """Do everything."""
    install(work, names_of(arguments))
    plan = forced_plan(work, work.pristine)
    dynamic = [(os.path.relpath(f.file.path, work.pristine), f.facts) for f in plan.files if f.facts]
    programs = [path for path, facts in dynamic if facts.original.interp and facts.executable]
    libraries = [path for path, facts in dynamic if not facts.executable]
    say(f"{len(plan.files)} ELF files: {len(libraries)} libraries, {len(programs)} programs")
    plain = observe(work.pristine, libraries, programs)
    tools = {}
    for name, command in TOOLS.items():
        if arguments.tools != "none" and shutil.which(command[0]):
            chosen = libraries if arguments.tools == "all" else libraries[::SAMPLE]
            tools[name] = after_tool(work.pristine, command, chosen, programs)
            say(f"untouched tree after {name} seen")
    return {name: try_writer(work, Writer(name), plain, tools, say) for name in arguments.writers}


def main() -> int:
    """Run everything; return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--wheels", type=int, default=0, help="only the first N of corpus.txt")
    parser.add_argument("--tools", choices=["sample", "all", "none"], default="sample")
    parser.add_argument("--writers", nargs="+", choices=["inplace", "lief"], default=["inplace", "lief"])
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    talk = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="nixpatch-corpus-") as directory:
        results = measure(Workplace(os.path.realpath(directory)), arguments, talk.print)
    Console().print(table(results))
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump(
                {name: asdict(result) for name, result in results.items()}, file, indent=1, sort_keys=True
            )
    # LIEF moves the program headers, and strip does not know what it meets: known, and in the README.
    return 0 if all(result.sound(tools=name == "inplace") for name, result in results.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
