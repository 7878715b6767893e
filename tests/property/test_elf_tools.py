"""Whatever strips and patchelf do between two edits, the file runs and can be edited again."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nixpatch.elf import read
from nixpatch.model import ElfEdit, ElfFacts, Skip, SkipReason
from support.programs import RICH, Workshop, copy, edit_file, need

pytestmark = pytest.mark.gcc

LINKERS = ("bfd", "gold", "lld", "mold")
KINDS = {"pie": ("-pie", "-fPIE"), "non-pie": ("-no-pie", "-fno-pie"), "library": ("-shared", "-fPIC")}
CODE = (("-g",), RICH, (*RICH, "-g"), (*RICH, "-g", "-Wl,-z,max-page-size=0x10000"))
STRIPS = (
    ("strip", "-S"),
    ("strip", "--strip-unneeded"),
    ("llvm-strip", "--strip-debug"),
    ("llvm-strip", "--strip-unneeded"),
    ("eu-strip",),
)
SHORT, LONG = "", "./" * 60


@dataclass(frozen=True)
class Patch:
    """An edit: so many entries before the right one, and a longer interpreter or the one that is there."""

    entries: int
    interp: bool = False

    def search_path(self, there: str) -> str:
        return ":".join([*(f"/n{number}" for number in range(self.entries)), there])


@dataclass(frozen=True)
class Patchelf:
    """Options; THERE and LOADER stand for the directory of the needed library and for an interpreter."""

    option: str
    value: str = ""


Step = Patch | Patchelf | tuple[str, ...]

STEPS = st.lists(
    st.builds(Patch, st.sampled_from((0, 1, 50, 400)), st.booleans())
    | st.sampled_from(STRIPS)
    | st.sampled_from(
        (
            Patchelf("--shrink-rpath"),
            Patchelf("--set-rpath", "THERE"),
            Patchelf("--set-rpath", "THERE" + ":/q" * 300),
            Patchelf("--set-interpreter", SHORT),
        )
    ),
    min_size=2,
    max_size=6,
)


def facts_of(path: str) -> ElfFacts | Skip:
    return read(path, payload_ok=True)


@dataclass
class Bench:
    """Compiles, edits and runs, with every symbol bound at once."""

    workshop: Workshop = field(repr=False)
    directory: str

    def original(self, linker: str, kind: str, code: tuple[str, ...]) -> str:
        flags = (*KINDS[kind], f"-fuse-ld={linker}", f"-Wl,-rpath,{self.workshop.there}", *code)
        return self.workshop.library(*flags) if kind == "library" else self.workshop.program(*flags)

    def runs(self, path: str, kind: str) -> bool:
        opener = [self.workshop.gcc("opener", self.workshop.source("opener.c"))] if kind == "library" else []
        environ = {"LD_BIND_NOW": "1"}
        done = subprocess.run([*opener, path], capture_output=True, text=True, check=False, env=environ)
        return done.returncode == 0 and done.stdout.startswith("42")

    def loader(self, dots: str) -> str:
        facts = facts_of(self.original("bfd", "pie", CODE[0]))
        assert isinstance(facts, ElfFacts)
        directory, name = os.path.split(facts.original.interp or "")
        return f"{directory}/{dots}{name}"

    def patch(self, path: str, step: Patch, kind: str) -> None:
        interp = self.loader(LONG) if step.interp and kind != "library" else None
        edited = f"{path}.edited"
        with contextlib.suppress(FileNotFoundError):  # left by an example that failed
            os.unlink(edited)
        edit_file(path, edited, ElfEdit(step.search_path(self.workshop.there), interp=interp))
        os.replace(edited, path)

    def treat(self, path: str, step: Step, kind: str) -> None:
        """Let a tool change a file, or patchelf make an edit; one that gives up leaves the file alone."""
        if isinstance(step, tuple):
            commands = [step]
        elif isinstance(step, Patchelf):
            value = step.value.replace("THERE", self.workshop.there) or self.loader(SHORT)
            commands = [("patchelf", step.option, *([value] if step.option.startswith("--set") else []))]
        else:
            commands = [("patchelf", "--set-rpath", step.search_path(self.workshop.there))]
            if step.interp:
                commands.append(("patchelf", "--set-interpreter", self.loader(LONG)))
        for command in commands:
            if "--set-interpreter" not in command or kind != "library":
                subprocess.run([*command, path], capture_output=True, check=False)


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    for tool in (*(f"ld.{linker}" for linker in LINKERS), *(step[0] for step in STRIPS), "patchelf"):
        need(tool)
    directory = str(tmp_path_factory.mktemp("tools"))
    yield Bench(Workshop(directory), directory)
    shutil.rmtree(directory)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    linker=st.sampled_from(LINKERS),
    kind=st.sampled_from(sorted(KINDS)),
    code=st.sampled_from(CODE),
    steps=STEPS,
)
@example("bfd", "library", CODE[0], [Patchelf("--set-rpath", "THERE" + ":/q" * 300), ("eu-strip",)])
@example("lld", "pie", CODE[2], [Patch(400), ("llvm-strip", "--strip-unneeded")])
@example("gold", "pie", CODE[2], [Patch(400, interp=True), ("strip", "--strip-unneeded")])
@example("mold", "non-pie", CODE[2], [Patch(50, interp=True), ("eu-strip",)])
@example("lld", "non-pie", CODE[2], [Patch(1, interp=True), Patchelf("--set-interpreter", SHORT), Patch(1)])
def test_any_sequence_of_tools_and_edits_ends_with_a_file_that_runs(
    bench: Bench, linker: str, kind: str, code: tuple[str, ...], steps: list[Step]
) -> None:
    original = bench.original(linker, kind, code)
    assert bench.runs(original, kind)
    file, *others = (
        copy(original, os.path.join(bench.directory, name)) for name in ("edited", "bare", "other")
    )
    for step in [*steps, Patch(1)]:
        if isinstance(step, Patch):
            bench.patch(file, step, kind)
            assert bench.runs(file, kind)
            bench.treat(others[1], step, kind)
            continue
        for path in (file, *others):
            bench.treat(path, step, kind)
        facts = facts_of(file)
        if isinstance(facts, Skip) and facts.reason is SkipReason.MALFORMED:
            assert isinstance(step, Patchelf)  # version 0.14 lets a string table run beyond its PT_LOAD
            return
        # What a tool breaks untouched, or after patchelf made the same edits, is no fault of the edit.
        if not all(bench.runs(path, kind) for path in others):
            return
        assert bench.runs(file, kind)
