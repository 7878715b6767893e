"""The libraries that Python sources open by name, written as real projects write them."""

import textwrap

import pytest

from nixpatch.model import OpenedName, Opener
from nixpatch.resolve.python_names import opened_names

CTYPES, FIND, CFFI = Opener.CTYPES, Opener.FIND_LIBRARY, Opener.CFFI


def found(*sources: str, path: str = "pkg/__init__.py") -> set[tuple[str, Opener]]:
    """What the sources of a dist open; the first stands at ``path``."""
    files = {
        path if number == 0 else f"pkg/part{number}.py": textwrap.dedent(source).encode()
        for number, source in enumerate(sources)
    }
    return {(name.name, name.opener) for name in opened_names(files)}


def names(source: str, opener: Opener) -> set[str]:
    return {name for name, kind in found(source) if kind is opener}


def test_a_literal_has_its_place() -> None:
    source = b"import ctypes\n\nlib = ctypes.CDLL('libz.so.1')\n"
    assert opened_names({"p/a.py": source}) == (OpenedName("libz.so.1", CTYPES, "p/a.py", 3),)


@pytest.mark.parametrize(
    ("source", "name", "opener"),
    [
        ("import ctypes; ctypes.CDLL(name='libz.so.1')", "libz.so.1", CTYPES),
        ("import ctypes as c; c.PyDLL('libz.so')", "libz.so", CTYPES),
        ("from ctypes import *; cdll.LoadLibrary('libz.so.1')", "libz.so.1", CTYPES),
        ("from ctypes import CDLL as C; C('libz.so.1')", "libz.so.1", CTYPES),
        ("import ctypes; ctypes.CDLL(b'libz.so.1')", "libz.so.1", CTYPES),
        ("import ctypes; ctypes.CDLL('/usr/lib/libz.so.1')", "/usr/lib/libz.so.1", CTYPES),
        ("import _ctypes; _ctypes.dlopen('libz.so.1', 0)", "libz.so.1", CTYPES),
        ("import ctypes.util; ctypes.util.find_library('z')", "z", FIND),
        ("from ctypes import util; util.find_library('usb-1.0')", "usb-1.0", FIND),
        ("from ctypes.util import find_library as _find; _find('z')", "z", FIND),
        ("from cffi import FFI; FFI().dlopen('libz.so.1')", "libz.so.1", CFFI),
        ("from _x import ffi as _ffi; _ffi.dlopen('pulse')", "pulse", CFFI),
        ("import os, ctypes.util as u; u.find_library(os.getenv('Z', 'z'))", "z", FIND),
        ("import os, ctypes; ctypes.CDLL(os.environ.get('Z') or 'libz.so.1')", "libz.so.1", CTYPES),
        ("import ctypes; ctypes.CDLL('z.dll' if WIN else 'libz.so.1')", "libz.so.1", CTYPES),
        ("import ctypes; ctypes.CDLL('lib%s.so.%d' % ('z', 1))", "libz.so.1", CTYPES),
        ("import ctypes; ctypes.CDLL('lib{}.so.{n}'.format('z', n=1))", "libz.so.1", CTYPES),
        ("import ctypes; n = 'z'; ctypes.CDLL(f'lib{n}.so.1')", "libz.so.1", CTYPES),
        ("import ctypes; class_ = ctypes.CDLL; class_('libz.so.1')", "libz.so.1", CTYPES),
        ("import ctypes\nclass Lib(ctypes.CDLL): pass\nLib('libz.so.1')", "libz.so.1", CTYPES),
        ("import ctypes\nclass A:\n n = 'libz.so.1'\n def f(self): ctypes.CDLL(self.n)", "libz.so.1", CTYPES),
    ],
)  # fmt: skip
def test_each_way_to_open_and_to_write_a_name(source: str, name: str, opener: Opener) -> None:
    assert found(source) == {(name, opener)}


@pytest.mark.parametrize(
    "source",
    [
        "import ctypes; ctypes.CDLL(None)",
        "import ctypes; ctypes.windll.LoadLibrary('libz.so.1')",
        "import ctypes; ctypes.CDLL('kernel32.dll'); ctypes.CDLL('libz.dylib'); ctypes.CDLL('foo')",
        "import ctypes, os; ctypes.CDLL(os.path.join(os.path.dirname(__file__), 'libz.so'))",
        "import ctypes; from pathlib import Path; ctypes.CDLL(str(Path(__file__).parent / 'libz.so'))",
        "import ctypes, os; ctypes.CDLL(os.environ['LIBZ'])",
        "CDLL('libz.so.1'",
        "'libz.so.1'",
    ],
)
def test_what_is_no_bare_name_of_linux_opens_nothing(source: str) -> None:
    assert found(source) == set()


def test_an_answer_of_find_library_is_no_computed_name() -> None:
    source = "import ctypes, ctypes.util\nctypes.CDLL(ctypes.util.find_library('archive'))"
    assert found(source) == {("archive", FIND)}


def test_tests_and_examples_do_not_count() -> None:
    source = "import ctypes; ctypes.CDLL('libz.so.1')"
    assert found(source, path="pkg/tests/helper.py") == set()
    assert found(source, path="pkg/test_it.py") == set()
    assert found(source, path="pkg/latest/it.py") == {("libz.so.1", CTYPES)}


def test_a_tuple_in_a_loop_as_hid_writes_it() -> None:
    source = """
        import ctypes
        paths = ('libhidapi-hidraw.so', 'libhidapi-hidraw.so.0', 'libhidapi.dylib', 'hidapi.dll')
        for lib in paths:
            try:
                hidapi = ctypes.cdll.LoadLibrary(lib)
                break
            except OSError:
                pass
    """
    assert names(source, CTYPES) == {"libhidapi-hidraw.so", "libhidapi-hidraw.so.0"}


def test_alternatives_behind_a_star_as_weasyprint_writes_them() -> None:
    source = """
        def _dlopen(ffi, *names, allow_fail=False):
            for name in names:
                with suppress(OSError):
                    return ffi.dlopen(name, 2)
            return ffi.dlopen(names[0], 2)
        pango = _dlopen(ffi, 'pango-1.0-0', 'pango-1.0', 'libpango-1.0.so.0', 'libpango-1.0.dylib')
        harfbuzz = _dlopen(ffi, 'libharfbuzz.so.0', allow_fail=True)
    """
    expected = {"pango-1.0-0", "pango-1.0", "libpango-1.0.so.0", "libharfbuzz.so.0"}
    assert found(source) == {(name, CFFI) for name in expected}


def test_a_helper_of_another_module_as_cairocffi_writes_it() -> None:
    helper = """
        from ctypes.util import find_library
        def dlopen(ffi, library_names, filenames):
            for library_name in library_names:
                library_filename = find_library(library_name)
                if library_filename:
                    filenames = (library_filename, *filenames)
            for filename in filenames:
                return ffi.dlopen(filename)
    """
    caller = """
        from . import dlopen, ffi
        gdk = dlopen(ffi, ('gdk-3', 'libgdk-3-0'), ('libgdk-3.so.0', 'libgdk-3-0.dll'))
    """
    opened = found(helper, caller)
    assert {("gdk-3", FIND), ("libgdk-3.so.0", CFFI), ("gdk-3", CFFI)} <= opened
    assert not any(name.endswith(".dll") or name == "*" for name, _ in opened)


def test_candidates_and_a_finder_that_is_an_argument_as_pyusb_writes_them() -> None:
    loader = """
        import ctypes, ctypes.util
        def locate_library(candidates, find_library=ctypes.util.find_library):
            for candidate in candidates:
                libname = find_library(candidate)
                if libname:
                    return libname
        def load_locate_library(candidates, name, find_library=None):
            return ctypes.CDLL(locate_library(candidates, find_library))
    """
    backend = """
        import usb.libloader
        def _load_library(find_library=None):
            return usb.libloader.load_locate_library(('usb-1.0', 'libusb-1.0', 'usb'), 'Libusb 1')
    """
    assert names_of(found(loader, backend), FIND) == {"usb-1.0", "libusb-1.0", "usb"}


def test_the_loader_type_is_an_argument_as_in_pyopengl() -> None:
    loader = """
        import ctypes
        def loadLibrary(dllType, name, mode=ctypes.RTLD_GLOBAL):
            base_name = 'lib' + name + '.so'
            names = [base_name]
            names.extend(list(reversed([base_name + '.%i' % i for i in range(0, 10)])))
            for filename in names:
                return dllType(filename, mode)
        def _windows(name):
            return ctypes.util.find_library(name)
    """
    caller = """
        import ctypes
        from OpenGL.platform import ctypesloader
        def GLU():
            return ctypesloader.loadLibrary(ctypes.cdll, 'GLU', mode=ctypes.RTLD_GLOBAL)
        def GLX():
            for name in ('GLX', 'GL'):
                ctypesloader.loadLibrary(ctypes.cdll, name)
    """
    expected = {f"lib{name}.so{end}" for name in ("GLU", "GLX", "GL") for end in ("", ".*")}
    assert names_of(found(loader, caller), CTYPES) == expected


def test_a_product_of_suffixes_as_wand_writes_it() -> None:
    source = """
        import ctypes.util, itertools
        def library_paths():
            versions = '', '-7', '-7.Q16', '-6.Q16'
            options = '', 'HDRI'
            combinations = itertools.product(versions, options)
            suffixes = list()
            suffixes.extend(list(version + option for version, option in combinations))
            for suffix in suffixes:
                yield ctypes.util.find_library('MagickWand' + suffix)
        def load_library():
            for path in library_paths():
                return ctypes.CDLL(str(path))
    """
    assert {"MagickWand", "MagickWand-6.Q16", "MagickWand-7.Q16HDRI"} <= names(source, FIND)


def test_a_class_that_takes_names_as_pysdl2_writes_it() -> None:
    source = """
        from ctypes import CDLL
        from ctypes.util import find_library
        def _findlib(libnames, path=None):
            searchfor = libnames + [libname + 'd' for libname in libnames]
            return [find_library(libname) for libname in searchfor]
        class DLL(object):
            def __init__(self, libinfo, libnames, path=None):
                for libfile in _findlib(libnames, path):
                    self._dll = CDLL(libfile)
        dll = DLL('SDL2', ['SDL2', 'SDL2-2.0'])
    """
    assert names(source, FIND) == {"SDL2", "SDL2-2.0", "SDL2d", "SDL2-2.0d"}


def test_a_generator_of_candidates_as_python_magic_writes_it() -> None:
    source = """
        import ctypes, sys
        from ctypes.util import find_library
        def _lib_candidates():
            yield find_library('magic')
            if sys.platform == 'linux':
                yield 'libmagic.so.1'
        def load_lib():
            for lib in _lib_candidates():
                return ctypes.CDLL(lib)
    """
    assert found(source) == {("magic", FIND), ("libmagic.so.1", CTYPES)}


def test_a_dict_by_platform_and_words_of_a_string() -> None:
    source = """
        import ctypes, ctypes.util, sys
        NAMES = {'linux': 'libfoo.so.3', 'win32': 'foo.dll'}
        ctypes.CDLL(NAMES[sys.platform])
        ctypes.CDLL(NAMES.get(sys.platform, 'libfoo.so'))
        for lib_name in 'fluidsynth fluidsynth-3'.split():
            ctypes.util.find_library(lib_name)
    """
    assert names(source, CTYPES) == {"libfoo.so.3", "libfoo.so"}
    assert names(source, FIND) == {"fluidsynth", "fluidsynth-3"}


def test_a_constant_of_another_module() -> None:
    files = {
        "pkg/lib.py": b"import ctypes\nfrom .consts import LIBRARY\nctypes.CDLL(LIBRARY)",
        "pkg/consts.py": b"LIBRARY = 'libfoo.so.3'",
    }
    assert {name.name for name in opened_names(files)} == {"libfoo.so.3"}


def test_a_function_that_is_called_by_users_opens_its_default() -> None:
    assert names("import ctypes\ndef load(name='libfoo.so.1'):\n    return ctypes.CDLL(name)", CTYPES) == {
        "libfoo.so.1"
    }


def test_the_source_of_an_old_python_opens_nothing() -> None:
    assert found("import ctypes\nprint 'x'\nctypes.CDLL('libz.so.1')") == set()


def test_what_is_computed_is_a_star() -> None:
    assert found("import ctypes, me; ctypes.CDLL(me.name())") == {("*", CTYPES)}
    assert found("import ctypes, me; ctypes.CDLL('lib' + me.x + '.so')") == {("*", CTYPES)}
    assert found("import ctypes, me; ctypes.CDLL('libmpi.so.%d' % me.x)") == {("libmpi.so.*", CTYPES)}
    assert found("from ctypes.util import find_library as f; import me; f(me.x)") == {("*", FIND)}


def test_a_dist_that_computes_names_may_open_each_that_stands_in_it() -> None:
    table = "TABLE = {'cuda': ('libcuda.so.1',), 'text': 'see libtext.so.1'}  # 'libcomment.so'"
    opener = "import ctypes, table\ndef load(name): return ctypes.CDLL(table.lookup(name))"
    opened = opened_names({"pkg/a.py": opener.encode(), "pkg/table.py": table.encode()})
    by_name = {name.name: name.traced for name in opened}
    assert by_name == {"*": True, "libcuda.so.1": False, "libcomment.so": False}


def test_a_name_that_is_bound_to_itself_many_times_hides_no_other_library() -> None:
    """Each order of the lines is followed: of twelve there are half a billion."""
    lines = "".join(f"    name = name + '{n}'\n" for n in range(12))
    source = f"import ctypes\ndef load(name='liba.so'):\n{lines}    return ctypes.CDLL(name)\nload()\n"
    opened = opened_names({"a.py": source.encode(), "b.py": b"import ctypes\nctypes.CDLL('libz.so.1')"})
    assert "libz.so.1" in {name.name for name in opened}


def test_endless_and_hostile_sources_end() -> None:
    loops = "import ctypes\ndef f(x):\n x = x + x\n y = f(x + g(y))\n return ctypes.CDLL(y)\ng = f\nf('a')"
    doubled = (
        "import ctypes\na0='x'\n"
        + "".join(f"a{n + 1} = a{n} + a{n}\n" for n in range(200))
        + "ctypes.CDLL(a200)"
    )
    wide = "import ctypes\nctypes.CDLL(" + "+".join(f"('a{n}' or 'b{n}')" for n in range(300)) + ")"
    deep = "import ctypes\nctypes.CDLL(" + "(" * 3000 + ")" * 3000 + ")"
    long = "import ctypes\nctypes.CDLL(" + "'x', " * 300_000 + ")"
    for source in (loops, doubled, wide, deep, long):
        opened_names({"p.py": source.encode()})


def names_of(opened: set[tuple[str, Opener]], opener: Opener) -> set[str]:
    return {name for name, kind in opened if kind is opener}
