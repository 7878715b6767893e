"""auditwheel in reverse: link installed wheels against the Nix store, in place. See :mod:`nixpatch.api`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nixpatch.api import *  # noqa: F403 - the list of names is in one place
    from nixpatch.api import __all__ as __all__

__version__ = "0.1.0"

if not TYPE_CHECKING:  # a type checker knows the names, and that there are no others

    def __getattr__(name: str) -> Any:
        """Import the API when one of its names is asked for (PEP 562): a command line has no use for it."""
        if not name.startswith("_") or name == "__all__":
            from importlib import import_module  # noqa: PLC0415 - as above

            api = import_module("nixpatch.api")
            if name == "__all__" or name in api.__all__:
                return getattr(api, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted([*globals(), *__getattr__("__all__")])
