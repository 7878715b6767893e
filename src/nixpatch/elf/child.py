"""The program of :mod:`nixpatch.elf.child_process`, never imported: call one function under limits.

Reads one JSON object from standard input: ``limits`` by their names in setrlimit(2), ``path`` to append to
``sys.path``, and the ``module`` whose ``answers(request)`` yields objects. Writes each to standard output, on
a line of its own, and ``{"refused": reason}`` if that raises. Runs isolated from the environment (``-I -S``).
"""

import importlib
import json
import resource
import sys


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    for name, limit in request["limits"].items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(number, (most, most))
    sys.path += request["path"]
    name = request["name"]
    try:
        for answer in importlib.import_module(request["module"]).answers(request):
            _send(answer)
    except ImportError as error:  # where its libstdc++ is not found: NixOS, before nixpatch patched itself
        _send({"refused": f"{name} cannot be imported here ({error})"})
    except MemoryError:
        _send({"refused": f"{name} ran out of the memory it may take"})
    except Exception as error:  # noqa: BLE001 - any error is about this request
        _send({"refused": f"{name} failed: {type(error).__name__}: {error}"})


def _send(answer: object) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
