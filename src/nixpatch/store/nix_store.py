"""The store directory, and the only place that runs Nix."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from nixpatch.errors import MachineError, RequestError
from nixpatch.store_paths import is_store_entry, package_of_entry

DEFAULT_STORE_DIR = "/nix/store"
"""where Nix keeps its store unless it is configured otherwise"""

_SEALED_TIME = 1_000_000_000  # ns: one second after the epoch
_WRITE = 0o222
_TIMEOUT = 120.0  # seconds; a query takes hundredths of one, a database locked by a collector much longer
_KEPT = frozenset(
    {"PATH", "HOME", "USER", "LOGNAME", "TMPDIR"}
    | {"XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"}
    # To fetch what is not there yet.
    | {"SSL_CERT_FILE", "SSH_AUTH_SOCK", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    | {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
)
_KEPT_PREFIXES = ("NIX_", "NIXPKGS_")  # NIXPKGS_ALLOW_UNFREE is nixpkgs's own


@dataclass(frozen=True, slots=True)
class Store:
    """A store directory, and the ``nix-store`` that knows it. Made by :func:`find_store`."""

    directory: str
    """as it is to be written into files, without a slash at the end"""
    real: str
    """the same with symlinks resolved; differs where ``/nix`` is a link"""
    program: str | None = None
    """``nix-store``; None where there is none, or where the store is not the one that it manages"""
    environ: tuple[tuple[str, str], ...] = ()
    """the environment that ``program`` gets"""
    state: str = ""
    """Nix's state directory, where its roots are registered; "" where ``program`` is None"""
    denied: bool = False
    """the store is Nix's own, but this user may not open its database: ``program`` is None"""

    @property
    def exists(self) -> bool:
        """Whether there is such a directory."""
        return os.path.isdir(self.directory)

    def canonical(self, path: str) -> str:
        """Resolve all symlinks, yet name the store as ``directory`` does."""
        real = os.path.realpath(path)
        if self.real != self.directory and (real + "/").startswith(self.real + "/"):
            return self.directory + real[len(self.real) :]
        return real

    def store_path_of(self, path: str, *, resolve: bool = False) -> str | None:
        """Return the store path that ``path`` is or lies in, None for a path outside the store.

        With ``resolve`` symlinks are followed first: ``./result/lib`` is in the store then.
        """
        path = self.canonical(path) if resolve else path
        for prefix in (self.directory + "/", self.real + "/"):
            if path.startswith(prefix):
                entry = path[len(prefix) :].lstrip("/").partition("/")[0]
                if is_store_entry(entry):
                    return f"{self.directory}/{entry}"
        return None

    def package_name(self, path: str) -> str:
        """Return the name without hash of the store path that ``path`` is or lies in, ``""`` outside."""
        store_path = self.store_path_of(path)
        return package_of_entry(os.path.basename(store_path)) if store_path else ""

    def requisites(self, paths: Sequence[str]) -> tuple[str, ...]:
        """Return the closure of store paths by Nix's database, sorted.

        Raises:
            MachineError: there is no Nix, or it failed.
            RequestError: one of them is not a store path.

        """
        if not paths:
            return ()
        printed = self._run("-q", "-R", paths=paths, hint="is each of them still in the store?")
        return tuple(sorted(set(printed)))

    def invalid(self, paths: Iterable[str]) -> frozenset[str]:
        """Return those store paths that are not valid in Nix's database; none where there is no Nix.

        Raises:
            MachineError: Nix failed.
            RequestError: one of them is not a store path.

        """
        queried = sorted(set(paths))
        if self.program is None or not queried:
            return frozenset()
        hint = "does `nix-store --verify` work on this machine?"
        return frozenset(self._run("--check-validity", "--print-invalid", paths=queried, hint=hint))

    def add_roots(self, paths: Sequence[str], link: str) -> None:
        """Make indirect garbage-collector roots of store paths: ``link``, ``link-2``, ... (nix-store(1)).

        Raises:
            MachineError: there is no Nix, or it failed; a path may be gone.
            RequestError: one of them is not a store path.

        """
        hint = "not every root was made; --no-gc-roots goes on without"
        self._run("--realise", "--add-root", link, "--indirect", paths=paths, hint=hint)

    def _run(self, *options: str, paths: Sequence[str], hint: str) -> list[str]:
        """Run ``nix-store OPTIONS PATHS`` and return the lines that it prints."""
        for path in paths:
            # Also keeps anything that looks like an option or a flake reference away from the command line.
            if self.store_path_of(path) != path:
                raise RequestError(f"{path}: not a path in the store {self.directory}")
        what = " ".join(("nix-store", *options))
        if self.program is None:
            raise MachineError(f"{what}: no nix-store that manages {self.directory}; put Nix on the PATH")
        try:
            done = subprocess.run(
                [self.program, *options, *paths],
                env=dict(self.environ),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise MachineError(
                f"{what}: no answer in {_TIMEOUT:.0f} s; is a collector holding the store?"
            ) from None
        except OSError as error:
            raise MachineError(f"{what}: cannot run {self.program}: {error.strerror}; {hint}") from None
        if done.returncode:
            lines = os.fsdecode(done.stderr).strip().splitlines() or [f"exit code {done.returncode}"]
            raise MachineError(f"{what} {paths[0]}: {lines[-1].strip()}; {hint}")
        return [os.fsdecode(line) for line in done.stdout.split(b"\n") if line]


def _may_ask(state: str, environ: Mapping[str, str]) -> bool:
    """Return whether this user's Nix can open the database, itself or through a daemon (Nix, ``openStore``).

    The store of a single-user installation is readable for all, its database only for the owner.
    """
    socket = os.path.join(state, "daemon-socket", "socket")
    return os.access(state, os.R_OK | os.W_OK) or os.path.exists(socket) or bool(environ.get("NIX_REMOTE"))


def is_sealed(status: os.stat_result) -> bool:
    """Whether Nix has registered a file or directory of the store: it does not change any more."""
    return status.st_mtime_ns == _SEALED_TIME and not status.st_mode & _WRITE


def find_store(given: str | None, environ: Mapping[str, str]) -> Store:
    """Return the store to work with: ``--store``, else that of Nix's own variables, else ``/nix/store``.

    Nix answers only for its own store: the directory that it works on by default or by ``NIX_STORE_DIR``,
    with its state beside it. A sandbox has ``/nix/store`` without that state.

    Raises:
        RequestError: ``given`` is not a directory.

    """
    own = environ.get("NIX_STORE_DIR") or environ.get("NIX_STORE") or DEFAULT_STORE_DIR
    if given is not None and not os.path.isdir(given):
        raise RequestError(f"--store {given}: not a directory; name the directory that holds the store paths")
    own = os.path.abspath(own)
    directory = own if given is None else os.path.abspath(given)
    state = environ.get("NIX_STATE_DIR") or os.path.join(os.path.dirname(directory), "var", "nix")
    program = None
    has_state = directory == own and os.path.isdir(state)
    denied = has_state and not _may_ask(state, environ)
    if has_state and not denied:
        program = shutil.which("nix-store", path=environ.get("PATH", ""))
    kept = {key: value for key, value in environ.items() if key in _KEPT or key.startswith(_KEPT_PREFIXES)}
    kept["LC_ALL"] = "C"  # ours quote its messages
    return Store(
        directory=directory,
        real=os.path.realpath(directory),
        program=program,
        environ=tuple(sorted(kept.items())),
        state=state if program else "",
        denied=denied,
    )
