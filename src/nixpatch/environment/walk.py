"""Finding the ELF files of a directory tree in about the time it takes to list it."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass

from nixpatch.environment.regular import read_head
from nixpatch.environment.words import shown, why
from nixpatch.files import Identity, identity, is_temporary

ELF_MAGIC = b"\x7fELF"
_SMALLEST_ELF = 52  # the header of the 32-bit class, gABI

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

    Links are not followed (``lib64 -> lib``), ``__pycache__`` is not entered, what is neither file nor
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
            if directory == root:
                raise
            notes.append(f"{shown(directory)}: not searched: {why(error)}")
            continue
        for entry in listed:
            if entry.is_symlink():
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.name != "__pycache__":
                    waiting.append(entry.path)
            elif entry.is_file(follow_symlinks=False):
                if is_temporary(entry.name):  # only a killed run leaves one behind
                    leftovers.append(entry.path)
                    continue
                try:
                    found = _inspect(entry.path, entry.name, entry.stat(follow_symlinks=False))
                except OSError as error:
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
        return _inspect(path, os.path.basename(path), status) if stat.S_ISREG(status.st_mode) else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _inspect(path: str, name: str, status: os.stat_result) -> Candidate | None:
    if status.st_size < _SMALLEST_ELF:
        return None
    _, dot, suffix = name.rpartition(".")
    if dot and not status.st_mode & 0o111 and suffix.lower() in _OTHER_KINDS:
        return None
    if read_head(path, len(ELF_MAGIC)) != ELF_MAGIC:
        return None
    return Candidate(path, status.st_size, stat.S_IMODE(status.st_mode), status.st_nlink, identity(status))
