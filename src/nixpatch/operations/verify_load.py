"""Open each ELF file with the real loader, and compare the mapped libraries with the search paths.

This runs code of the tree, because the user passed ``--load``: the constructors of its libraries, in child
processes of the target Python.
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
from nixpatch.operations.verify_provenance import libraries_by_search_path

_LISTED = re.compile(r"^\s*(?:\S+ => )?(/.*) \(0x[0-9a-f]+\)$", re.MULTILINE)
_CANNOT_OPEN = re.compile(r"(\S+): cannot open shared object file")
_NOT_FOUND = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)
_SECONDS = 600  # for all files together; a constructor may wait forever


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of loading one file."""

    path: str
    error: str | None
    mapped: frozenset[str]
    """real paths"""


def load_files(
    facts: Mapping[str, ElfFacts], target: Target, reader: Reader, ignored: Callable[[str, str], bool]
) -> tuple[int, tuple[Finding, ...]]:
    """Load every file.

    Args:
        facts: the files to load.
        target: the Python that loads them.
        reader: reads ELF files.
        ignored: ``ignored(path, soname)`` is whether the soname may be missing for the file.

    Returns:
        the number of files that were opened, and findings where the loader took another library.

    Raises:
        MachineError: the target Python cannot be run on this machine.

    """
    programs = [path for path, fact in facts.items() if fact.executable and fact.current.interp]
    libraries = [path for path, fact in facts.items() if path not in set(programs)]
    findings: list[Finding] = []
    opened = 0
    by_soname = {fact.soname: path for path, fact in facts.items() if fact.soname is not None}
    at_start, results = _load_libraries(libraries, target)
    results += (_list(path, target) for path in programs)
    for result in results:
        opened += result.error is None
        preloaded = frozenset[str]() if result.path in programs else at_start
        expected = libraries_by_search_path(result.path, facts[result.path], reader)
        findings += _check(result, expected, preloaded, ignored, by_soname)
    return opened, tuple(findings)


def _check(
    result: LoadResult,
    expected: Mapping[str, str],
    preloaded: frozenset[str],
    ignored: Callable[[str, str], bool],
    by_soname: Mapping[str, str],
) -> Iterator[Finding]:
    if result.error is not None:
        missing = _CANNOT_OPEN.match(result.error)
        if missing is None:
            yield Finding("note", result.path, f"does not load on its own: {result.error}")
        elif ignored(result.path, missing[1]):
            yield Finding("note", result.path, f"lacks {missing[1]}, which is ignored")
        elif missing[1] in by_soname:
            text = f"finds {missing[1]} only once {by_soname[missing[1]]}, which has this soname, is loaded"
            yield Finding("note", result.path, text)
        else:
            yield Finding("error", result.path, f"the loader failed: {result.error}")
        return
    for need, path in expected.items():
        if path in result.mapped:
            continue
        # ld.so(8): a library that is loaded already under the soname serves, whatever its path.
        own = [other for other in sorted(preloaded) if os.path.basename(other).startswith(need)]
        if own:
            text = f"needs {need} from {path}; Python itself has loaded {own[0]}, which serves instead"
            yield Finding("note", result.path, text)
            continue
        others = [other for other in sorted(result.mapped) if os.path.basename(other).startswith(need)]
        instead = f"took {others[0]}" if others else "did not map it"
        yield Finding("error", result.path, f"needs {need} from {path}, but the loader {instead}")


def clean_environ() -> dict[str, str]:
    """Return the environment without variables that affect the loader or Python."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("LD_", "PYTHON"))}


def _load_libraries(paths: Sequence[str], target: Target) -> tuple[frozenset[str], list[LoadResult]]:
    """Return the files that Python itself has mapped, and one result for each path."""
    probe = resources.files("nixpatch").joinpath("data/load_probe.py").read_text("utf-8")
    command = [target.python, "-I", "-B", "-c", probe]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(paths),
            capture_output=True,
            text=True,
            env=clean_environ(),
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{target.python}: cannot be run for --load: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise MachineError(f"{target.python}: cannot load libraries for --load: {last}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    results = [LoadResult(row["path"], row["error"], _real(row["mapped"])) for row in rows]
    return results[0].mapped, results[1:]


def _real(paths: Iterable[str]) -> frozenset[str]:
    return frozenset(map(os.path.realpath, paths))


def _list(path: str, target: Target) -> LoadResult:
    """Let the loader list what it would map for a program, without starting it (ld.so(8), --list)."""
    try:
        done = subprocess.run(
            [target.loader, "--list", path],
            capture_output=True,
            text=True,
            errors="surrogateescape",
            env=clean_environ(),
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return LoadResult(path, f"the loader cannot be run: {error}", frozenset())
    missing = _NOT_FOUND.findall(done.stdout)
    if missing:
        return LoadResult(path, f"{missing[0]}: cannot open shared object file", frozenset())
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        # The loader prints the name of the program and its own action before the error itself.
        return LoadResult(path, last.rpartition("loading shared libraries: ")[2], frozenset())
    return LoadResult(path, None, _real(_LISTED.findall(done.stdout)))
