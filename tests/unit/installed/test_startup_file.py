"""The start-up file, run by real Pythons: that of the tests, those on PATH, and the store's."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from nixpatch.installed.startup_file import is_startup_file, startup_file, startup_name, startup_tables
from support.testbed.store import NixStore

pytestmark = pytest.mark.gcc


def _runs(python: str) -> bool:
    return subprocess.run([python, "-c", "import ctypes"], capture_output=True, check=False).returncode == 0


def _pythons() -> list[str]:
    """The Python of the tests and what else of 3.8 and later is on PATH and runs."""
    names = (shutil.which(f"python3.{minor}{free}") for minor in range(8, 16) for free in ("", "t"))
    others = [name for name in names if name and _runs(name)]
    own = f"python3.{sys.version_info.minor}"
    return [sys.executable, *(name for name in others if os.path.basename(name) != own)]


@dataclass
class Place:
    """A virtual environment, and a store that holds one library: libfoo.so.1, which answers 42."""

    python: str
    site: str
    store: str

    @property
    def foo(self) -> str:
        return os.path.join(self.store, "lib", "libfoo.so.1")

    def put(
        self,
        libraries: Mapping[str, str] | None = None,
        answers: Mapping[str, str] | None = None,
        switches: tuple[tuple[str, str], ...] = (),
        dist: str = "foo",
    ) -> None:
        with open(os.path.join(self.site, startup_name(dist)), "wb") as file:
            file.write(startup_file(dist, libraries or {}, answers or {}, switches))

    def run(self, code: str, *options: str, **environment: str) -> str:
        """Run code and give what it prints; nothing may stand on standard error."""
        run = subprocess.run(
            [self.python, *(options or ("-I",)), "-c", code],
            env={"PATH": os.environ["PATH"], **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (run.returncode, run.stderr) == (0, "")
        return run.stdout.strip()


def library(out: str, answer: int, *flags: str) -> str:
    """Compile a library that answers a number."""
    os.makedirs(os.path.dirname(out), exist_ok=True)
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", out, *flags]
    source = f"int answer(void) {{ return {answer}; }}"
    subprocess.run(command, input=source.encode(), check=True, capture_output=True)
    return out


def make_place(base: Path, python: str) -> Place:
    venv = os.path.join(base, "venv")
    subprocess.run([python, "-m", "venv", "--without-pip", venv], check=True, capture_output=True)
    (lib,) = os.listdir(os.path.join(venv, "lib"))
    store = os.path.join(base, "store", "0" * 32 + "-foo-1.0")
    library(os.path.join(store, "lib", "libfoo.so.1"), 42, "-Wl,-soname,libfoo.so.1")
    return Place(os.path.join(venv, "bin", "python"), os.path.join(venv, "lib", lib, "site-packages"), store)


@pytest.fixture(params=_pythons(), ids=os.path.basename)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return make_place(tmp_path, request.param)


@pytest.fixture
def here(tmp_path: Path) -> Place:
    """The same for the Python of the tests alone, where the version does not matter."""
    return make_place(tmp_path, sys.executable)


OPEN = "import ctypes, sys; print({}.answer())"


@pytest.mark.parametrize(
    "call",
    [
        "ctypes.CDLL('libfoo.so.1')",
        "ctypes.CDLL('libfoo.so')",
        "ctypes.CDLL(b'libfoo.so' if sys.version_info < (3, 13) else 'libfoo.so')",
        "ctypes.PyDLL('libfoo.so.1')",
        "ctypes.cdll.LoadLibrary('libfoo.so.1')",
        "ctypes.CDLL('libfoo.so.1', mode=ctypes.RTLD_GLOBAL, use_errno=True)",
        "type('Mine', (ctypes.CDLL,), {})('libfoo.so.1')",
        "ctypes.CDLL(__import__('ctypes.util').util.find_library('foo'))",
        "ctypes.CDLL('/usr/lib/libfoo.so.1')",
    ],
)
def test_a_library_is_opened_by_each_name_of_the_table(place: Place, call: str) -> None:
    names = ("libfoo.so.1", "libfoo.so", "/usr/lib/libfoo.so.1")
    place.put(dict.fromkeys(names, place.foo), {"foo": place.foo})
    assert place.run(OPEN.format(call)) == "42"


def test_other_names_stay_as_they_are(place: Place) -> None:
    place.put({"libfoo.so.1": place.foo}, {"foo": place.foo})
    code = """
import ctypes, ctypes.util
print(bool(ctypes.CDLL(None).getpid()))
for name in ("libfoo.so", "libbar.so.1"):
    try:
        ctypes.CDLL(name)
    except OSError as error:
        print(error)
print(ctypes.util.find_library("no-such-library"))
"""
    lines = place.run(code).splitlines()
    assert lines[0] == "True"
    assert lines[1].startswith("libfoo.so: cannot open shared object file")
    assert lines[2].startswith("libbar.so.1: cannot open shared object file")
    assert lines[3] == "None"


def test_a_path_that_is_gone_is_as_if_it_were_not_there(place: Place) -> None:
    place.put({"libfoo.so.1": place.foo}, {"foo": place.foo}, (("FOO_PATH", place.foo),))
    os.unlink(place.foo)
    code = """
import ctypes, os
from ctypes.util import find_library
print(find_library("foo"), os.environ.get("FOO_PATH"))
try:
    ctypes.CDLL("libfoo.so.1")
except OSError as error:
    print(error)
"""
    first, second = place.run(code).splitlines()
    assert first == "None None"
    assert second.startswith("libfoo.so.1: cannot open shared object file")


def test_it_imports_nothing_and_says_nothing(place: Place) -> None:
    modules = "import sys, json; print(json.dumps(sorted(sys.modules)))"
    with open(os.path.join(place.site, startup_name("foo")), "w", encoding="ascii") as file:
        file.write("# site reads it, and loads what it reads such files with\nimport sys\n")
    before = json.loads(place.run(modules))
    place.put({"libfoo.so.1": place.foo}, {"foo": place.foo}, (("FOO_PATH", place.foo),))
    assert json.loads(place.run(modules)) == before
    assert "ctypes" not in before


@pytest.mark.parametrize("options", [("-I",), ("-E",), ("-s",), ("-B", "-O")])
def test_it_works_with_options_but_not_without_site(here: Place, options: tuple[str, ...]) -> None:
    here.put({"libfoo.so.1": here.foo})
    assert here.run(OPEN.format("ctypes.CDLL('libfoo.so.1')"), *options) == "42"
    command = [here.python, "-S", "-c", "import ctypes; ctypes.CDLL('libfoo.so.1')"]
    failed = subprocess.run(command, capture_output=True, check=False)
    assert b"libfoo.so.1: cannot open" in failed.stderr


def test_a_library_that_ld_so_finds_comes_first(here: Place, tmp_path: Path) -> None:
    other = library(os.path.join(tmp_path, "mine", "libfoo.so.1"), 7, "-Wl,-soname,libfoo.so.1")
    here.put({"libfoo.so.1": here.foo})
    call = OPEN.format("ctypes.CDLL('libfoo.so.1')")
    assert here.run(call, LD_LIBRARY_PATH=os.path.dirname(other)) == "7"
    loaded = f"import ctypes; ctypes.CDLL({other!r}); print(ctypes.CDLL('libfoo.so.1').answer())"
    assert here.run(loaded) == "7"


@pytest.mark.parametrize(
    "way",
    [
        "import ctypes.util as util",
        "from ctypes import util",
        "import importlib; util = importlib.import_module('ctypes.util')",
        "import importlib, ctypes.util; util = importlib.reload(ctypes.util)",
        "import sys, ctypes.util; del sys.modules['ctypes.util']; import ctypes.util as util",
    ],
)
def test_find_library_answers_however_it_is_imported(place: Place, way: str) -> None:
    place.put({}, {"foo": place.foo, "c": "libc.so.6"})
    code = f"{way}; print(util.find_library('foo'), util.find_library('c'), util.find_library.__doc__)"
    with_path, libc, _ = place.run(code).split(None, 2)
    assert (with_path, libc) == (place.foo, "libc.so.6")


def test_the_loaders_are_left_as_they_were(here: Place) -> None:
    here.put({"libfoo.so.1": here.foo})
    code = """
import ctypes.util
print({name for module in (ctypes, ctypes.util) for name in vars(module.__loader__)} - {"name", "path"})
"""
    assert here.run(code) == "set()"


def test_files_of_several_dists_serve_together(place: Place, tmp_path: Path) -> None:
    bar = library(os.path.join(tmp_path, "store", "libbar.so.1"), 43, "-Wl,-soname,libbar.so.1")
    place.put({"libfoo.so.1": place.foo}, {"foo": place.foo}, dist="foo")
    place.put({"libbar.so.1": bar, "libfoo.so.1": "/gone/libfoo.so.1"}, {"bar": bar}, dist="bar")
    place.put({}, {}, (("FOO_PATH", place.foo),), dist="baz")
    code = """
import ctypes, ctypes.util, os
print(ctypes.CDLL("libfoo.so.1").answer(), ctypes.CDLL("libbar.so.1").answer(), os.environ["FOO_PATH"])
print(ctypes.util.find_library("foo"), ctypes.util.find_library("bar"))
"""
    assert place.run(code) == f"42 43 {place.foo}\n{place.foo} {bar}"
    os.unlink(os.path.join(place.site, startup_name("foo")))
    assert place.run("import ctypes; print(ctypes.CDLL('libbar.so.1').answer())") == "43"


def test_a_start_up_file_before_it_may_have_imported_ctypes(place: Place) -> None:
    with open(os.path.join(place.site, "a-first.pth"), "w", encoding="ascii") as file:
        file.write("import ctypes.util\n")
    place.put({"libfoo.so.1": place.foo}, {"foo": place.foo}, dist="foo")
    place.put({"libother.so.1": place.foo}, {}, dist="other")
    code = """
import ctypes, ctypes.util
print(ctypes.CDLL("libfoo.so.1").answer(), ctypes.CDLL("libother.so.1").answer())
print(ctypes.util.find_library("foo"))
"""
    assert place.run(code) == f"42 42\n{place.foo}"


def test_a_sub_interpreter_has_it_too(place: Place) -> None:
    place.put({"libfoo.so.1": place.foo})
    code = """
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
import sys
one = interpreters.create()
failed = interpreters.run_string(
    one, "import sys; assert [finder for finder in sys.meta_path if hasattr(finder, 'nixpatch')]"
)
print(failed)
"""
    assert place.run(code) == "None"


def test_a_library_of_the_tree_is_found_from_the_site_directory(place: Place, tmp_path: Path) -> None:
    library(os.path.join(place.site, "näme", "lib", "libfoo.so.1"), 44)
    place.put({"libfoo.so.1": "näme/lib/libfoo.so.1"}, {"foo": "näme/lib/libfoo.so.1"})
    code = "import ctypes, ctypes.util; print(ctypes.CDLL(ctypes.util.find_library('foo')).answer())"
    assert place.run(code, LANG="C.UTF-8") == "44"
    assert place.run(OPEN.format("ctypes.CDLL('libfoo.so.1')"), LANG="C.UTF-8") == "44"


def test_a_site_directory_made_of_links(here: Place, tmp_path: Path) -> None:
    """Nix's withPackages and uv's link modes: every file is a link, the directory is another one."""
    library(os.path.join(here.site, "sub", "libfoo.so.2"), 45)
    here.put({"libfoo.so.1": here.foo, "libfoo.so.2": "sub/libfoo.so.2"})
    farm = make_place(tmp_path / "farm", sys.executable)
    for name in (startup_name("foo"), "sub"):
        os.symlink(os.path.join(here.site, name), os.path.join(farm.site, name))
    assert farm.run(OPEN.format("ctypes.CDLL('libfoo.so.1')")) == "42"
    assert farm.run(OPEN.format("ctypes.CDLL('libfoo.so.2')")) == "45"


def test_a_switch_is_set_only_where_the_user_has_not(place: Place) -> None:
    place.put(switches=(("FOO_PATH", place.store), ("BAR_PATH", place.store), ("GONE_PATH", "/gone")))
    code = "import os, sys; print([os.environ.get(n) for n in ('FOO_PATH', 'BAR_PATH', 'GONE_PATH')])"
    assert place.run(code, BAR_PATH="") == str([place.store, "", None])
    finders = "import sys; print([finder for finder in sys.meta_path if hasattr(finder, 'nixpatch')])"
    assert place.run(finders) == "[]"


def test_threads_that_import_at_once(here: Place) -> None:
    here.put({"libfoo.so.1": here.foo}, {"foo": here.foo})
    code = """
import threading
told = []
def work():
    import ctypes.util
    told.append((ctypes.CDLL("libfoo.so.1").answer(), ctypes.util.find_library("foo") is not None))
threads = [threading.Thread(target=work) for _ in range(20)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
print(set(told), len(told))
"""
    assert here.run(code) == "{(42, True)} 20"


def test_a_finder_of_another_kind_serves_ctypes(here: Place) -> None:
    """An import hook in front, and a loader that takes no attribute: then the module is as it was."""
    here.put({"libfoo.so.1": here.foo})
    code = """
import sys
from importlib.machinery import PathFinder
class Loader:
    __slots__ = ("inner",)
    def create_module(self, spec): return None
    def exec_module(self, module): self.inner.exec_module(module)
class Hook:
    def find_spec(self, name, path=None, target=None):
        spec = PathFinder.find_spec(name, path, target)
        if name == "ctypes":
            loader = Loader()
            loader.inner = spec.loader
            spec.loader = loader
        return spec
sys.meta_path.append(Hook())
sys.meta_path.remove(PathFinder)
import ctypes
print(ctypes.CDLL(None) is not None)
"""
    assert here.run(code) == "True"


def test_the_bytes_depend_on_the_tables_alone() -> None:
    one = startup_file("foo", {"b": "/x", "a": "/y"}, {"d": "/x", "c": "/y"}, [("B", "/b"), ("A", "/a")])
    two = startup_file("foo", {"a": "/y", "b": "/x"}, {"c": "/y", "d": "/x"}, [("A", "/a"), ("B", "/b")])
    assert one == two
    assert one.isascii()
    assert one.count(b"\n") == 4
    assert is_startup_file(one)
    assert not is_startup_file(b"import ctypes\n")
    assert startup_name("python-magic") == "nixpatch-python-magic.pth"


def test_names_are_data_and_never_code(here: Place) -> None:
    name = "lib'\"\\\n{}ü%s.so"
    here.put({name: here.foo, "libfoo.so.1": here.foo}, {name: here.foo}, dist="foo")
    assert here.run(OPEN.format("ctypes.CDLL('libfoo.so.1')")) == "42"
    assert here.run(OPEN.format(f"ctypes.CDLL({name!a})")) == "42"


def test_the_python_of_the_store(nix_store: NixStore, tmp_path: Path) -> None:
    """It has no ldconfig, and ld.so knows no directory of libraries."""
    venv = os.path.join(tmp_path, "venv")
    subprocess.run([nix_store.python, "-m", "venv", "--without-pip", venv], check=True, capture_output=True)
    (lib,) = os.listdir(os.path.join(venv, "lib"))
    zlib = os.path.join(nix_store["zlib"], "lib", "libz.so.1")
    place = Place(os.path.join(venv, "bin", "python"), os.path.join(venv, "lib", lib, "site-packages"), zlib)
    place.put(dict.fromkeys(("libz.so.1", "libz.so"), zlib), {"z": zlib})
    code = "import ctypes, ctypes.util; print({}.zlibCompileFlags() > 0)"
    for call in (
        "ctypes.CDLL('libz.so.1')",
        "ctypes.CDLL('libz.so')",
        "ctypes.CDLL(ctypes.util.find_library('z'))",
    ):
        assert place.run(code.format(call)) == "True"


def test_the_tables_can_be_read_back() -> None:
    libraries, answers = {"libz.so.1": "/s/l'ibz.so.1", "libé.so": "./p/lib.so"}, {"z": "/s/libz.so.1"}
    assert startup_tables(startup_file("p", libraries, answers)) == (libraries, answers)
    assert startup_tables(startup_file("p", {}, {}, [("X", "/x")])) == ({}, {})
    for other in (b"", b"\xff", b"import sys", b"f({'TABLES': 1})", b"f({'TABLES': '('})", b"(" * 9000):
        assert startup_tables(other) == ({}, {})
