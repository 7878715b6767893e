"""The simulator and the plan against the real ld.so."""

import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loader.graphs import (
    Linker,
    Node,
    graphs,
    listed,
    loader,
    read,
    surroundings,
    system_directories,
)
from nixpatch.model import (
    ElfFacts,
    Libc,
    Machine,
    Origin,
    Provider,
    Source,
    Target,
    Tree,
    TreeFile,
    TreeKind,
)
from nixpatch.policy import default_policy
from nixpatch.resolve.context import ResolutionContext, SearchPathOptions
from nixpatch.resolve.file_plan import plan_file
from nixpatch.resolve.ld_so import simulate

pytestmark = pytest.mark.gcc

# The same graphs every time: a red run must be the fault of the change at hand.
few = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def linker(tmp_path_factory: pytest.TempPathFactory) -> Linker:
    return Linker(os.path.realpath(tmp_path_factory.mktemp("graphs")))


@few
@given(nodes=graphs())
def test_simulator_maps_what_ld_so_lists(linker: Linker, nodes: tuple[Node, ...]) -> None:
    with linker.built(nodes) as (base, files):
        around = surroundings(base)
        for path in files:
            mapped, unmet = listed(path, base)
            process = simulate(path, around)
            assert [(m.name, m.path) for m in process.mapped[1:] if m.path != loader()] == mapped
            assert [u.need for u in process.unmet] == unmet


DLOPEN = """
import ctypes, os, sys
kept = []
for path in sys.argv[2:]:
    try:
        kept.append(ctypes.CDLL(path))
    except OSError:
        pass
with open("/proc/self/maps") as maps:
    names = {line.rstrip("\\n").split(maxsplit=5)[-1] for line in maps}
print("\\n".join(sorted(name for name in names if name.startswith(sys.argv[1]))))
"""


@few
@given(nodes=graphs(), start=st.integers(0, 6))
def test_simulator_maps_what_a_process_maps(linker: Linker, nodes: tuple[Node, ...], start: int) -> None:
    with linker.built(nodes) as (base, files):
        opened = [*files][start % len(files) :] + [*files][: start % len(files)]
        program = os.path.realpath(sys.executable)
        done = subprocess.run(
            [program, "-I", "-S", "-c", DLOPEN, base, *opened],
            capture_output=True,
            text=True,
            check=True,
            cwd=base,
            env={},
        )
        process = simulate(program, surroundings(base), opened)
        expected = {os.path.realpath(m.path) for m in process.mapped}
        assert {path for path in expected if path.startswith(base)} == set(done.stdout.split())


def target() -> Target:
    """The Python that runs the tests, as far as resolution looks at it."""
    program = os.path.realpath(sys.executable)
    facts = read(program)
    assert facts is not None
    where = next(path for path in system_directories() if os.path.exists(f"{path}/libc.so.6"))
    return Target(
        program, "--python", (3, 11), facts.machine, loader(), Libc.GLIBC, (2, 36), frozenset(), where
    )


def question(base: str, paths: Iterable[str]) -> ResolutionContext:
    """Ask about a tree of libraries; those under ``store`` are what the store has."""
    facts = {path: found for path in sorted(paths) if (found := read(path))}
    inside = {path: found for path, found in facts.items() if not path.startswith(f"{base}/store/")}
    files = tuple(TreeFile(path, 1) for path in inside)

    def providers(name: str) -> list[Provider]:
        return [
            provider(path, found)
            for path, found in facts.items()
            if path not in inside and os.path.basename(path) == name
        ]

    return ResolutionContext(
        tree=Tree(base, base, TreeKind.PLAIN, files),
        target=target(),
        store_dir=f"{base}/store",
        facts=inside,
        policy=default_policy(),
        options=SearchPathOptions(),
        providers=providers,
        considered=lambda _: (),
        machine_of=machine_of,
        exists=os.path.exists,
    )


def machine_of(path: str) -> Machine | None:
    facts = read(path)
    return facts.machine if facts is not None else None


def provider(path: str, facts: ElfFacts) -> Provider:
    return Provider(
        name=os.path.basename(path),
        directory=os.path.dirname(path),
        real=path,
        machine=facts.machine,
        soname=facts.soname,
        source=Source.STORE,
        package="",
        in_target_closure=False,
        version_defs=frozenset(),
        libc_needs=frozenset(),
    )


@few
@given(nodes=graphs(apart=True), stored=st.sets(st.integers(0, 6), max_size=3))
def test_each_planned_file_finds_on_its_own_what_the_plan_says(
    linker: Linker, nodes: tuple[Node, ...], stored: set[int]
) -> None:
    placed = tuple(
        replace(node, directory=f"store/{i}/lib") if i in stored else node for i, node in enumerate(nodes)
    )
    with linker.built(placed) as (base, files):
        before = question(base, files)
        plans = [plan_file(before, file) for file in before.tree.files]
        for plan in plans:
            assert plan.after is not None
            if plan.edit is not None:
                linker.relink(files[plan.file.path], base, plan.after.search_path, plan.after.tag)
        for plan in plans:
            mapped, unmet = listed(plan.file.path, f"{base}/a")  # full of what a hole would let in
            found = {name: os.path.realpath(path) for name, path in mapped}
            for answer in plan.answers:
                if answer.origin is Origin.MISSING:
                    assert answer.need in unmet
                else:
                    assert answer.path is not None
                    assert found[answer.need] == os.path.realpath(answer.path)
        again = question(base, files)
        patched = {
            path: replace(found, original=before.facts[path].original) for path, found in again.facts.items()
        }
        for plan in plans:
            second = plan_file(replace(again, facts=patched), plan.file)
            assert second.edit is None
            assert second.after == plan.after
