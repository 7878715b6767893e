"""From packages.toml to the plan that default.nix builds: which files, linked to which other packages."""

import os
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field

from support.testbed import debs
from support.testbed.elfscan import Dynamic, read_dynamic
from support.testbed.loader import patch_points

HERE = os.path.dirname(os.path.abspath(__file__))
PACKAGES = os.path.join(HERE, "packages.toml")

# Directories whose files a package offers to others; the ones below them are plugins.
_LIBRARY_DIRECTORIES = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "usr/")
    for name in ("lib/x86_64-linux-gnu", "lib/x86_64-linux-musl", "lib32", "lib")
)
_LOADER = "ld-linux-x86-64.so.2"


@dataclass(frozen=True, slots=True)
class Package:
    """One entry of packages.toml."""

    name: str
    debs: tuple[str, ...]
    patch: bool = True


@dataclass(frozen=True, slots=True)
class Catalog:
    """packages.toml."""

    seed: tuple[str, ...]
    packages: dict[str, Package]

    @property
    def debs(self) -> list[str]:
        """Every Debian package that is needed, once."""
        named = [deb for package in self.packages.values() for deb in package.debs]
        return sorted({*self.seed, *named})


@dataclass(frozen=True, slots=True)
class Spec:
    """One derivation, as default.nix reads it."""

    name: str
    debs: list[str]
    inputs: list[str]
    patch: bool
    variables: dict[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Contents:
    """What the files of one package tell."""

    files: set[str] = field(default_factory=set)
    provides: set[tuple[str, str]] = field(default_factory=set)
    needs: set[tuple[str, str]] = field(default_factory=set)
    variables: dict[str, str] = field(default_factory=dict)


def read_catalog() -> Catalog:
    """Read packages.toml."""
    with open(PACKAGES, "rb") as file:
        data = tomllib.load(file)
    packages = {
        attr: Package(entry["name"], tuple(entry["debs"]), entry.get("patch", True))
        for attr, entry in data["packages"].items()
    }
    return Catalog(tuple(data["seed"]), packages)


def make_plan(catalog: Catalog, files: Mapping[str, str], directory: str) -> dict[str, dict[str, object]]:
    """The plan, given the file in `directory` of every Debian package."""

    def read(package: Package) -> _Contents:
        return _read([os.path.join(directory, files[deb]) for deb in package.debs])

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        contents = dict(zip(catalog.packages, pool.map(read, catalog.packages.values()), strict=True))
    providers: dict[tuple[str, str], str] = {}
    for attr, read_package in contents.items():
        for key in read_package.provides:
            providers.setdefault(key, attr)
    plan: dict[str, dict[str, object]] = {}
    for attr, package in catalog.packages.items():
        version = debs.version(files[package.debs[0]])
        spec = Spec(
            name=package.name.format(version=version.upstream, revision=version.revision),
            debs=[files[deb] for deb in package.debs],
            inputs=_inputs(attr, contents[attr], providers) if package.patch else [],
            patch=package.patch,
            variables=contents[attr].variables,
        )
        plan[attr] = asdict(spec)
    return plan


def _inputs(attr: str, contents: _Contents, providers: Mapping[tuple[str, str], str]) -> list[str]:
    open_needs = {need for need in contents.needs - contents.provides if need[1] not in contents.files}
    nobody = sorted(soname for machine, soname in open_needs if (machine, soname) not in providers)
    if nobody:
        raise ValueError(f"packages.toml lacks what {attr} needs: {', '.join(nobody)}")
    return sorted({providers[need] for need in open_needs})


def _read(paths: list[str]) -> _Contents:
    contents = _Contents()
    for path in paths:
        for name, data in debs.members(path):
            directory, base = os.path.split(name)
            contents.files.add(base)
            if base == _LOADER:
                contents.variables = patch_points(data)
            dynamic = read_dynamic(data)
            if dynamic:
                _note(contents, dynamic, offered=directory in _LIBRARY_DIRECTORIES)
    return contents


def _note(contents: _Contents, dynamic: Dynamic, *, offered: bool) -> None:
    contents.needs |= {(dynamic.machine, soname) for soname in dynamic.needed}
    if offered and dynamic.soname:
        contents.provides.add((dynamic.machine, dynamic.soname))
