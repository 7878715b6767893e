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
from nixpatch.store.catalog import Attribute, Catalog, Kind, packaged
from nixpatch.store.nix_store import Store

_SYSTEMS = {"armv7l": "armv7l", "ppc64le": "powerpc64le", "ppc64": "powerpc64"}
_NAMED = 5
_FLAKES = ("--extra-experimental-features", "nix-command flakes")


@dataclass(frozen=True, slots=True)
class Nixpkgs:
    """A nixpkgs, or an expression of its shape. Made by :func:`named`."""

    given: str
    """as the user wrote it"""
    reference: str
    """what Nix gets: a flake reference, or what ``nix-build`` takes for a file"""
    flake: bool


@dataclass(frozen=True, slots=True)
class Realised:
    """What nixpkgs gave."""

    paths: tuple[str, ...] = ()
    """store paths, sorted"""
    told: Mapping[str, str] = field(default_factory=dict)
    """by soname: a line on what was tried for it, for reports of what is still missing"""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One attribute to build."""

    paths: tuple[str, ...]
    """attribute paths to try, the likeliest first"""
    sonames: tuple[str, ...]
    unfree: bool


def named(given: str) -> Nixpkgs:
    """Tell what kind of reference it is.

    A path (``/...``, ``./...``, ``../...``), ``<nixpkgs>`` and ``channel:...`` are for ``nix-build``, but for
    a directory that is a flake and nothing else. Everything else is a flake reference, so that ``nixpkgs`` is
    the registry's even where a directory of that name lies around.

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
    say: Callable[[str], None] = lambda _: None,
) -> Realised:
    """Build or fetch what has these sonames; ``catalog`` None: the one of the package.

    Raises:
        MachineError: there is no Nix for this store, an attribute is missing, or a build failed.

    """
    wanted, told = _look_up(catalog or packaged(), sorted(set(sonames)), nixpkgs)
    if not wanted:
        return Realised(told=told)
    chosen = dict.fromkeys(wanted, 0)
    say(f"realising from {nixpkgs.given}: {_some([one.paths[0] for one in wanted])}")
    while True:
        selection = {one.paths[at]: one for one, at in chosen.items()}
        done = _run(store, nixpkgs, tuple(selection), machine)
        if done.returncode == 0:
            return Realised(_outputs(store, nixpkgs, done.stdout), told)
        why = _reason(done)
        # nixpkgs renames packages, and nobody knows the output of one that no index has seen: try the next.
        absent = next((path for path in selection if _says_absent(why, path)), None)
        if absent is None or chosen[selection[absent]] + 1 == len(selection[absent].paths):
            raise MachineError(_complaint(nixpkgs, why, selection, absent))
        chosen[selection[absent]] += 1


def _look_up(
    catalog: Catalog, sonames: Sequence[str], nixpkgs: Nixpkgs
) -> tuple[tuple[_Wanted, ...], dict[str, str]]:
    told: dict[str, str] = {}
    users: dict[tuple[str, ...], list[str]] = {}
    unfree: set[tuple[str, ...]] = set()
    for soname in sonames:
        found = catalog.lookup(soname)
        if found is None or found.kind is not Kind.PACKAGE:
            why = found.note if found is not None else "no attribute is known to have it"
            told[soname] = f"--nixpkgs {nixpkgs.given}: {why}"
            continue
        told[soname] = f"--nixpkgs {nixpkgs.given}: {found.expression} does not have it in lib"
        paths = _paths(found)
        for other in catalog.alternatives(soname):
            if f"{other.attribute} before nixpkgs" in found.note:  # an older name of the same package
                paths += _paths(other)
        users.setdefault(paths, []).append(soname)
        if "unfree" in found.note:
            unfree.add(paths)
    return tuple(_Wanted(paths, tuple(users[paths]), paths in unfree) for paths in sorted(users)), told


def _paths(attribute: Attribute) -> tuple[str, ...]:
    """Return the attribute paths of an output; where it is not known, those that ``lib.getLib`` tries."""
    name = attribute.attribute
    if attribute.output:
        return (f"{name}.{attribute.output}",)
    return (f"{name}.lib", f"{name}.out", name)


def _run(
    store: Store, nixpkgs: Nixpkgs, paths: Sequence[str], machine: Machine
) -> subprocess.CompletedProcess[bytes]:
    environment = dict(store.environment)
    name = "nix" if nixpkgs.flake else "nix-build"
    program = shutil.which(name, path=environment.get("PATH", "")) if store.program else None
    if program is None:
        raise MachineError(
            f"--nixpkgs {nixpkgs.given}: no {name} that manages {store.directory}; put Nix on the PATH, "
            "and in a Nix build use buildInputs instead"
        )
    options = ["--option", "system", _system(machine)] if machine.name != os.uname().machine else []
    if nixpkgs.flake:
        # What nixpkgs asks the environment for (NIXPKGS_ALLOW_UNFREE) only counts in an impure evaluation.
        options += ["--impure"] if any(key.startswith("NIXPKGS_") for key in environment) else []
        options += [*_FLAKES, "--no-link", "--json", "--no-write-lock-file"]
        command = [program, "build", *options, *(f"{nixpkgs.reference}#{path}" for path in paths)]
    else:
        selected = [word for path in paths for word in ("-A", path)]
        command = [program, "--no-out-link", *options, nixpkgs.reference, *selected]
    try:
        # No time limit: a build takes as long as it takes, and Ctrl-C reaches Nix as well.
        return subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise MachineError(f"--nixpkgs {nixpkgs.given}: cannot run {program}: {error.strerror}") from None


def _system(machine: Machine) -> str:
    return f"{_SYSTEMS.get(machine.name, machine.name)}-linux"


def _outputs(store: Store, nixpkgs: Nixpkgs, printed: bytes) -> tuple[str, ...]:
    if nixpkgs.flake:
        try:
            found = [path for built in json.loads(printed) for path in built["outputs"].values()]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise MachineError(f"--nixpkgs {nixpkgs.given}: nix build printed no list of outputs") from None
        lines = [os.path.join(store.directory, str(path)) for path in found]
    else:
        lines = [os.fsdecode(line) for line in printed.splitlines()]
    return tuple(sorted({line for line in lines if store.store_path_of(line) == line}))


def _reason(done: subprocess.CompletedProcess[bytes]) -> str:
    """Return the line of Nix's complaint that says most: of a build that failed, which builder did."""
    lines = [line.strip() for line in os.fsdecode(done.stderr).splitlines()]
    errors = [line for line in lines if line.startswith("error: ")]
    builders = [line for line in errors if line.startswith(("error: builder for ", "error: Cannot build "))]
    said = builders[:1] or errors[-1:] or [line for line in lines if line][-1:] or [f"exit {done.returncode}"]
    return said[0].removeprefix("error: ").rstrip(";")


def _says_absent(why: str, path: str) -> bool:
    """Whether Nix's complaint is that there is no such attribute, in the words of nix-build or of flakes."""
    return ("not found" in why or "does not provide attribute" in why) and f"'{path}'" in why


def _complaint(nixpkgs: Nixpkgs, why: str, selection: Mapping[str, _Wanted], absent: str | None) -> str:
    if absent is not None:
        one = selection[absent]
        tried = f" (tried {', '.join(one.paths)})" if len(one.paths) > 1 else ""
        rest = (
            f"{tried}, to provide {_some(one.sonames)}: name a nixpkgs that has it, or --ignore-missing them"
        )
    else:
        rest = f"; asked for {_some(list(selection))}"
        if "unfree" in why and any(one.unfree for one in selection.values()):
            rest += "; NIXPKGS_ALLOW_UNFREE=1 allows it"
    return f"--nixpkgs {nixpkgs.given}: {why}{rest}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
