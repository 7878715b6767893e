"""Plan the text files of a tree: a start-up file for each dist that opens libraries by name, and scripts."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Mapping

from nixpatch.errors import FileRefused, MachineError
from nixpatch.escape import is_machine_error, reason
from nixpatch.fs import read_head, read_regular
from nixpatch.installed.linked import cached_file
from nixpatch.installed.shebang import HEAD_SIZE, Shebang, read_shebang, with_program
from nixpatch.installed.startup_file import is_startup_file, startup_file, startup_name
from nixpatch.model import Dist, Finding, Target, TextKind, TextPlan, Tree
from nixpatch.policy import Policy
from nixpatch.resolve.python_libraries import PythonLibraries

MAX_SCRIPT = 16 << 20  # bytes
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_PYTHON = re.compile(r"python(?:3(?:\.[0-9]+t?)?)?")
_MAX_NAME = 200  # NAME_MAX is 255
_IN_THE_WAY = "is not of nixpatch and stands where the start-up file of this dist has to be: rename it"
_NO_SCRIPTS = (".py", ".pyc", ".pyi", ".so", ".h", ".hpp", ".json", ".txt", ".pth", ".typed", ".png", ".js")
"""endings of files that the kernel does not run by their first line, unless they lie in bin"""


def plan_startup_files(
    tree: Tree, python: Mapping[str, PythonLibraries], policy: Policy
) -> Iterator[TextPlan | Finding]:
    """Yield the start-up files of a tree: those that dists need, and old ones that serve nothing any more.

    Dists of the same name in one directory, an accident of installers, share a file: it answers for all.
    """
    answering: dict[str, list[PythonLibraries]] = {}
    for dist in tree.dists:
        answering.setdefault(startup_path(dist), []).append(python.get(dist.info, PythonLibraries()))
    for dist in tree.dists:
        path = startup_path(dist)
        if not path or not dist.has_record:
            continue  # nothing would own the file
        libraries = {name: to for of_dist in answering[path] for name, to in of_dist.libraries.items()}
        answers = {name: to for of_dist in answering[path] for name, to in of_dist.answers.items()}
        switches = [(row.variable, row.value) for row in policy.dlopen.switches if row.dist == dist.name]
        foreign = is_foreign(tree, dist, path)
        if not (libraries or answers or switches):
            if not foreign and (path in dist.files or os.path.lexists(path)):
                yield TextPlan(path, dist.info, TextKind.STARTUP, None, is_restored=True)
        elif foreign:
            yield Finding("error", path, _IN_THE_WAY)
        else:
            everything = {**libraries, **answers}
            yield TextPlan(
                path,
                dist.info,
                TextKind.STARTUP,
                startup_file(dist.name, libraries, answers, switches),
                uses=tuple(sorted({answer for answer in everything.values() if answer.startswith("/")})),
                answers=tuple(sorted(everything.items())),
            )


def startup_path(dist: Dist) -> str:
    """Return the path of the start-up file of a dist; "" for a name that is none (PEP 508)."""
    if len(dist.name) > _MAX_NAME or not _NAME.fullmatch(dist.name):
        return ""
    return os.path.join(dist.site, startup_name(dist.name))


def is_foreign(tree: Tree, dist: Dist, path: str) -> bool:
    """Whether a file of this path is there that is not the start-up file of the dist."""
    try:
        if not is_startup_file(read_head(path, HEAD_SIZE)):
            return True
    except FileNotFoundError:
        return False
    except OSError as error:  # a link, a directory
        _must_be_about_the_file(path, error)
        return True
    return any(path in other.files for other in tree.dists if other.name != dist.name)


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
    below = tree.root.rstrip("/") + "/"
    for dist in tree.dists:
        for path in sorted(
            path for path in dist.files if path in tree.perhaps_scripts or not path.startswith(below)
        ):
            real = path if not os.path.islink(path) else cached_file(path, tree.prefix, store_dir) or path
            shebang = _shebang(path, real, tree.prefix)
            if shebang is None:
                continue
            original = programs.get(path, shebang.program)
            name = Shebang(original, shebang.argument).absent_program
            if name is None or (path not in programs and shebang.runs_in(tree.prefix, store_dir)):
                continue
            program = _python(tree, target) if _PYTHON.fullmatch(name) else find(name)
            if program is None or Shebang(program, "").is_of_system:  # of --lib /usr/lib
                text = f"begins with #!{original}, which NixOS lacks, and nothing provides {name}"
                # Users start those in bin. Code starts a script beside modules with its program, or never.
                severity = "error" if _in_bin(path, tree.prefix) else "note"
                yield Finding(severity, path, f"{text}: add the package that has bin/{name}")
                continue
            try:
                content = with_program(read_regular(real, MAX_SCRIPT), program)
            except (ValueError, OSError, FileRefused) as error:
                _must_be_about_the_file(path, error)
                yield Finding("error", path, f"begins with #!{original}, and cannot be changed: {error}")
                continue
            is_outside = not Shebang(program, "").runs_in(tree.prefix)
            uses = (program,) if is_outside else ()
            link = os.readlink(path) if real != path else ""
            yield TextPlan(path, dist.info, TextKind.SCRIPT, content, program=original, uses=uses, link=link)


def without_program(tree: Tree, store_dir: str, patched: Collection[str]) -> Iterator[Finding]:
    """Report the programs of dists that are scripts and whose program this machine does not have.

    Those of installers, which begin with a Python, are left out, as :func:`plan_scripts` does.

    Args:
        tree: the tree.
        store_dir: the store directory.
        patched: the scripts that nixpatch changed, which are checked apart.

    """
    programs = {
        path for dist in tree.dists for path in filter(tree.has, dist.files) if _in_bin(path, tree.prefix)
    }
    for path in sorted(programs.difference(patched)):
        real = path if not os.path.islink(path) else cached_file(path, tree.prefix, store_dir) or path
        shebang = _shebang(path, real, tree.prefix)
        if shebang is not None and shebang.absent_program and not os.path.exists(shebang.program):
            text = f"cannot start: it begins with #!{shebang.program}, which is not there"
            yield Finding("error", path, text)


def _shebang(path: str, real: str, prefix: str) -> Shebang | None:
    """Return the first line of an executable script, None for any other file.

    ``real`` is the path itself, or what a link in its place leads to.
    """
    if path.endswith(_NO_SCRIPTS) and not _in_bin(path, prefix):
        return None
    try:
        status = os.lstat(real)
        if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
            return None
        return read_shebang(read_head(real, HEAD_SIZE))
    except OSError as error:
        _must_be_about_the_file(real, error)
        return None


def _must_be_about_the_file(path: str, error: Exception) -> None:
    """End the run where a file could not be read because of the machine: it may have to be changed.

    Raises:
        MachineError: the disk fails, or the run may open no more files.

    """
    if is_machine_error(error):
        raise MachineError(f"{path}: {reason(error)}: mend this and run nixpatch again") from error


def _in_bin(path: str, prefix: str) -> bool:
    return os.path.dirname(path) == os.path.join(prefix, "bin")


def _python(tree: Tree, target: Target) -> str | None:
    """Return the Python that runs a script of the tree: that of the venv, by which it finds its packages."""
    own = os.path.join(tree.prefix, "bin", "python")
    if os.path.exists(own):
        return own
    return target.python if target.has_python else None
