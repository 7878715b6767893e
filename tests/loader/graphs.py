"""Small graphs of libraries: drawn by hypothesis, linked with ld, listed by the real ld.so."""

import functools
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import strategies as st

from nixpatch import elf
from nixpatch.model import ElfFacts, Tag
from nixpatch.resolve.ld_so import LoaderConfig

DIRECTORIES = ("a", "b", "b/deep", "c:d")
LINK, LINK_TO = "link", "b/deep"
NAMES = ("libp.so", "libq.so", "libr.so", "libs.so")
SYSTEM = "libm.so.6"  # stands in a default directory, and is in no process that did not ask for it
SLASHES = ("$ORIGIN/../a/libp.so", "$ORIGIN/libp.so", "a/libq.so")

_SHOWN = re.compile(r"^\t(?:(?P<name>.+) => )?(?P<path>.+?)(?: \(0x[0-9a-f]+\))?$", re.MULTILINE)
_SYSTEM_DIRECTORY = re.compile(r"^\s+(/.*) \(system search path\)$", re.MULTILINE)


@dataclass(frozen=True)
class Node:
    """One library to link."""

    directory: str
    name: str
    soname: str | None
    needs: tuple[str, ...]
    tag: Tag | None
    entries: tuple[str, ...]
    """``@`` at the start stands for the scratch directory"""
    no_default_lib: bool = False


REST = (
    *("", "/", "/../a", "/../b", "/deep", "/..", "/../../b", "/../c"),
    *("/./../b//", "/../link", "/../link/..", "/nowhere/../../a"),
)
ENTRIES = st.one_of(
    st.builds(
        lambda token, rest: token + rest,
        st.sampled_from(["$ORIGIN", "$ORIGIN", "${ORIGIN}"]),
        st.sampled_from(REST),
    ),
    st.sampled_from(["@/a", "@/b", "@/b/deep/", "@/link/..", "@/nowhere", "@/c:d", "", "a", "b/deep"]),
    st.sampled_from(["$ORIGINX/../a", "$ORIGIN_/../b", "$ORIGIN\u00e9", "/nonexistent"]),
)


@st.composite
def graphs(draw: st.DrawFn, *, apart: bool = False) -> tuple[Node, ...]:
    """Draw 3 to 7 libraries. ``apart``: what one file needs never serves another of its needs too."""
    places = draw(
        st.lists(
            st.tuples(st.sampled_from(DIRECTORIES), st.sampled_from(NAMES)),
            min_size=3,
            max_size=7,
            unique=True,
        )
    )
    nodes: list[Node] = []
    for index, (directory, name) in enumerate(places):
        sonames = [None, name, name, f"libown{index}.so"] if apart else [None, name, name, *NAMES]
        pool = [*NAMES, *NAMES, SYSTEM, *([] if apart else SLASHES)]
        drawn = draw(st.lists(st.sampled_from(pool), max_size=3, unique=True))
        needs = tuple(need for need in drawn if not apart or need != name)
        soname = draw(st.sampled_from(sonames))
        tag = draw(st.sampled_from([None, *Tag, *Tag]))
        nodes.append(
            Node(
                directory,
                name,
                soname if needs else soname or name,  # neither is a file that nothing can be said about
                needs,
                tag,
                tuple(draw(st.lists(ENTRIES, min_size=1, max_size=3))) if tag else (),
                draw(st.sampled_from([False, False, False, True])),
            )
        )
    return tuple(nodes)


@dataclass
class Linker:
    """Links nodes against empty stand-ins, as only names and search paths matter."""

    directory: str
    stubs: dict[str, str] = field(default_factory=dict)

    @functools.cached_property
    def code(self) -> str:
        """An object file that holds next to nothing."""
        if not shutil.which("gcc"):
            pytest.skip("gcc is not installed")
        source, out = f"{self.directory}/code.c", f"{self.directory}/code.o"
        with open(source, "w") as file:
            file.write("int answer(void) { return 42; }\n")
        subprocess.run(["gcc", "-c", "-fPIC", "-o", out, source], check=True)
        return out

    def stub(self, name: str) -> str:
        if name not in self.stubs:
            path = f"{self.directory}/stub{len(self.stubs)}.so"
            subprocess.run(["ld", "-shared", "-soname", name, "-o", path, self.code], check=True)
            self.stubs[name] = path
        return self.stubs[name]

    def link(self, node: Node, base: str) -> str:
        path = f"{base}/{node.directory}/{node.name}"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        command = ["ld", "-shared", "--no-as-needed", "-o", path, self.code]
        if node.soname is not None:
            command += ["-soname", node.soname]
        search_path = ":".join(base + entry[1:] if entry.startswith("@") else entry for entry in node.entries)
        if node.tag is not None and search_path:
            tags = "--enable-new-dtags" if node.tag is Tag.RUNPATH else "--disable-new-dtags"
            command += [tags, "-rpath", search_path]
        if node.no_default_lib:
            command += ["-z", "nodefaultlib"]
        # The search path is for ld.so alone: what ld needs is named in full.
        subprocess.run([*command, *map(self.stub, node.needs)], check=True)
        return path

    @contextmanager
    def built(self, nodes: tuple[Node, ...]) -> Iterator[tuple[str, dict[str, Node]]]:
        """Link everything into a fresh directory; gives it and the nodes by path."""
        with tempfile.TemporaryDirectory(dir=self.directory) as base:
            for directory in DIRECTORIES:
                os.makedirs(f"{base}/{directory}")
            os.symlink(LINK_TO, f"{base}/{LINK}")
            yield base, {self.link(node, base): node for node in nodes}

    def relink(self, node: Node, base: str, search_path: str | None, tag: Tag | None) -> None:
        """Link a node once more, with another search path."""
        entries = () if search_path is None else (search_path,)
        self.link(replace(node, entries=entries, tag=tag), base)


@functools.cache
def loader() -> str:
    """The ld.so of the Python that runs the tests."""
    facts = elf.read(os.path.realpath(sys.executable))
    interp = facts.current.interp if isinstance(facts, ElfFacts) else None
    if interp is None or "ld-linux" not in interp:
        pytest.skip("this Python is not linked against glibc")
    return interp


@functools.cache
def system_directories() -> tuple[str, ...]:
    """What ld.so says it searches by default."""
    told = subprocess.run([loader(), "--help"], capture_output=True, text=True, check=True).stdout
    found = tuple(_SYSTEM_DIRECTORY.findall(told))
    if not found:
        pytest.skip("this ld.so does not say where it searches (glibc before 2.33)")
    return found


def read(path: str) -> ElfFacts | None:
    if not os.path.exists(path):
        return None
    facts = elf.read(os.path.realpath(path))  # its last name may be a link
    return facts if isinstance(facts, ElfFacts) else None


def surroundings(directory: str | None) -> LoaderConfig:
    """Describe to the simulator what ``listed`` gives to ld.so."""
    return LoaderConfig(
        read=read,
        identity=os.path.realpath,
        default_dirs=system_directories(),
        loader=loader(),
        current_directory=directory,
    )


def listed(path: str, directory: str) -> tuple[list[tuple[str, str]], list[str]]:
    """What the real ld.so maps for a file, in order, and what it does not find."""
    # As ldd does: unlike --list, it goes on after a library that is missing.
    tracing = {"LD_TRACE_LOADED_OBJECTS": "1"}
    command = [loader(), "--inhibit-cache", path]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=directory, env=tracing)
    mapped: list[tuple[str, str]] = []
    unmet: list[str] = []
    for line in _SHOWN.finditer(done.stdout):
        name, where = line["name"] or line["path"], line["path"]
        if where == "not found":
            unmet.append(name)
        elif where != loader() and not name.startswith(("linux-vdso", "statically linked", "linux-gate")):
            mapped.append((name, os.path.join(directory, where)))
    return mapped, unmet
