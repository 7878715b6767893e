"""Plan the text files of a tree: a start-up file for each dist that opens libraries by name, and scripts."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping

from nixpatch.errors import FileRefused
from nixpatch.fs import read_head, read_regular
from nixpatch.installed.shebang import HEAD_SIZE, Shebang, read_shebang, with_program
from nixpatch.installed.startup_file import is_startup_file, startup_file, startup_name
from nixpatch.model import Finding, Target, TextKind, TextPlan, Tree
from nixpatch.policy import Policy
from nixpatch.resolve.python_libraries import PythonLibraries

MAX_SCRIPT = 16 << 20  # bytes
_NO_SCRIPTS = (".py", ".pyc", ".pyi", ".so", ".h", ".hpp", ".json", ".txt", ".pth", ".typed", ".png", ".js")
"""endings of the many files of a dist that nobody runs by their first line, unless they lie in bin"""


def plan_startup_files(
    tree: Tree, python: Mapping[str, PythonLibraries], policy: Policy
) -> Iterator[TextPlan]:
    """Yield the start-up files of a tree: those that dists need, and old ones that serve nothing any more."""
    for dist in tree.dists:
        if not dist.has_record:
            continue  # nothing would own the file
        libraries = python.get(dist.info, PythonLibraries())
        switches = [(row.variable, row.value) for row in policy.dlopen.switches if row.dist == dist.name]
        path = os.path.join(dist.site, startup_name(dist.name))
        if libraries.libraries or libraries.answers or switches:
            answers = {**libraries.libraries, **libraries.answers}
            yield TextPlan(
                path,
                dist.info,
                TextKind.STARTUP,
                startup_file(dist.name, libraries.libraries, libraries.answers, switches),
                uses=tuple(sorted({answer for answer in answers.values() if answer.startswith("/")})),
                answers=tuple(sorted(answers.items())),
            )
        elif path in dist.files and _is_ours(path):
            yield TextPlan(path, dist.info, TextKind.STARTUP, None)


def plan_scripts(
    tree: Tree,
    target: Target,
    store_dir: str,
    find: Callable[[str], str | None],
    programs: Mapping[str, str],
) -> Iterator[TextPlan | Finding]:
    """Yield the scripts whose program NixOS may lack, each with one of the store, or why it stays as it is.

    Args:
        tree: the tree.
        target: its Python runs the scripts of any Python.
        store_dir: the store directory: a program in it is there.
        find: returns the path of a program of the store.
        programs: by path of a script that an earlier run changed: the program as it was installed.

    """
    for dist in tree.dists:
        for path in sorted(dist.files):
            shebang = _shebang(path, tree.prefix)
            if shebang is None:
                continue
            original = programs.get(path, shebang.program)
            name = Shebang(original, shebang.argument).lacking
            if name is None or (path not in programs and shebang.runs_in(tree.prefix, store_dir)):
                continue
            program = _python(tree, target) if name.startswith("python") else find(name)
            if program is None:
                text = f"begins with #!{original}, which NixOS lacks, and nothing provides {name}"
                yield Finding("error", path, f"{text}: add the package that has bin/{name}")
                continue
            try:
                content = with_program(read_regular(path, MAX_SCRIPT), program)
            except (ValueError, OSError, FileRefused) as error:
                yield Finding("error", path, f"begins with #!{original}, and cannot be changed: {error}")
                continue
            yield TextPlan(path, dist.info, TextKind.SCRIPT, content, program=original, uses=(program,))


def _shebang(path: str, prefix: str) -> Shebang | None:
    """Return the first line of an executable script, None for any other file."""
    in_bin = os.path.dirname(path) == os.path.join(prefix, "bin")
    if path.endswith(_NO_SCRIPTS) and not in_bin:
        return None
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
            return None
        return read_shebang(read_head(path, HEAD_SIZE))
    except OSError:
        return None


def _python(tree: Tree, target: Target) -> str:
    """Return the Python that runs a script of the tree: that of the venv, by which it finds its packages."""
    own = os.path.join(tree.prefix, "bin", "python")
    return own if os.path.exists(own) else target.python


def _is_ours(path: str) -> bool:
    try:
        return is_startup_file(read_head(path, HEAD_SIZE))
    except OSError:
        return False
