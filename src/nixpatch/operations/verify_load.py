"""Open each ELF file with the real loader, and compare the mapped libraries with the search paths.

This runs code of the tree, because the user passed ``--load``: the constructors of its libraries, in child
processes of the target Python.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources

from nixpatch.errors import MachineError
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.model import ElfFacts, Finding, Target, Tree
from nixpatch.model.plan import OPTIONAL_PARTS
from nixpatch.operations.plan import Reader
from nixpatch.operations.verify_provenance import (
    by_search_path,
    libraries_by_search_path,
    patched_files,
    stop_by_search_path,
)
from nixpatch.operations.verify_texts import patched_texts, startup_names

# Names and directories may have spaces and line feeds.
_LISTED = re.compile(r"^\t(?:.+? => )?(/.+?) \(0x[0-9a-f]+\)$", re.MULTILINE | re.DOTALL)
_CANNOT_OPEN = re.compile(r"(.+): cannot open shared object file: No such file", re.DOTALL)
_NOT_FOUND = re.compile(r"^\t(.+) => not found$", re.MULTILINE)
_HARMLESS = re.compile(
    # Symbols may come from a library that code loads first, or from the program that loads the file.
    r"undefined symbol: "
    # The block that ld.so reserves for libraries is small: what needs more of it is loaded at the start.
    r"|cannot allocate memory in static TLS block"
    # A program without an interpreter is started by other means.
    r"|cannot dynamically load (?:position-independent )?executable"
)
_SECONDS = 600  # for all files together; a constructor may wait forever
_FILE_SECONDS = 60
_LATE = re.compile(r"not loaded after [0-9]+ s")
_Items = Sequence["str | Mapping[str, object]"]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The result of loading one file."""

    path: str
    error: str | None
    mapped: frozenset[str]
    """real paths"""


def load_files(
    facts: Mapping[str, ElfFacts],
    target: Target,
    reader: Reader,
    ignored: Callable[[str, str], bool],
    stops: Callable[[str], bool] = lambda _: True,
) -> tuple[int, tuple[Finding, ...]]:
    """Load every file.

    Args:
        facts: the files to load.
        target: the Python that loads them.
        reader: reads ELF files.
        ignored: ``ignored(path, soname)`` is whether the soname may be missing for the file.
        stops: whether a file is loaded by itself. What only other files lack is a note: a module or program
            that loads one of these fails, too.

    Returns:
        the number of files that were opened, and findings where the loader took another library.

    Raises:
        MachineError: the target Python cannot be run on this machine.

    """
    findings: list[Finding] = []
    opened = 0
    fifos = {path: fifo for path, fact in facts.items() if (fifo := _first_fifo(path, fact, reader))}
    for path, fifo in fifos.items():
        findings.append(Finding("error", path, f"is not opened: ld.so waits for ever at the FIFO {fifo}"))
    programs = [path for path, fact in facts.items() if fact.executable and fact.current.interp]
    programs = [path for path in programs if path not in fifos]
    libraries = [path for path in facts if path not in {*programs, *fifos}]
    by_soname = {fact.soname: path for path, fact in facts.items() if fact.soname is not None}
    at_start, results = _probe(libraries, target)
    results += (_list(path, target) for path in programs)
    for result in results:
        opened += result.error is None
        preloaded = frozenset[str]() if result.path in programs else at_start
        expected = libraries_by_search_path(result.path, facts[result.path], reader)
        checked = _check(result, expected, preloaded, ignored, by_soname, reader)
        lacks = result.error is not None and _CANNOT_OPEN.match(result.error) is not None
        is_optional = lacks and not stops(result.path)
        findings += (
            replace(finding, severity="note", topic=OPTIONAL_PARTS) if is_optional else finding
            for finding in checked
        )
    return opened, tuple(findings)


def load_opened(
    tree: Tree, records: TreeRecords, target: Target, reader: Reader
) -> tuple[int, tuple[Finding, ...]]:
    """Load the libraries that nixpatch linked because code opens them by name.

    A name of a start-up file is opened as the code of its dist does it. For native code, ctypes cannot choose
    the object that calls dlopen, whose search path decides: so ld.so's rules give the path of the library in
    the search path of that object, and this path is opened.

    Returns:
        the number of libraries that were opened, and an error for each that was not.

    Raises:
        MachineError: the target Python cannot be run on this machine.

    """
    items: list[str | Mapping[str, object]] = []
    users: list[tuple[str, str]] = []
    for caller, (_, entry) in sorted(patched_files(tree, records, []).items()):
        facts = reader.facts(caller)
        for need, library in entry.needs.items() if facts else ():
            if facts is None or need in facts.needed or not library.startswith("/"):
                continue
            path = by_search_path(need, caller, facts, reader)
            if path is not None and path not in items:
                items.append(path)
                users.append((caller, f"opens {need} by name"))
    for path, name, library, finds in startup_names(patched_texts(tree, records)):
        call = f"find_library({name!r})" if finds else name
        items.append({"name": name, "finds": finds, "library": library, "site": os.path.dirname(path)})
        users.append((path, f"answers for {call}"))
    results = _probe(items, target)[1] if items else []
    return sum(result.error is None for result in results), tuple(
        Finding("error", path, f"{use}, but the loader failed: {result.error}")
        for (path, use), result in zip(users, results, strict=True)
        if result.error is not None
    )


def _first_fifo(path: str, facts: ElfFacts, reader: Reader) -> str | None:
    """Return the FIFO that ld.so opens on its search for a need of a file."""
    for need in facts.needed:
        stopped = stop_by_search_path(need, path, facts, reader)
        with contextlib.suppress(OSError):
            if stopped is not None and stat.S_ISFIFO(os.stat(stopped).st_mode):
                return stopped
    return None


def _check(
    result: LoadResult,
    expected: Mapping[str, str],
    preloaded: frozenset[str],
    ignored: Callable[[str, str], bool],
    by_soname: Mapping[str, str],
    reader: Reader,
) -> Iterator[Finding]:
    if result.error is not None:
        missing = _CANNOT_OPEN.match(result.error)
        if _LATE.match(result.error):
            yield Finding("error", result.path, f"{result.error}: a FIFO or a constructor makes it wait")
        elif missing is None and _HARMLESS.search(result.error):
            yield Finding("note", result.path, f"does not load on its own: {result.error}")
        elif missing is None:  # whatever it is, the file does not load
            yield Finding("error", result.path, f"the loader failed: {result.error}")
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
        own = [other for other in sorted(preloaded) if _serves(other, need, reader)]
        if own:
            text = f"needs {need} from {path}; Python itself has loaded {own[0]}, which serves instead"
            yield Finding("note", result.path, text)
            continue
        others = [other for other in sorted(result.mapped) if _serves(other, need, reader)]
        instead = f"took {others[0]}" if others else "did not map it"
        yield Finding("error", result.path, f"needs {need} from {path}, but the loader {instead}")


def _serves(path: str, need: str, reader: Reader) -> bool:
    """Return whether a loaded file serves a need: by its soname, or by its name if it has none."""
    facts = reader.facts(path)
    return need == ((facts.soname if facts is not None else None) or os.path.basename(path))


def clean_environ() -> dict[str, str]:
    """Return the environment without variables that affect the loader or Python."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("LD_", "PYTHON"))}


def _probe(items: _Items, target: Target) -> tuple[frozenset[str], list[LoadResult]]:
    """Return the files that Python itself has mapped, and one result for each path or name."""
    probe = resources.files("nixpatch").joinpath("data/load_probe.py").read_text("utf-8")
    # By files of their own: a .pth file or sitecustomize may print, or read standard input.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as printed:
        given.write(json.dumps(items).encode("ascii"))
        given.seek(0)
        descriptors = (given.fileno(), printed.fileno())
        command = [target.python, "-I", "-B", "-c", probe, str(_FILE_SECONDS), *map(str, descriptors)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=descriptors,
                env=clean_environ(),
                timeout=_SECONDS,
                check=False,
            )
            last = (done.stderr.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
            ending = f"{_status_text(done.returncode)}{': ' if last else ''}{last}"
        except subprocess.TimeoutExpired:
            done, ending = None, f"no answer in {_SECONDS} s"
        except OSError as error:
            raise MachineError(f"{target.python}: cannot be run for --load: {error}") from error
        printed.seek(0)
        results = _results(printed.read())
    if not results or (done is not None and len(results) <= len(items)):
        raise MachineError(f"{target.python}: cannot load libraries for --load: {ending}")
    too_slow = f"not loaded after {_SECONDS} s for all files"
    rest = [
        LoadResult(item if isinstance(item, str) else str(item["name"]), too_slow, frozenset())
        for item in items[len(results) - 1 :]
    ]
    return results[0].mapped, [*results[1:], *rest]


def _status_text(returncode: int) -> str:
    """Return how a process ended: subprocess has the number of a signal as a negative status."""
    return f"ended by signal {-returncode}" if returncode < 0 else f"exit status {returncode}"


def _results(printed: bytes) -> list[LoadResult]:
    """Read the whole lines that the probe printed; the first is about Python itself."""
    rows = [json.loads(line) for line in printed[: printed.rfind(b"\n") + 1].splitlines()]
    return [LoadResult(row["path"], row["error"], _real(row["mapped"])) for row in rows]


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
            timeout=_FILE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return LoadResult(path, f"not loaded after {_FILE_SECONDS} s", frozenset())
    except OSError as error:
        return LoadResult(path, f"the loader cannot be run: {error}", frozenset())
    missing = _NOT_FOUND.findall(done.stdout)
    if missing:
        return LoadResult(path, f"{missing[0]}: cannot open shared object file", frozenset())
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [_status_text(done.returncode)])[-1]
        # The loader prints the name of the program and its own action before the error itself.
        return LoadResult(path, last.rpartition("loading shared libraries: ")[2], frozenset())
    return LoadResult(path, None, _real(_LISTED.findall(done.stdout)))
