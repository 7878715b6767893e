"""Finding the ELF files of a directory tree in about the time it takes to list it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nixpatch.escape import of_the_machine, shown, why
from nixpatch.fs import Identity, identity, is_temporary, read_head
from nixpatch.installed.provenance import GRAFTS
from nixpatch.model.elf import ELF_MAGIC

_SMALLEST_ELF = 52  # the header of the 32-bit class, gABI
_EXECUTE = 0o111
_NOT_ENTERED = frozenset({"__pycache__", GRAFTS})

# Kinds of file that are no ELF file whoever wrote them, so that 50,000 of them need not be opened. Only a
# file without any execute bit is passed over for its suffix; every other file is told by its first bytes.
_OTHER_KINDS = frozenset(
    [
        *("py", "pyc", "pyi", "pyx", "pxd", "pxi", "pyo", "ipynb"),
        *("c", "cc", "cpp", "cxx", "cu", "cuh", "h", "hh", "hpp", "hxx", "inc", "inl", "tcc", "tpp", "def"),
        *(
            "f",
            "f90",
            "rs",
            "go",
            "java",
            "lua",
            "pl",
            "cmake",
            "pc",
            "cl",
            "metal",
            "glsl",
            "proto",
            "thrift",
        ),
        *(
            "txt",
            "md",
            "rst",
            "tex",
            "html",
            "htm",
            "css",
            "scss",
            "less",
            "js",
            "mjs",
            "ts",
            "tsx",
            "jsx",
            "map",
        ),
        *("json", "jsonl", "yaml", "yml", "toml", "ini", "cfg", "conf", "xml", "xsd", "xsl", "xslt", "dtd"),
        *("csv", "tsv", "sql", "typed", "pth", "in", "j2", "jinja", "tmpl", "template", "mako", "license"),
        *("png", "jpg", "jpeg", "gif", "svg", "ico", "bmp", "webp", "tif", "tiff", "pdf", "eps", "ps"),
        *("ttf", "otf", "woff", "woff2", "eot", "afm", "qm", "qml", "qmltypes", "po", "pot", "mo"),
        *("npy", "npz", "pkl", "mat", "fits", "parquet", "arrow", "feather", "h5", "hdf5", "sav", "dta"),
        *("gz", "bz2", "xz", "zst", "zip", "whl", "tar", "tgz", "jar", "wav", "mp3", "mp4", "ogg"),
        *("pdb", "ptx", "wasm", "tfm", "pfb"),
    ]
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A regular file that begins with the ELF magic."""

    path: str
    size: int
    mode: int
    links: int
    identity: Identity


@dataclass(frozen=True, slots=True)
class Found:
    """What a walk came to, each part sorted."""

    candidates: tuple[Candidate, ...]
    leftovers: tuple[str, ...]
    notes: tuple[str, ...]


def walk(root: str) -> Found:
    """Return the ELF files and leftovers below ``root``.

    Links are not followed (``lib64 -> lib``), ``__pycache__`` and the place of removed grafts' originals are
    not entered, what is neither file nor directory is not touched. A directory or file that cannot be read
    becomes a note.

    Raises:
        OSError: ``root`` itself cannot be listed.

    """
    candidates: list[Candidate] = []
    leftovers: list[str] = []
    notes: list[str] = []
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        try:
            with _listed(directory) as entries:
                below = _search(directory, list(entries), candidates, leftovers, notes)
        except OSError as error:
            if directory == root or of_the_machine(error):
                raise
            notes.append(f"{shown(directory)}: not searched: {why(error)}")
            continue
        waiting += below
    candidates.sort(key=lambda candidate: candidate.path)
    return Found(tuple(candidates), tuple(sorted(leftovers)), tuple(sorted(notes)))


@contextlib.contextmanager
def _listed(directory: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """Give the entries by descriptor: the kernel then looks each name up in place, not from the root down."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as entries:
            yield entries
    finally:
        os.close(descriptor)


def _search(
    directory: str,
    entries: Iterable[os.DirEntry[str]],
    candidates: list[Candidate],
    leftovers: list[str],
    notes: list[str],
) -> list[str]:
    """Sort the entries of one directory; return the directories below it."""
    base = directory.rstrip("/") + "/"
    below = []
    for entry in entries:  # a link is neither file nor directory
        name = entry.name
        if entry.is_file(follow_symlinks=False):
            if is_temporary(name):  # only a killed run leaves one behind
                leftovers.append(base + name)
                continue
            try:
                status = entry.stat(follow_symlinks=False)
                if not status.st_mode & _EXECUTE and _is_other_kind(name):  # nearly all of 50,000 files
                    continue
                found = _inspect(base + name, status)
            except OSError as error:
                if of_the_machine(error):
                    raise
                notes.append(f"{shown(base + name)}: not read: {why(error)}")
                continue
            if found is not None:
                candidates.append(found)
        elif entry.is_dir(follow_symlinks=False) and name not in _NOT_ENTERED:
            below.append(base + name)
    return below


def inspect(path: str) -> Candidate | None:
    """Return the candidate at ``path``, None if it is no regular file with the ELF magic, or no file at all.

    Raises:
        OSError: it is there and cannot be read.

    """
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    if not status.st_mode & _EXECUTE and _is_other_kind(os.path.basename(path)):
        return None
    try:
        return _inspect(path, status)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_other_kind(name: str) -> bool:
    _, dot, suffix = name.rpartition(".")
    return bool(dot) and (suffix in _OTHER_KINDS or suffix.lower() in _OTHER_KINDS)


def _inspect(path: str, status: os.stat_result) -> Candidate | None:
    if status.st_size < _SMALLEST_ELF or read_head(path, len(ELF_MAGIC)) != ELF_MAGIC:
        return None
    return Candidate(path, status.st_size, stat.S_IMODE(status.st_mode), status.st_nlink, identity(status))
