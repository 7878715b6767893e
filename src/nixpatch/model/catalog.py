"""Which nixpkgs attribute has a library."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class AttributeKind(enum.Enum):
    """What provides a library. The value is the word for it in the catalog."""

    PACKAGE = ""
    """a package of nixpkgs: what ``attribute`` names"""
    DRIVER = "@driver"
    """the machine's graphics driver"""
    WHEEL = "@wheel"
    """another wheel of the environment"""
    NONE = "@none"
    """nothing: the file is for another Python, or the part that needs it is optional"""


@dataclass(frozen=True, slots=True)
class Attribute:
    """The nixpkgs attribute that has a library, or the reason why none has."""

    attribute: str
    """path below ``pkgs``, such as ``stdenv.cc.cc``; "" for every kind but a package"""
    output: str
    """the output with the library; "" where no index knows, then ``lib.getLib`` finds it"""
    expression: str
    """Nix for that output with ``pkgs`` in scope: ``zlib``, ``stdenv.cc.cc.lib``, ``lib.getLib openssl``"""
    note: str = ""
    """what a person should know: unfree, another name in older nixpkgs, another wheel has it"""
    kind: AttributeKind = AttributeKind.PACKAGE


@dataclass(frozen=True, slots=True)
class NearMiss:
    """Another version of a library that nixpkgs does not have."""

    soname: str
    attribute: Attribute
