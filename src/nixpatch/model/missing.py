"""Needed libraries that nothing provides, and the nixpkgs attributes that have them."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class AttributeKind(enum.Enum):
    """Where a library comes from. The value is the word in ``data/libraries.txt.gz``."""

    PACKAGE = ""
    """the nixpkgs package that ``attribute`` names"""
    DRIVER = "@driver"
    """the machine's graphics driver"""
    WHEEL = "@wheel"
    """another wheel of the environment"""
    NONE = "@none"
    """nowhere: the file is for another Python, or the part that needs it is optional"""


@dataclass(frozen=True, slots=True)
class Attribute:
    """The nixpkgs attribute that has a library, or why there is none."""

    attribute: str
    """path below ``pkgs``, such as ``stdenv.cc.cc``; "" for every kind but a package"""
    output: str
    """the output with the library; "" where the index does not say: then ``lib.getLib`` finds it"""
    expression: str
    """Nix for that output with ``pkgs`` in scope: ``zlib``, ``stdenv.cc.cc.lib``, ``lib.getLib openssl``"""
    note: str = ""
    """for the user: unfree, another name in older nixpkgs, another wheel has it"""
    kind: AttributeKind = AttributeKind.PACKAGE


@dataclass(frozen=True, slots=True)
class NearMiss:
    """Another version of a library that nixpkgs does not have."""

    soname: str
    attribute: Attribute


@dataclass(frozen=True, slots=True)
class Missing:
    """A soname that nothing provides: needed, or opened by name."""

    soname: str
    files: tuple[str, ...]
    """the files that need it, or open it by name: then sources with a line, too; sorted"""
    dists: tuple[str, ...]
    """``name version`` of the dists of those files, sorted"""
    attribute: Attribute | None
    """the attribute to add; None where the catalog does not know the soname"""
    alternatives: tuple[Attribute, ...]
    """other attributes that have it, best first"""
    near: tuple[NearMiss, ...]
    """other versions in nixpkgs, where ``attribute`` is None"""
    stops: tuple[str, ...] = ()
    """modules, programs and files named in code that do not load without it, sorted; empty: it is optional"""
    considered: tuple[str, ...] = ()
    """for the first file that needs it: each searched place, and why it does not serve"""
