"""Manylinux policies, and whether a target keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ManylinuxPolicy:
    """One manylinux policy."""

    name: str
    """``manylinux_2_17``"""
    alias: str
    """``manylinux2014``; "" for one that came with PEP 600"""
    glibc: tuple[int, int]
    source: str
    """the PEP"""
    libraries: tuple[str, ...]
    """the sonames that a wheel may take from the system"""
    versions: Mapping[str, Mapping[str, frozenset[str]]]
    """machine -> soname -> the highest symbol version of each series that a wheel may want"""
    only: Mapping[str, tuple[str, ...]]
    """soname -> the machines that have it at all; not there: every one"""

    @property
    def title(self) -> str:
        """The name, with the old one."""
        return f"{self.name} ({self.alias})" if self.alias else self.name

    def sonames(self, machine: str) -> tuple[str, ...]:
        """Return the libraries of the policy that exist on a machine."""
        return tuple(name for name in self.libraries if machine in self.only.get(name, (machine,)))


@dataclass(frozen=True, slots=True)
class Promise:
    """Whether a target keeps the promises of one policy."""

    policy: ManylinuxPolicy
    claimed: bool | None
    """whether installers take wheels of this policy; None where the ``_manylinux`` module computes it"""
    broken: tuple[str, ...]
    """a line for each library that is missing or too old"""

    @property
    def kept(self) -> bool:
        """Whether a wheel of this policy finds every library that it may expect."""
        return not self.broken
