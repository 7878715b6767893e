"""``nixpatch wheel``: a wheel file in, a patched one out."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from support.wheels import INFO, NAME, PATCHED, beside_wheel, contents, write
from support.world import Run, World

pytestmark = pytest.mark.gcc


def test_a_wheel_is_patched_and_pip_prefers_it(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    code, _, err = nixpatch("wheel", "-w", wheelhouse, wheel)
    assert code == 0, err
    assert os.listdir(wheelhouse) == [PATCHED]
    target = os.path.join(world.root, "target")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--find-links", wheelhouse]
    subprocess.run([*pip, "--find-links", world.root, "--target", target, "pkg"], check=True)
    assert os.path.isfile(os.path.join(target, INFO, "nixpatch.json"))
    ask = f"import ctypes; print(ctypes.CDLL({os.path.join(target, 'pkg', '_ext.so')!r}).ask())"
    assert subprocess.check_output([sys.executable, "-c", ask], text=True) == "42\n"
    assert subprocess.call([os.path.join(target, "bin", "tool")]) == 42


def test_the_installed_wheel_is_right_and_needs_no_run(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    assert nixpatch("wheel", "-w", wheelhouse, wheel)[0] == 0
    venv = os.path.join(world.root, "fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    subprocess.run(
        [
            "uv",
            "pip",
            "install",
            "-q",
            "--offline",
            "--no-cache",
            "-p",
            venv,
            os.path.join(wheelhouse, PATCHED),
        ],
        check=True,
    )
    code, out, _ = nixpatch("verify", "--load", venv)
    assert code == 0, out
    assert nixpatch("plan", "--check", venv)[0] == 0
    assert nixpatch("restore", venv)[0] == 0
    (extension,) = Path(venv).rglob("_ext.so")
    assert extension.read_bytes() == contents(world)["pkg/_ext.so"]


def test_order_times_permissions_and_metadata_stay(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    nixpatch("wheel", "-w", wheelhouse, wheel)
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(os.path.join(wheelhouse, PATCHED)) as new:
        names = new.namelist()
        assert [name for name in names if name in old.namelist()] == old.namelist()
        assert names[-2:] == [f"{INFO}/nixpatch.json", f"{INFO}/RECORD"]
        for name in old.namelist():
            assert new.getinfo(name).date_time == old.getinfo(name).date_time
            assert new.getinfo(name).external_attr == old.getinfo(name).external_attr
        assert new.read(f"{INFO}/METADATA") == old.read(f"{INFO}/METADATA")
        assert b"\nBuild: 0nixpatch\n" in new.read(f"{INFO}/WHEEL")


def test_twice_gives_the_same_bytes(world: World, nixpatch: Run, wheel: str, wheelhouse: str) -> None:
    nixpatch("wheel", "-w", wheelhouse, wheel)
    nixpatch("wheel", "-w", wheelhouse + "2", wheel)
    assert Path(wheelhouse, PATCHED).read_bytes() == Path(wheelhouse + "2", PATCHED).read_bytes()
    nixpatch("wheel", "-w", wheelhouse + "3", os.path.join(wheelhouse, PATCHED))
    assert Path(wheelhouse, PATCHED).read_bytes() == Path(wheelhouse + "3", PATCHED).read_bytes()


def test_quiet_says_nothing_of_what_went_well(nixpatch: Run, wheel: str, wheelhouse: str) -> None:
    assert nixpatch("wheel", "-q", "-w", wheelhouse, wheel) == (0, "", "")
    assert nixpatch("restore", "-q", os.path.join(wheelhouse, PATCHED)) == (0, "", "")
    code, _, err = nixpatch("wheel", "-q", "--pure", "-w", wheelhouse + "2", wheel)
    assert code == 1
    assert "nothing was written for it" in err


def test_another_file_system_gives_the_same_bytes(
    nixpatch: Run, wheel: str, wheelhouse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nixpatch("wheel", "-w", wheelhouse, wheel)[0] == 0
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        monkeypatch.setattr(tempfile, "tempdir", memory)
        assert nixpatch("wheel", "-w", os.path.join(memory, "w"), wheel)[0] == 0
        assert Path(memory, "w", PATCHED).read_bytes() == Path(wheelhouse, PATCHED).read_bytes()


def test_a_dry_run_and_a_missing_library_write_nothing(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    assert nixpatch("wheel", "--dry-run", "-w", wheelhouse, wheel)[0] == 0
    code, out, err = nixpatch("wheel", "--pure", "-w", wheelhouse, wheel)
    assert code == 1
    assert "libanswer.so.1, needed by pkg-1.0.data/scripts/tool and 1 more" in out
    assert "nothing was written for it" in err
    assert not os.path.exists(wheelhouse)


def test_unvendor_takes_no_pattern_here_either(nixpatch: Run, wheel: str, wheelhouse: str) -> None:
    assert nixpatch("wheel", "--unvendor", "-w", wheelhouse, wheel)[0] == 0


def test_a_wheel_beside_it_serves(world: World, nixpatch: Run, wheelhouse: str) -> None:
    members = contents(world)
    beside = beside_wheel(world)
    members[f"{INFO}/METADATA"] += b"Requires-Dist: other\n"
    wheel = write(Path(world.root, NAME), members)
    code, _, err = nixpatch("wheel", "--pure", "--with", beside, "-w", wheelhouse, wheel)
    assert code == 0, err
    with zipfile.ZipFile(os.path.join(wheelhouse, PATCHED)) as archive:
        assert b"$ORIGIN/../lib" in archive.read("pkg/_ext.so")
        assert not [name for name in archive.namelist() if name.startswith("other")]


def test_wheels_may_bring_the_same_file_but_no_different_ones(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    os.mkdir(os.path.join(world.root, "beside"))
    other = Path(world.root, "beside", "other-1.0-py3-none-any.whl")
    same = {"pkg/__init__.py": b"", "other-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n"}
    twin = write(other, same, info="other-1.0.dist-info")
    assert nixpatch("wheel", "--with", twin, "-w", wheelhouse, wheel)[0] == 0

    twin = write(other, {**same, "pkg/__init__.py": b"x"}, info="other-1.0.dist-info")
    code, _, err = nixpatch("wheel", "--with", twin, "-w", wheelhouse + "2", wheel)
    assert code == 2
    assert "pkg/__init__.py: two of the wheels would install this file, each another one" in err
    assert not os.path.exists(wheelhouse + "2")


def test_a_wheel_in_which_nothing_has_to_change_is_copied(
    world: World, nixpatch: Run, wheelhouse: str
) -> None:
    members = {**contents(world)}
    del members["pkg/_ext.so"], members["pkg-1.0.data/scripts/tool"]
    pure = write(Path(world.root, "pkg-1.0-py3-none-any.whl"), members)
    code, _, err = nixpatch("wheel", "-w", wheelhouse, pure)
    assert code == 0
    assert "nothing in it has to change; copied to" in err
    assert Path(wheelhouse, os.path.basename(pure)).read_bytes() == Path(pure).read_bytes()

    assert nixpatch("wheel", "-w", world.root, pure)[0] == 0  # where it is already
    Path(wheelhouse, os.path.basename(pure)).write_bytes(b"another")
    code, _, err = nixpatch("wheel", "-w", wheelhouse, pure)
    assert code == 2
    assert "exists, and is another file: remove it, or name another directory with -w" in err


def test_the_directory_of_the_wheel_may_be_that_of_the_patched_one(
    world: World, nixpatch: Run, wheel: str
) -> None:
    before = Path(wheel).read_bytes()
    for _ in range(2):  # the second run replaces its own output
        assert nixpatch("wheel", "-w", world.root, wheel)[0] == 0
    assert Path(wheel).read_bytes() == before
    assert os.path.isfile(os.path.join(world.root, PATCHED))


def test_members_that_did_not_change_are_copied_as_they_are_packed(
    world: World, nixpatch: Run, wheelhouse: str
) -> None:
    members = {**contents(world), "pkg/data.txt": b"text " * 1000}
    wheel = write(Path(world.root, NAME), members, level=9)
    nixpatch("wheel", "-w", wheelhouse, wheel)
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(os.path.join(wheelhouse, PATCHED)) as new:
        for name in ("pkg/__init__.py", "pkg/data.txt", f"{INFO}/METADATA"):
            assert new.getinfo(name).compress_size == old.getinfo(name).compress_size
            assert new.read(name) == old.read(name)
        assert new.testzip() is None


def test_reports_on_several_name_the_wheels(world: World, nixpatch: Run, wheel: str, wheelhouse: str) -> None:
    other = os.path.join(world.root, "other", PATCHED.replace("nixpatch", "other"))
    os.mkdir(os.path.dirname(other))
    os.link(wheel, other)

    code, out, _ = nixpatch("wheel", "-w", wheelhouse, wheel, other)

    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("/")] == [wheel, other]
