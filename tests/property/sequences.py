"""Random sequences of edits, strips and patchelf over a program and its library; both run after each step.

By hand: ``cd tests; python -m property.sequences FIRST-SEED COUNT [STEPS]``.

Three copies go through a sequence. ``ours`` gets all steps. ``theirs`` gets the edits of nixpatch from
patchelf. ``bare`` does not get them at all. What a strip or patchelf breaks in ``theirs`` or in ``bare``
as well is no fault of the edits before, and ends the sequence.

Left out is eu-strip on a file in which patchelf has moved .dynstr out of the last PT_LOAD again. The end of
that is then in no section, and eu-strip cuts the file behind the last section, within the PT_LOAD. strip and
llvm-strip keep it.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from nixpatch.cli import run as nixpatch
from nixpatch.elf import read
from nixpatch.model import ElfFacts
from support.patchelf import newest
from support.programs import Workshop, content, interpreter_alias, read_headers

LINKERS = ("bfd", "gold", "lld", "mold")
KINDS = {"pie": ("-pie", "-fPIE"), "non-pie": ("-no-pie", "-fno-pie")}
STYLES = ("gnu", "sysv", "both")
CODE = ((), ("-g",), ("-Wl,-z,now",), ("-Wl,-z,max-page-size=0x10000",), ("-Wl,-z,norelro",))
STRIPS = (
    ("strip", "-S"),
    ("strip", "--strip-unneeded"),
    ("llvm-strip", "--strip-debug"),
    ("llvm-strip", "--strip-unneeded"),
    ("eu-strip",),
)
OUTPUT = "224 11 25 38 5 17 3\n"
LIBC = "/lib/x86_64-linux-gnu"
EXTRA = ("libm.so.6", "libdl.so.2", "librt.so.1", "libutil.so.1")
RENAMED = (
    "pair_sum",
    "pair_11",
    "pair_25",
    "pair_38",
    "pair_datum",
    "pair_pointer_17",
    "pair_base",
    "pair_tls",
)
PROGRAM = "program"

Command = tuple[str, tuple[str, ...]]
"""``PROGRAM`` or the soname of the library, and the options for it"""


@dataclass
class Place:
    """One copy of program and library, and the names that they have in it."""

    directory: str
    library: str = "libpair.so"
    symbols: dict[str, str] = field(default_factory=lambda: {name: name for name in RENAMED})
    alive: bool = True

    def path(self, name: str) -> str:
        return os.path.join(self.directory, name)

    @property
    def files(self) -> tuple[str, str]:
        return PROGRAM, self.library

    def runs(self) -> bool:
        environ = {"LD_BIND_NOW": "1"} if random.getrandbits(1) else {}
        done = subprocess.run([self.path(PROGRAM)], capture_output=True, text=True, check=False, env=environ)
        return (done.returncode, done.stdout) == (0, OUTPUT)

    def contents(self) -> dict[str, bytes]:
        return {name: content(self.path(name)) for name in self.files}


@dataclass
class Bench:
    """Compiles, and knows where things are."""

    root: str
    patchelf: str
    workshop: Workshop = field(init=False)

    def __post_init__(self) -> None:
        self.workshop = Workshop(os.path.join(self.root, "made"))

    def files(self, linker: str, kind: str, style: str, code: Sequence[str]) -> tuple[str, str]:
        shop = self.workshop
        flags = (f"-fuse-ld={linker}", f"-Wl,--hash-style={style}", *code)
        path = f"-Wl,-rpath,$ORIGIN:{shop.there}:{LIBC}"
        library = shop.gcc(
            "libpair.so",
            *("-shared", "-fPIC", "-DWITH_IFUNC", "-Wl,-soname,libpair.so", path, *flags),
            *(shop.source("pair.c"), shop.answer),
        )
        program = shop.gcc(
            PROGRAM,
            *(*KINDS[kind], "-rdynamic", path, *flags, shop.source("pair_main.c"), library, shop.answer),
        )
        return program, library

    def place(self, name: str, files: Sequence[str]) -> Place:
        directory = os.path.join(self.root, "run", name)
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        for file in files:
            shutil.copy(file, directory)
        return Place(directory)


@dataclass(frozen=True)
class Step:
    """What to do, without names that differ between copies."""

    actor: str
    """``nixpatch``, ``patchelf``, or the words of a strip"""
    kind: str
    value: int = 0
    """a number on which the details depend"""


KINDS_OF_EDITS = (
    *("rpath", "library rpath", "add rpath", "shrink", "interpreter", "add need", "remove need", "soname"),
    *("symbols", "symbols", "no default lib", "set stack", "clear stack", "debug tag", "os abi", "versions"),
)


def random_step(chance: random.Random, weights: tuple[int, int, int]) -> Step:
    actor = chance.choices(("nixpatch", "patchelf", "strip"), weights)[0]
    if actor == "strip":
        return Step(" ".join(chance.choice(STRIPS)), "strip", chance.getrandbits(1))
    kinds = (*KINDS_OF_EDITS, "everything", "cache") if actor == "nixpatch" else KINDS_OF_EDITS
    return Step(actor, chance.choice(kinds), chance.getrandbits(16))


class Editor:
    """Turns steps into commands for one copy, and carries them out: all of a step or nothing of it."""

    def __init__(self, bench: Bench, place: Place, actor: str) -> None:
        self.bench = bench
        self.place = place
        self.actor = actor
        """who makes the edits of nixpatch"""

    def edit(self, step: Step, actor: str) -> str | None:
        """Make an edit. Return None, or why it was refused: the files are then as before."""
        commands, library, symbols = self._commands(step)
        before = self.place.contents()
        for name, options in commands:
            refusal = self._call(actor, name, options)
            if refusal is not None:
                for file, data in before.items():
                    with open(self.place.path(file), "wb") as stream:
                        stream.write(data)
                return refusal
        if library != self.place.library:
            os.rename(self.place.path(self.place.library), self.place.path(library))
        self.place.library, self.place.symbols = library, symbols
        return None

    def strip(self, step: Step) -> None:
        name = self.place.files[step.value]
        subprocess.run([*step.actor.split(), self.place.path(name)], capture_output=True, check=False)

    def _call(self, actor: str, name: str, options: Sequence[str]) -> str | None:
        path = self.place.path(name)
        if actor == "patchelf":
            command = [self.bench.patchelf, *options, path]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return done.stderr or "failed" if done.returncode else None
        before, err = content(path), io.StringIO()
        with contextlib.redirect_stderr(err):
            code = nixpatch(["elf", *options, path])
        text = err.getvalue().replace(self.place.directory, "")
        if code == 0:
            return None
        assert code == 1, text
        assert text.count("\n") == 1, text
        assert content(path) == before
        assert "failed its checks" not in text, (text, options)
        return text

    def _commands(self, step: Step) -> tuple[list[Command], str, dict[str, str]]:
        """Return the commands, and the names afterwards."""
        place, value = self.place, step.value
        library, symbols = place.library, place.symbols
        if step.kind == "soname":
            library = f"libpair{'r' * (value % 40)}.so.{value % 7}"
            commands: list[Command] = [
                (place.library, ("--set-soname", library)),
                (PROGRAM, ("--replace-needed", place.library, library)),
            ]
        elif step.kind == "symbols":
            chosen = [name for number, name in enumerate(RENAMED) if value >> number & 1]
            symbols = symbols | {name: f"{name}_{value % 1000}{'x' * (value % 50)}" for name in chosen}
            names = os.path.join(place.directory, "map")
            with open(names, "w", encoding="utf-8") as stream:
                stream.writelines(f"{place.symbols[name]} {symbols[name]}\n" for name in chosen)
            commands = [(file, ("--rename-dynamic-symbols", names)) for file in place.files]
        elif step.kind == "everything":
            parts = [self._options(kind, value) for kind in KINDS_OF_EDITS]
            taken = [part for number, part in enumerate(parts) if part and value >> number & 1]
            options: dict[str, tuple[str, ...]] = {}
            for name, part in taken:
                if not set(part) & set(options.get(name, ())) and not _both_paths(
                    part, options.get(name, ())
                ):
                    options[name] = (*options.get(name, ()), *part)
            commands = list(options.items())
        else:
            command = self._options(step.kind, value)
            commands = [command] if command else []
        return commands, library, symbols

    def _options(self, kind: str, value: int) -> Command | None:
        place, there = self.place, self.bench.workshop.there
        junk = "".join(f"/n{number}:" for number in range((0, 1, 50, 300)[value % 4]))
        path = f"{junk}{place.directory}:{there}:{LIBC}"
        file = place.files[value % 2]
        loader = "/lib64/ld-linux-x86-64.so.2"
        force = ("--force-rpath",) if value & 8 else ()
        table: dict[str, Command] = {
            "rpath": (PROGRAM, ("--set-rpath", path, *force)),
            "library rpath": (place.library, ("--set-rpath", path, *force)),
            "add rpath": (PROGRAM, ("--add-rpath", f"/more{value}")),
            "shrink": (PROGRAM, ("--shrink-rpath",)),
            "interpreter": (
                PROGRAM,
                ("--set-interpreter", interpreter_alias(place.directory, loader, (1, 90, 400)[value % 3])),
            ),
            "add need": (
                file,
                ("--add-needed", EXTRA[value // 2 % 4], "--add-needed", EXTRA[value // 8 % 4]),
            ),
            "remove need": (file, ("--remove-needed", EXTRA[value // 2 % 4])),
            "no default lib": (file, ("--no-default-lib",)),
            "set stack": (file, ("--set-execstack",)),
            "clear stack": (file, ("--clear-execstack",)),
            "debug tag": (file, ("--add-debug-tag",)),
            "os abi": (file, ("--set-os-abi", ("sysv", "linux")[value // 2 % 2])),
            "versions": (file, ("--clear-symbol-version", ("printf", "answer", "nothing")[value // 2 % 3])),
            "cache": (PROGRAM, ("--build-resolution-cache",)),
        }
        return table.get(kind)


def _both_paths(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two edits of one call exclude each other."""
    groups = ({"--set-rpath", "--add-rpath", "--shrink-rpath"}, {"--set-execstack", "--clear-execstack"})
    return any(group & set(first) and group & set(second) for group in groups)


def ends_without_section(path: str) -> bool:
    """Whether a PT_LOAD has bytes in the file behind all sections that have some."""
    headers = read_headers(path)
    sections = [section for section in headers.shdrs if section.flags & 2 and section.in_file]
    return headers.loads_end > max(section.offset + section.size for section in sections)


class StepSequence:
    """One sequence. ``outcomes`` counts steps by what came of them."""

    def __init__(self, bench: Bench, seed: int, outcomes: Counter[str]) -> None:
        self.chance = random.Random(seed)
        self.outcomes = outcomes
        self.seed = seed
        choice = self.chance.choice
        self.build = (choice(LINKERS), choice(sorted(KINDS)), choice(STYLES), choice(CODE))
        files = bench.files(*self.build)
        places = [bench.place(name, files) for name in ("ours", "theirs", "bare")]
        self.ours, self.theirs, self.bare = (
            Editor(bench, place, actor)
            for place, actor in zip(places, ("nixpatch", "patchelf", ""), strict=True)
        )
        self.weights = choice(((6, 1, 2), (1, 0, 0), (2, 0, 1), (2, 1, 0)))
        self.log: list[Step] = []
        # By position in Place.files: what restore has to give, unless it refuses.
        self.bases = [content(place) for place in files]
        self.files = [*self.bases]
        assert all(place.runs() for place in places), self

    def __repr__(self) -> str:
        return "\n".join((f"seed {self.seed}: {self.build}", *map(repr, self.log)))

    def go(self, steps: int) -> None:
        """Make steps until one of another tool ends the sequence."""
        for _ in range(steps):
            step = random_step(self.chance, self.weights)
            self.log.append(step)
            if not (self._edit(step) if step.actor == "nixpatch" else self._treat(step)):
                break
        self._restore()

    def _edit(self, step: Step) -> bool:
        self._note_bases()
        refusal = self.ours.edit(step, "nixpatch")
        self.outcomes["refused: " + refusal.split(": ", 2)[-1].strip() if refusal else "edited"] += 1
        assert self.ours.place.runs(), "it does not run after an edit"
        if self.theirs.place.alive and refusal is None and step.kind != "cache":
            self.theirs.edit(step, "patchelf")
            self.theirs.place.alive = self.theirs.place.runs()
        return True

    def _treat(self, step: Step) -> bool:
        """Let another tool do something to all copies."""
        editors = [editor for editor in (self.ours, self.theirs, self.bare) if editor.place.alive]
        if step.actor == "eu-strip" and ends_without_section(
            self.ours.place.path(self.ours.place.files[step.value])
        ):
            self.outcomes["eu-strip: left out"] += 1
            return True
        for editor in editors:
            if step.kind == "strip":
                editor.strip(step)
            else:
                editor.edit(step, step.actor)
        for editor in editors:
            editor.place.alive = editor.place.runs()
        ours = self.ours.place.alive
        self.outcomes[f"{step.actor.split()[0]}: {'runs' if ours else 'broken everywhere'}"] += 1
        assert ours or not all(editor.place.alive for editor in editors[1:]), (
            "a tool broke only the edited file"
        )
        return ours

    def _note_bases(self) -> None:
        for number, name in enumerate(self.ours.place.files):
            facts = read(self.ours.place.path(name), payload_ok=True)
            if isinstance(facts, ElfFacts) and facts.original_sha256 is None and not facts.stale_undo:
                self.bases[number] = content(self.ours.place.path(name))

    def _restore(self) -> None:
        """Restore: the bytes of before, or a refusal if another tool changed the file."""
        for number, name in enumerate(self.ours.place.files):
            path = self.ours.place.path(name)
            with contextlib.redirect_stderr(io.StringIO()):
                code = nixpatch(["elf", "--restore", path])
            self.outcomes["restored" if code == 0 else "restore refused"] += 1
            assert code or content(path) == self.bases[number], f"{name} is not restored"
            is_pure = all(step.actor == "nixpatch" for step in self.log)
            assert not is_pure or content(path) == self.files[number], f"{name} is not the original"


def main(first: int, count: int, steps: int) -> int:
    """Print the sequences that broke a promise, and what came of all steps; return the former's number."""
    root = os.path.realpath(tempfile.mkdtemp(prefix="sequences-"))
    bench = Bench(root, newest(root))
    outcomes: Counter[str] = Counter()
    broken = 0
    for seed in range(first, first + count):
        sequence = StepSequence(bench, seed, outcomes)
        try:
            sequence.go(steps)
        except AssertionError as error:
            broken += 1
            print(error, sequence, sep="\n", flush=True)
    for text, number in outcomes.most_common():
        print(f"{number:6} {text}")
    print(f"{count} sequences, {sum(outcomes.values())} steps: {broken} broke a promise")
    shutil.rmtree(root)
    return broken


if __name__ == "__main__":
    sys.exit(bool(main(int(sys.argv[1]), int(sys.argv[2]), int((sys.argv[3:] or ["12"])[0]))))
