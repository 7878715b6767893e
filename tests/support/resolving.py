"""A tree, a store and a Python made of values alone, to ask resolution about."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from nixpatch.model import (
    Answer,
    Dist,
    ElfFacts,
    FilePlan,
    LenderSite,
    Libc,
    Linkage,
    Machine,
    Provider,
    Source,
    Tag,
    Target,
    Tree,
    TreeFile,
    TreeKind,
    VersionNeed,
)
from nixpatch.policy import Policy, default_policy
from nixpatch.resolve.context import ResolutionContext, SearchPathOptions
from nixpatch.resolve.file_plan import plan_file

X86_64 = Machine(62, 64, "little")
I686 = Machine(3, 32, "little")
AARCH64 = Machine(183, 64, "little")

PREFIX = "/venv"
SITE = f"{PREFIX}/lib/python3.12/site-packages"
STORE = "/nix/store"
GLIBC = f"{STORE}/aaaa-glibc-2.40/lib"
LOADER = f"{GLIBC}/ld-linux-x86-64.so.2"
DRIVERS = "/run/opengl-driver/lib"

TARGET = Target(
    python=f"{STORE}/bbbb-python3-3.12/bin/python3.12",
    found_by="--python",
    version=(3, 12),
    machine=X86_64,
    loader=LOADER,
    libc=Libc.GLIBC,
    libc_version=(2, 40),
    libc_versions=frozenset({"GLIBC_2.2.5", "GLIBC_2.34", "GLIBC_2.38", "GLIBC_2.40", "GLIBC_PRIVATE"}),
    libc_dir=GLIBC,
)
MUSL_TARGET = replace(
    TARGET,
    loader=f"{STORE}/cccc-musl-1.2.5/lib/ld-musl-x86_64.so.1",
    libc=Libc.MUSL,
    libc_version=(),
    libc_versions=frozenset(),
    libc_dir=f"{STORE}/cccc-musl-1.2.5/lib",
)


def elf(
    *needed: str,
    path: str | None = None,
    tag: Tag | None = None,
    soname: str | None = None,
    interp: str | None = None,
    machine: Machine = X86_64,
    no_default_lib: bool = False,
    wants: Mapping[str, Sequence[str]] | None = None,
    defs: Sequence[str] = (),
) -> ElfFacts:
    """Return the facts of a file that nixpatch has not seen yet."""
    linkage = Linkage(path, tag or (Tag.RUNPATH if path is not None else None), interp)
    return ElfFacts(
        machine=machine,
        executable=interp is not None,
        soname=soname,
        needed=needed,
        current=linkage,
        original=linkage,
        original_sha256=None,
        no_default_lib=no_default_lib,
        version_needs=tuple(VersionNeed(name, tuple(versions)) for name, versions in (wants or {}).items()),
        version_defs=tuple(defs),
    )


def provider(
    path: str,
    *,
    machine: Machine = X86_64,
    source: Source = Source.STORE,
    defs: Sequence[str] = (),
    libc_needs: Sequence[str] = (),
    beside_libc: bool = False,
    libc: Libc | None = Libc.GLIBC,
) -> Provider:
    directory, _, name = path.rpartition("/")
    return Provider(
        name=name,
        directory=directory,
        real=path,
        machine=machine,
        soname=name,
        source=source,
        package="",
        in_target_closure=False,
        version_defs=frozenset(defs),
        libc_needs=frozenset(libc_needs),
        beside_libc=beside_libc,
        libc=libc,
    )


@dataclass
class World:
    """What is installed and what the store has. File names are relative to site-packages."""

    files: dict[str, ElfFacts] = field(default_factory=dict)
    """of dists; the part before the first slash, without ``.libs``, names the dist"""
    unowned: dict[str, ElfFacts] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    store: list[Provider] = field(default_factory=list)
    """best first"""
    lent: dict[str, ElfFacts] = field(default_factory=dict)
    """libraries in site-packages of other store paths; the directory of the store names the one dist there"""
    requires: dict[str, tuple[str, ...]] = field(default_factory=dict)
    elsewhere: dict[str, Machine] = field(default_factory=dict)
    """other ELF files of the machine"""
    target: Target = TARGET
    options: SearchPathOptions = field(default_factory=SearchPathOptions)
    policy: Policy = field(default_factory=default_policy)

    def at(self, name: str) -> str:
        return os.path.normpath(os.path.join(SITE, name))

    def question(self) -> ResolutionContext:
        owners: dict[str, tuple[str, ...]] = {}
        owners |= {self.at(name): (info_of(name.split("/")[0].removesuffix(".libs")),) for name in self.files}
        owners |= {self.at(name): () for name in self.unowned}
        facts = {self.at(name): found for name, found in (self.files | self.unowned).items()}
        infos = {info for group in owners.values() for info in group} | set(map(info_of, self.requires))
        dists = tuple(
            Dist(name, "1", SITE, info, self.requires.get(name, ()))
            for info in sorted(infos)
            for name in [os.path.basename(info).partition("-")[0].replace("_", "-")]
        )
        files = tuple(TreeFile(path, 1, owners[path]) for path in sorted(facts))
        machines = {path: found.machine for path, found in facts.items()}
        machines |= {self.at(link): machines[self.at(to)] for link, to in self.links.items()}
        machines |= {found.directory + "/" + found.name: found.machine for found in self.store}
        machines |= {f"{self.target.libc_dir}/{name}": X86_64 for name in ("libc.so.6", "libm.so.6")}
        machines |= {self.target.loader: X86_64, **self.elsewhere}
        machines |= {path: lent.machine for path, lent in self.lent.items()}
        there = {*machines, *(os.path.dirname(path) for path in machines)}
        return ResolutionContext(
            tree=Tree(SITE, PREFIX, TreeKind.SITE_PACKAGES, files, dists),
            target=self.target,
            store_dir=STORE,
            facts=facts,
            policy=self.policy,
            options=self.options,
            providers=lambda name: [found for found in self.store if found.name == name],
            considered=lambda _: (),
            machine_of=lambda path: machines.get(os.path.normpath(path)),
            exists=lambda path: path in there,
            lender_sites=self.lender_sites(),
            read_facts=self.lent.get,
        )

    def lender_sites(self) -> tuple[LenderSite, ...]:
        by_site: dict[str, dict[str, tuple[str, ...]]] = {}
        for path in self.lent:
            site, _, _ = path.partition("/site-packages/")
            libraries = by_site.setdefault(f"{site}/site-packages", {})
            name = os.path.basename(path)
            libraries[name] = (*libraries.get(name, ()), path)
        return tuple(
            LenderSite(site, (Dist(name, "1", site, f"{site}/{name}-1.dist-info"),), libraries)
            for site, libraries in by_site.items()
            for name in [site.split("/")[3].partition("-")[2]]
        )

    def plan(self, name: str) -> FilePlan:
        question = self.question()
        (file,) = (file for file in question.tree.files if file.path == self.at(name))
        return plan_file(question, file)

    def answer(self, name: str, need: str) -> Answer:
        (found,) = (answer for answer in self.plan(name).answers if answer.need == need)
        return found

    def search_path(self, name: str) -> str | None:
        """Return the search path of a file after the run."""
        plan = self.plan(name)
        assert plan.after is not None
        return plan.after.search_path

    def patched(self, name: str) -> "World":
        """Return the world after a run over one file."""
        plan = self.plan(name)
        assert plan.after is not None
        assert plan.facts is not None
        return replace(self, files=self.files | {name: replace(plan.facts, current=plan.after)})


def info_of(dist: str) -> str:
    return f"{SITE}/{dist.replace('-', '_')}-1.dist-info"
