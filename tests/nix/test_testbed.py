"""The store of the tests is a real one, and the sandbox is as hostile to wheels as NixOS is."""

import os
import subprocess

import pytest
from elftools.elf.elffile import ELFFile

from support.testbed import store as stores
from support.testbed.sandbox import Sandbox, View
from support.testbed.store import NixStore, nix_environment
from support.testbed.venv import StoreVenvFactory

# Import name of each wheel that other tests patch; all of it must find what it needs in the store.
MODULES = {
    "cryptography": "cryptography.hazmat.bindings._rust",
    "grpcio": "grpc",
    "lxml": "lxml.etree",
    "numpy": "numpy",
    "opencv-python-headless": "cv2",
    "pandas": "pandas",
    "pillow": "PIL._imaging",
    "psycopg2-binary": "psycopg2",
    "pyarrow": "pyarrow.parquet",
    "pyside6-essentials": "PySide6.QtWidgets",
    "pyzmq": "zmq",
    "scipy": "scipy.linalg",
}
# Those that have no module; where the program is, below the virtual environment.
PROGRAMS = {
    "cmake": "lib/python3.11/site-packages/cmake/data/bin/cmake",
    "ninja": "bin/ninja",
    "ruff": "bin/ruff",
    "uv": "bin/uv",
}


def nix(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env=nix_environment(), capture_output=True, text=True, check=False)


def load(library: str) -> list[str]:
    return ["-c", f"import ctypes; ctypes.CDLL({library!r})"]


@pytest.mark.nix
class TestStore:
    def test_nix_knows_the_paths(self, nix_store: NixStore) -> None:
        assert nix_store.is_valid()

    @pytest.mark.parametrize("attr", ["glibc", "python3"])
    def test_contents_are_as_nix_recorded_them(self, nix_store: NixStore, attr: str) -> None:
        subprocess.run([nix_store.python, "-c", "import json, asyncio, sqlite3"], check=True)
        assert nix("nix-store", "--verify-path", nix_store[attr]).returncode == 0

    def test_python_never_recompiles(self, nix_store: NixStore) -> None:
        """Root would write into the store, and the path would no longer be what Nix recorded."""
        flags = set()
        for directory, _, files in os.walk(f"{nix_store['python3']}/lib"):
            for file in files:
                if file.endswith(".pyc"):
                    with open(os.path.join(directory, file), "rb") as stream:
                        flags.add(stream.read(8)[4:])
        assert flags == {b"\x01\0\0\0"}  # hash-based and unchecked, see PEP 552

    def test_paths_have_derivations(self, nix_store: NixStore) -> None:
        done = nix("nix-store", "--query", "--deriver", nix_store["zlib"])
        _, _, name = os.path.basename(nix_store["zlib"]).partition("-")
        assert done.stdout.strip().endswith(f"-{name}.drv")

    def test_closure_of_python(self, nix_store: NixStore) -> None:
        closure = set(nix_store.closure(nix_store["python3"]))
        references = nix("nix-store", "--query", "--references", *closure).stdout.split()
        assert set(references) <= closure
        assert {nix_store["glibc"], nix_store["openssl"]} <= closure
        # Nothing of what they were built from, and no C++ library that a wheel could profit from.
        assert closure <= set(nix_store.outputs.values())
        assert nix_store["gccLib"] not in closure

    def test_dependencies_come_from_the_files(self, nix_store: NixStore) -> None:
        assert nix_store["gccLib"] in nix_store.closure(nix_store["gfortranLib"])
        assert nix_store["glibc_i686"] in nix_store.closure(nix_store["zlib_i686"])
        assert nix_store["glibc"] not in nix_store.closure(nix_store["zlib_i686"])

    def test_garbage_collector_keeps_it(self, nix_store: NixStore) -> None:
        live = nix("nix-store", "--gc", "--print-live").stdout.split()
        assert set(nix_store.outputs.values()) <= set(live)

    def test_decoys(self, nix_store: NixStore) -> None:
        classes = {}
        for attr in ("zlib", "zlib_second", "zlib_i686"):
            with open(os.path.join(nix_store[attr], "lib", "libz.so.1"), "rb") as file:
                classes[attr] = ELFFile(file).elfclass
        assert classes == {"zlib": 64, "zlib_second": 64, "zlib_i686": 32}
        assert nix_store["zlib"] != nix_store["zlib_second"]

    def test_second_build_does_nothing(self, nix_store: NixStore) -> None:
        said: list[str] = []
        assert stores.build(nix_store.work, said.append) == nix_store
        assert said == [f"{len(nix_store.outputs)} outputs are up to date"]


@pytest.mark.nix
class TestLoader:
    """What Debian's ld.so and Python do differently from nixpkgs'; outside the sandbox, where /lib exists."""

    def test_reads_no_cache_and_no_system_directory(self, nix_store: NixStore) -> None:
        done = nix(nix_store.python, *load("libstdc++.so.6"))
        assert "libstdc++.so.6: cannot open shared object file" in done.stderr

    def test_finds_the_rest_of_glibc(self, nix_store: NixStore) -> None:
        assert nix(nix_store.python, *load("libanl.so.1")).returncode == 0

    @pytest.mark.parametrize("library", ["libz.so.1", "libexpat.so.1"])
    def test_python_lends_its_libraries_to_nobody(self, nix_store: NixStore, library: str) -> None:
        done = nix(nix_store.python, *load(library))
        assert f"{library}: cannot open shared object file" in done.stderr

    def test_musl_has_its_own(self, nix_store: NixStore) -> None:
        done = nix(f"{nix_store['musl']}/lib/ld-musl-x86_64.so.1", "--version")
        assert "musl libc (x86_64)" in done.stderr


@pytest.mark.nix
@pytest.mark.sandbox
class TestSandbox:
    def test_only_the_store_is_there(self, sandbox: Sandbox) -> None:
        code = "import os; print(*sorted(os.listdir('/')), *os.listdir('/nix'), *os.listdir('/tmp'))"
        done = sandbox.run([sandbox.store.python, "-c", code], check=True)
        assert done.stdout.split() == ["dev", "nix", "proc", "tmp", "store"]

    def test_nothing_of_the_environment(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LD_LIBRARY_PATH", "/leaked")
        done = sandbox.run(["env"], packages=["coreutils"], env={"LANG": "C.UTF-8"}, check=True)
        path = f"PATH={sandbox.store['coreutils']}/bin"
        assert sorted(set(done.stdout.split()) - {"PWD=/"}) == ["HOME=/tmp", "LANG=C.UTF-8", path]

    def test_bound_paths(self, sandbox: Sandbox, tmp_path: os.PathLike[str]) -> None:
        writable, constant = (os.path.join(tmp_path, name) for name in ("writable", "constant"))
        os.mkdir(writable)
        os.mkdir(constant)
        script = f"echo x > new && ! echo x > {constant}/new && ! echo x > /new && ! echo x > /nix/store/new"
        view = View(packages=["bash"], read_write=[writable], read_only=[constant], cwd=writable)
        done = sandbox.run(["bash", "-c", script], **view)
        assert done.returncode == 0
        assert os.listdir(writable) == ["new"]

    def test_no_network(self, sandbox: Sandbox) -> None:
        code = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
        done = sandbox.run([sandbox.store.python, "-c", code])
        assert "Network is unreachable" in done.stderr

    def test_only_a_closure(self, sandbox: Sandbox) -> None:
        code = "import os; print(*os.listdir('/nix/store'))"
        done = sandbox.run([sandbox.store.python, "-c", code], closure=["python3"], check=True)
        closure = sandbox.store.closure(sandbox.store["python3"])
        assert sorted(done.stdout.split()) == sorted(map(os.path.basename, closure))

    def test_the_two_programs_of_nixos(self, sandbox: Sandbox) -> None:
        done = sandbox.run(["/bin/sh", "-c", "/usr/bin/env"], shell=True, closure=[], check=True)
        assert "HOME=/tmp" in done.stdout


@pytest.mark.nix
@pytest.mark.sandbox
@pytest.mark.pypi
class TestWheels:
    def test_unpatched_ones_fail_as_on_nixos(self, sandbox: Sandbox, store_venv: StoreVenvFactory) -> None:
        venv = store_venv("numpy", "ruff")
        done = sandbox.run([venv.python, "-c", "import numpy"], read_only=[venv.path])
        assert "libstdc++.so.6: cannot open shared object file" in done.stderr
        # The file is there and executable: what does not exist is its interpreter.
        ruff = os.path.join(venv.bin, "ruff")
        done = sandbox.run(
            ["bash", "-c", f"[ -x {ruff} ] && {ruff}"], packages=["bash"], read_only=[venv.path]
        )
        assert done.returncode == 127
        assert "required file not found" in done.stderr

    def test_the_store_has_all_they_need(self, sandbox: Sandbox, store_venv: StoreVenvFactory) -> None:
        """The counter-check, by the variable that a user of NixOS would try first."""
        venv = store_venv(*MODULES, *PROGRAMS)
        directories = ":".join(sandbox.store.library_directories)
        env = {"LD_LIBRARY_PATH": directories, "QT_QPA_PLATFORM": "offscreen"}
        for module in MODULES.values():
            done = sandbox.run([venv.python, "-c", f"import {module}"], read_only=[venv.path], env=env)
            assert done.returncode == 0, done.stderr
        code = "from PySide6.QtWidgets import QApplication, QLabel; app = QApplication([]); QLabel().show()"
        done = sandbox.run([venv.python, "-c", code], read_only=[venv.path], env=env)
        assert done.returncode == 0, done.stderr
        loader = [f"{sandbox.store['glibc']}/lib/ld-linux-x86-64.so.2", "--library-path", directories]
        for program in PROGRAMS.values():
            path = os.path.join(venv.path, program)
            done = sandbox.run([*loader, path, "--version"], read_only=[venv.path])
            assert done.returncode == 0, done.stderr

    def test_pip_of_the_store(self, sandbox: Sandbox, store_venv: StoreVenvFactory) -> None:
        venv = store_venv(pip=True)
        done = sandbox.run([venv.python, "-m", "pip", "--version"], read_only=[venv.path], check=True)
        assert venv.site_packages in done.stdout
