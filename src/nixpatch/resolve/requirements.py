"""Which dists may lend their libraries to which: the graph of Requires-Dist (PEP 508, PEP 643)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from packaging.markers import UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from nixpatch.model import Dist, Target


def marker_environment(target: Target) -> dict[str, str]:
    """Return the PEP 508 environment of the target; nothing of the running interpreter is in it."""
    version = ".".join(map(str, target.version or (3, 11)))
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{version}.0",
        "os_name": "posix",
        "platform_machine": target.machine.name,
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

    Requirements on an extra do not count: whether the extra was asked for is recorded nowhere.
    """
    environment = marker_environment(target)
    by_name: dict[str, Dist] = {}
    for dist in dists:
        by_name.setdefault(dist.name, dist)
    direct = {dist.info: _direct(dist, by_name, environment) for dist in dists}
    order = sorted(direct)
    result: dict[str, tuple[str, ...]] = {}
    for info in order:
        reached = {info: None}
        queue = [info]
        for current in queue:
            for other in direct[current]:
                if other not in reached:
                    reached[other] = None
                    queue.append(other)
        reached.update(dict.fromkeys(order))
        del reached[info]
        result[info] = tuple(reached)
    return result


def _direct(dist: Dist, by_name: Mapping[str, Dist], environment: dict[str, str]) -> tuple[str, ...]:
    found: list[str] = []
    for line in dist.requires:
        try:
            requirement = Requirement(line)
            applies = requirement.marker is None or requirement.marker.evaluate(environment)
        except (InvalidRequirement, UndefinedEnvironmentName):
            continue  # an old dist with a line no tool can read lends and borrows as if it were not there
        other = by_name.get(canonicalize_name(requirement.name))
        if applies and other is not None and other is not dist:
            found.append(other.info)
    return tuple(found)
