"""One walk: random steps on a venv, the promises after each, and at the end the bytes of a fresh install."""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from uv import find_uv_bin

from nixpatch import elf
from nixpatch.cli import run
from nixpatch.elf.undo import open_views
from nixpatch.errors import FileRefused
from nixpatch.fs import is_temporary
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.hashing import hash_file
from nixpatch.installed.scan import scan
from walk.shop import VERSIONS, Shop, Wheel

NAMES = ("alpha", "beta", "gamma")
OPTIONS: tuple[list[str], ...] = (
    [],
    ["--append-rpath", "/nix/extra"],
    ["--lib", "SECOND"],
    ["--tag", "rpath"],
    ["--unvendor=*"],
    ["--no-startup-files"],
    ["--resolution-cache"],
    ["--resolution-cache", "--tag", "runpath"],
)
ELF_MAGIC = b"\x7fELF"


@dataclass
class Ended:
    """How a command line ended."""

    code: int | str
    out: str = ""
    err: str = ""


@dataclass
class Walker:
    """A venv, and what is known of it."""

    shop: Shop
    root: str
    seed: int
    random: random.Random = field(init=False)
    installed: dict[str, tuple[Wheel, str]] = field(default_factory=dict)
    """by name: the wheel and the installer"""
    records: dict[str, bytes] = field(default_factory=dict)
    """RECORD as it was installed"""
    broken: set[str] = field(default_factory=set)
    """dists whose installer was killed"""
    steps: list[str] = field(default_factory=list)
    moved: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        command = [sys.executable, "-m", "venv", "--without-pip", self.venv]
        subprocess.run(command, check=True, capture_output=True)

    # ------------------------------------------------------------------------------------------ places

    @property
    def venv(self) -> str:
        return os.path.join(self.root, "moved" if self.moved else "venv")

    @property
    def site(self) -> str:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return os.path.join(self.venv, "lib", version, "site-packages")

    def path(self, key: str) -> str:
        return os.path.normpath(os.path.join(self.site, key))

    def info(self, wheel: Wheel) -> str:
        return os.path.join(self.site, f"{wheel.name}-{wheel.version}.dist-info")

    def loose(self) -> list[str]:
        if not os.path.isdir(self.site):  # uv removes it with its last dist
            return []
        return sorted(name for name in os.listdir(self.site) if name.startswith("loose"))

    # ----------------------------------------------------------------------------------------- commands

    def nixpatch(self, *arguments: str, tree: str = "") -> Ended:
        """Run a command line on the venv, or a part of it, in this process."""
        out, err = io.StringIO(), io.StringIO()
        words = [self.shop.second if word == "SECOND" else word for word in arguments]
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code: int | str = run([*words, tree or self.venv])
        except BaseException:  # noqa: BLE001 - reported
            return Ended("traceback", out.getvalue(), traceback.format_exc())
        return Ended(int(code), out.getvalue(), err.getvalue())

    def forked(self, *arguments: str) -> int:
        """Start a command line in a process group of its own."""
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                os.setpgid(0, 0)
                null = os.open(os.devnull, os.O_RDWR)
                for number in (0, 1, 2):
                    os.dup2(null, number)
                ended = self.nixpatch(*arguments)
                os._exit(ended.code if isinstance(ended.code, int) else 70)
            os._exit(71)
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        return child

    def installer(self, tool: str, *arguments: str) -> subprocess.Popen[bytes]:
        python = os.path.join(self.venv, "bin", "python")
        if tool == "pip":
            command = [sys.executable, "-m", "pip", "--python", python, *arguments]
        else:
            command = [find_uv_bin(), "pip", *arguments, "--python", python]
        environment = {
            **os.environ,
            "UV_CACHE_DIR": os.path.join(self.root, "uv"),
            "UV_OFFLINE": "1",
            "PIP_NO_INDEX": "1",
            "PIP_CACHE_DIR": os.path.join(self.root, "pip"),
        }
        return subprocess.Popen(
            command,
            env=environment,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def install_command(self, tool: str, wheel: Wheel) -> list[str]:
        if tool == "pip":
            return [
                "install",
                "-q",
                "--no-deps",
                "--no-compile",
                "--force-reinstall",
                "--no-index",
                wheel.path,
            ]
        mode = tool.removeprefix("uv-")
        return ["install", "-q", "--no-deps", "--reinstall", "--no-index", "--link-mode", mode, wheel.path]

    # -------------------------------------------------------------------------------------------- steps

    def step_install(self) -> None:
        self.install(self.random.choice(NAMES), self.random.choice(VERSIONS), self.tool())

    def tool(self) -> str:
        return self.random.choice(["uv-copy", "uv-hardlink", "uv-symlink", "pip"])

    def install(self, name: str, version: str, tool: str) -> None:
        wheel = self.shop.wheels[name, version]
        self.steps[-1] += f" {name} {version} by {tool}"
        if name in self.broken:
            self.purge(name)
        was = self.installed.get(name)
        process = self.installer(tool, *self.install_command(tool, wheel))
        out = process.communicate()[0].decode()
        self.hold(process.returncode == 0, f"{tool} fails: {out}")
        self.installed[name] = (wheel, tool)
        self.broken.discard(name)
        with open(os.path.join(self.info(wheel), "RECORD"), "rb") as file:
            self.records[name] = file.read()
        if was is not None and was[0].version != version:
            self.hold(
                not os.path.lexists(self.info(was[0])), f"an upgrade by {tool} leaves {self.info(was[0])}"
            )

    def step_uninstall(self) -> None:
        names = sorted(self.installed.keys() - self.broken)
        if not names:
            return
        name, tool = self.random.choice(names), self.tool()
        self.steps[-1] += f" {name} by {tool}"
        wheel, _ = self.installed.pop(name)
        process = self.installer(tool, "uninstall", *(["-y", "-q"] if tool == "pip" else ["-q"]), name)
        out = process.communicate()[0].decode()
        self.hold(process.returncode == 0, f"{tool} fails: {out}")
        left = [path for path in self.places(wheel) if os.path.lexists(path)]
        left = [path for path in left if not self.is_only_temps(path)]
        self.hold(not left, f"uninstalling by {tool} leaves {[*map(self.listing, left)]}")

    def is_only_temps(self, path: str) -> bool:
        """Whether a directory is kept by temp files of a killed run only: the next run removes them."""
        names = [name for _, _, names in os.walk(path) for name in names]
        return os.path.isdir(path) and bool(names) and all(map(is_temporary, names))

    def listing(self, path: str) -> list[str]:
        below = [os.path.join(parent, name) for parent, _, names in os.walk(path) for name in names]
        return [path, *below]

    def places(self, wheel: Wheel) -> list[str]:
        tops = {key if key.startswith("..") else key.split("/")[0] for key in wheel.files}
        startup = os.path.join(self.site, f"nixpatch-{wheel.name}.pth")
        return [*(self.path(top) for top in sorted(tops)), self.info(wheel), startup]

    def purge(self, name: str) -> None:
        """Remove what an installer that was killed left, as a user has to."""
        for version in VERSIONS:
            for path in self.places(self.shop.wheels[name, version]):
                if os.path.isdir(path):
                    shutil.rmtree(path)
                elif os.path.lexists(path):
                    os.unlink(path)
        for entry in os.listdir(self.site) if os.path.isdir(self.site) else ():
            if entry.startswith("~"):
                shutil.rmtree(os.path.join(self.site, entry), ignore_errors=True)

    def step_patch(self) -> None:
        options = self.random.choice(OPTIONS)
        self.steps[-1] += f" {options}"
        self.clean_run("patch", *options)

    def step_restore(self) -> None:
        self.clean_run("restore")

    def step_add_loose(self) -> None:
        name = f"loose{self.random.randrange(3)}.so"
        os.makedirs(self.site, exist_ok=True)
        with open(os.path.join(self.site, name), "wb") as file:
            file.write(self.shop.wheels["alpha", "1.0"].files["alpha/_ext.so"])
        os.chmod(file.name, 0o755)

    def step_remove_loose(self) -> None:
        for name in self.loose()[:1]:
            os.unlink(os.path.join(self.site, name))

    def line(self) -> list[str]:
        return self.random.choice((["restore"], *(["patch", *options] for options in OPTIONS)))

    def step_two_runs(self) -> None:
        lines = [self.line(), self.line()]
        self.steps[-1] += f" {lines}"
        children = [self.forked(*line) for line in lines]
        for child in children:
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            self.hold(code == 0 or (code == 1 and self.is_damaged()), f"one of two runs ends with {code}")

    def step_kill_run(self) -> None:
        line = self.line()
        jobs = ["--jobs", "2"] if line[0] == "patch" and self.random.random() < 0.3 else []
        delay = self.random.random() * 0.12
        self.steps[-1] += f" {line} after {delay:.3f} s"
        child = self.forked(*line, *jobs)
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)

    def step_kill_worker(self) -> None:
        child = self.forked("patch", "--jobs", "2", *self.random.choice(OPTIONS))
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                if workers := _read(f"/proc/{child}/task/{child}/children").split():
                    os.kill(int(workers[0]), signal.SIGKILL)
                    break
            if os.waitpid(child, os.WNOHANG)[0]:
                return
        os.waitpid(child, 0)

    def step_kill_installer(self) -> None:
        name, version, tool = self.random.choice(NAMES), self.random.choice(VERSIONS), self.tool()
        delay = self.random.random() * (0.9 if tool == "pip" else 0.06)
        self.steps[-1] += f" {name} {version} by {tool} after {delay:.3f} s"
        if name in self.broken:
            self.purge(name)
        process = self.installer(tool, *self.install_command(tool, self.shop.wheels[name, version]))
        time.sleep(delay)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        self.broken.add(name)
        self.installed.pop(name, None)

    def step_strip(self) -> None:
        self.damage(lambda path: subprocess.run(["strip", path], check=False, capture_output=True))

    def step_patchelf(self) -> None:
        if shutil.which("patchelf"):
            command = ["patchelf", "--add-rpath", "/by/patchelf"]
            self.damage(lambda path: subprocess.run([*command, path], check=False, capture_output=True))

    def step_flip(self) -> None:
        def flip(path: str) -> None:
            data = bytearray(_read(path))
            offset = self.random.randrange(len(data))
            data[offset] ^= 1 << self.random.randrange(8)
            self.steps[-1] += f" at {offset:#x} of {len(data):#x}"
            _replace(path, bytes(data))

        self.damage(flip)

    def damage(self, change: Callable[[str], object]) -> None:
        files = [path for path in self.owned() if _read(path).startswith(ELF_MAGIC)]
        if files:
            path = self.random.choice(files)
            self.steps[-1] += f" {os.path.basename(path)}"
            _replace(path, _read(path))  # its own inode: not the one of uv's cache
            change(path)

    def step_move(self) -> None:
        before = self.venv
        self.moved = not self.moved
        os.rename(before, self.venv)

    def owned(self) -> list[str]:
        return sorted(
            path
            for name, (wheel, _) in self.installed.items()
            if name not in self.broken
            for path in map(self.path, wheel.files)
            if os.path.isfile(path)
        )

    # ------------------------------------------------------------------------------------- what must hold

    def hold(self, condition: bool, text: str) -> None:
        assert condition, f"seed {self.seed}: {text}\n  " + "\n  ".join(self.steps)

    def clean_run(self, *arguments: str) -> None:
        """Run to the end: no temp file is left, and an error only where a file is damaged."""
        tree = self.random.choice([self.venv, self.venv, self.venv, self.site])
        ended = self.nixpatch(*arguments, tree=tree)
        said = f"{' '.join(arguments)} ends with {ended.code}: {ended.out}{ended.err}"
        self.hold(ended.code == 0 or (ended.code == 1 and self.is_damaged()), said)
        self.hold(not self.temps(), f"{said}\ntemp files are left: {self.temps()}")
        if arguments[0] == "restore":
            self.check_restored(said)
        elif ended.code == 0 and not self.is_damaged():  # verify names what is; its users need not load
            for path in self.elf_files():
                self.hold(_loads(path), f"{said}\n{path} does not load")

    def temps(self) -> list[str]:
        return [path for path in self.listing(self.venv) if is_temporary(os.path.basename(path))]

    def elf_files(self) -> list[str]:
        return [path for path in (*self.owned(), *map(self.path, self.loose())) if path.endswith(".so")]

    def is_damaged(self) -> bool:
        return bool(self.broken) or any(not self.is_right(*item) for item in self.files())

    def files(self) -> list[tuple[str, bytes]]:
        """Return the files of the dists that are installed, each with its contents in the wheel."""
        return [
            (self.path(key), data)
            for name, (wheel, _) in sorted(self.installed.items())
            if name not in self.broken
            for key, data in wheel.files.items()
        ]

    def is_right(self, path: str, data: bytes) -> bool:
        """Whether a file is as the wheel has it, apart from what nixpatch changed; an un-vendored one is."""
        try:
            now = _read(path)
        except FileNotFoundError:
            name = os.path.basename(path)
            infos = [self.info(wheel) for wheel, _ in self.installed.values()]
            kept = [os.path.join(info, "nixpatch-grafts", name) for info in infos]
            return any(os.path.isfile(place) and _read(place) == data for place in kept)
        if now == data:
            return True
        if not data.startswith(ELF_MAGIC):
            return data.startswith(b"#!") and now.partition(b"\n")[2] == data.partition(b"\n")[2]
        try:
            facts = elf.read(path)
            digest = getattr(facts, "original_sha256", None)
            return digest is not None and _original(path) == data
        except (OSError, FileRefused):
            return False

    def check_restored(self, said: str) -> None:
        for name, (wheel, _) in self.installed.items():
            right = [self.is_right(self.path(key), data) for key, data in wheel.files.items()]
            if name in self.broken or not all(right):
                continue
            for key, data in wheel.files.items():
                self.hold(_read(self.path(key)) == data, f"{said}\nrestore does not bring {key} back")
            record = _read(os.path.join(self.info(wheel), "RECORD"))
            self.hold(record == self.records[name], f"{said}\nRECORD of {name} is not restored: {record!r}")
            extra = {"nixpatch.json", "nixpatch-grafts", "sboms"} & set(os.listdir(self.info(wheel)))
            self.hold(not extra, f"{said}\nrestore leaves {extra}")

    def check_verify(self) -> None:
        """Hold verify to the truth: it names each file that RECORD does not describe, and damaged ones."""
        ended = self.nixpatch("verify", "--json")
        self.hold(ended.code in {0, 1}, f"verify ends with {ended.code}: {ended.out}{ended.err}")
        tree = json.loads(ended.out)["trees"][0]
        said = f"{tree['findings']}"
        named = {finding["path"] for finding in tree["findings"] if finding["severity"] == "error"}
        self.hold((ended.code == 1) == bool(named), f"verify ends with {ended.code}: {said}")
        right = {path: self.is_right(path, data) for path, data in self.files()}
        contents = scan(self.venv)
        records = TreeRecords()
        for dist in contents.dists:
            if not dist.has_record:
                continue
            of_dist = records.of(contents, dist.info)
            for row in of_dist.read_record().record.rows:
                path = of_dist.locator.locate(row.path) if row.path else None
                if path is None or row.check_algorithm is None:
                    continue
                try:
                    agrees = row.agrees(hash_file(os.path.realpath(path))) is not False
                except OSError:
                    agrees = False
                self.hold(agrees or path in named, f"verify does not name {path}: {said}")
                if not right.get(path, True):
                    self.hold(not agrees, f"RECORD describes {path}, which is damaged")
                    self.hold(path in named, f"verify does not name the damaged {path}: {said}")

    # ------------------------------------------------------------------------------------------- the walk

    def walk(self, count: int) -> None:
        """Take some steps, and end with the bytes of a fresh install and one run."""
        weights = {
            self.step_install: 4, self.step_uninstall: 2, self.step_patch: 6, self.step_restore: 2,
            self.step_add_loose: 1, self.step_remove_loose: 1, self.step_two_runs: 1, self.step_kill_run: 5,
            self.step_kill_worker: 1, self.step_kill_installer: 1, self.step_strip: 1, self.step_patchelf: 1,
            self.step_flip: 1, self.step_move: 1,
        }  # fmt: skip
        for name in NAMES:
            self.steps.append("install")
            self.install(name, self.random.choice(VERSIONS), "uv-copy")
        for _ in range(count):
            step = self.random.choices(list(weights), list(weights.values()))[0]
            self.steps.append(step.__name__.removeprefix("step_"))
            step()
            self.check_verify()
        self.end()

    def end(self) -> None:
        """Mend what is damaged, run once more, and compare with a fresh install."""
        if self.moved:
            self.step_move()
        damaged = {
            name
            for name, (wheel, _) in self.installed.items()
            if not all(self.is_right(self.path(key), data) for key, data in wheel.files.items())
        }
        for name in sorted(damaged | self.broken):
            wheel, tool = self.installed.get(name) or (self.shop.wheels[name, "1.0"], "uv-copy")
            self.steps.append("mend")
            self.purge(name)
            self.install(wheel.name, wheel.version, tool)
        if any(path.endswith("nixpatch-grafts") for path in _state(self.venv)):
            self.steps.append("restore")  # what was un-vendored stays so in other runs
            self.clean_run("restore")
        self.steps.append("last run")
        self.clean_run("patch")
        ended = self.nixpatch("patch", "--check")
        self.hold(ended.code == 0, f"a second run has something to do: {ended.out}")
        self.hold(self.nixpatch("verify").code == 0, f"verify: {self.nixpatch('verify')}")
        walked, loose = _state(self.venv), self.loose()
        os.rename(self.venv, os.path.join(self.root, "walked"))
        fresh = Walker(self.shop, self.root, self.seed)
        for wheel, tool in self.installed.values():
            fresh.steps.append("fresh")
            fresh.install(wheel.name, wheel.version, tool)
        os.makedirs(self.site, exist_ok=True)
        for name in loose:
            shutil.copy(self.path(name).replace(self.venv, os.path.join(self.root, "walked")), self.site)
        fresh.clean_run("restore")
        fresh.clean_run("patch")
        now = _state(self.venv)
        different = sorted(path for path in now.keys() | walked.keys() if now.get(path) != walked.get(path))
        text = [path for path in different if path.endswith(("RECORD", ".json"))]
        detail = [(path, walked.get(path), now.get(path)) for path in text]
        self.hold(not different, f"differs from a fresh install: {different} {detail}")


def _original(path: str) -> bytes:
    with open_views(path) as views:
        image = views.original.image
        return image.read(0, image.size)


def _loads(path: str) -> bool:
    child = os.fork()
    if child == 0:
        with contextlib.suppress(OSError):
            ctypes.CDLL(path)
            os._exit(0)
        os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def _state(root: str) -> dict[str, tuple[int, bytes]]:
    """Return mode and contents of every file and directory but for bytecode and the lock of uv."""
    state: dict[str, tuple[int, bytes]] = {}
    for directory, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in {*folders, *names} - {".lock"}:  # of uv
            path = os.path.join(directory, name)
            key = os.path.relpath(path, root)
            mode = os.lstat(path).st_mode
            contents = _read(path) if stat.S_ISREG(mode) else b""
            state[key] = (mode, contents)
    return state


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _replace(path: str, data: bytes) -> None:
    mode = os.stat(path).st_mode
    with open(f"{path}-new", "wb") as file:
        file.write(data)
    os.chmod(file.name, mode)
    os.rename(file.name, path)


def walk(shop: Shop, root: str, seed: int, count: int) -> Sequence[str]:
    """Take one walk in an empty directory; return the steps.

    Raises:
        AssertionError: a promise was broken.

    """
    os.makedirs(root)
    walker = Walker(shop, root, seed)
    walker.walk(count)
    return walker.steps
