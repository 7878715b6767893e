"""Find the ELF files of a directory tree in about the time that it takes to list it."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from nixpatch.escape import is_machine_error, reason, shown
from nixpatch.fs import identity, is_temporary, read_head
from nixpatch.installed.provenance import GRAFTS
from nixpatch.model import TreeFile
from nixpatch.model.elf import ELF_MAGIC
from nixpatch.model.installed import ENV_DIRECTORY, ROOTS_DIRECTORY

_SMALLEST_ELF = 52  # the header of the 32-bit class, gABI
_EXECUTE = 0o111
_NOT_ENTERED = frozenset({"__pycache__", GRAFTS, ROOTS_DIRECTORY, ENV_DIRECTORY})
"""the last two hold links of nixpatch into the store: libraries there are no files of the tree"""

# Suffixes of files that are never ELF files, so that 50,000 of them need not be opened. A file with an
# execute bit is opened whatever its suffix.
_OTHER_KINDS = frozenset(
    [
        *("py", "pyc", "pyi", "pyx", "pxd", "pxi", "pyo", "ipynb"),
        *("c", "cc", "cpp", "cxx", "cu", "cuh", "h", "hh", "hpp", "hxx", "inc", "inl", "tcc", "tpp", "def"),
        *("f", "f90", "rs", "go", "java", "lua", "pl", "cmake", "pc", "cl", "metal", "glsl", "proto"),
        *("thrift", "txt", "md", "rst", "tex", "html", "htm", "css", "scss", "less", "js", "mjs", "ts"),
        *("tsx", "jsx", "map"),
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
class WalkResult:
    """The result of a walk, each part sorted."""

    files: tuple[TreeFile, ...]
    """ELF files, without owners"""
    leftovers: tuple[str, ...]
    """temp files of killed runs"""
    notes: tuple[str, ...]
    links: tuple[str, ...] = ()
    """symbolic links, none of which was followed"""
    nested: tuple[str, ...] = ()
    """directories in which trees of their own begin"""
    executables: tuple[str, ...] = ()
    """files with an execute bit that are no ELF files"""


def walk(root: str, is_nested: Callable[[str, frozenset[str]], bool] = lambda *_: False) -> WalkResult:
    """Return the ELF files and leftovers below ``root``.

    Links are listed, not followed (``lib64 -> lib``). ``__pycache__``, the originals of un-vendored
    libraries, and trees of their own are not entered. What cannot be read becomes a note.

    Args:
        root: the directory.
        is_nested: takes a directory and the names in it, and tells whether a tree of its own begins there.

    Raises:
        OSError: ``root`` itself cannot be listed.

    """
    files: list[TreeFile] = []
    leftovers: list[str] = []
    notes: list[str] = []
    links: list[str] = []
    nested: list[str] = []
    executables: list[str] = []
    pending = [root]
    while pending:
        directory = pending.pop()
        try:
            with _listed(directory) as listed:
                entries = list(listed)
                if directory != root and is_nested(directory, frozenset(entry.name for entry in entries)):
                    nested.append(directory)
                    continue
                below = _search(directory, entries, files, leftovers, notes, links, executables)
        except OSError as error:
            if directory == root or is_machine_error(error):
                raise
            notes.append(f"{shown(directory)}: not searched: {reason(error)}")
            continue
        pending += below
    files.sort(key=lambda file: file.path)
    every = (leftovers, notes, links, nested, executables)
    return WalkResult(tuple(files), *(tuple(sorted(paths)) for paths in every))


@contextlib.contextmanager
def _listed(directory: str) -> Iterator[Iterator[os.DirEntry[str]]]:
    """List by descriptor: the kernel then looks each name up in the directory, not from the root down."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with os.scandir(descriptor) as entries:
            yield entries
    finally:
        os.close(descriptor)


def _search(
    directory: str,
    entries: Iterable[os.DirEntry[str]],
    files: list[TreeFile],
    leftovers: list[str],
    notes: list[str],
    links: list[str],
    executables: list[str],
) -> list[str]:
    """Sort the entries of one directory; return the directories below it."""
    base = directory.rstrip("/") + "/"
    below = []
    for entry in entries:  # a link is neither a file nor a directory here
        name = entry.name
        if entry.is_file(follow_symlinks=False):
            if is_temporary(name):  # only a killed run leaves one behind
                leftovers.append(base + name)
                continue
            try:
                status = entry.stat(follow_symlinks=False)
                if not status.st_mode & _EXECUTE and _is_other_kind(name):  # nearly all of 50,000 files
                    continue
                file = _inspect(base + name, status)
            except OSError as error:
                if is_machine_error(error):
                    raise
                notes.append(f"{shown(base + name)}: not read: {reason(error)}")
                continue
            if file is not None:
                files.append(file)
            elif status.st_mode & _EXECUTE:
                executables.append(base + name)
        elif entry.is_dir(follow_symlinks=False) and name not in _NOT_ENTERED:
            below.append(base + name)
        elif entry.is_symlink():
            links.append(base + name)
    return below


def inspect(path: str) -> TreeFile | None:
    """Return the ELF file at ``path``; None if there is none.

    Raises:
        OSError: the file exists, but cannot be read.

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


def _inspect(path: str, status: os.stat_result) -> TreeFile | None:
    if status.st_size < _SMALLEST_ELF or read_head(path, len(ELF_MAGIC)) != ELF_MAGIC:
        return None
    return TreeFile(path, status.st_size, identity=identity(status))
