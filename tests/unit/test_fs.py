"""Files, links and directories are made, replaced, moved and removed; what killed runs left is swept."""

import os
import signal
import stat
from pathlib import Path

import pytest

from nixpatch.fs import (
    make_directory,
    move,
    remove,
    remove_directory,
    replace_bytes,
    replace_link,
    replacement,
    sweep,
)

OLD = 1_000_000_000_000_000_000
"""nanoseconds: a time in 2001"""


def test_a_new_file_gets_mode_times_and_attributes_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(0o6755)
    os.setxattr(path, "user.note", b"kept")
    os.utime(path, ns=(OLD, OLD + 1))
    inode = path.stat().st_ino

    replace_bytes(str(path), b"new")

    assert path.stat().st_ino != inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o755  # less setuid and setgid
    assert os.getxattr(path, "user.note") == b"kept"
    assert path.stat().st_mtime_ns == OLD + 1
    assert path.read_bytes() == b"new"


def test_a_file_that_is_not_there_yet_is_like_another_one(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"")
    other.chmod(0o4750)
    os.utime(other, ns=(OLD, OLD))
    for name, like, mode in (("plain", None, 0o644), ("like", other.stat(), 0o750)):
        with replacement(str(tmp_path / name), like=like):
            pass
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode
        assert ((tmp_path / name).stat().st_mtime_ns == OLD) is (like is not None)


def test_mode_and_times_may_be_others_than_those_of_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    os.utime(path, ns=(OLD, OLD))
    with replacement(str(path), mode=0o500, keep_times=False):
        pass
    assert stat.S_IMODE(path.stat().st_mode) == 0o500
    assert path.stat().st_mtime_ns > OLD


def test_the_same_bytes_are_not_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"same")
    before = path.stat()
    replace_bytes(str(path), b"same")
    assert path.stat() == before


def test_another_file_than_the_expected_one_stays(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="changed while"), replacement(str(path), expected=(1, 2, 3)):
        pytest.fail("it has been opened")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("kind", ["nothing", "file", "link", "directory"])
def test_a_link_takes_the_place_of_any_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "link"
    if kind == "file":
        path.write_bytes(b"")
    elif kind == "link":
        path.symlink_to("before")
    elif kind == "directory":
        path.mkdir()
        with pytest.raises(IsADirectoryError):
            replace_link(str(path), "after")
        assert os.listdir(tmp_path) == ["link"]
        return
    replace_link(str(path), "after")
    assert os.readlink(path) == "after"
    assert os.listdir(tmp_path) == ["link"]


def test_directories_are_made_once_and_removed_empty(tmp_path: Path) -> None:
    path = str(tmp_path / "made")
    make_directory(path)
    make_directory(path)
    (tmp_path / "made" / "file").write_bytes(b"")
    remove_directory(path)
    assert os.listdir(path) == ["file"]
    remove(f"{path}/file")
    remove(f"{path}/file")
    remove_directory(path)
    remove_directory(path)
    assert os.listdir(tmp_path) == []


def test_a_link_is_no_directory_that_was_made(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="a link has taken the place"):
        make_directory(str(tmp_path / "link"))


def test_a_move_replaces_a_file_only_if_told(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"one")
    two.write_bytes(b"two")
    with pytest.raises(FileExistsError):
        move(str(one), str(two), overwrite=False)
    assert two.read_bytes() == b"two"
    move(str(one), str(two), overwrite=True)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"one"]


def _killed_while_writing(path: Path) -> None:
    child = os.fork()
    if child == 0:
        with replacement(str(path)) as descriptor:
            os.write(descriptor, b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    path = tmp_path / "nixpatch.lock"
    replace_bytes(str(path), b"old")
    _killed_while_writing(path)
    assert len(os.listdir(tmp_path)) == 2

    sweep(str(path))

    assert os.listdir(tmp_path) == ["nixpatch.lock"]
    assert path.read_bytes() == b"old"


def test_what_is_being_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "nixpatch.lock"
    with replacement(str(path)) as descriptor:
        os.write(descriptor, b"new")
        child = os.fork()
        if child == 0:
            os.closerange(3, 1000)
            sweep(str(path))
            os._exit(0)
        os.waitpid(child, 0)

    assert path.read_bytes() == b"new"


def test_what_belongs_to_others_stays(tmp_path: Path) -> None:
    _killed_while_writing(tmp_path / "other.lock")
    (tmp_path / "x-nixpatch.lock.tmp").write_bytes(b"not ours")
    (tmp_path / ".nixpatch-0123456789ab-nixpatch.lock.tmp").symlink_to(tmp_path / "x-nixpatch.lock.tmp")
    before = sorted(os.listdir(tmp_path))

    sweep(str(tmp_path / "nixpatch.lock"))

    assert sorted(os.listdir(tmp_path)) == before
