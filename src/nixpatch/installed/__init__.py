"""What is installed: the tree that was named, its dists and their RECORDs, and the Python that will load it.

Everything here reads and nothing writes or runs what it reads. ``scan`` turns a path into a ``Tree``,
``find_target`` turns a tree into a ``Target``, and ``parse`` turns a RECORD into rows that ``Record`` can
change one by one without touching the bytes of the others. ELF headers are not read here: ``find_target``
is handed a reader, so that this package knows neither ELF nor Nix.
"""

from nixpatch.installed.hashing import encode_digest, hash_file
from nixpatch.installed.loader_defaults import built_in
from nixpatch.installed.python_layout import enclosing
from nixpatch.installed.record import Record, Row, parse
from nixpatch.installed.record_paths import Locator
from nixpatch.installed.scan import scan
from nixpatch.installed.system_trees import external_manager, is_system_directory
from nixpatch.installed.target_python import find_target
from nixpatch.model import FileHash

__all__ = [
    "FileHash",
    "Locator",
    "Record",
    "Row",
    "built_in",
    "enclosing",
    "encode_digest",
    "external_manager",
    "find_target",
    "hash_file",
    "is_system_directory",
    "parse",
    "scan",
]
