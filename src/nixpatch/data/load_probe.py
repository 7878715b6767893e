"""Open each shared object in a child process and print the files it mapped: a script for the target Python.

Input: a JSON list of paths; the argument is the number of seconds that a child may take. Output: one JSON
object a line, first the mapped files of Python itself, then one object for each path. Each path has its own
child, because libraries stay loaded and a constructor may crash. The script needs only the standard library
of Python 3.8 or later.
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
                names.add(os.fsdecode(fields[5]))
    return sorted(names)


def probe(path: str) -> "dict[str, object]":
    """Open one file and return its result."""
    try:
        ctypes.CDLL(path, mode=os.RTLD_LAZY)
    except OSError as error:
        return {"path": path, "error": str(error), "mapped": mapped()}
    return {"path": path, "error": None, "mapped": mapped()}


def in_a_child(path: str) -> "dict[str, object]":
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
            out.write(json.dumps(probe(path)).encode("ascii"))
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as results:
        data = results.read()
    status = os.waitpid(child, 0)[1]
    if data:
        return dict(json.loads(data))
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
        return {"path": path, "error": f"not loaded after {sys.argv[1]} s", "mapped": []}
    return {"path": path, "error": f"loading it ended the process with signal {status & 0x7F}", "mapped": []}


def main() -> None:
    """Probe every file named on standard input."""
    sys.stdout.write(json.dumps({"path": "", "error": None, "mapped": mapped()}) + "\n")
    sys.stdout.flush()
    for path in json.load(sys.stdin):
        sys.stdout.write(json.dumps(in_a_child(path)) + "\n")
        sys.stdout.flush()


main()
