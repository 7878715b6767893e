"""Build the test store into /nix/store, with real derivations.

usage: python tests/support/testbed/store.py [--work DIR]

Needs root, nix-bin, dpkg and the package lists of Debian 12 (apt-get update). A second call only checks.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

if __name__ == "__main__":
    sys.path.insert(0, os.path.realpath(os.path.join(__file__, "../../..")))

from support.testbed import debs

HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT_WORK = os.environ.get("NIXPATCH_TESTBED") or os.path.expanduser("~/.cache/nixpatch-testbed")
GC_ROOTS = "/nix/var/nix/gcroots/nixpatch-testbed"
# Whatever has an influence on the derivations; a change of any of them means a new plan.
_RECIPE = (
    "packages.toml",
    "default.nix",
    "builder",
    "debs.py",
    "elfscan.py",
    "loader.py",
    "plan.py",
    "store.py",
)
# A build by root alone: no build users, and no namespaces, which a CI container may not allow inside its own.
_NIX_CONFIG = """\
build-users-group =
sandbox = false
substituters =
max-jobs = auto
experimental-features = nix-command
"""
_TOOLS = ("nix-store", "nix-build", "nix-instantiate", "dpkg-deb", "apt-get")

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class NixStore:
    """The store as the tests see it: attribute -> store path."""

    work: str
    outputs: Mapping[str, str]

    def __getitem__(self, attr: str) -> str:
        return self.outputs[attr]

    @property
    def python(self) -> str:
        """The store's Python."""
        return os.path.join(self["python3"], "bin", "python3")

    @property
    def library_directories(self) -> list[str]:
        """The lib directories that one would link to: of this machine and of glibc, each soname once."""
        foreign = {"musl", "zlib_second"}
        return [
            os.path.join(path, "lib")
            for attr, path in self.outputs.items()
            if attr not in foreign and not attr.endswith("_i686") and os.path.isdir(os.path.join(path, "lib"))
        ]

    def closure(self, *paths: str) -> list[str]:
        """The paths and whatever they refer to."""
        return _nix("nix-store", "--query", "--requisites", *paths).split()

    def is_valid(self) -> bool:
        """Whether Nix knows all paths (they may have been collected, or the store is a new one)."""
        command = ["nix-store", "--check-validity", *self.outputs.values()]
        return (
            subprocess.run(command, env=nix_environment(), capture_output=True, check=False).returncode == 0
        )


def nix_environment() -> dict[str, str]:
    """The environment for Nix's programs: root, no daemon, whatever the machine's configuration says."""
    return {**os.environ, "NIX_CONFIG": _NIX_CONFIG}


def lacks() -> str | None:
    """Why this machine cannot build the store, if so."""
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "only root may write to /nix/store without a daemon"
    if "bookworm" not in _os_release():
        return "the store is made of packages of Debian 12"
    return None


def load(work: str = DEFAULT_WORK) -> NixStore:
    """The store that an earlier build left."""
    with open(os.path.join(work, "store.json"), encoding="utf-8") as file:
        return NixStore(work, json.load(file))


def build(work: str = DEFAULT_WORK, log: Log = lambda _: None) -> NixStore:
    """Build what is missing. Several processes may call it at a time: one builds, the others wait."""
    os.makedirs(work, mode=0o755, exist_ok=True)
    with locked(os.path.join(work, "lock")):
        stamp_file = os.path.join(work, "stamp")
        if _read(stamp_file) == _stamp(work) and (store := load(work)).is_valid():
            log(f"{len(store.outputs)} outputs are up to date")
            return store
        files = _write_plan(work, log)
        _make_seed(work, files)
        store = _build(work, log)
        _write(os.path.join(work, "store.json"), json.dumps(dict(store.outputs), indent=1))
        _write(stamp_file, _stamp(work))
        return store


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Hold a file lock; it goes with the process, so that nobody has to clean up."""
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _write_plan(work: str, log: Log) -> dict[str, str]:
    # Imported late: pyelftools is not needed where the store is up to date, which is nearly always.
    from support.testbed.plan import make_plan, read_catalog

    catalog = read_catalog()
    directory = os.path.join(work, "debs")
    files = debs.fetch(catalog.debs, directory)
    log(f"{len(files)} Debian packages are there")
    _write(os.path.join(work, "plan.json"), json.dumps(make_plan(catalog, files, directory), indent=1))
    log("read what they need and provide")
    return {name: files[name] for name in catalog.seed}


def _make_seed(work: str, files: Mapping[str, str]) -> None:
    seed = os.path.join(work, "seed")
    shutil.rmtree(seed, ignore_errors=True)
    for file in files.values():
        debs.unpack(os.path.join(work, "debs", file), seed)
    for useless in ("usr/share", "usr/lib/x86_64-linux-gnu/gconv", "etc", "lib64"):
        shutil.rmtree(os.path.join(seed, useless), ignore_errors=True)
    busybox = os.path.join(seed, "bin", "busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            os.symlink("busybox", os.path.join(seed, "bin", applet))


def _build(work: str, log: Log) -> NixStore:
    arguments = [os.path.join(HERE, "default.nix")]
    for name in ("plan", "debs", "seed"):
        path = os.path.join(os.path.abspath(work), "plan.json" if name == "plan" else name)
        arguments += ["--argstr", name, path]
    outputs = json.loads(
        _nix(
            "nix-instantiate",
            "--eval",
            "--strict",
            "--json",
            "--read-write-mode",
            *arguments,
            "-A",
            "outputs",
        )
    )
    log(f"{len(outputs)} derivations evaluated")
    # Before the build: a garbage collector that runs at the same time finds no moment without them.
    _protect(outputs)
    _nix("nix-build", "--no-out-link", *arguments, "-A", "packages")
    log("built")
    return NixStore(work, outputs)


def _protect(outputs: Mapping[str, str]) -> None:
    """Make the outputs roots of the garbage collector, and nothing else of ours."""
    os.makedirs(GC_ROOTS, exist_ok=True)
    for attr, path in outputs.items():
        new = os.path.join(GC_ROOTS, f".{attr}.new")
        if os.path.lexists(new):
            os.unlink(new)
        os.symlink(path, new)
        os.replace(new, os.path.join(GC_ROOTS, attr))
    for stale in set(os.listdir(GC_ROOTS)) - set(outputs):
        os.unlink(os.path.join(GC_ROOTS, stale))


def _nix(*command: str) -> str:
    done = subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        # Nix's last line repeats all derivations; what matters are the lines of the builder that failed.
        lines = [line[:500] for line in done.stderr.splitlines()]
        raise RuntimeError("\n".join([f"{command[0]} failed:", *lines[-60:]]))
    return done.stdout


def _stamp(work: str) -> str:
    """A hash of the recipe and of which packages were downloaded."""
    digest = hashlib.sha256()
    for name in _RECIPE:
        path = os.path.join(HERE, name)
        files = (
            [os.path.join(path, inner) for inner in sorted(os.listdir(path))]
            if os.path.isdir(path)
            else [path]
        )
        for file in files:
            with open(file, "rb") as stream:
                digest.update(hashlib.sha256(stream.read()).digest())
    directory = os.path.join(work, "debs")
    if os.path.isdir(directory):
        digest.update("\n".join(sorted(os.listdir(directory))).encode())
    return digest.hexdigest()


def _read(path: str) -> str | None:
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()


def _write(path: str, text: str) -> None:
    with open(f"{path}.new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(f"{path}.new", path)


def _os_release() -> str:
    return _read("/etc/os-release") or ""


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Build the test store into /nix/store.")
    parser.add_argument(
        "--work", default=DEFAULT_WORK, help="where downloads and store.json go (%(default)s)"
    )
    work: str = parser.parse_args().work
    if reason := lacks():
        print(f"cannot build: {reason}", file=sys.stderr)
        return 3
    start = time.monotonic()
    store = build(work, lambda text: print(f"[{time.monotonic() - start:5.1f}s] {text}", file=sys.stderr))
    print(f"python: {store.python}")
    print(f"outputs: {os.path.join(work, 'store.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
