"""The library behind each name that Python code opens, and the two ways to it. Pure.

``ffi.dlopen`` calls dlopen in ``_cffi_backend``, a file of the tree: its search path can lead to the library.
``ctypes`` calls it in a module of the target Python, which is not ours to edit: a start-up file of the dist
answers for it, by path.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nixpatch.model import Dist, Libc, OpenedName, OpenedNeed, Opener
from nixpatch.resolve.context import ResolutionContext

_LIBC_STEMS = {
    "c": "libc.so.6",
    "m": "libm.so.6",
    "dl": "libdl.so.2",
    "rt": "librt.so.1",
    "pthread": "libpthread.so.0",
    "util": "libutil.so.1",
    "resolv": "libresolv.so.2",
}
"""what find_library is asked for and every process has (glibc)"""


@dataclass(frozen=True, slots=True)
class PythonLibraries:
    """What becomes of the names that the sources of one dist open."""

    libraries: Mapping[str, str] = field(default_factory=dict)
    """name as the code opens it -> path of the library: absolute, or relative to the site directory"""
    answers: Mapping[str, str] = field(default_factory=dict)
    """name as ``find_library`` is asked -> path as before, or a soname that needs none"""
    cffi: tuple[OpenedNeed, ...] = ()
    """for the cffi backend of the tree"""
    unmet: tuple[tuple[str, str], ...] = ()
    """names that nothing provides, as sonames, each with the source and line that opens it"""
    computed: tuple[str, ...] = ()
    """sources and lines that compute the name"""


@dataclass(frozen=True, slots=True)
class PythonResolver:
    """Finds libraries for the names of Python sources, by the precedence of all needs."""

    context: ResolutionContext
    versions: Callable[[str], Sequence[str]]
    """the names outside the tree that are ``libz.so`` or a version of it, the newest first"""
    beginning: Callable[[str], Sequence[str]]
    """the names outside the tree that begin so"""
    is_known: Callable[[str], bool]
    """whether a library of that name exists at all: in the tree, a provider, or nixpkgs"""

    def resolve(self, dist: Dist, names: Iterable[OpenedName]) -> PythonLibraries:
        """Return what becomes of the names of one dist."""
        names = tuple(names)
        uses_cffi = any(name.opener is Opener.CFFI for name in names)
        libraries: dict[str, str] = {}
        answers: dict[str, str] = {}
        cffi: dict[OpenedNeed, None] = {}
        unmet: dict[str, str] = {}
        computed: list[str] = []
        for name in names:
            place = f"{name.path}:{name.line}"
            if not name.name.strip("*"):
                computed.append(place)
                continue
            sonames = self._sonames(name)
            if any(self._is_libc(soname) for soname in sonames) or name.name in _LIBC_STEMS:
                is_glibc = self.context.target.libc is Libc.GLIBC
                if is_glibc and name.opener is Opener.FIND_LIBRARY and name.name in _LIBC_STEMS:
                    answers[name.name] = _LIBC_STEMS[name.name]
                continue
            served = [(soname, path) for soname in sonames if (path := self._path(dist, soname)) is not None]
            if not served:
                if name.traced:
                    missing = self._reportable(sonames)
                    if missing is not None:
                        unmet.setdefault(missing, place)
                continue
            if name.opener is Opener.CFFI or uses_cffi:
                needed = tuple(soname for soname, _ in served)
                cffi[OpenedNeed(needed if "*" not in name.name else needed[:1], place)] = None
            if (
                name.opener is Opener.CFFI
                and "*" not in name.name
                and served[0][0] != os.path.basename(name.name)
            ):
                # ffi.dlopen asks find_library for a name that dlopen does not find: libpulse.so, pulse.
                answers[name.name] = served[0][1]
            if name.opener is Opener.CTYPES and "*" in name.name:
                libraries.update(served)
            elif name.opener is Opener.CTYPES:
                libraries[name.name] = served[0][1]
            elif name.opener is Opener.FIND_LIBRARY and "*" in name.name:
                answers.update({_stem(soname): path for soname, path in reversed(served)})
            elif name.opener is Opener.FIND_LIBRARY:
                answers[name.name] = served[0][1]
        return PythonLibraries(
            libraries,
            answers,
            tuple(cffi),
            tuple(sorted((soname, place) for soname, place in unmet.items())),
            tuple(computed),
        )

    def _sonames(self, name: OpenedName) -> tuple[str, ...]:
        """Return the file names that a name may mean, the best first."""
        base = os.path.basename(name.name)
        if ".so" not in base:
            base = f"lib{base}.so"
            pattern = f"{re.escape(base)}(?:\\..*)?"
        else:
            pattern = re.escape(base)
        if "*" in base:
            start, _, _ = base.partition("*")
            matching = re.compile(pattern.replace(r"\*", ".*"))
            return tuple(filter(matching.fullmatch, self.beginning(start))) if len(start) > len("lib") else ()
        if base.endswith(".so"):
            # A library is asked for by its DT_SONAME, not by the name of the file behind it (libz.so.1.3.1).
            outside = sorted(self.versions(base), key=lambda soname: not self._is_soname(soname))
            exact = [base] if ".so" in name.name else []
            return tuple(dict.fromkeys((*exact, *self.context.versions(base), *outside, base)))
        return (base,)

    def _is_soname(self, name: str) -> bool:
        provider = self.context.choice(name).provider
        return provider is not None and provider.soname == name

    def _is_libc(self, soname: str) -> bool:
        return self.context.libc_of(soname) is not None

    def _path(self, dist: Dist, soname: str) -> str | None:
        """Return the path of a library for a dist, by the steps of ``resolve.need_sources``."""
        context, policy = self.context, self.context.policy
        in_tree = context.files_named(soname)
        own = [path for path in in_tree if path in dist.files]
        if own:
            return _from_site(own[0], dist)
        if policy.is_driver(soname):
            return f"{policy.driver_directory}/{soname}"
        provider = context.choice(soname).provider
        from_store = f"{provider.directory}/{provider.name}" if provider is not None else None
        if in_tree and not (policy.is_system(soname) and from_store):
            return _from_site(in_tree[0], dist)
        lent = () if in_tree else context.lent_files((dist.info,), soname)
        return lent[0] if lent and not (policy.is_system(soname) and from_store) else from_store

    def _reportable(self, sonames: Sequence[str]) -> str | None:
        """Return the soname to report as missing; None for a name that no library on Linux has."""
        return next((soname for soname in sonames if self.is_known(soname)), None)


def _from_site(path: str, dist: Dist) -> str:
    """Return a path relative to the site directory; with a slash, so that it is no bare name."""
    relative = os.path.relpath(path, dist.site)
    return relative if "/" in relative else f"./{relative}"


def _stem(soname: str) -> str:
    return soname.removeprefix("lib").partition(".so")[0]
