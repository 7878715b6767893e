"""auditwheel in reverse: link installed wheels against the Nix store, in place. See :mod:`nixpatch.api`."""

from nixpatch.version import __version__ as __version__

TYPE_CHECKING = False  # typing takes longer to import than the rest, and Ctrl-C is a traceback until then
if TYPE_CHECKING:
    from nixpatch.api import (
        apply,
        as_document,
        diff,
        env,
        lock,
        missing,
        optional,
        plan,
        restore,
        summary,
        tree,
        verify,
    )
    from nixpatch.errors import MachineError, NixpatchError, RequestError
    from nixpatch.model import (
        Answer,
        FileOutcome,
        FilePlan,
        Finding,
        Origin,
        Outcome,
        Plan,
        SkipReason,
        Tag,
        Verdict,
        Writer,
    )
    from nixpatch.model.diff import Difference
    from nixpatch.model.missing import Missing
    from nixpatch.model.summary import Totals
    from nixpatch.model.trace import Trace


# The names that stay. Everything else in the package may move from one version to the next.
__all__ = [
    "Answer",
    "Difference",
    "FileOutcome",
    "FilePlan",
    "Finding",
    "MachineError",
    "Missing",
    "NixpatchError",
    "Origin",
    "Outcome",
    "Plan",
    "RequestError",
    "SkipReason",
    "Tag",
    "Totals",
    "Trace",
    "Verdict",
    "Writer",
    "apply",
    "as_document",
    "diff",
    "env",
    "lock",
    "missing",
    "optional",
    "plan",
    "restore",
    "summary",
    "tree",
    "verify",
]

if not TYPE_CHECKING:  # a type checker knows the names, and that there are no others

    def __getattr__(name: str) -> object:
        """Import the API when one of its names is asked for (PEP 562): a command line has no use for it."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 - as above

        return getattr(import_module("nixpatch.api"), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
