"""Which nixpkgs attribute has a shared library: soname -> attribute and output, from a file in the package.

The file (data/libraries.txt.gz, made by fixtures/catalog/build.py from a nix-index database of x86_64-linux)
is text, compressed. It is unpacked once and then searched, not parsed: unpacking takes 2 ms and a search in
650 kB less than one, where a dictionary of 26,000 names would take 15. Nothing here asks Nix or the network.

Lines, best attribute first: ``ATTRIBUTES TAB SONAMES TAB NOTE`` for rows written by hand, whose sonames may
be patterns, then an empty line, then ``ATTRIBUTES TAB SONAMES SPACE`` from the index. An attribute is
``zlib`` (its bare name), ``ffmpeg^lib`` (that output), ``openssl^out`` (``out``, which its bare name is not),
``cudaPackages.nccl^*`` (the output is not known), or the value of an ``AttributeKind``.
"""

from __future__ import annotations

import fnmatch
import functools
import re
import zlib
from collections.abc import Iterator
from importlib import resources

from nixpatch.model.missing import Attribute, AttributeKind, NearMiss

_NAME_MAX = 255
"""of a file name (limits.h)"""
_MAX_NEAR_MISSES = 3

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_'-]*")
_KEYWORDS = frozenset({"assert", "else", "if", "in", "inherit", "let", "or", "rec", "then", "with"})


class Catalog:
    """The data file, unpacked."""

    __slots__ = ("_body", "_curated")

    def __init__(self, text: str) -> None:
        """Unpack a text of the format that the module describes."""
        head, _, body = f"\n{text}".partition("\n\n")
        self._body = f"\n{body}"
        self._curated: dict[str, tuple[str, str]] = {}
        for line in head.splitlines():
            if line:
                attributes, sonames, note = line.split("\t")
                self._curated.update(dict.fromkeys(sonames.split(), (attributes, note)))

    def lookup(self, soname: str) -> Attribute | None:
        """Return the attribute to add for a soname, None where nothing is known of it."""
        return next(iter(self._all(soname)), None)

    def alternatives(self, soname: str) -> tuple[Attribute, ...]:
        """Return the other attributes that have a soname, best first."""
        return tuple(self._all(soname))[1:]

    def has_library(self, stem: str) -> bool:
        """Whether any version of a library is known; ``stem`` is its name up to ``.so``."""
        return self.lookup(f"{stem}.so") is not None or bool(self.near(f"{stem}.so"))

    def near(self, soname: str) -> tuple[NearMiss, ...]:
        """Return the nearest other versions of a library, nearest first, one for each attribute."""
        stem, _, version = soname.partition(".so")
        if not stem or _unlikely(soname):
            return ()
        pattern = rf"[\t ]({re.escape(stem)}\.so[^ \t\n]*)(?= )"
        names = {match[1] for match in re.finditer(pattern, self._body)}
        names |= {name for name in self._curated if name.startswith(f"{stem}.so") and "*" not in name}
        nearest: dict[str, NearMiss] = {}
        for name in sorted(names - {soname}, key=lambda name: _distance(version, name[len(stem) + 3 :])):
            attribute = self.lookup(name)
            if attribute is not None and attribute.kind is AttributeKind.PACKAGE:
                nearest.setdefault(attribute.expression, NearMiss(name, attribute))
        return tuple(nearest.values())[:_MAX_NEAR_MISSES]

    def _all(self, soname: str) -> Iterator[Attribute]:
        attributes, note = self._row(soname)
        for number, token in enumerate(attributes.split()):
            # The note is of the first attribute: an alternative need not be unfree, too.
            yield parse(token, note if number == 0 else "")

    def _row(self, soname: str) -> tuple[str, str]:
        if _unlikely(soname):
            return "", ""
        if soname in self._curated:
            return self._curated[soname]
        for before in "\t ":
            position = self._body.find(f"{before}{soname} ")
            if position >= 0:
                begin = self._body.rindex("\n", 0, position) + 1
                attributes, tab, _ = self._body[begin : position + 1].partition("\t")
                return (attributes, "") if tab else ("", "")
        return next(
            (row for glob, row in self._curated.items() if "*" in glob and fnmatch.fnmatchcase(soname, glob)),
            ("", ""),
        )


def lookup(soname: str) -> Attribute | None:
    """Return the nixpkgs attribute to add for a soname, None where nothing is known of it."""
    return packaged().lookup(soname)


@functools.cache
def packaged() -> Catalog:
    """Return the catalog of the package; the file is read once."""
    packed = resources.files("nixpatch").joinpath("data", "libraries.txt.gz").read_bytes()
    return Catalog(zlib.decompress(packed, 16 + zlib.MAX_WBITS).decode("ascii"))


def parse(token: str, note: str = "") -> Attribute:
    """Parse an attribute of the file.

    Raises:
        ValueError: it begins with ``@`` and is not a value of ``AttributeKind``.

    """
    if token.startswith("@"):
        return Attribute("", "", "", note, AttributeKind(token))
    attribute, given, output = token.partition("^")
    path = _path(attribute)
    if not given:
        return Attribute(attribute, "out", path, note)
    if output in {"*", "out"}:
        # Not .out: such a package may well name the output of its libraries lib in another nixpkgs.
        return Attribute(attribute, output.strip("*"), f"lib.getLib {path}", note)
    return Attribute(attribute, output, f"{path}.{output}", note)


def _path(attribute: str) -> str:
    """Write an attribute path in Nix: a name that is no identifier needs quotes, and something before it."""
    first, *rest = attribute.split(".")
    words = [first] if _is_identifier(first) else ["pkgs", f'"{first}"']
    return ".".join(words + [word if _is_identifier(word) else f'"{word}"' for word in rest])


def _is_identifier(word: str) -> bool:
    return _IDENTIFIER.fullmatch(word) is not None and word not in _KEYWORDS


def _unlikely(soname: str) -> bool:
    """Whether a name cannot be in the file. With a separator of the file it could match across names."""
    if len(soname) > _NAME_MAX:
        return True
    return ".so" not in soname or not soname.isascii() or not soname.isprintable() or " " in soname


def _distance(wanted: str, other: str) -> tuple[int, int, int, str]:
    """Return a sort key for two versions: ``.73`` is nearer to ``.74`` than to ``.76`` or ``.74.2``."""
    left, right = _numbers(wanted), _numbers(other)
    shared = 0
    while shared < min(len(left), len(right)) and left[shared] == right[shared]:
        shared += 1
    step = abs(left[shared] - right[shared]) if shared < min(len(left), len(right)) else 1 << 30
    return -shared, step, abs(len(left) - len(right)), other


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version))
