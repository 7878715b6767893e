"""``nixpatch wheel``: what it refuses, with one line and nothing written."""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from support.wheels import INFO, NAME, PATCHED, contents, record_of, write
from support.world import Run, World

pytestmark = pytest.mark.gcc


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


def _not_a_zip(path: Path) -> None:
    path.write_bytes(b"#!/bin/sh\n" * 20)


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


def _cut_in_the_middle(path: Path) -> None:
    """Keep the central directory, as a download does that resumed at the wrong place."""
    data = path.read_bytes()
    path.write_bytes(data[:500] + data[3000:])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _link(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("pkg/link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")


def _bomb(path: Path) -> None:
    """Declare 14 GiB for a member; deflate cannot pack so much into its bytes."""
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    data[entry + 24 : entry + 28] = struct.pack("<I", 0xE0000000)
    path.write_bytes(data)


def _overlapping(path: Path) -> None:
    """Let every member have the bytes of the first (https://www.bamsoftware.com/hacks/zipbomb/)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for number in range(50):
            archive.writestr(f"pkg/{number}", bytes(5000) if not number else b"")
        first = archive.filelist[0]
        for info in archive.filelist:
            info.header_offset, info.CRC = first.header_offset, first.CRC
            info.file_size = info.compress_size = 5000


def _without_dist_info(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("pkg/__init__.py", "")


def _without_record(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{INFO}/METADATA", "Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n")


BROKEN = {
    "not a zip": (_not_a_zip, "not a zip file"),
    "empty": (_empty, "not a zip file"),
    "truncated": (_truncated, "not a zip file"),
    "a part is gone": (_cut_in_the_middle, ""),
    "a link": (_link, "pkg/link: is a link or a special file"),
    "a bomb": (_bomb, "unpacks to more than deflate can pack"),
    "overlapping members": (_overlapping, "its members overlap"),
    "no dist-info": (_without_dist_info, "it has no .dist-info directory of its name"),
    "no RECORD": (_without_record, "its RECORD cannot be read"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_wheel_is_one_line_of_every_command(
    fault: str, nixpatch: Run, wheel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    spoil, complaint = BROKEN[fault]
    spoil(Path(wheel))
    before = sorted(os.listdir(os.path.dirname(wheel)))
    for command in ("wheel", "plan", "missing", "tree", "verify", "restore"):
        code, out, err = nixpatch(command, wheel)
        assert (code, out) == (2, ""), command
        assert err.startswith(f"nixpatch: {wheel}")
        assert complaint in err
        assert err.count("\n") == 1
    assert sorted(os.listdir(os.path.dirname(wheel))) == before
    assert os.listdir(tmp_path) == []


def test_a_row_of_record_without_a_file_stops_it(world: World, nixpatch: Run, wheelhouse: str) -> None:
    members = contents(world)
    record = record_of({**members, "pkg/gone.py": b""})
    wheel = write(Path(world.root, NAME), members, record=record)
    assert nixpatch("wheel", "-w", wheelhouse, wheel) == (
        2,
        "",
        f"nixpatch: {wheel}: pkg/gone.py: in RECORD, but not in it; mend the wheel first\n",
    )


@pytest.mark.parametrize("algorithm", ["", "md5=", "nonsense"])
def test_record_without_a_sha256_stops_it(
    world: World, nixpatch: Run, wheelhouse: str, algorithm: str
) -> None:
    members = contents(world)
    record = record_of(members).replace(b"__init__.py,sha256=", b"__init__.py," + algorithm.encode())
    wheel = write(Path(world.root, NAME), members, record=record)
    code, _, err = nixpatch("wheel", "-w", wheelhouse, wheel)
    assert code == 2
    assert "pkg/__init__.py: RECORD has no sha256 of it; mend the wheel first" in err


@pytest.mark.parametrize("platform", ["win_amd64", "macosx_11_0_arm64"])
def test_a_wheel_for_another_system_is_refused(
    world: World, nixpatch: Run, wheelhouse: str, platform: str
) -> None:
    wheel = write(Path(world.root, NAME.replace("linux_x86_64", platform)), contents(world))
    assert nixpatch("wheel", "-w", wheelhouse, wheel) == (
        2,
        "",
        f"nixpatch: {wheel} is a wheel for {platform}: only those for Linux can be patched\n",
    )


def test_a_wheel_for_another_machine_is_not_written(world: World, nixpatch: Run, wheelhouse: str) -> None:
    members = contents(world)
    for name in ("pkg/_ext.so", "pkg-1.0.data/scripts/tool"):
        data = bytearray(members[name])
        data[18:20] = struct.pack("<H", 183)  # e_machine: EM_AARCH64
        members[name] = bytes(data)
    members[f"{INFO}/WHEEL"] = members[f"{INFO}/WHEEL"].replace(b"x86_64", b"aarch64")
    wheel = write(Path(world.root, NAME.replace("x86_64", "aarch64")), members)
    code, out, err = nixpatch("wheel", "-w", wheelhouse, wheel)
    assert code == 1
    assert "was built for aarch64, the target is x86_64" in out
    assert "nothing was written for it" in err
    assert not os.path.exists(wheelhouse)


def test_an_sdist_is_refused_with_what_makes_a_wheel_of_it(world: World, nixpatch: Run) -> None:
    path = Path(world.root, "pkg-1.0.tar.gz")
    path.write_bytes(b"")
    assert nixpatch("wheel", str(path)) == (
        2,
        "",
        f"nixpatch: {path} is no wheel: build one of it first: pip wheel --no-deps {path}\n",
    )
    assert "is an archive, which is not patched itself: install it into a venv" in nixpatch(str(path))[2]


def test_a_directory_of_wheels_is_one_line_that_names_the_command(
    world: World, nixpatch: Run, wheel: str
) -> None:
    directory = os.path.join(world.root, "dir")
    os.mkdir(directory)
    os.link(wheel, os.path.join(directory, NAME))
    for arguments in ((directory,), ("plan", directory)):
        code, _, err = nixpatch(*arguments)
        assert code == 2
        assert f"nixpatch wheel {directory}/*.whl" in err
        assert err.count("\n") == 1
    code, _, err = nixpatch("wheel", directory)
    assert (code, err) == (
        2,
        f"nixpatch: {directory} is a directory: name the wheels in it: {directory}/*.whl\n",
    )


def test_a_file_that_nixpatch_did_not_write_is_not_replaced(
    nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    os.mkdir(wheelhouse)
    output = Path(wheelhouse, PATCHED)
    for data in (b"mine", Path(wheel).read_bytes()):
        output.write_bytes(data)
        code, _, err = nixpatch("wheel", "-w", wheelhouse, wheel)
        assert code == 2
        assert err.endswith(
            f"{output} exists, and nixpatch did not write it: remove it, or name another directory with -w\n"
        )
        assert output.read_bytes() == data


def test_a_fault_in_the_last_wheel_leaves_the_first_unwritten(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    other = Path(world.root, "other-1.0-py3-none-any.whl")
    _not_a_zip(other)
    assert nixpatch("wheel", "-w", wheelhouse, wheel, str(other))[0] == 2
    assert not os.path.exists(wheelhouse)


def test_a_directory_that_cannot_be_written_is_one_line(world: World, nixpatch: Run, wheel: str) -> None:
    blocked = os.path.join(world.root, "file")
    Path(blocked).write_bytes(b"")
    code, _, err = nixpatch("wheel", "-q", "-w", blocked, wheel)
    assert code == 3
    assert f"{blocked}/{PATCHED}: cannot be written: " in err
    assert err.count("\n") == 1
