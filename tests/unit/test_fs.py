"""What killed runs left beside a file that somebody named goes with the next run; nothing else does."""

import os
import signal
from pathlib import Path

from nixpatch.fs import replace_bytes, replacement, sweep


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
