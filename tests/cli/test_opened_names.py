"""Libraries that code opens by name, and scripts: what a bare ``nixpatch VENV`` makes work."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from support import opened
from support.opened import SCRIPT, SOURCE, STARTUP, Opener
from support.shop import Call, Shop
from support.world import Run, World, record_row, shared

pytestmark = pytest.mark.gcc

CALLS = ["by_soname", "without_version", "by_find_library"]


@pytest.fixture
def opener(world: World) -> Opener:
    return opened.install(world)


def _inodes(directory: str) -> dict[str, int]:
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(directory) for name in names)
    return {path: os.lstat(path).st_ino for path in paths if "__pycache__" not in path}


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _snapshot(world: World) -> dict[str, bytes]:
    return {path: data for path, data in world.snapshot().items() if "__pycache__" not in path}


class TestPython:
    """ctypes and cffi."""

    @pytest.mark.parametrize("call", CALLS)
    def test_ctypes_opens_the_library_of_the_store(self, opener: Opener, nixpatch: Run, call: str) -> None:
        assert "Error" in opener.call(call)

        assert nixpatch(opener.world.venv)[0] == 0

        assert opener.call(call) == "42"
        assert opener.recorded_rightly()

    def test_the_dist_that_opens_gets_the_file_and_no_other(self, opener: Opener, nixpatch: Run) -> None:
        nixpatch(opener.world.venv)

        assert [name for name in os.listdir(opener.world.site) if name.endswith(".pth")] == [STARTUP]
        assert any(row.startswith(f"{STARTUP},sha256=") for row in opener.rows())
        with open(opener.startup, encoding="ascii") as file:
            text = file.read()
        assert text.startswith("# Written by nixpatch for opener.\n")
        assert f"{opener.world.library}/libanswer.so.1" in text
        assert opener.world.venv not in text

    def test_a_site_packages_alone_is_enough(self, opener: Opener, nixpatch: Run) -> None:
        assert nixpatch(opener.world.site)[0] == 0

        assert opener.call() == "42"

    def test_a_library_of_another_dist_is_found_from_the_site_directory(
        self, world: World, nixpatch: Run
    ) -> None:
        shutil.move(world.library, world.library + ".away")
        library = os.path.join(world.site, "lender.libs", "libanswer.so.1")
        shared("library.c", library, "-Wl,-soname,libanswer.so.1")
        opener = opened.install(world, files={"opener.py": SOURCE})
        os.unlink(world.program)
        os.unlink(world.extension)

        assert nixpatch(world.venv)[0] == 0

        assert [opener.call(call) for call in CALLS] == ["42"] * 3
        shutil.move(world.venv, world.venv + "-moved")
        moved = Opener(World(world.root, world.venv + "-moved", world.store, world.library))
        # The interpreter of a venv is a link out of it, so that it runs from anywhere.
        assert moved.call() == "42"

    def test_cffi_looks_into_the_search_path_of_its_backend(self, world: World, nixpatch: Run) -> None:
        """A module that calls dlopen for others, as ``_cffi_backend`` does."""
        backend = os.path.join(world.root, "_cffi_backend.so")
        source = "#include <dlfcn.h>\nvoid *cffi_open(const char *n) { return dlopen(n, RTLD_NOW); }\n"
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", backend]
        subprocess.run(command, input=source.encode(), check=True)
        user = (
            b"import ctypes, os\nfrom cffi import FFI\nffi = FFI()\n"
            b"def open():\n    return ffi.dlopen('libanswer.so.1')\n"
        )
        cffi = (
            b"import ctypes, glob, os\n"
            b"(path,) = glob.glob(os.path.join(os.path.dirname(__file__), '_cffi_backend*.so'))\n"
            b"backend = ctypes.CDLL(path)\nbackend.cffi_open.restype = ctypes.c_void_p\n"
            b"class FFI:\n"
            b"    def dlopen(self, name):\n        return bool(backend.cffi_open(name.encode()))\n"
        )
        with open(backend, "rb") as file:
            opened.install(world, "cffi", {"cffi.py": cffi, "_cffi_backend.so": file.read()})
        opener = opened.install(world, "user", {"user.py": user})
        assert opener.call("open") == "False"

        assert nixpatch(world.venv)[0] == 0

        assert opener.call("open") == "True"

    def test_without_start_up_files(self, opener: Opener, nixpatch: Run) -> None:
        before = opener.rows()
        assert nixpatch(opener.world.venv, "--no-startup-files")[0] == 0
        assert not os.path.lexists(opener.startup)

        nixpatch(opener.world.venv)
        assert os.path.lexists(opener.startup)
        assert nixpatch(opener.world.venv, "--no-startup-files")[0] == 0

        assert not os.path.lexists(opener.startup)
        rows = opener.rows()
        assert not any(row.startswith(STARTUP) for row in rows)
        assert [row.split(",")[0] for row in rows[: len(before)]] == [row.split(",")[0] for row in before]
        assert opener.recorded_rightly()
        assert opener.run_script() == "ran by bash"

    def test_an_editable_install_stays_as_it_is(self, world: World, nixpatch: Run) -> None:
        project = os.path.join(world.root, "project")
        os.makedirs(project)
        with open(os.path.join(project, "mine.py"), "wb") as file:
            file.write(SOURCE)
        path = f"{project}\n".encode()
        editable = opened.install(world, "mine", {"__editable__.mine-1.0.pth": path})
        before = _snapshot(world)

        assert nixpatch(world.venv)[0] == 0

        after = _snapshot(world)
        assert {name for name in after if before.get(name) != after[name] and "mine" in name} == set()
        assert editable.recorded_rightly()
        assert os.listdir(project) == ["mine.py"]


def _native(path: str, *options: str) -> str:
    """Compile a library that opens the store's by name."""
    source = (
        "#include <dlfcn.h>\n"
        "#ifndef OPEN\n#define OPEN(name) dlopen(name, RTLD_NOW)\n#else\nvoid *OPEN(const char *);\n#endif\n"
        'int ask(void) {\n  void *library = OPEN("libanswer.so.1");\n'
        '  return library ? ((int (*)(void))dlsym(library, "answer"))() : -1;\n}\n'
    )
    os.makedirs(os.path.dirname(path), exist_ok=True)
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-x", "none", "-o", path, *options]
    subprocess.run(command, input=source.encode(), check=True)
    return path


class TestNative:
    """Code that calls dlopen itself."""

    def test_a_file_that_calls_dlopen(self, world: World, nixpatch: Run) -> None:
        _native(world.extension)
        world.write_record()
        assert world.ask() == "-1"

        assert nixpatch(world.venv)[0] == 0

        assert world.ask() == "42"

    def test_a_library_of_the_tree_that_opens_for_others(self, world: World, nixpatch: Run) -> None:
        opener = os.path.join(world.site, "pkg", "libSDL2-2.0.so.0")
        source = "#include <dlfcn.h>\nvoid *SDL_LoadObject(const char *n) { return dlopen(n, RTLD_NOW); }\n"
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", opener, "-Wl,-soname,libSDL2-2.0.so.0"]
        subprocess.run(command, input=source.encode(), check=True)
        _native(world.extension, "-DOPEN=SDL_LoadObject", opener, "-Wl,-rpath,$ORIGIN")
        world.write_record(record_row(opener, world.site))
        assert world.ask() == "-1"

        assert nixpatch(world.venv)[0] == 0

        assert world.ask() == "42"


class TestScript:
    """The first line of a script."""

    def test_it_runs_by_the_program_of_the_store(self, opener: Opener, nixpatch: Run) -> None:
        os.chmod(opener.script, 0o2751)

        assert nixpatch(opener.world.venv)[0] == 0

        with open(opener.script, "rb") as file:
            assert file.read() == SCRIPT.replace(b"/bin/bash", os.fsencode(opener.bash), 1)
        assert opener.run_script() == "ran by bash"
        assert os.stat(opener.script).st_mode & 0o7777 == 0o751

    def test_a_program_of_another_machine_is_none(self, opener: Opener, nixpatch: Run) -> None:
        other = os.path.join(opener.world.store, "4" * 32 + "-bash-9.0", "bin", "bash")
        os.makedirs(os.path.dirname(other))
        with open(other, "wb") as file:
            header = bytearray(_read(os.path.realpath("/bin/bash")))
            header[18:20] = (183).to_bytes(2, "little")  # e_machine: AArch64
            file.write(header)
        os.chmod(other, 0o755)

        assert nixpatch(opener.world.venv)[0] == 0

        assert opener.run_script() == "ran by bash"

    def test_what_nothing_provides_is_a_finding(self, world: World, nixpatch: Run) -> None:
        script = b"#!/usr/bin/no-such-shell\n"
        opener = opened.install(world, files={"opener.py": b"", "../../../bin/opener-run": script})

        code, out, _ = nixpatch(world.venv)

        assert code == 1
        assert "nothing provides no-such-shell" in " ".join(out.split())
        with open(opener.script, "rb") as file:
            assert file.read() == script

    def test_a_python_of_the_system_becomes_the_python_of_the_venv(self, world: World, nixpatch: Run) -> None:
        script = b"#!/usr/bin/python3\nimport sys\nprint(sys.prefix)\n"
        opener = opened.install(world, files={"opener.py": b"", "../../../bin/opener-run": script})

        assert nixpatch(world.venv)[0] == 0
        assert opener.run_script() == world.venv

        # In a copy elsewhere the next run mends it, and restore gives the line of the wheel.
        copy = Opener(world.copy("copy"))
        assert nixpatch(copy.world.venv)[0] == 0
        assert copy.run_script() == copy.world.venv
        assert nixpatch("restore", copy.world.venv)[0] == 0
        with open(copy.script, "rb") as file:
            assert file.read() == script

    def test_the_launchers_of_a_copied_venv_stay(self, world: World, nixpatch: Run) -> None:
        launcher = f"#!{world.venv}/bin/python\n".encode()
        opened.install(world, files={"opener.py": b"", "../../../bin/opener-run": launcher})
        copy = Opener(world.copy("copy"))

        assert nixpatch(copy.world.venv)[0] == 0

        with open(copy.script, "rb") as file:
            assert file.read() == launcher

    def test_other_links_to_the_script_keep_their_bytes(self, opener: Opener, nixpatch: Run) -> None:
        """Uv installs hard links into its cache."""
        cached = os.path.join(opener.world.root, "cached")
        os.link(opener.script, cached)

        assert nixpatch(opener.world.venv)[0] == 0

        with open(cached, "rb") as file:
            assert file.read() == SCRIPT
        assert os.stat(cached).st_nlink == 1

    def test_two_dists_may_share_one(self, opener: Opener, nixpatch: Run) -> None:
        second = opened.install(opener.world, "second", {"../../../bin/opener-run": SCRIPT, "second.py": b""})
        before = _snapshot(opener.world)

        assert nixpatch(opener.world.venv)[0] == 0

        assert opener.recorded_rightly()
        assert second.recorded_rightly()
        assert nixpatch("plan", opener.world.venv)[0] == 0
        assert nixpatch("restore", opener.world.venv)[0] == 0
        assert _snapshot(opener.world) == before

    def test_a_row_that_was_wrong_before_stays_wrong(self, opener: Opener, nixpatch: Run) -> None:
        with open(opener.script, "ab") as file:
            file.write(b"# changed\n")
        (row,) = (row for row in opener.rows() if row.startswith("../../../bin/"))

        code, out, _ = nixpatch(opener.world.venv)

        assert code == 1
        assert "RECORD did not describe this file before" in " ".join(out.split())
        assert row in opener.rows()
        assert opener.run_script() == "ran by bash"

    @pytest.mark.parametrize("name", ['with "quotes", and comma', "with\nnewline", "\udcff\udcfe"])
    def test_odd_names(self, world: World, nixpatch: Run, name: str) -> None:
        opener = opened.install(world, files={"opener.py": SOURCE})
        script = os.path.join(world.site, "opener", "bin", name)
        os.makedirs(os.path.dirname(script))
        with open(script, "wb") as file:
            file.write(SCRIPT)
        os.chmod(script, 0o755)
        quoted = name.replace('"', '""')
        row = record_row(script, world.site).rsplit(",", 2)
        with open(opener.record, "a", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(f'"opener/bin/{quoted}",{row[1]},{row[2]}\n')
        before = _snapshot(world)

        assert nixpatch(world.venv)[0] == 0

        with open(script, "rb") as file:
            assert os.fsencode(opener.bash) in file.readline()
        assert nixpatch("verify", world.venv)[0] == 0
        assert nixpatch("restore", world.venv)[0] == 0
        assert _snapshot(world) == before


class TestRuns:
    """Again, back, elsewhere."""

    def test_a_second_run_writes_nothing(self, opener: Opener, nixpatch: Run) -> None:
        nixpatch(opener.world.venv)
        before, inodes = _snapshot(opener.world), _inodes(opener.world.venv)

        assert nixpatch(opener.world.venv)[0] == 0

        assert _snapshot(opener.world) == before
        assert _inodes(opener.world.venv) == inodes

    def test_restore_gives_every_byte_back(self, opener: Opener, nixpatch: Run) -> None:
        before = _snapshot(opener.world)
        nixpatch(opener.world.venv)
        assert _snapshot(opener.world) != before

        assert nixpatch("restore", opener.world.venv)[0] == 0

        assert _snapshot(opener.world) == before
        assert "Error" in opener.call()

    def test_a_library_that_moved_is_followed(self, opener: Opener, nixpatch: Run) -> None:
        before = _snapshot(opener.world)
        nixpatch(opener.world.venv)
        old = os.path.dirname(opener.world.library)
        bash = os.path.join(opener.world.store, opened.BASH)
        os.rename(old, os.path.join(opener.world.store, "2" * 32 + "-answer-1.1"))
        os.rename(bash, os.path.join(opener.world.store, "3" * 32 + "-bash-5.3"))
        assert "Error" in opener.call()

        assert nixpatch(opener.world.venv)[0] == 0

        assert opener.call() == "42"
        assert opener.run_script() == "ran by bash"
        assert opener.recorded_rightly()
        with open(opener.provenance, encoding="ascii") as file:
            assert os.path.basename(old) not in file.read()
        assert nixpatch("restore", opener.world.venv)[0] == 0
        assert _snapshot(opener.world) == before

    def test_the_same_bytes_anywhere(self, opener: Opener, nixpatch: Run) -> None:
        copy = opener.world.copy("somewhere/else")
        nixpatch(opener.world.venv)
        nixpatch(copy.venv)
        moved = opener.world.copy("later")
        assert nixpatch(moved.venv)[0] == 0

        names = ("lib/", "bin/opener-run", "bin/pkg-tool")
        expected = {path: data for path, data in _snapshot(opener.world).items() if path.startswith(names)}
        for other in (copy, moved):
            assert {p: d for p, d in _snapshot(other).items() if p.startswith(names)} == expected
        assert Opener(moved).call() == "42"

    def test_a_dist_without_record_gets_nothing(self, opener: Opener, nixpatch: Run) -> None:
        os.unlink(opener.record)

        nixpatch(opener.world.venv)

        assert not os.path.lexists(opener.startup)
        with open(opener.script, "rb") as file:
            assert file.read() == SCRIPT

    def test_given_libraries_alone_serve_if_asked(self, opener: Opener, nixpatch: Run) -> None:
        code, out, _ = nixpatch(opener.world.venv, "--pure")

        assert code == 1
        assert "nothing provides bash" in " ".join(out.split())
        assert not os.path.lexists(opener.startup)
        given = ("--lib", opener.world.library, "--lib", os.path.dirname(os.path.dirname(opener.bash)))
        assert nixpatch(opener.world.venv, "--pure", *given)[0] in {0, 2}


class TestNames:
    """Start-up files that are somebody else's, and dists with the same name."""

    def test_a_file_of_that_name_that_the_dist_brought_stays(self, world: World, nixpatch: Run) -> None:
        own = b"import sys\n"
        opened.install(world, files={"opener.py": SOURCE, STARTUP: own})

        code, out, _ = nixpatch(world.venv)

        assert code == 1
        assert "stands where the start-up file" in " ".join(out.split())
        with open(os.path.join(world.site, STARTUP), "rb") as file:
            assert file.read() == own
        assert nixpatch("restore", world.venv)[0] == 0
        with open(os.path.join(world.site, STARTUP), "rb") as file:
            assert file.read() == own

    def test_a_file_of_that_name_of_another_dist_stays(self, opener: Opener, nixpatch: Run) -> None:
        other = b"# Written by nixpatch for opener.\nimport sys\n"
        opened.install(opener.world, "other", {STARTUP: other})

        assert nixpatch(opener.world.venv)[0] == 1

        for arguments in (("restore",), ("patch", "--no-startup-files")):
            nixpatch(*arguments, opener.world.venv)
            with open(opener.startup, "rb") as file:
                assert file.read() == other

    def test_a_link_of_that_name_is_not_followed(self, opener: Opener, nixpatch: Run) -> None:
        victim = os.path.join(opener.world.root, "victim")
        with open(victim, "wb") as file:
            file.write(b"# Written by nixpatch for opener.\n")
        os.symlink(victim, opener.startup)

        assert nixpatch(opener.world.venv)[0] == 1

        nixpatch("restore", opener.world.venv)
        assert os.path.islink(opener.startup)
        with open(victim, "rb") as file:
            assert file.read() == b"# Written by nixpatch for opener.\n"

    def test_two_dists_of_one_name_share_a_file(self, opener: Opener, nixpatch: Run) -> None:
        with open(os.path.join(opener.info, "METADATA"), "rb") as file:
            metadata = file.read()
        shutil.copytree(opener.info, opener.info.replace("1.0", "2.0"))
        second = os.path.join(opener.info.replace("1.0", "2.0"), "RECORD")
        with open(second, "rb") as file:
            rows = file.read().replace(b"opener-1.0", b"opener-2.0")
        with open(second, "wb") as file:
            file.write(rows)
        assert b"Name: opener" in metadata
        before = _snapshot(opener.world)

        assert nixpatch(opener.world.venv)[0] == 0

        assert opener.call() == "42"
        after = _snapshot(opener.world)
        assert nixpatch(opener.world.venv)[0] == 0
        assert _snapshot(opener.world) == after
        assert nixpatch("restore", opener.world.venv)[0] == 0
        assert _snapshot(opener.world) == before

    @pytest.mark.parametrize(
        ("name", "allowed"),
        [
            ("../../evil", ()),
            ("a\n import os", ()),
            ("a\nimport os", ("nixpatch-a.pth",)),
            ("x" * 240, ()),
            ("a/b", ()),
            ("", (STARTUP,)),
        ],
    )
    def test_a_name_that_is_none_makes_no_file(
        self, opener: Opener, nixpatch: Run, name: str, allowed: tuple[str, ...]
    ) -> None:
        with open(os.path.join(opener.info, "METADATA"), "w", encoding="utf-8") as file:
            file.write(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        before = set(_snapshot(opener.world))

        nixpatch(opener.world.venv)

        new = {os.path.basename(path) for path in set(_snapshot(opener.world)) - before}
        assert new <= {"nixpatch.json", *allowed}


class TestInstallers:
    """Pip and uv themselves."""

    @pytest.mark.parametrize("installer", ["pip", "uv"])
    def test_uninstalling_leaves_nothing(self, shop: Shop, call: Call, installer: str) -> None:
        pip = [f"{shop.world.venv}/bin/python", "-m", "pip"] if installer == "pip" else ["uv", "pip"]
        subprocess.run([*pip, "install", "-q", "--no-index", shop.opener()], check=True, capture_output=True)
        opener = Opener(shop.world)
        assert call(shop.world.venv)[0] == 0
        assert opener.call() == "42"
        assert opener.run_script() == "ran by bash"
        assert os.path.lexists(os.path.join(shop.world.site, "nixpatch-opener-pkg.pth"))

        yes = ["-y"] if installer == "pip" else []
        subprocess.run([*pip, "uninstall", "-q", *yes, "opener_pkg"], check=True, capture_output=True)

        traces = [name for name in shop.traces() if not name.startswith("lib/python3.11/site-packages/pkg")]
        assert [name for name in traces if "__pycache__" not in name] == []

    @pytest.mark.parametrize("mode", ["hardlink", "symlink"])
    def test_the_cache_of_uv_keeps_its_script(self, shop: Shop, call: Call, mode: str) -> None:
        wheel = shop.opener()
        install = ["uv", "pip", "install", "-q", "--no-index", "--link-mode", mode, wheel]
        subprocess.run(install, check=True, capture_output=True)
        cached = [
            os.path.join(parent, name)
            for parent, _, names in os.walk(os.environ["UV_CACHE_DIR"])
            for name in names
            if name in {"opener-run", "opener.py", "RECORD"}
        ]
        before = {path: _read(path) for path in cached}
        assert SCRIPT in before.values()

        assert call(shop.world.venv)[0] == 0

        opener = Opener(shop.world)
        script = os.path.join(shop.world.venv, "bin", "opener-run")
        assert (opener.run_script(), opener.call()) == ("ran by bash", "42")
        assert _read(script).startswith(f"#!{shop.world.store}".encode())
        assert {path: _read(path) for path in cached} == before
        assert call("verify", shop.world.venv)[0] == 0
        assert call("restore", shop.world.venv)[0] == 0
        assert _read(script) == SCRIPT

    def test_an_installer_patches_what_it_installed(self, shop: Shop, call: Call) -> None:
        other = opened.install(shop.world, "other", {"other.py": SOURCE, "../../../bin/other-run": SCRIPT})

        assert call("uv", "pip", "install", "--no-index", shop.opener())[0] == 0

        assert Opener(shop.world).call() == "42"
        startup = os.path.join(shop.world.site, "nixpatch-other.pth")
        assert not os.path.lexists(startup)
        assert _read(other.script) == SCRIPT
        assert call(shop.world.venv)[0] == 0
        assert os.path.lexists(startup)


def test_provenance_says_what_was_written(opener: Opener, nixpatch: Run) -> None:
    nixpatch(opener.world.venv)

    with open(opener.provenance, encoding="ascii") as file:
        texts = json.load(file)["texts"]
    assert set(texts) == {STARTUP, "../../../bin/opener-run"}
    assert texts[STARTUP]["kind"] == "startup"
    assert texts[STARTUP]["uses"] == [f"{opener.world.library}/libanswer.so.1"]
    assert texts["../../../bin/opener-run"]["program"] == "/bin/bash"
    assert texts["../../../bin/opener-run"]["uses"] == [opener.bash]
    assert sys.prefix not in json.dumps(texts)
