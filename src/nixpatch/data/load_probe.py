"""Open each shared object in a child process and print the files it mapped: a script for the target Python.

Input: a JSON list of paths, and of names that a start-up file answers: objects with ``name``, ``finds`` (it
is an argument of ``find_library``), ``library`` (its path) and ``site`` (the directory of the start-up file).
The arguments are the number of seconds that a child may take and the descriptors of input and output.
Output: one JSON object a line, first the mapped files of Python itself, then one object for each item. Each
has its own child, because libraries stay loaded and a constructor may crash.
The script needs only the standard library of Python 3.8 or later.
"""

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2)


def mapped() -> "list[str]":
    """Return the mapped files of this process."""
    names = set()
    with open("/proc/self/maps", "rb") as maps:
        for line in maps:
            fields = line.rstrip(b"\n").split(None, 5)
            if len(fields) == 6 and fields[5].startswith(b"/"):
                name = os.fsdecode(fields[5])
                # The kernel writes a line feed as \\012, but a backslash as it is (proc_pid_maps(5)).
                names.add(name if os.path.exists(name) else name.replace("\\012", "\n"))
    return sorted(names)


def probe(path: str) -> "dict[str, object]":
    """Open one file and return its result."""
    try:
        ctypes.CDLL(path, mode=os.RTLD_LAZY)
    except OSError as error:
        return {"path": path, "error": str(error), "mapped": mapped()}
    return {"path": path, "error": None, "mapped": mapped()}


def probe_name(item: "dict[str, object]") -> "dict[str, object]":
    """Open a name as the code of a dist does; where that fails, return the error for its path."""
    directory, name = str(item["site"]), str(item["name"])
    if directory not in sys.path:
        import site  # noqa: PLC0415

        site.addsitedir(directory)
    if item["finds"]:
        import ctypes.util  # noqa: PLC0415

        answer = ctypes.util.find_library(name)
    else:
        answer = name
    if answer is None:
        return {"path": name, "error": "find_library finds nothing", "mapped": mapped()}
    result = probe(answer)
    if result["error"] and answer == name:
        by_path = probe(os.path.join(directory, str(item["library"])))
        result["error"] = by_path["error"] or result["error"]
    return dict(result, path=name)


def in_a_child(item: "str | dict[str, object]") -> "dict[str, object]":
    """Probe in a forked child and return its result, or its signal if it died."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(int(sys.argv[1]))  # a FIFO in the search path, or a constructor, may wait forever
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        os.close(reading)
        with open(os.devnull, "r+b") as null:
            os.dup2(null.fileno(), 1)
            os.dup2(null.fileno(), 2)
        with os.fdopen(writing, "wb") as out:
            result = probe(item) if isinstance(item, str) else probe_name(item)
            out.write(json.dumps(result).encode("ascii"))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as results:
        data = results.read()
    status = os.waitpid(child, 0)[1]
    try:
        return dict(json.loads(data))
    except ValueError:  # it ended before it had written all
        pass
    path = item if isinstance(item, str) else item["name"]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return {"path": path, "error": f"not loaded after {sys.argv[1]} s", "mapped": []}
    how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
    return {"path": path, "error": f"loading it ended the process with {how}", "mapped": []}


def main() -> None:
    """Probe every file and name of the input."""
    with open(int(sys.argv[2]), encoding="ascii") as given:
        items = json.load(given)
    with open(int(sys.argv[3]), "w", encoding="ascii") as out:
        out.write(json.dumps({"path": "", "error": None, "mapped": mapped()}) + "\n")
        out.flush()
        for item in items:
            result = in_a_child(item)
            out.write(json.dumps(result) + "\n")
            out.flush()


main()
