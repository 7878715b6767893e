"""The policy tables: what no ELF header says about a soname. Data lives in ``data/policy.toml``.

Which file names belong to the C library and its loader. They are never served from a store directory.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from importlib import resources
from typing import Any

from nixpatch.model import Libc

MAX_SIZE = 1 << 20
"""bytes"""
_DEEP = 64


class PolicyError(ValueError):
    """A table says something that is no rule. The message says where."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Files and sonames that something is to be said of, and why."""

    file: str
    """glob over the absolute path"""
    sonames: tuple[str, ...]
    """globs where libraries may be missing, plain names where they are opened at run time"""
    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything the tables say."""

    libc: tuple[tuple[Libc, tuple[str, ...]], ...] = ()
    drivers: tuple[str, ...] = ()
    driver_directory: str = ""
    system: tuple[str, ...] = ()
    ignore: tuple[Rule, ...] = ()
    """libraries that may be missing without anything being wrong"""
    runtime: tuple[Rule, ...] = ()
    """libraries that files open themselves, which no header tells"""

    def libc_of(self, soname: str) -> Libc | None:
        """Which libc a soname is a part of."""
        for libc, patterns in self.libc:
            if matches(soname, patterns):
                return libc
        return None

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

    def opened(self, path: str) -> tuple[tuple[str, str], ...]:
        """Return the sonames that this file opens at run time, each with the reason of its row."""
        return tuple(
            (soname, rule.reason)
            for rule in self.runtime
            if fnmatchcase(path, rule.file)
            for soname in rule.sonames
        )

    def extended(self, more: Policy) -> Policy:
        """Return these tables with the rows of others before their own."""
        return Policy(
            self.libc,
            (*more.drivers, *self.drivers),
            more.driver_directory or self.driver_directory,
            (*more.system, *self.system),
            (*more.ignore, *self.ignore),
            (*more.runtime, *self.runtime),
        )


def matches(soname: str, patterns: tuple[str, ...]) -> bool:
    """Whether the soname fits one of the globs, case and all."""
    return _compiled(patterns).fullmatch(soname) is not None


@lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)) or "(?!)")


def toml(data: bytes) -> dict[str, Any]:
    """Read the bytes of a file of tables.

    Raises:
        PolicyError: it is no TOML, or larger or deeper than any that a person writes.

    """
    if len(data) > MAX_SIZE:
        raise PolicyError(f"not TOML of ours: {len(data)} bytes, more than {MAX_SIZE}")
    if any(_is_deep(line) for line in data.splitlines() if line.count(b".") > _DEEP):
        raise PolicyError(f"not TOML of ours: a key of more than {_DEEP} parts")
    try:
        return tomllib.loads(data.decode("utf-8"))
    except RecursionError:
        raise PolicyError("not TOML of ours: nested too deep") from None
    except ValueError as error:
        raise PolicyError(f"not TOML: {error}") from error


def _is_deep(line: bytes) -> bool:
    """Whether a line has a key of very many parts, for which tomllib takes the square of the time."""
    run = 0
    for part in line.split(b"."):
        run = run + 1 if len(part.split()) == 1 else 0
        if run > _DEEP:
            return True
    return False


def parse(data: Mapping[str, Any]) -> Policy:
    """Build tables from parsed TOML; each may be left out.

    Raises:
        PolicyError: a table, a key or a value is not what it should be. The message names it.

    """
    unknown = data.keys() - {"libc", "drivers", "system", "ignore", "runtime"}
    if unknown:
        raise PolicyError(f"{min(unknown)}: no such table")
    libc = _table(data, "libc")
    drivers = _table(data, "drivers")
    directory = drivers.get("directory", "")
    if not isinstance(directory, str):
        raise PolicyError("drivers.directory: not a string")
    return Policy(
        libc=tuple((kind, _strings(libc, "libc", kind.value)) for kind in Libc if kind.value in libc),
        drivers=_strings(drivers, "drivers", "sonames"),
        driver_directory=directory,
        system=_strings(_table(data, "system"), "system", "sonames"),
        ignore=_rules(data, "ignore"),
        runtime=_rules(data, "runtime"),
    )


def _table(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = data.get(name, {})
    if not isinstance(found, dict):
        raise PolicyError(f"{name}: not a table")
    return found


def _strings(data: Mapping[str, Any], where: str, name: str) -> tuple[str, ...]:
    found = data.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise PolicyError(f"{where}.{name}: not a list of strings")
    return tuple(found)


def _rules(data: Mapping[str, Any], name: str) -> tuple[Rule, ...]:
    rows = data.get(name, [])
    if not isinstance(rows, list):
        raise PolicyError(f"{name}: not a list of tables")
    rules: list[Rule] = []
    for number, row in enumerate(rows, 1):
        where = f"{name}, row {number}"
        if not isinstance(row, dict):
            raise PolicyError(f"{where}: not a table")
        for key in ("file", "reason"):
            if not isinstance(row.get(key), str):
                raise PolicyError(f"{where}: {key} is not a string; every rule says why it is there")
        rules.append(Rule(row["file"], _strings(row, where, "sonames"), row["reason"]))
    return tuple(rules)


@lru_cache(maxsize=1)
def default_policy() -> Policy:
    """Return the tables that come with the package."""
    text = resources.files("nixpatch").joinpath("data/policy.toml").read_text("utf-8")
    return parse(tomllib.loads(text))


_LOADERS = ("ld-linux", "ld-musl-", "ld64.so.", "ld.so.1", "ld-2.")
_LIBC = ("libc.so.6", "libc.musl-", "libc-2.")
_BESIDE = (
    "libm.so.6", "libmvec.so.1", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1",
    "libresolv.so.2", "libanl.so.1", "libnsl.so.1", "libBrokenLocale.so.1", "libthread_db.so.1",
    "libc_malloc_debug.so.0", "libnss_",
)  # fmt: skip
"""what glibc installs next to libc.so.6 (its shlib-versions)"""


def is_libc_name(name: str) -> bool:
    """Whether a soname is one of libc's own, the loader's included."""
    return name == "libc.so" or name.startswith((*_LOADERS, *_LIBC, *_BESIDE))


def holds_libc(names: Iterable[str]) -> bool:
    """Whether a directory with these names holds a C library: in a search path it would break the process.

    ``libc.so`` is musl's libc. It is glibc's linker script too, which lies beside no library worth a search
    path.
    """
    return any(name == "libc.so" or name.startswith((*_LOADERS, *_LIBC)) for name in names)


def libc_of(needed: Iterable[str]) -> Libc | None:
    """Return the libc that a file with these needs was built for, None if it names none."""
    for name in needed:
        if name == "libc.so" or name.startswith(("libc.musl-", "ld-musl-")):
            return Libc.MUSL
        if is_libc_name(name):
            return Libc.GLIBC
    return None
