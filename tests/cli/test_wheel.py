"""``nixpatch wheel``: a wheel file in, a patched one out."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from nixpatch.installed.hashing import encode_digest
from support.world import Run, World, compile_c, shared

pytestmark = pytest.mark.gcc

NAME = "pkg-1.0-py3-none-linux_x86_64.whl"
PATCHED = "pkg-1.0-0nixpatch-py3-none-linux_x86_64.whl"
INFO = "pkg-1.0.dist-info"
Members = dict[str, bytes]


def contents(world: World) -> Members:
    """Return the members of a wheel with an extension and a program."""
    library = os.path.join(world.library, "libanswer.so.1")
    extension, tool = os.path.join(world.root, "_ext.so"), os.path.join(world.root, "tool")
    shared("extension.c", extension, library)
    compile_c("program.c", tool, library)
    return {
        "pkg/__init__.py": b"",
        "pkg/_ext.so": Path(extension).read_bytes(),
        "pkg-1.0.data/scripts/tool": Path(tool).read_bytes(),
        f"{INFO}/METADATA": b"Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n",
        f"{INFO}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: py3-none-linux_x86_64\n",
    }


def record_of(members: Members, info: str) -> bytes:
    digests = {name: encode_digest(hashlib.sha256(data).digest()) for name, data in members.items()}
    rows = [f"{name},sha256={digests[name]},{len(data)}" for name, data in members.items()]
    return "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()


def write(path: Path, members: Members, change: Callable[[zipfile.ZipFile], None] | None = None) -> str:
    rows = [
        f"{name},sha256={encode_digest(hashlib.sha256(data).digest())},{len(data)}"
        for name, data in members.items()
    ]
    record = "\n".join([*rows, f"{INFO}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {**members, f"{INFO}/RECORD": record}.items():
            info = zipfile.ZipInfo(name, (2020, 2, 2, 2, 2, 2))
            info.external_attr = (stat.S_IFREG | (0o755 if "/scripts/" in name else 0o644)) << 16
            archive.writestr(info, data)
        if change is not None:
            change(archive)
    return str(path)


@pytest.fixture
def wheel(world: World) -> str:
    return write(Path(world.root, NAME), contents(world))


@pytest.fixture
def wheelhouse(world: World) -> str:
    return os.path.join(world.root, "wheelhouse")


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


def test_a_dry_run_and_a_missing_library_write_nothing(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    assert nixpatch("wheel", "--dry-run", "-w", wheelhouse, wheel)[0] == 0
    code, out, err = nixpatch("wheel", "--pure", "-w", wheelhouse, wheel)
    assert code == 1
    assert "libanswer.so.1, needed by bin/tool and 1 more" in out
    assert "nothing was written for it" in err
    assert not os.path.exists(wheelhouse)


def test_a_wheel_beside_it_serves(world: World, nixpatch: Run, wheelhouse: str) -> None:
    members = contents(world)
    other = {
        "lib/libanswer.so.1": Path(world.library, "libanswer.so.1").read_bytes(),
        "other-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\n",
        "other-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n",
    }
    rows = [
        f"{name},sha256={encode_digest(hashlib.sha256(data).digest())},{len(data)}"
        for name, data in other.items()
    ]
    other["other-1.0.dist-info/RECORD"] = "\n".join([*rows, "other-1.0.dist-info/RECORD,,"]).encode()
    beside = os.path.join(world.root, "other-1.0-py3-none-linux_x86_64.whl")
    with zipfile.ZipFile(beside, "w") as archive:
        for name, data in other.items():
            archive.writestr(name, data)
    members[f"{INFO}/METADATA"] += b"Requires-Dist: other\n"
    wheel = write(Path(world.root, NAME), members)
    code, _, err = nixpatch("wheel", "--pure", "--with", beside, "-w", wheelhouse, wheel)
    assert code == 0, err
    with zipfile.ZipFile(os.path.join(wheelhouse, PATCHED)) as archive:
        assert b"$ORIGIN/../lib" in archive.read("pkg/_ext.so")
        assert not [name for name in archive.namelist() if name.startswith("other")]


def _encrypt(path: str) -> None:
    data = bytearray(Path(path).read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(magic) + offset] |= 1
    Path(path).write_bytes(data)


@pytest.mark.parametrize(
    ("add", "complaint"),
    [
        (lambda archive: archive.writestr("../out.py", b""), "is not a relative path of plain names"),
        (lambda archive: archive.writestr("/out.py", b""), "is not a relative path of plain names"),
        (lambda archive: archive.writestr("pkg\\out.py", b""), "is not a relative path of plain names"),
        (lambda archive: archive.writestr("pkg/extra.py", b""), "not in RECORD"),
        (lambda archive: archive.writestr("pkg-1.0.data/odd/x", b""), "no such scheme as odd"),
    ],
)
def test_a_member_that_is_not_allowed_stops_it(
    world: World, nixpatch: Run, wheelhouse: str, add: Callable[[zipfile.ZipFile], None], complaint: str
) -> None:
    wheel = write(Path(world.root, NAME), contents(world), add)
    code, _, err = nixpatch("wheel", "-w", wheelhouse, wheel)
    assert code == 2
    assert complaint in err
    assert err.count("\n") == 1
    assert not os.path.exists(wheelhouse)


def test_links_and_duplicates_stop_it(world: World, nixpatch: Run, wheelhouse: str) -> None:
    def link(archive: zipfile.ZipFile) -> None:
        info = zipfile.ZipInfo("pkg/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")

    wheel = write(Path(world.root, NAME), contents(world), link)
    assert "is a link or a special file" in nixpatch("wheel", "-w", wheelhouse, wheel)[2]
    with pytest.warns(UserWarning, match="Duplicate name"):
        wheel = write(
            Path(world.root, NAME), contents(world), lambda archive: archive.writestr("pkg/__init__.py", b"x")
        )
    assert "is in it twice" in nixpatch("wheel", "-w", wheelhouse, wheel)[2]


def test_an_encrypted_wheel_and_a_wrong_record_stop_it(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    _encrypt(wheel)
    assert "is encrypted" in nixpatch("wheel", "-w", wheelhouse, wheel)[2]
    members = contents(world)
    record = record_of({**members, "pkg/__init__.py": b"x"}, INFO)
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in {**members, f"{INFO}/RECORD": record}.items():
            archive.writestr(name, data)
    assert "pkg/__init__.py: RECORD describes another file" in nixpatch("wheel", "-w", wheelhouse, wheel)[2]
    assert not os.path.exists(wheelhouse)


def test_a_damaged_archive_is_one_line(world: World, nixpatch: Run, wheel: str, wheelhouse: str) -> None:
    data = bytearray(Path(wheel).read_bytes())
    place = data.index(b"pkg/_ext.so") + 200  # in the packed contents
    data[place : place + 8] = bytes(8)
    Path(wheel).write_bytes(data)
    code, _, err = nixpatch("wheel", "-w", wheelhouse, wheel)
    assert code == 2
    assert err.count("\n") == 1
    assert "cannot be unpacked" in err
    assert not os.path.exists(wheelhouse)


def test_two_wheels_with_one_file_are_refused(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    beside = os.path.join(world.root, "beside")
    os.mkdir(beside)
    twin = write(Path(beside, NAME), contents(world))
    code, _, err = nixpatch("wheel", "--with", twin, "-w", wheelhouse, wheel)
    assert code == 2
    assert "two of the wheels would install this file" in err


@pytest.mark.parametrize("name", ["pkg.whl", "pkg-1.0.whl", "pkg-1.0-py3-none-linux_x86_64.zip"])
def test_what_is_no_wheel_is_refused(world: World, nixpatch: Run, name: str, wheelhouse: str) -> None:
    path = os.path.join(world.root, name)
    Path(path).write_bytes(b"PK")
    code, _, err = nixpatch("wheel", "-w", wheelhouse, path)
    assert code == 2
    assert name in err


def test_patch_names_the_command_for_a_wheel(world: World, nixpatch: Run, wheel: str) -> None:
    code, _, err = nixpatch(wheel)
    assert code == 2
    assert "nixpatch wheel" in err


@pytest.mark.parametrize("name", ["pkg-1.0-py3-none-linux_x86_64.whl", "wheels.whl", "wheels"])
def test_a_wheel_that_is_not_there(world: World, nixpatch: Run, name: str, wheelhouse: str) -> None:
    path = os.path.join(world.root, "absent", name)

    assert nixpatch("wheel", "-w", wheelhouse, path) == (
        2,
        "",
        f"nixpatch: {path} cannot be read: No such file or directory\n",
    )


def test_reports_on_several_name_the_wheels(world: World, nixpatch: Run, wheel: str, wheelhouse: str) -> None:
    other = os.path.join(world.root, "other", PATCHED.replace("nixpatch", "other"))
    os.mkdir(os.path.dirname(other))
    os.link(wheel, other)

    code, out, _ = nixpatch("wheel", "-w", wheelhouse, wheel, other)

    assert code == 0
    assert [line for line in out.splitlines() if line.startswith("/")] == [wheel, other]
