"""Finding the ELF files of a directory tree in about the time it takes to list it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from nixpatch.environment.provenance import GRAFTS
from nixpatch.environment.regular import read_head
from nixpatch.environment.words import of_the_machine, shown, why
from nixpatch.files import Identity, identity, is_temporary

ELF_MAGIC = b"\x7fELF"
_SMALLEST_ELF = 52  # the header of the 32-bit class, gABI
_EXECUTE = 0o111

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
    not entered, what is neither file nor
    directory is not touched. A directory or file that cannot be read becomes a note.

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
            with os.scandir(directory) as entries:
                listed = list(entries)
        except OSError as error:
            if directory == root or of_the_machine(error):
                raise
            notes.append(f"{shown(directory)}: not searched: {why(error)}")
            continue
        for entry in listed:  # a link is neither
            if entry.is_dir(follow_symlinks=False):
                if entry.name not in {"__pycache__", GRAFTS}:
                    waiting.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                name = entry.name
                if is_temporary(name):  # only a killed run leaves one behind
                    leftovers.append(entry.path)
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                    if not status.st_mode & _EXECUTE and _is_other_kind(name):  # nearly all of 50,000 files
                        continue
                    found = _inspect(entry.path, status)
                except OSError as error:
                    if of_the_machine(error):
                        raise
                    notes.append(f"{shown(entry.path)}: not read: {why(error)}")
                    continue
                if found is not None:
                    candidates.append(found)
    candidates.sort(key=lambda candidate: candidate.path)
    return Found(tuple(candidates), tuple(sorted(leftovers)), tuple(sorted(notes)))


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
