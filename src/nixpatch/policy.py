"""The policy tables: facts about sonames that no ELF header states.

The data are in ``data/policy.toml`` and ``data/manylinux.toml``; users add rows with ``--policy`` and
``[tool.nixpatch]``. Which file names belong to the C library and its loader is not theirs to change.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase, translate
from functools import cache, lru_cache
from importlib import resources
from typing import Any

from nixpatch.model import Libc

MAX_SIZE = 1 << 20
"""bytes"""
_MAX_KEY_PARTS = 64


class PolicyError(ValueError):
    """A table holds something that is not a rule. The message names the place."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Sonames that certain files may lack or will open, and why."""

    file: str
    """glob over the absolute path"""
    sonames: tuple[str, ...]
    """globs where libraries may be missing, plain names where they are opened at run time"""
    reason: str


@dataclass(frozen=True, slots=True)
class LibcNames:
    """The file names of one C library, as globs."""

    libc: Libc
    core: tuple[str, ...]
    """libc and its loader"""
    parts: tuple[str, ...] = ()
    """what it installs beside them"""


@dataclass(frozen=True, slots=True)
class DlopenOpener:
    """A library that calls dlopen(3) for others, so that ld.so searches its RUNPATH and not theirs."""

    symbols: tuple[str, ...]
    """globs: a file that imports such a function opens libraries by it"""
    libraries: tuple[str, ...]
    """globs over the sonames of the library that has the function"""
    reason: str


@dataclass(frozen=True, slots=True)
class Switch:
    """An environment variable that gives a dist the place of its libraries."""

    dist: str
    """normalized name"""
    variable: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class DlopenPolicy:
    """The tables about libraries that are opened by name."""

    openers: tuple[DlopenOpener, ...] = ()
    names: tuple[Rule, ...] = ()
    """libraries whose names do not stand in the file that opens them"""
    never: tuple[Rule, ...] = ()
    """names that stand in a file and are no need"""
    switches: tuple[Switch, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """All tables."""

    libc: tuple[LibcNames, ...] = ()
    drivers: tuple[str, ...] = ()
    driver_directory: str = ""
    system: tuple[str, ...] = ()
    ignore: tuple[Rule, ...] = ()
    """libraries that may be missing without anything being wrong"""
    runtime: tuple[Rule, ...] = ()
    """libraries that files open with dlopen(3), which no header names"""
    dlopen: DlopenPolicy = DlopenPolicy()

    def libc_of(self, soname: str) -> Libc | None:
        """Return the libc that a soname is a part of."""
        for names in self.libc:
            if matches(soname, names.core) or matches(soname, names.parts):
                return names.libc
        return None

    def libc_needed(self, sonames: Iterable[str]) -> Libc | None:
        """Return the libc that a file with these needs was built for, None if it names none."""
        return next(filter(None, map(self.libc_of, sonames)), None)

    def holds_libc(self, names: Iterable[str]) -> bool:
        """Whether a directory of these names holds a C library, which no search path may lead to."""
        core = tuple(glob for libc in self.libc for glob in libc.core)
        return any(matches(name, core) for name in names)

    def is_driver(self, soname: str) -> bool:
        """Whether the library belongs to the machine's graphics driver."""
        return matches(soname, self.drivers)

    def is_system(self, soname: str) -> bool:
        """Whether a manylinux wheel may expect it from the system."""
        return matches(soname, self.system)

    def ignored(self, path: str, soname: str) -> str | None:
        """Return the reason why this file may lack this soname, or None."""
        for rule in self.ignore:
            if fnmatchcase(path, rule.file) and matches(soname, rule.sonames):
                return rule.reason
        return None

    def dlopened_by(self, path: str) -> tuple[tuple[str, str], ...]:
        """Return the sonames that this file opens at run time, each with the reason of its row."""
        return tuple(
            (soname, rule.reason)
            for rule in self.runtime
            if fnmatchcase(path, rule.file)
            for soname in rule.sonames
        )

    def extended(self, other: Policy) -> Policy:
        """Return these tables with the rows of others before their own."""
        return Policy(
            self.libc,
            (*other.drivers, *self.drivers),
            other.driver_directory or self.driver_directory,
            (*other.system, *self.system),
            (*other.ignore, *self.ignore),
            (*other.runtime, *self.runtime),
            DlopenPolicy(
                (*other.dlopen.openers, *self.dlopen.openers),
                (*other.dlopen.names, *self.dlopen.names),
                (*other.dlopen.never, *self.dlopen.never),
                (*other.dlopen.switches, *self.dlopen.switches),
            ),
        )


def matches(soname: str, patterns: tuple[str, ...]) -> bool:
    """Whether the soname fits one of the globs, case and all."""
    return _compiled(patterns).fullmatch(soname) is not None


@lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)) or "(?!)")


def toml(data: bytes) -> dict[str, Any]:
    """Read the bytes of a TOML file that somebody else wrote.

    Raises:
        PolicyError: it is not TOML, or larger or deeper than any that a person writes.

    """
    if len(data) > MAX_SIZE:
        raise PolicyError(f"not TOML of ours: {len(data)} bytes, more than {MAX_SIZE}")
    if any(_is_deep(line) for line in data.splitlines() if line.count(b".") > _MAX_KEY_PARTS):
        raise PolicyError(f"not TOML of ours: a key of more than {_MAX_KEY_PARTS} parts")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise PolicyError("not TOML of ours: nested too deep") from None
    except ValueError as error:
        raise PolicyError(f"not TOML: {error}") from error


def _is_deep(line: bytes) -> bool:
    """Whether a line has a key of very many parts, on which tomllib spends quadratic time."""
    run = 0
    for part in line.split(b"."):
        run = run + 1 if len(part.split()) == 1 else 0
        if run > _MAX_KEY_PARTS:
            return True
    return False


_TABLES = frozenset({"libc", "drivers", "system", "ignore", "runtime", "dlopen"})


def parse(data: Mapping[str, Any]) -> Policy:
    """Build tables from parsed TOML; each may be left out.

    Raises:
        PolicyError: a table, a key or a value is not what it should be. The message names it.

    """
    unknown = data.keys() - _TABLES
    if unknown:
        valid = ", ".join(sorted(_TABLES - {"libc"}))
        raise PolicyError(f'{min(unknown)}: no such table; there are {valid} (see docs/trees.md, "Rules")')
    libc = _table(data, "libc")
    drivers = _table(data, "drivers", {"directory", "sonames"})
    directory = drivers.get("directory", "")
    if not isinstance(directory, str):
        raise PolicyError("drivers.directory: not a string")
    return Policy(
        libc=tuple(_libc_names(_table(libc, kind.value), kind) for kind in Libc if kind.value in libc),
        drivers=_strings(drivers, "drivers", "sonames"),
        driver_directory=directory,
        system=_strings(_table(data, "system", {"sonames"}), "system", "sonames"),
        ignore=_rules(data, "ignore"),
        runtime=_rules(data, "runtime"),
        dlopen=_dlopen(_table(data, "dlopen")),
    )


def _dlopen(data: Mapping[str, Any]) -> DlopenPolicy:
    unknown = data.keys() - {"opener", "name", "never", "switch"}
    if unknown:
        raise PolicyError(f"dlopen.{min(unknown)}: no such table")
    return DlopenPolicy(
        openers=tuple(
            DlopenOpener(_strings(row, name, "symbols"), _strings(row, name, "libraries"), row["reason"])
            for name, row in _rows(data, "opener", ("reason",), ("symbols", "libraries"), "dlopen.")
        ),
        names=_rules(data, "name", "dlopen."),
        never=_rules(data, "never", "dlopen."),
        switches=tuple(
            Switch(row["dist"], row["variable"], row["value"], row["reason"])
            for _, row in _rows(data, "switch", ("dist", "variable", "value", "reason"), (), "dlopen.")
        ),
    )


def _libc_names(table: Mapping[str, Any], libc: Libc) -> LibcNames:
    name = f"libc.{libc.value}"
    return LibcNames(libc, _strings(table, name, "core"), _strings(table, name, "parts"))


def _table(data: Mapping[str, Any], name: str, keys: Collection[str] = ()) -> Mapping[str, Any]:
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise PolicyError(f"{name}: not a table")
    if keys and not table.keys() <= set(keys):
        raise PolicyError(f"{name}.{min(table.keys() - set(keys))}: no such key")
    return table


def _strings(table: Mapping[str, Any], table_name: str, key: str) -> tuple[str, ...]:
    values = table.get(key, [])
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise PolicyError(f"{table_name}.{key}: not a list of strings")
    return tuple(values)


def _rules(data: Mapping[str, Any], name: str, prefix: str = "") -> tuple[Rule, ...]:
    return tuple(
        Rule(row["file"], _strings(row, row_name, "sonames"), row["reason"])
        for row_name, row in _rows(data, name, ("file", "reason"), ("sonames",), prefix)
    )


def _rows(
    data: Mapping[str, Any], name: str, keys: tuple[str, ...], lists: tuple[str, ...], prefix: str = ""
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each row of a list of tables, with its name for messages.

    Args:
        data: the document.
        name: of the list.
        keys: the keys whose values are strings; all are needed, so that every rule says why it is there.
        lists: the other keys.
        prefix: of the name, for messages.

    """
    rows = data.get(name, [])
    if not isinstance(rows, list):
        raise PolicyError(f"{prefix}{name}: not a list of tables")
    for number, row in enumerate(rows, 1):
        row_name = f"{prefix}{name}, row {number}"
        if not isinstance(row, dict):
            raise PolicyError(f"{row_name}: not a table")
        known = f"a row has {', '.join((*keys, *lists))}"
        for key in keys:
            if not isinstance(row.get(key), str):
                state = "is not a string" if key in row else "is missing"
                raise PolicyError(f"{row_name}: {key} {state}; {known}")
        for key in lists:
            if key not in row:
                raise PolicyError(f"{row_name}: {key} is missing; {known}")
        if unknown := row.keys() - {*keys, *lists}:
            raise PolicyError(f"{row_name}: {min(unknown)}: no such key; {known}")
        yield row_name, row


@cache
def default_policy() -> Policy:
    """Return the tables that come with the package.

    What wheels may expect from the system are the libraries of the manylinux policies, but for libc's own.
    """
    policy = parse(packaged_table("policy.toml"))
    promised: Mapping[str, str] = packaged_table("manylinux.toml")["libraries"]
    return replace(policy, system=tuple(name for name in promised if policy.libc_of(name) is None))


@cache
def packaged_table(name: str) -> Mapping[str, Any]:
    """Return a TOML file of the package's ``data`` directory."""
    return tomllib.loads(resources.files("nixpatch").joinpath("data", name).read_text("utf-8"))
