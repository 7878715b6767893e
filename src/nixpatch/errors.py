"""The exceptions that end a run, and the exit code of each.

Trouble with one file is never an exception out of a run: it is a value in the plan or in the outcome.
Every message is one line that says what is wrong with which file and what to do next.
"""


class NixpatchError(Exception):
    """A run cannot go on. The base of all that the command line turns into one line and an exit code."""

    exit_code = 3
    is_in_document = False
    """a JSON document that has it was printed"""


class RequestError(NixpatchError):
    """What was asked for is wrong: a path, an option, a combination."""

    exit_code = 2


class PythonGone(RequestError):  # noqa: N818 - a state of the venv
    """The base Python of a venv was deleted, so nothing in the venv starts or loads."""


class MachineError(NixpatchError):
    """What the machine offers is not enough: no store, no permission, Nix failed."""

    exit_code = 3


class FileRefused(Exception):  # noqa: N818 - a decision about one file, not an error of the program
    """One file cannot be edited safely. It stays as it is; the message says why."""
