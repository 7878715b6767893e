"""However a program was linked and in whatever order it is edited: it runs, and every check holds."""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nixpatch.elf import read
from nixpatch.model import ElfEdit, ElfFacts, Tag
from support.programs import Workshop, content, edit_file, need, restore_file

pytestmark = pytest.mark.gcc

KINDS = {"pie": ("-pie", "-fPIE"), "non-pie": ("-no-pie", "-fno-pie"), "library": ("-shared", "-fPIC")}
CODE = (
    "-DWITH_BSS=100",
    "-DWITH_BSS=3000000",
    "-DWITH_TLS",
    "-DWITH_DATA",
    "-DWITH_IFUNC",
    "-DWITH_COPY",
    "-g",
)
# One of each group, or none.
LINKING = (
    ("-fuse-ld=bfd", "-fuse-ld=gold", "-fuse-ld=lld"),
    ("-Wl,-z,max-page-size=0x1000", "-Wl,-z,max-page-size=0x4000", "-Wl,-z,max-page-size=0x200000"),
    ("-Wl,-z,separate-code", "-Wl,-z,noseparate-code"),
    ("-Wl,-z,relro", "-Wl,-z,norelro"),
    ("-Wl,-z,now", "-Wl,-z,lazy"),
    ("-Wl,--hash-style=gnu", "-Wl,--hash-style=sysv", "-Wl,--hash-style=both"),
    ("-Wl,-rpath,/old/path", "-Wl,-rpath,/old/path,--disable-new-dtags"),
    ("-Wl,-z,pack-relative-relocs",),
    ("-Wl,--emit-relocs", "-s"),
    ("-Wl,--build-id=none", "-Wl,--build-id=sha1"),
    ("-fcf-protection=full", "-fcf-protection=none"),
    ("-Wl,--spare-dynamic-tags=1",),
)

UNKNOWN: dict[str, set[str]] = {
    "-fuse-ld=gold": {"-Wl,-z,separate-code", "-Wl,-z,noseparate-code", "-Wl,-z,pack-relative-relocs"},
    "-fuse-ld=lld": {"-Wl,-z,pack-relative-relocs", "-Wl,--spare-dynamic-tags=1"},
}
"""what each linker does not take (gold 1.16, lld 14)"""


@st.composite
def linkings(draw: st.DrawFn) -> tuple[str, tuple[str, ...]]:
    """A kind and flags."""
    kind = draw(st.sampled_from(sorted(KINDS)))
    code = draw(st.lists(st.sampled_from(CODE), unique_by=lambda flag: flag.partition("=")[0]))
    flags = [draw(st.sampled_from((None, *group))) for group in LINKING]
    unknown = UNKNOWN.get(flags[0] or "", set())
    flags = [flag for flag in flags if flag not in unknown]
    return kind, (*KINDS[kind], *sorted(code), *(flag for flag in flags if flag))


@dataclass(frozen=True)
class Step:
    """One edit. ``before`` and ``after``: how many entries stand around the one that leads to libanswer."""

    before: int = 0
    after: int = 0
    remove: bool = False
    leave: bool = False
    tag: Tag | None = None
    interp: int | None = None
    restore: bool = False

    def search_path(self, there: str) -> str | None:
        if self.leave:
            return None
        if self.remove:
            return ""
        return ":".join(
            [f"/n{i}" for i in range(self.before)] + [there] + ["/x" * self.after] * (self.after > 0)
        )


steps = st.one_of(
    st.builds(
        Step,
        before=st.integers(0, 400),
        after=st.integers(0, 100),
        tag=st.none() | st.sampled_from(Tag),
        interp=st.none() | st.integers(0, 500),
    ),
    st.builds(Step, remove=st.just(True), interp=st.none() | st.integers(0, 100)),
    st.builds(Step, leave=st.just(True), interp=st.none() | st.integers(0, 500)),
    st.just(Step(restore=True)),
)


@dataclass
class Bench:
    """Where the programs are made and run; a setting is compiled once."""

    workshop: Workshop = field(repr=False)
    short: str = field(repr=False)
    """a short directory name, for an interpreter that is shorter than the original one"""
    count: int = 0

    def original(self, kind: str, flags: tuple[str, ...]) -> str:
        if kind == "library":
            return self.workshop.library(*flags)
        return self.workshop.program(*flags)

    def loader(self, original: str, length: int) -> str:
        """A path of at least ``length`` that leads to the loader."""
        link = os.path.join(self.short, "l")
        if not os.path.lexists(link):
            os.symlink(original, link)
        return self.short + "/" + "./" * max(0, (length - len(link)) // 2) + "l"

    def output(self, path: str, kind: str, *, helped: bool) -> str:
        """What comes of running a file with every symbol bound at once."""
        command = [self.workshop.gcc("opener", self.workshop.source("opener.c"))] if kind == "library" else []
        environment = {"LD_BIND_NOW": "1"}
        if helped:
            environment["LD_LIBRARY_PATH"] = self.workshop.there
        done = subprocess.run([*command, path], capture_output=True, text=True, check=False, env=environment)
        return done.stdout.strip() if done.returncode == 0 else f"{done.returncode} {done.stderr.strip()}"

    def path(self) -> str:
        self.count += 1
        return os.path.join(self.workshop.directory, f"edited{self.count}")


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    for tool in ("ld.bfd", "ld.gold", "ld.lld"):
        need(tool)
    with tempfile.TemporaryDirectory(prefix="") as short:
        yield Bench(Workshop(str(tmp_path_factory.mktemp("links"))), short)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(linking=linkings(), sequence=st.lists(steps, min_size=1, max_size=5))
def test_any_linking_under_any_edits(
    bench: Bench, linking: tuple[str, tuple[str, ...]], sequence: list[Step]
) -> None:
    kind, flags = linking
    original = bench.original(kind, flags)
    expected = bench.output(original, kind, helped=True)
    assert expected.startswith("42"), f"the untouched file does not work: {expected}"
    facts = read(original)
    assert isinstance(facts, ElfFacts)
    file = original
    made = []
    for step in sequence:
        path = bench.path()
        made.append(path)
        if step.restore:
            if content(file) == content(original):
                continue
            restore_file(file, path)
            assert content(path) == content(original)
        else:
            loader = facts.original.interp
            interp = bench.loader(loader, step.interp) if loader and step.interp is not None else None
            edit_file(file, path, ElfEdit(step.search_path(bench.workshop.there), step.tag, interp))
        helped = step.leave or step.remove or step.restore
        assert bench.output(path, kind, helped=helped) == expected
        file = path
    once = bench.path()
    made.append(once)
    if not sequence[-1].restore:
        last = sequence[-1]
        loader = facts.original.interp
        interp = bench.loader(loader, last.interp) if loader and last.interp is not None else None
        edit_file(original, once, ElfEdit(last.search_path(bench.workshop.there), last.tag, interp))
        assert content(once) == content(file)
    for path in made:
        Path(path).unlink(missing_ok=True)
