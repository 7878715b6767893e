"""The policy tables: what no ELF header says about a soname. Data lives in ``data/policy.toml``."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from functools import lru_cache
from importlib import resources
from typing import Any

from nixpatch.model import Libc


@dataclass(frozen=True, slots=True)
class IgnoreRule:
    """Files that may lack some sonames without anything being wrong."""

    file: str
    """glob over the absolute path"""
    sonames: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything the tables say."""

    libc: tuple[tuple[Libc, tuple[str, ...]], ...]
    drivers: tuple[str, ...]
    driver_directory: str
    system: tuple[str, ...]
    ignore: tuple[IgnoreRule, ...]

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

    def with_ignored(self, patterns: tuple[str, ...]) -> Policy:
        """Return the same tables with the user's ``--ignore-missing`` globs before them."""
        if not patterns:
            return self
        rule = IgnoreRule("*", patterns, "--ignore-missing")
        return Policy(self.libc, self.drivers, self.driver_directory, self.system, (rule, *self.ignore))


def matches(soname: str, patterns: tuple[str, ...]) -> bool:
    """Whether the soname fits one of the globs, case and all."""
    return _compiled(patterns).fullmatch(soname) is not None


@lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)) or "(?!)")


def parse(data: dict[str, Any]) -> Policy:
    """Build the tables from parsed TOML.

    Raises:
        KeyError: a table or key is missing.

    """
    return Policy(
        libc=((Libc.GLIBC, tuple(data["libc"]["glibc"])), (Libc.MUSL, tuple(data["libc"]["musl"]))),
        drivers=tuple(data["drivers"]["sonames"]),
        driver_directory=data["drivers"]["directory"],
        system=tuple(data["system"]["sonames"]),
        ignore=tuple(
            IgnoreRule(row["file"], tuple(row["sonames"]), row["reason"]) for row in data.get("ignore", ())
        ),
    )


@lru_cache(maxsize=1)
def default_policy() -> Policy:
    """Return the tables that come with the package."""
    text = resources.files("nixpatch").joinpath("data/policy.toml").read_text("utf-8")
    return parse(tomllib.loads(text))
