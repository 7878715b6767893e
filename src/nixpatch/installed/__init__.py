"""Installed trees: files, dists with RECORD and provenance, and the Python that loads them.

``scan`` turns a path into a ``Tree``, ``find_target`` a tree into a ``Target``. ``dist_records`` reads and
writes RECORD and ``nixpatch.json``, ``manylinux_module`` writes ``_manylinux.py``; everything else only
reads. Nothing that is read is run. This package knows neither ELF nor Nix: a function that needs ELF headers
is given a reader.
"""

from nixpatch.installed.hashing import encode_digest, hash_file
from nixpatch.installed.loader_defaults import read_loader_defaults
from nixpatch.installed.record import Record, RecordRow, parse
from nixpatch.installed.record_paths import Locator
from nixpatch.installed.scan import archive_message, scan
from nixpatch.installed.system_trees import external_manager, is_system_directory
from nixpatch.installed.target_python import find_target, stdenv_loader
from nixpatch.installed.tree_roots import default_tree, find_roots, root_of, tree_of_file
from nixpatch.model import FileHash

__all__ = [
    "FileHash",
    "Locator",
    "Record",
    "RecordRow",
    "archive_message",
    "default_tree",
    "encode_digest",
    "external_manager",
    "find_roots",
    "find_target",
    "hash_file",
    "is_system_directory",
    "parse",
    "read_loader_defaults",
    "root_of",
    "scan",
    "stdenv_loader",
    "tree_of_file",
]
