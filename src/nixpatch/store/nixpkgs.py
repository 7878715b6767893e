"""Realise libraries from nixpkgs: soname -> attribute by the catalog, attribute -> store path by Nix.

Nothing here runs unless the user names a nixpkgs with ``--nixpkgs``: evaluating one runs whatever is in it.
All attributes go into one call. Outputs are written as attributes (``openssl.out``) and asked for with
``--json``, which every Nix understands; ``^out`` and ``--print-out-paths`` are younger than Debian 12's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nixpatch.errors import MachineError, RequestError
from nixpatch.model import Machine
from nixpatch.model.missing import Attribute, AttributeKind
from nixpatch.store.catalog import Catalog, packaged
from nixpatch.store.nix_store import Store

_NAMED = 5
_FLAKES = ("--extra-experimental-features", "nix-command flakes")


@dataclass(frozen=True, slots=True)
class Nixpkgs:
    """A nixpkgs, or an expression with the same attributes. Made by :func:`parse_reference`."""

    given: str
    """as the user wrote it"""
    reference: str
    """the argument for Nix: a flake reference, or what ``nix-build`` takes for a file"""
    flake: bool


@dataclass(frozen=True, slots=True)
class Realised:
    """The libraries that nixpkgs provided."""

    paths: tuple[str, ...] = ()
    """store paths, sorted"""
    notes: Mapping[str, str] = field(default_factory=dict)
    """by soname: a line on what was tried for it, for reports of what is still missing"""


@dataclass(frozen=True, slots=True)
class _Build:
    """One attribute to build."""

    paths: tuple[str, ...]
    """attribute paths to try, the likeliest first"""
    sonames: tuple[str, ...]
    unfree: bool


def parse_reference(given: str) -> Nixpkgs:
    """Parse the value of ``--nixpkgs``.

    A path (``/...``, ``./...``, ``../...``), ``<nixpkgs>`` and ``channel:...`` are for ``nix-build``, except
    for a directory that is a flake and nothing else. Everything else is a flake reference, so that
    ``nixpkgs`` is the registry's even beside a directory of that name.

    Raises:
        RequestError: it looks like an option, names an attribute, or is a path that does not exist.

    """
    if given.startswith("-") or not given or not given.isprintable():
        raise RequestError(f"--nixpkgs {given}: neither a flake reference nor a path")
    if given.startswith(("<", "channel:")):
        return Nixpkgs(given, given, flake=False)
    if given in {".", ".."} or given.startswith(("/", "./", "../")):
        path = os.path.abspath(given)
        if not os.path.exists(path):
            raise RequestError(f"--nixpkgs {given}: does not exist")
        if os.path.isdir(path) and not os.path.exists(os.path.join(path, "default.nix")):
            if not os.path.exists(os.path.join(path, "flake.nix")):
                raise RequestError(f"--nixpkgs {given}: a directory with neither default.nix nor flake.nix")
            return Nixpkgs(given, f"path:{path}", flake=True)
        return Nixpkgs(given, path, flake=False)
    if "#" in given:
        raise RequestError(f"--nixpkgs {given}: names an attribute; the catalog does that, leave # out")
    return Nixpkgs(given, given, flake=True)


def realise(
    store: Store,
    nixpkgs: Nixpkgs,
    sonames: Iterable[str],
    machine: Machine,
    *,
    catalog: Catalog | None = None,
    on_message: Callable[[str], None] = lambda _: None,
) -> Realised:
    """Build or fetch the packages that have these sonames.

    Args:
        store: the store to build into.
        nixpkgs: where the packages come from.
        sonames: the libraries to provide.
        machine: the machine that they are for.
        catalog: knows the attribute of a soname; None takes the catalog of this package.
        on_message: called before Nix runs.

    Raises:
        MachineError: there is no Nix for this store, an attribute is missing, or a build failed.

    """
    builds, notes = _look_up(catalog or packaged(), sorted(set(sonames)), nixpkgs)
    if not builds:
        return Realised(notes=notes)
    attempts = dict.fromkeys(builds, 0)
    on_message(f"realising from {nixpkgs.given}: {_some([build.paths[0] for build in builds])}")
    while True:
        selection = {build.paths[attempt]: build for build, attempt in attempts.items()}
        done = _run(store, nixpkgs, tuple(selection), machine)
        if done.returncode == 0:
            return Realised(_outputs(store, nixpkgs, done.stdout), notes)
        why = _reason(done)
        # nixpkgs renames packages, and no index knows the outputs of some: try the next path.
        absent = next((path for path in selection if _is_absent(why, path)), None)
        if absent is None or attempts[selection[absent]] + 1 == len(selection[absent].paths):
            raise MachineError(_complaint(nixpkgs, why, selection, absent))
        attempts[selection[absent]] += 1


def _look_up(
    catalog: Catalog, sonames: Sequence[str], nixpkgs: Nixpkgs
) -> tuple[tuple[_Build, ...], dict[str, str]]:
    """Return the attributes to build for some sonames, and a note on each soname."""
    notes: dict[str, str] = {}
    users: dict[tuple[str, ...], list[str]] = {}
    unfree: set[tuple[str, ...]] = set()
    for soname in sonames:
        attribute = catalog.lookup(soname)
        if attribute is None or attribute.kind is not AttributeKind.PACKAGE:
            why = attribute.note if attribute is not None else "no attribute is known to have it"
            notes[soname] = f"--nixpkgs {nixpkgs.given}: {why}"
            continue
        notes[soname] = f"--nixpkgs {nixpkgs.given}: {attribute.expression} does not have it in lib"
        paths = _paths(attribute)
        for other in catalog.alternatives(soname):
            if f"{other.attribute} before nixpkgs" in attribute.note:  # an older name of the same package
                paths += _paths(other)
        users.setdefault(paths, []).append(soname)
        if "unfree" in attribute.note:
            unfree.add(paths)
    return tuple(_Build(paths, tuple(users[paths]), paths in unfree) for paths in sorted(users)), notes


def _paths(attribute: Attribute) -> tuple[str, ...]:
    """Return the attribute paths of an output; of an unknown one, those that ``lib.getLib`` tries."""
    name = attribute.attribute
    if attribute.output == "lib" and not name.endswith(".cc"):
        # nixpkgs moves libraries between the outputs out and lib: this one is not in every version.
        return (f"{name}.lib", f"{name}.out")
    if attribute.output:
        return (f"{name}.{attribute.output}",)
    return (f"{name}.lib", f"{name}.out", name)


def _run(
    store: Store, nixpkgs: Nixpkgs, paths: Sequence[str], machine: Machine
) -> subprocess.CompletedProcess[bytes]:
    environ = dict(store.environ)
    name = "nix" if nixpkgs.flake else "nix-build"
    program = shutil.which(name, path=environ.get("PATH", "")) if store.program else None
    if program is None:
        raise MachineError(
            f"--nixpkgs {nixpkgs.given}: no {name} that manages {store.directory}; put Nix on the PATH, "
            "and in a Nix build use buildInputs instead"
        )
    options = ["--option", "system", machine.arch.nix_system] if machine.name != os.uname().machine else []
    if nixpkgs.flake:
        # Variables that nixpkgs reads (NIXPKGS_ALLOW_UNFREE) only count in an impure evaluation.
        options += ["--impure"] if any(key.startswith("NIXPKGS_") for key in environ) else []
        options += [*_FLAKES, "--no-link", "--json", "--no-write-lock-file"]
        command = [program, "build", *options, *(f"{nixpkgs.reference}#{path}" for path in paths)]
    else:
        selected = [argument for path in paths for argument in ("-A", path)]
        command = [program, "--no-out-link", *options, nixpkgs.reference, *selected]
    try:
        # No time limit: a build takes as long as it takes, and Ctrl-C reaches Nix as well.
        return subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise MachineError(f"--nixpkgs {nixpkgs.given}: cannot run {program}: {error.strerror}") from None


def _outputs(store: Store, nixpkgs: Nixpkgs, printed: bytes) -> tuple[str, ...]:
    if nixpkgs.flake:
        try:
            paths = [path for built in json.loads(printed) for path in built["outputs"].values()]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise MachineError(f"--nixpkgs {nixpkgs.given}: nix build printed no list of outputs") from None
        lines = [os.path.join(store.directory, str(path)) for path in paths]
    else:
        lines = [os.fsdecode(line) for line in printed.splitlines()]
    return tuple(sorted({line for line in lines if store.store_path_of(line) == line}))


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the most useful line of Nix's error message: after a failed build, the one on the builder."""
    lines = [line.strip() for line in os.fsdecode(done.stderr).splitlines()]
    errors = [line for line in lines if line.startswith("error: ")]
    builders = [line for line in errors if line.startswith(("error: builder for ", "error: Cannot build "))]
    best = builders[:1] or errors[-1:] or [line for line in lines if line][-1:] or [f"exit {done.returncode}"]
    return best[0].removeprefix("error: ").rstrip(";")


def _is_absent(why: str, path: str) -> bool:
    """Whether Nix's error is that there is no such attribute, in the words of nix-build or of flakes."""
    return ("not found" in why or "does not provide attribute" in why) and f"'{path}'" in why


def _complaint(nixpkgs: Nixpkgs, why: str, selection: Mapping[str, _Build], absent: str | None) -> str:
    if absent is not None:
        build = selection[absent]
        tried = f" (tried {', '.join(build.paths)})" if len(build.paths) > 1 else ""
        needed = _some(build.sonames)
        rest = f"{tried}, to provide {needed}: name a nixpkgs that has it, or --ignore-missing them"
    else:
        rest = f"; asked for {_some(list(selection))}"
        if "unfree" in why and any(build.unfree for build in selection.values()):
            rest += "; NIXPKGS_ALLOW_UNFREE=1 allows it"
    return f"--nixpkgs {nixpkgs.given}: {why}{rest}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
