"""Ask the real loader: open each ELF file in the target Python and compare what got mapped.

The one place besides the wrappers where something of the tree runs: the constructors of its libraries, in
child processes of the target Python, because the user asked for it with ``--load``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

from nixpatch.errors import MachineError
from nixpatch.model import ElfFacts, Finding, Target
from nixpatch.operations.plan import Reader
from nixpatch.operations.verify_provenance import expected

_LISTED = re.compile(r"^\s*(?:\S+ => )?(/.*) \(0x[0-9a-f]+\)$", re.MULTILINE)
_CANNOT_OPEN = re.compile(r"(\S+): cannot open shared object file")
_NOT_FOUND = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)
_SECONDS = 600  # for all files; a library whose constructor waits for something would hang the run


@dataclass(frozen=True, slots=True)
class Loaded:
    """What the loader did with one file."""

    path: str
    error: str | None
    mapped: frozenset[str]
    """real paths"""


def compare(
    facts: Mapping[str, ElfFacts], target: Target, reader: Reader, ignored: Callable[[str, str], bool]
) -> tuple[int, tuple[Finding, ...]]:
    """Load every file; return how many were opened and where the loader disagrees with the search paths.

    ``ignored`` tells whether the file at a path may lack a soname.

    Raises:
        MachineError: the target Python cannot be run on this machine.

    """
    programs = [path for path, fact in facts.items() if fact.executable and fact.current.interp]
    libraries = [path for path, fact in facts.items() if path not in set(programs)]
    findings: list[Finding] = []
    opened = 0
    at_start, results = _load_libraries(libraries, target)
    results += (_list(path, target) for path in programs)
    for loaded in results:
        opened += loaded.error is None
        before = frozenset[str]() if loaded.path in programs else at_start
        findings += _judge(loaded, expected(loaded.path, facts[loaded.path], reader), before, ignored)
    return opened, tuple(findings)


def _judge(
    loaded: Loaded, wanted: Mapping[str, str], at_start: frozenset[str], ignored: Callable[[str, str], bool]
) -> Iterator[Finding]:
    if loaded.error is not None:
        lacking = _CANNOT_OPEN.match(loaded.error)
        if lacking is None:
            yield Finding("note", loaded.path, f"does not load on its own: {loaded.error}")
        elif ignored(loaded.path, lacking[1]):
            yield Finding("note", loaded.path, f"lacks {lacking[1]}, which it may")
        else:
            yield Finding("error", loaded.path, f"the loader says: {loaded.error}")
        return
    for need, path in wanted.items():
        if path in loaded.mapped:
            continue
        # ld.so(8): a library that is loaded under the soname serves, wherever it came from.
        mine = [other for other in sorted(at_start) if os.path.basename(other).startswith(need)]
        if mine:
            text = f"needs {need} from {path}; Python itself has loaded {mine[0]}, which serves instead"
            yield Finding("note", loaded.path, text)
            continue
        others = [other for other in sorted(loaded.mapped) if os.path.basename(other).startswith(need)]
        instead = f"took {others[0]}" if others else "did not map it"
        yield Finding("error", loaded.path, f"needs {need} from {path}, the loader {instead}")


def _environment() -> dict[str, str]:
    """Nothing that steers the loader or Python comes along."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("LD_", "PYTHON"))}


def _load_libraries(paths: Sequence[str], target: Target) -> tuple[frozenset[str], list[Loaded]]:
    """Return what Python itself has mapped before it loads anything, and one result for each path."""
    probe = resources.files("nixpatch").joinpath("data/load_probe.py").read_text("utf-8")
    command = [target.python, "-I", "-B", "-c", probe]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(paths),
            capture_output=True,
            text=True,
            env=_environment(),
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{target.python}: cannot be run for --load: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise MachineError(f"{target.python}: cannot load libraries for --load: {last}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    results = [Loaded(row["path"], row["error"], _real(row["mapped"])) for row in rows]
    return results[0].mapped, results[1:]


def _real(paths: Iterable[str]) -> frozenset[str]:
    return frozenset(map(os.path.realpath, paths))


def _list(path: str, target: Target) -> Loaded:
    """Let the loader list what it would map for a program, which is not started (ld.so(8), --list)."""
    try:
        done = subprocess.run(
            [target.loader, "--list", path],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env=_environment(),
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Loaded(path, f"the loader cannot be run: {error}", frozenset())
    missing = _NOT_FOUND.findall(done.stdout)
    if missing:
        return Loaded(path, f"{missing[0]}: cannot open shared object file", frozenset())
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        # The loader puts the name of the program and what it was doing before the complaint itself.
        return Loaded(path, last.rpartition("loading shared libraries: ")[2], frozenset())
    return Loaded(path, None, _real(_LISTED.findall(done.stdout)))
