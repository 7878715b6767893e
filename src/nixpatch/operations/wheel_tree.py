"""A wheel file as a tree: unpacked into a scratch directory as an installer would lay it out.

Reports on it name the wheel and its members, never the scratch directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import IO, Any, TypeVar

from packaging.utils import canonicalize_name, parse_wheel_filename

from nixpatch.errors import MachineError, NixpatchError, RequestError
from nixpatch.escape import shown
from nixpatch.installed.target_python import find_target
from nixpatch.installed.wheel_file import (
    UnpackedMember,
    WheelFile,
    read_wheel,
    requirements_of,
    unpack,
)
from nixpatch.model import Dist, Plan, Tree, TreeFile, TreeKind, Verdict
from nixpatch.model.trace import Trace
from nixpatch.operations.plan import Reader, make_plan
from nixpatch.operations.request import PatchRequest
from nixpatch.resolve.dist_graph import marker_environment, requirements

_T = TypeVar("_T")
_PATH = r"[^\s:;,'\"()]*"
"""the rest of a path in a sentence"""
_CHUNK = 1 << 20
_DEFAULT_VERSION = (3, 11)
"""for a wheel of any version where no Python is known; the layout is the same in all"""


@dataclass(frozen=True, slots=True)
class WheelTree:
    """A wheel that is unpacked."""

    wheel: WheelFile
    prefix: str
    """the scratch directory"""
    site: str
    members: Mapping[str, UnpackedMember]
    names: Mapping[str, str]
    """names to show: path in the scratch directory -> path of the wheel with that of the member"""

    @property
    def info(self) -> str:
        """The ``.dist-info`` directory of the wheel."""
        return os.path.join(self.site, self.wheel.info)

    def files(self) -> Iterator[str]:
        """Yield every file of the scratch directory."""
        for directory, _, names in os.walk(self.prefix):
            yield from (os.path.join(directory, name) for name in names)

    def shown(self, value: _T) -> _T:
        """Return a result with the names of the wheel in the place of those in the scratch directory."""
        renamed: _T = _renamed(value, self._shown_text)
        return renamed

    def shown_by(self, show: Callable[[str], None]) -> Callable[[str], None]:
        """Return a callback for messages that passes them on with the names of the wheel."""
        return lambda text: show(self.shown(text))

    def _shown_text(self, text: str) -> str:
        if self.prefix not in text:
            return text
        if text in self.names:
            return self.names[text]
        whole = shlex.quote(os.path.realpath(self.wheel.path))
        text = text.replace(f"nixpatch {shlex.quote(self.prefix)}", f"nixpatch wheel {whole}")
        return re.sub(re.escape(self.prefix) + _PATH, lambda match: self._shown_path(match.group()), text)

    def _shown_path(self, path: str) -> str:
        if path in self.names:
            return self.names[path]
        base = self.site if f"{path}/".startswith(f"{self.site}/") else self.prefix
        return self.names[self.prefix] + path.removeprefix(base)

    def plan(
        self,
        request: PatchRequest,
        say: Callable[[str], None] = lambda _: None,
        reading: Callable[[Iterable[TreeFile]], Iterable[TreeFile]] = iter,
    ) -> Plan:
        """Plan the wheel, as :func:`make_plan` does, with the names to show."""
        request = replace(request, path=self.prefix, cache=None)
        return self.shown(self.plan_of_wheel(make_plan(request, self.shown_by(say), reading)))

    def plan_of_wheel(self, plan: Plan) -> Plan:
        """Return the part of a plan that is about the wheel: those beside it only serve it."""
        others = self._of_others(plan.tree)
        return replace(
            plan,
            files=tuple(file for file in plan.files if self.info in file.file.owners),
            texts=tuple(text for text in plan.texts if text.info == self.info),
            vendored=tuple(library for library in plan.vendored if self.info in library.file.owners),
            opened_unmet=tuple(
                library
                for library in plan.opened_unmet
                if any(owner == self.info for _, owner in library.openers)
            ),
            findings=tuple(finding for finding in plan.findings if finding.path not in others),
        )

    def verdict_of_wheel(self, verdict: Verdict) -> Verdict:
        """Return the part of a verdict that is about the wheel."""
        others = self._of_others(verdict.tree)
        return replace(
            verdict, findings=tuple(finding for finding in verdict.findings if finding.path not in others)
        )

    def trace_of_wheel(self, trace: Trace) -> Trace:
        """Return the part of a trace that is about the wheel."""
        others = self._of_others(trace.tree) if trace.tree is not None else frozenset()
        files = {path: facts for path, facts in trace.files.items() if path not in others}
        return replace(
            trace,
            files=files,
            asked=tuple(files),
            links=tuple(link for link in trace.links if link.by not in others),
            opened=tuple(link for link in trace.opened if link.by not in others),
            skipped={path: skip for path, skip in trace.skipped.items() if path not in others},
            conflicts=tuple(
                conflict for conflict in trace.conflicts if not others.issuperset(conflict.files)
            ),
        )

    def _of_others(self, tree: Tree) -> frozenset[str]:
        """Return the dists of the wheels beside it, and the files that are theirs alone."""
        dists = [dist for dist in tree.dists if dist.info != self.info]
        files = frozenset[str]().union({dist.info for dist in dists}, *(dist.files for dist in dists))
        return files.difference(member.path for member in self.members.values())


def wheels_beside(path: str, beside: Sequence[str], named: Iterable[str]) -> list[str]:
    """Return the wheels that will be beside a wheel: those of ``--with``, and those that it requires.

    Args:
        path: the wheel.
        beside: the wheels of ``--with``.
        named: wheels that may be required. Of several for one dist the newest version counts.

    Raises:
        RequestError: one of them is no wheel.

    """
    wheel = read_wheel(path)
    known = dict.fromkeys(other for other in beside if other != path)
    others = [read_wheel(other) for other in dict.fromkeys(named) if other not in (path, *known)]
    fitting = [other for other in others if _fits(other, wheel)]
    fitting.sort(key=lambda other: (parse_wheel_filename(os.path.basename(other.path))[1], other.path))
    fitting.reverse()
    dists = [_dist(each) for each in (wheel, *fitting)]
    required = requirements(dists, marker_environment(wheel.machine, wheel.python_version))[path]
    return [*known, *required]


def _fits(other: WheelFile, wheel: WheelFile) -> bool:
    """Whether two wheels may be installed into one environment."""
    return (
        canonicalize_name(other.name) != canonicalize_name(wheel.name)
        and (wheel.python_version is None or other.python_version in {None, wheel.python_version})
        and (not wheel.machine or other.machine in {"", wheel.machine})
    )


def _dist(wheel: WheelFile) -> Dist:
    return Dist(canonicalize_name(wheel.name), wheel.version, "", wheel.path, requirements_of(wheel))


@contextlib.contextmanager
def unpacked(
    path: str, *, python: str | None, path_env: str | None, others: Sequence[str] = ()
) -> Iterator[WheelTree]:
    """Unpack a wheel into a scratch directory, which goes in the end.

    What is raised in the block has the names of the wheel, too.

    Args:
        path: the wheel.
        python: the target's Python; None finds it.
        path_env: the value of PATH, for finding it.
        others: wheels that will be installed beside it; their libraries serve.

    Raises:
        RequestError: a wheel cannot be used.
        MachineError: the scratch directory cannot be written.

    """
    wheel = read_wheel(path)
    with tempfile.TemporaryDirectory(prefix="nixpatch-wheel-") as scratch:
        prefix = os.path.join(os.path.realpath(scratch), "prefix")
        tree = WheelTree(wheel, prefix, "", {}, {prefix: os.path.realpath(path)})
        try:
            tree = _unpacked_into(tree, [*map(read_wheel, others), wheel], python, path_env)
        except FileExistsError as error:
            name = os.path.relpath(error.filename, prefix)
            text = f"{name}: two of the wheels would install this file, each another one"
            raise RequestError(f"{path}: {shown(text)}; leave out a wheel of --with") from error
        except OSError as error:
            text = f"{path}: cannot be unpacked: {tree.shown(str(error))}; nothing was written"
            raise MachineError(text) from error
        try:
            yield tree
        except NixpatchError as error:
            raise type(error)(tree.shown(str(error))) from error


def _unpacked_into(
    tree: WheelTree, wheels: Sequence[WheelFile], python: str | None, path_env: str | None
) -> WheelTree:
    """Unpack wheels, the last of which is that of the tree."""
    site = _site(tree.prefix, tree.wheel, python, path_env)
    names = {**tree.names, site: tree.names[tree.prefix]}
    members: dict[str, UnpackedMember] = {}
    for each in wheels:
        members = unpack(each, tree.prefix, site, _write)
        root = os.path.realpath(each.path)
        names |= {member.path: f"{root}/{name}" for name, member in members.items()}
    return replace(tree, site=site, members=members, names=names)


def _site(prefix: str, wheel: WheelFile, python: str | None, path_env: str | None) -> str:
    """Make the site-packages for the version that the wheel is for, else for that of the target."""
    version = wheel.python_version
    os.makedirs(prefix)
    if version is None:
        tree = Tree(prefix, prefix, TreeKind.PLAIN, ())
        with contextlib.suppress(RequestError):  # who needs the target will hear of it
            version = find_target(tree, python, path_env, Reader()).version
    version = version or _DEFAULT_VERSION
    site = os.path.join(prefix, "lib", f"python{version[0]}.{version[1]}", "site-packages")
    os.makedirs(site)
    return site


def _write(path: str, contents: IO[bytes], executable: bool) -> None:
    """Write a file; one that another wheel brings, too (``PySide6/__init__.py``), has to be the same.

    Raises:
        FileExistsError: there is another file.
        OSError: it cannot be written.

    """
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with contextlib.suppress(FileExistsError):
        with open(path, "xb") as file:
            shutil.copyfileobj(contents, file, _CHUNK)
        os.chmod(path, 0o755 if executable else 0o644)
        return
    with open(path, "rb") as known:
        while chunk := contents.read(_CHUNK):
            if known.read(len(chunk)) != chunk:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if known.read(1):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)


def _renamed(value: Any, rename: Callable[[str], str]) -> Any:
    """Apply a function to every text in a value of the model."""
    if isinstance(value, str):
        return rename(value)
    if is_dataclass(value) and not isinstance(value, type):
        changes: dict[str, Any] = {}
        for field in fields(value):
            old = getattr(value, field.name)
            new = _renamed(old, rename)
            if new is not old:
                changes[field.name] = new
        if isinstance(value, Tree):
            changes["kind"] = TreeKind.WHEEL
        return replace(value, **changes) if changes else value
    if isinstance(value, Mapping):
        return {_renamed(key, rename): _renamed(item, rename) for key, item in value.items()}
    if isinstance(value, tuple | frozenset | list | set):
        items = [_renamed(item, rename) for item in value]
        return value if all(map(_is_same, items, value)) else type(value)(items)
    return value


def _is_same(new: object, old: object) -> bool:
    return new is old
