"""Run a program in a root like that of NixOS: no /lib64, no /usr/lib, no ld.so.cache, only the Nix store.

usage: sandbox.py [--work DIR] [--ro PATH]... [--rw PATH]... [--env NAME=VALUE]...  (in tests/support/testbed)
           [--cwd DIR] [--closure ATTR]... [--shell] -- CMD [ARG]...

CMD is a path, or the name of a program in one of the packages of _PROGRAMS below.
"""

import argparse
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

if __name__ == "__main__":
    sys.path.insert(0, os.path.realpath(os.path.join(__file__, "../../..")))

from support.testbed import store as testbed
from support.testbed.store import NixStore

# On NixOS these two exist for everybody's scripts, and nothing else outside the store does.
_SHELL = {"/bin/sh": ("bash", "bin/bash"), "/usr/bin/env": ("coreutils", "bin/env")}
# In PATH of the command line.
_PROGRAMS = (
    "python3",
    "bash",
    "coreutils",
    "findutils",
    "gnugrep",
    "gnused",
    "gnutar",
    "gzip",
    "patchelf",
    "unzip",
)
_ISOLATION = ("--unshare-user-try", "--unshare-ipc", "--unshare-uts", "--unshare-net")
# A container with parts of its /proc covered may not mount a new one: then its own must do, with its ids.
_PROC = (("--unshare-pid", "--proc", "/proc"), ("--ro-bind", "/proc", "/proc"))


def lacks() -> str | None:
    """Why this machine cannot make a sandbox, if so."""
    if not shutil.which("bwrap"):
        return "not installed: bwrap"
    return None if _proc() else "bwrap may not make namespaces here"


@functools.cache
def _proc() -> tuple[str, ...] | None:
    """The first way to have a /proc that works on this machine."""
    for way in _PROC:
        command = ["bwrap", *_ISOLATION, "--ro-bind", "/", "/", *way, "--dev", "/dev", "true"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return way
    return None


class View(TypedDict, total=False):
    """What the program sees; by default the whole store and nothing else."""

    read_only: Sequence[str]
    """Paths outside the store, visible under their own names."""
    read_write: Sequence[str]
    """The same, writable."""
    env: Mapping[str, str]
    """On top of HOME=/tmp and PATH."""
    packages: Sequence[str]
    """Attributes or store paths whose programs are in PATH."""
    cwd: str
    closure: Sequence[str]
    """Only these attributes or store paths, and what they refer to, instead of the whole store."""
    shell: bool
    """With /bin/sh and /usr/bin/env, as on NixOS."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Runs programs with the store, /proc, /dev and an empty /tmp; no network, nothing of the environment."""

    store: NixStore

    def run(
        self,
        command: Sequence[str],
        *,
        stdin: str = "",
        timeout: float | None = 300,
        check: bool = False,
        **view: Unpack[View],
    ) -> subprocess.CompletedProcess[str]:
        """Run a command and return what it said."""
        return subprocess.run(
            self.arguments(command, **view),
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=check,
        )

    def arguments(self, command: Sequence[str], **view: Unpack[View]) -> list[str]:
        """The whole command line, for those who want to start the process themselves."""
        shell = view.get("shell", False)
        arguments = [
            "bwrap",
            *_ISOLATION,
            *(_proc() or _PROC[0]),
            "--die-with-parent",
            "--new-session",
            "--clearenv",
        ]
        arguments += ["--dir", "/nix/store", "--dev", "/dev", "--tmpfs", "/tmp"]
        arguments += _binds("--ro-bind", self._visible(view.get("closure"), shell=shell))
        arguments += _binds("--ro-bind", view.get("read_only", ()))
        arguments += _binds("--bind", view.get("read_write", ()))
        if shell:
            for place, (attr, program) in _SHELL.items():
                arguments += ["--symlink", f"{self.store[attr]}/{program}", place]
        arguments += ["--remount-ro", "/"]
        # A PATH that is not set is not an empty one: libc would take its own default.
        path = ":".join(f"{self._path(package)}/bin" for package in view.get("packages", ()))
        for name, value in {"HOME": "/tmp", "PATH": path or "/nowhere", **view.get("env", {})}.items():
            arguments += ["--setenv", name, value]
        return [*arguments, "--chdir", view.get("cwd", "/"), "--", *command]

    def _visible(self, closure: Sequence[str] | None, *, shell: bool) -> list[str]:
        if closure is None:
            return ["/nix/store"]
        roots = [self._path(package) for package in closure]
        if shell:
            roots += [self.store[attr] for attr, _ in _SHELL.values()]
        return self.store.closure(*roots)

    def _path(self, package: str) -> str:
        return package if package.startswith("/") else self.store[package]


def _binds(option: str, paths: Sequence[str]) -> list[str]:
    """Bind each path on its own name; a relative one would mean something else inside."""
    absolute = [os.path.abspath(path) for path in paths]
    return [word for path in absolute for word in (option, path, path)]


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Run a program in a root like that of NixOS.")
    parser.add_argument("--work", default=testbed.DEFAULT_WORK, help="that of store.py (%(default)s)")
    parser.add_argument("--ro", action="append", default=[], metavar="PATH", help="bind a path, read-only")
    parser.add_argument("--rw", action="append", default=[], metavar="PATH", help="bind a path")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--cwd", default="/", metavar="DIR")
    parser.add_argument(
        "--closure", action="append", metavar="ATTR", help="only the closure of these packages"
    )
    parser.add_argument("--shell", action="store_true", help="with /bin/sh and /usr/bin/env, as on NixOS")
    parser.add_argument("command", nargs="+", metavar="CMD")
    options = parser.parse_args()
    if reason := lacks():
        print(f"cannot run: {reason}", file=sys.stderr)
        return 3
    sandbox = Sandbox(testbed.build(options.work))
    view = View(
        read_only=options.ro,
        read_write=options.rw,
        env=dict(pair.split("=", 1) for pair in options.env),
        packages=_PROGRAMS,
        cwd=options.cwd,
        shell=options.shell,
    )
    if options.closure:
        view["closure"] = [*options.closure, *_PROGRAMS]
    return subprocess.run(sandbox.arguments(options.command, **view), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
