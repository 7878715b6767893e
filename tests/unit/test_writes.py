"""Only ``fs`` writes to a tree: no other module of the package calls anything that changes the file system.

Programs that are run (Nix, an installer, the target Python) write by themselves, and are not seen here.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import nixpatch

PACKAGE = Path(nixpatch.__file__).parent

# Of these modules everything counts but a few functions.
MODULES = {"shutil": {"which"}, "tempfile": set[str](), "pathlib": set[str]()}
CALLS = {
    "os": {
        *(
            "chflags",
            "chmod",
            "chown",
            "copy_file_range",
            "fchmod",
            "fchown",
            "ftruncate",
            "lchmod",
        ),
        *("lchown", "link", "makedirs", "mkdir", "mkfifo", "mknod", "posix_fallocate", "pwrite", "pwritev"),
        *("remove", "removedirs", "removexattr", "rename", "renames", "replace", "rmdir", "sendfile"),
        *("setxattr", "splice", "symlink", "truncate", "unlink", "utime", "write", "writev"),
        *("O_APPEND", "O_CREAT", "O_RDWR", "O_TMPFILE", "O_TRUNC", "O_WRONLY"),
    },
    "sqlite3": {"connect"},
    "mmap": {"ACCESS_WRITE", "ACCESS_COPY", "PROT_WRITE"},
}
OPENERS = {"open", "io.open", "os.fdopen", "codecs.open", "gzip.open", "bz2.open", "lzma.open"}

TEMP_FILE = "the new file that fs.replacement has opened, by its descriptor"
SCRATCH = "the directory of the demo, which it makes itself"
ALLOWED: dict[str, tuple[set[str], str]] = {
    "cli/demo.py": ({"os.makedirs", "shutil.rmtree", "tempfile.mkdtemp"}, SCRATCH),
    "operations/demo.py": ({"os.makedirs"}, SCRATCH),
    "store/host_store.py": (
        {
            *("os.chmod", "os.makedirs", "os.mkdir", "os.rename", "os.symlink", "shutil.copyfile"),
            *("shutil.rmtree", "tempfile.mkdtemp"),
        },
        "the store of the demo, in the same directory",
    ),
    "store/cache.py": ({"os.makedirs", "os.unlink", "sqlite3.connect"}, "the cache, below XDG_CACHE_HOME"),
    "operations/wheel_tree.py": (
        {"open", "os.chmod", "os.makedirs", "shutil.copyfileobj", "tempfile.TemporaryDirectory"},
        "the directory that a wheel is unpacked to, which it makes itself",
    ),
    "operations/wheel.py": (
        {"open", "os.makedirs", "shutil.copyfileobj"},
        "the output directory of wheels, files that fs.replacement has opened there, and /dev/null",
    ),
    "operations/kept_files.py": ({"os.makedirs"}, "the cache, below XDG_CACHE_HOME"),
    "elf/inplace_writer.py": ({"os.copy_file_range", "os.ftruncate", "os.pwrite"}, TEMP_FILE),
    "elf/lief/tables.py": ({"os.pwrite"}, TEMP_FILE),
    "elf/lief/writer.py": ({"os.ftruncate", "tempfile.TemporaryFile"}, TEMP_FILE + ", and a nameless one"),
    "cli/session.py": (
        {"open", "os.O_WRONLY"},
        "a pipe or device that --html or --output names; /dev/null, when nobody reads standard output",
    ),
    "elf/child_process.py": ({"tempfile.TemporaryFile"}, "a nameless file for what the child logs"),
    "operations/verify_deep.py": ({"tempfile.TemporaryFile"}, "a nameless file: the original, restored"),
    "cli/gate.py": (
        {"open", "os.O_RDWR", "os.mkfifo", "os.write", "shutil.rmtree", "tempfile.mkdtemp"},
        "two pipes and a script in a directory of their own, which it makes and removes",
    ),
    "data/gate.py": ({"open"}, "one of these pipes"),
    "operations/verify_load.py": (
        {"tempfile.TemporaryFile"},
        "nameless files: what the probe reads and prints",
    ),
    "data/load_probe.py": ({"open"}, "/dev/null, and a pipe to the process that started it"),
}


def names_of(tree: ast.AST) -> dict[str, str]:
    """Return what imported names stand for: ``{"o": "os", "unlink": "os.unlink"}``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update((alias.asname or alias.name, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update((alias.asname or alias.name, f"{node.module}.{alias.name}") for alias in node.names)
    return names


def dotted(node: ast.expr, names: dict[str, str]) -> str:
    """Return what an expression stands for as ``module.name``, as far as imports tell."""
    match node:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=value, attr=attribute):
            return f"{dotted(value, names)}.{attribute}"
        case _:
            return "?"


def opens_to_write(call: ast.Call) -> bool:
    """Whether a call of ``open`` has another mode than one for reading."""
    modes = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    return not all(
        isinstance(mode, ast.Constant) and isinstance(mode.value, str) and not set(mode.value) & set("wax+")
        for mode in modes
    )


def writes(source: str) -> Iterator[str]:
    """Yield what a module uses that changes the file system, called or handed on."""
    tree = ast.parse(source)
    names = names_of(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and dotted(node.func, names) in OPENERS and opens_to_write(node):
            yield "open"
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            module, _, name = dotted(node, names).partition(".")
            if (module in CALLS and name in CALLS[module]) or (
                module in MODULES and name and name.partition(".")[0] not in MODULES[module]
            ):
                yield f"{module}.{name}"


@pytest.mark.parametrize(
    ("source", "call"),
    [
        ("import os\nos.unlink(path)", "os.unlink"),
        ("import os as o\nmap(o.unlink, paths)", "os.unlink"),
        ("from os import replace as swap\nswap(a, b)", "os.replace"),
        ("def f():\n    import os\n    os.open(path, os.O_RDONLY | os.O_CREAT)", "os.O_CREAT"),
        ("import shutil\nshutil.rmtree(path)", "shutil.rmtree"),
        ("from shutil import copyfile\ncopyfile(a, b)", "shutil.copyfile"),
        ("from pathlib import Path\nPath(name).write_text('')", "pathlib.Path"),
        ("import tempfile\ntempfile.mkdtemp()", "tempfile.mkdtemp"),
        ("open(path, 'w')", "open"),
        ("open(path, mode='r+b')", "open"),
        ("open(path, mode)", "open"),
        ("import io\nio.open(path, 'ab')", "open"),
        ("import sqlite3\nsqlite3.connect(path)", "sqlite3.connect"),
    ],
)
def test_each_way_to_write_is_seen(source: str, call: str) -> None:
    assert call in set(writes(source))


@pytest.mark.parametrize(
    "source",
    [
        "import os\nos.open(path, os.O_RDONLY)",
        "open(path, 'rb')",
        "open(path)",
        "import shutil\nshutil.which('nix')",
        "text.replace('a', 'b')",
        "from nixpatch.fs import remove\nremove(path)",
    ],
)
def test_what_reads_is_not(source: str) -> None:
    assert set(writes(source)) == set()


def test_only_fs_writes_to_trees() -> None:
    used = {
        str(path.relative_to(PACKAGE)): set(writes(path.read_text("utf-8")))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != PACKAGE / "fs.py"
    }
    allowed = {module: calls for module, (calls, _) in ALLOWED.items()}
    assert {module: calls for module, calls in used.items() if calls} == allowed
