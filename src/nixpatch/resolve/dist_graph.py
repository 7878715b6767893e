"""The graph of Requires-Dist (PEP 508, PEP 643): in which order other dists may lend libraries to a dist."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from nixpatch.model import Dist, Target

_Node = tuple[str, str]
"""``info`` of a dist and a required extra of it, "" for the dist itself"""


def marker_environment(machine: str, version_info: tuple[int, int] | None) -> dict[str, str]:
    """Return the PEP 508 environment of a target; nothing of the running interpreter is in it.

    Args:
        machine: as ``platform.machine()`` has it.
        version_info: of its Python; None if that is unknown.

    """
    version = ".".join(map(str, version_info or (3, 11)))
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{version}.0",
        "os_name": "posix",
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{version}.0",
        "python_version": version,
        "sys_platform": "linux",
        "extra": "",
    }


def lenders(dists: Sequence[Dist], target: Target) -> Mapping[str, tuple[str, ...]]:
    """Return, by ``info`` of each dist, the dists that it requires, nearest first, then all others sorted.

    Extras that one dist requires of another count: torch gets its CUDA libraries through
    ``cuda-toolkit[cublas,...]``. Extras that the user installed do not: they are recorded nowhere.
    """
    order = sorted(dist.info for dist in dists)
    required = requirements(dists, marker_environment(target.machine.name, target.version))
    return {
        info: tuple(other for other in dict.fromkeys((*required[info], *order)) if other != info)
        for info in order
    }


def requirements(dists: Sequence[Dist], environment: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """Return, by ``info`` of each dist, the others that it requires, nearest first.

    Args:
        dists: the dists; of two with one name the first counts.
        environment: as :func:`marker_environment` returns it.

    """
    by_name: dict[str, Dist] = {}
    for dist in dists:
        by_name.setdefault(dist.name, dist)
    required = {dist.info: tuple(_parsed(dist)) for dist in dists}
    direct: dict[_Node, tuple[_Node, ...]] = {}
    result: dict[str, tuple[str, ...]] = {}
    for info in required:
        reached: dict[_Node, None] = {(info, ""): None}
        queue = list(reached)
        for node in queue:
            if node not in direct:
                node_info, extra = node
                direct[node] = tuple(_direct(required[node_info], by_name, {**environment, "extra": extra}))
            for other in direct[node]:
                if other not in reached:
                    reached[other] = None
                    queue.append(other)
        result[info] = tuple(other for other in dict.fromkeys(other for other, _ in reached) if other != info)
    return result


def _parsed(dist: Dist) -> Iterator[Requirement]:
    for line in dist.requires:
        # A line that no tool can read is left out; RecursionError is packaging's reaction to deep brackets.
        with contextlib.suppress(InvalidRequirement, ValueError, RecursionError):
            yield Requirement(line)


def _direct(
    requirements: Iterable[Requirement], by_name: Mapping[str, Dist], environment: dict[str, str]
) -> Iterator[_Node]:
    for requirement in requirements:
        other = by_name.get(canonicalize_name(requirement.name))
        if other is None or not _applies(requirement, environment):
            continue
        yield other.info, ""
        for extra in sorted(requirement.extras):
            yield other.info, canonicalize_name(extra)


def _applies(requirement: Requirement, environment: dict[str, str]) -> bool:
    try:
        return requirement.marker is None or requirement.marker.evaluate(environment)
    # A comparison without meaning: platform_system ~= "Linux", or one of two texts, which packaging looks up
    # in the environment (KeyError).
    except (ValueError, KeyError, RecursionError):
        return False
