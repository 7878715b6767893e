"""Hold a command that an installer starts until nixpatch has patched its environment, then start it.

nixpatch copies this file beside two named pipes. ``python sitecustomize.py COMMAND...`` replaces itself by
COMMAND. With the directory in PYTHONPATH, a Python imports it first (site module) and then starts anew, since
only a new process reads the start-up files that were added. It has to run on any Python 3.
"""

import contextlib
import importlib
import json
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _pass(is_there: bool, directory: str = "") -> None:
    """Tell nixpatch the PATH of the command, and wait for its answer; without nixpatch go on.

    ``directory`` is put in front of PATH.
    """
    path = os.pathsep.join(filter(None, (directory, os.environ.get("PATH", ""))))
    with contextlib.suppress(OSError):
        with open(os.path.join(_HERE, "question"), "wb") as question:
            question.write(os.fsencode(path) + (b"\0there\0" if is_there else b"\0\0"))
        with open(os.path.join(_HERE, "answer"), "rb") as answer:
            answer.read(1)


def _is_program(name: str) -> bool:
    """Whether execvp(3) would find a program."""
    directories = [""] if "/" in name else os.environ.get("PATH", "").split(os.pathsep)
    paths = [os.path.join(directory, name) for directory in directories]
    return any(os.path.isfile(path) and os.access(path, os.X_OK) for path in paths)


def _start(command: "list[str]") -> None:
    is_there = bool(command) and _is_program(command[0])
    _pass(is_there)
    if not is_there:
        sys.exit(127)
    try:
        os.execvp(command[0], command)  # noqa: S606 - the command that uv was asked to start
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(126)


def _start_anew() -> None:
    with open(os.path.join(_HERE, "gate.json")) as file:
        settings = json.load(file)
    with open("/proc/self/cmdline", "rb") as file:
        arguments = file.read().split(b"\0")[:-1]
    if settings["script"] is None:
        is_it = os.environ.get("UV_RUN_RECURSION_DEPTH") == settings["depth"]
    else:  # the installer is a Python program itself, with the script among its arguments
        words = [word for word in arguments[1:] if not word.startswith(b"-")]
        is_it = bool(words) and os.path.realpath(words[0]) == os.fsencode(settings["script"])
    if is_it or settings["script"] is None:
        if settings["pythonpath"] is None:
            os.environ.pop("PYTHONPATH", None)
        else:
            os.environ["PYTHONPATH"] = settings["pythonpath"]
    if is_it:
        _pass(True, os.path.join(sys.prefix, "bin") if settings["script"] else "")
        os.execv(sys.executable, arguments)  # noqa: S606 - this process, once more
    # A Python that builds a dist: it has its own sitecustomize, or none.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != _HERE]
    ours = sys.modules.pop("sitecustomize")
    with contextlib.suppress(ImportError):
        importlib.import_module("sitecustomize")
    sys.modules.setdefault("sitecustomize", ours)  # the import that runs this expects one


if __name__ == "__main__":
    _start(sys.argv[1:])
elif __name__ == "sitecustomize":
    _start_anew()
