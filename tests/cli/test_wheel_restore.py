"""``nixpatch restore FILE.whl``: the wheel that a patched wheel was made from, byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.wheels import INFO, NAME, PATCHED, contents, write
from support.world import Run, World

pytestmark = pytest.mark.gcc


def packed(level: int = 6, packing: int = zipfile.ZIP_DEFLATED) -> Callable[[World], str]:
    return lambda world: write(Path(world.root, NAME), contents(world), level=level, packing=packing)


def _with_directories_and_comments(world: World) -> str:
    def change(archive: zipfile.ZipFile) -> None:
        archive.writestr(zipfile.ZipInfo("pkg/"), b"")
        archive.comment = b"a comment"

    path = write(Path(world.root, NAME), contents(world), change)
    return _rewritten(path, lambda info: setattr(info, "extra", b"UT\5\0\1\0\0\0\0"))


def _with_a_signature(world: World) -> str:
    def change(archive: zipfile.ZipFile) -> None:
        archive.writestr(f"{INFO}/RECORD.jws", b"{}")

    return write(Path(world.root, NAME), contents(world), change)


def _with_record_first_and_descriptors(world: World) -> str:
    """A wheel that was written to a pipe: sizes follow the contents (APPNOTE 4.3.9)."""
    path = write(Path(world.root, NAME), contents(world))

    class Pipe:
        def __init__(self, target: str) -> None:
            self._file = open(target, "wb")  # noqa: SIM115 - closed below

        def write(self, data: bytes) -> int:
            return self._file.write(data)

        def flush(self) -> None:
            self._file.flush()

        def close(self) -> None:
            self._file.close()

    pipe = Pipe(path + ".new")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as new:
        for name in reversed(old.namelist()):
            new.writestr(name, old.read(name))
    pipe.close()
    os.replace(path + ".new", path)
    return path


def _with_sizes_of_8_bytes(world: World) -> str:
    """A wheel whose local headers have the extra field for large files (APPNOTE 4.5.3)."""
    path = write(Path(world.root, NAME), contents(world))
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(path + ".new", "w", zipfile.ZIP_DEFLATED) as new:
        for info in old.infolist():
            with new.open(zipfile.ZipInfo(info.filename), "w", force_zip64=True) as member:
                member.write(old.read(info))
    os.replace(path + ".new", path)
    return path


def _rewritten(path: str, change: Callable[[zipfile.ZipInfo], None]) -> str:
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(path + ".new", "w", zipfile.ZIP_DEFLATED) as new:
        new.comment = old.comment
        for info in old.infolist():
            data = old.read(info)
            change(info)
            info.comment = b"of a member"
            new.writestr(info, data)
    os.replace(path + ".new", path)
    return path


WHEELS: dict[str, Callable[[World], str]] = {
    "as zipfile writes it": packed(),
    "packed with level 9": packed(level=9),
    "packed with level 1": packed(level=1),
    "stored": packed(packing=zipfile.ZIP_STORED),
    "with directories, comments and extra fields": _with_directories_and_comments,
    "with a signature": _with_a_signature,
    "with sizes of 8 bytes": _with_sizes_of_8_bytes,
    "with data descriptors, RECORD first": _with_record_first_and_descriptors,
}


@pytest.mark.parametrize("kind", WHEELS)
def test_every_byte_and_the_name_come_back(
    kind: str, world: World, nixpatch: Run, wheelhouse: str, tmp_path: Path
) -> None:
    wheel = WHEELS[kind](world)
    original = Path(wheel).read_bytes()
    assert nixpatch("wheel", "-w", wheelhouse, wheel)[0] == 0
    patched = os.path.join(wheelhouse, PATCHED)
    before = Path(patched).read_bytes()
    os.remove(wheel)

    code, _, err = nixpatch("restore", "-w", str(tmp_path), patched)

    assert code == 0, err
    assert err.endswith(f"wrote {tmp_path / NAME}, the original byte for byte\n")
    assert (tmp_path / NAME).read_bytes() == original
    assert Path(patched).read_bytes() == before


def test_the_original_goes_beside_the_patched_wheel_unless_it_is_there(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    nixpatch("wheel", "-w", wheelhouse, wheel)
    patched, output = os.path.join(wheelhouse, PATCHED), Path(wheelhouse, NAME)
    code, _, err = nixpatch("restore", "--dry-run", patched)
    assert (code, output.exists()) == (0, False)
    assert f"would write {output}" in err
    for _ in range(2):
        assert nixpatch("restore", patched)[0] == 0
        assert output.read_bytes() == Path(wheel).read_bytes()
    output.write_bytes(b"another")
    code, _, err = nixpatch("restore", patched)
    assert code == 2
    assert err.endswith(
        f"{output} exists, and is another file: remove it, or name another directory with -w\n"
    )
    assert output.read_bytes() == b"another"


def test_a_build_tag_comes_back(world: World, nixpatch: Run, wheelhouse: str, tmp_path: Path) -> None:
    name = NAME.replace("1.0-", "1.0-7x-")
    wheel = write(Path(world.root, name), contents(world))
    nixpatch("wheel", "-w", wheelhouse, wheel)
    (patched,) = os.listdir(wheelhouse)
    assert patched == NAME.replace("1.0-", "1.0-7xnixpatch-")
    assert nixpatch("restore", "-w", str(tmp_path), os.path.join(wheelhouse, patched))[0] == 0
    assert os.listdir(tmp_path) == [name]


def test_a_wheel_that_was_patched_twice_gives_the_first_original(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str, tmp_path: Path
) -> None:
    other = os.path.join(world.root, "libs")
    shutil.copytree(world.library, other)
    nixpatch("wheel", "-w", wheelhouse, wheel)
    patched = os.path.join(wheelhouse, PATCHED)
    code, _, err = nixpatch("wheel", "--lib", other, "-w", str(tmp_path / "again"), patched)
    assert code == 0, err
    again = tmp_path / "again" / PATCHED
    assert again.read_bytes() != Path(patched).read_bytes()
    assert nixpatch("restore", "-w", str(tmp_path), str(again))[0] == 0
    assert (tmp_path / NAME).read_bytes() == Path(wheel).read_bytes()


def _other_packer(wheel: str) -> None:
    """Pack the program as no level of zlib does: in stored blocks (RFC 1951, 3.2.4)."""
    with zipfile.ZipFile(wheel) as old:
        members = [(info, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(wheel, "w") as new:
        for info, data in members:
            new.writestr(info, data, compresslevel=0 if info.filename.endswith("/tool") else 6)


def test_a_wheel_of_another_packer_is_not_restored_and_its_digest_is_given(
    nixpatch: Run, wheel: str, wheelhouse: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nixpatch.installed import wheel_archive

    monkeypatch.setattr(wheel_archive, "_KEPT_SIZE", 16)
    _other_packer(wheel)
    nixpatch("wheel", "-w", wheelhouse, wheel)
    code, _, err = nixpatch("restore", "-w", str(tmp_path), os.path.join(wheelhouse, PATCHED))
    assert code == 1
    assert "cannot be restored byte for byte: pkg-1.0.data/scripts/tool was packed by another program" in err
    assert f"get {NAME} with sha256 {hashlib.sha256(Path(wheel).read_bytes()).hexdigest()}" in err
    assert os.listdir(tmp_path) == []


def test_another_zlib_is_noticed_by_the_digest(
    nixpatch: Run, wheel: str, wheelhouse: str, tmp_path: Path
) -> None:
    nixpatch("wheel", "-w", wheelhouse, wheel)
    patched = os.path.join(wheelhouse, PATCHED)
    _changed_provenance(patched, lambda wheel: wheel["members"]["pkg/_ext.so"].update(level=1))
    code, _, err = nixpatch("restore", "-w", str(tmp_path), patched)
    assert code == 1
    assert "cannot be restored byte for byte: the contents are those of the original, the bytes of" in err
    assert os.listdir(tmp_path) == []


def test_a_patched_wheel_that_was_packed_anew_is_noticed_by_the_digest(
    nixpatch: Run, wheel: str, wheelhouse: str, tmp_path: Path
) -> None:
    nixpatch("wheel", "-w", wheelhouse, wheel)
    patched = Path(wheelhouse, PATCHED)
    with zipfile.ZipFile(patched) as old:
        members = {name: old.read(name) for name in old.namelist() if not name.endswith("/RECORD")}
    write(patched, members, packing=zipfile.ZIP_STORED)
    code, _, err = nixpatch("restore", "-w", str(tmp_path), str(patched))
    assert code == 1
    assert "or the patched wheel was packed anew" in err
    assert os.listdir(tmp_path) == []


def test_an_archive_of_unusual_layout_is_not_restored_and_its_digest_is_given(
    nixpatch: Run, wheel: str, wheelhouse: str, tmp_path: Path
) -> None:
    data = Path(wheel).read_bytes()
    Path(wheel).write_bytes(b"#!/usr/bin/python\n" + data)  # what stands before an archive is no part of it
    digest = hashlib.sha256(Path(wheel).read_bytes()).hexdigest()
    assert nixpatch("wheel", "-w", wheelhouse, wheel)[0] == 0
    code, _, err = nixpatch("restore", "-w", str(tmp_path), os.path.join(wheelhouse, PATCHED))
    assert code == 1
    assert "the layout of its archive was an unusual one" in err
    assert f"get {NAME} with sha256 {digest} from where it came from" in err
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda wheel: wheel.update(name="../../evil-1.0-py3-none-any.whl"), "nixpatch.json"),
        (lambda wheel: wheel.update(name="evil-1.0-py3-none-any.whl"), "no name that the original of it can"),
        (lambda wheel: wheel.update(directory="AAAA"), "nixpatch.json"),
    ],
)
def test_provenance_is_not_trusted(
    nixpatch: Run,
    wheel: str,
    wheelhouse: str,
    tmp_path: Path,
    change: Callable[[dict[str, Any]], None],
    complaint: str,
) -> None:
    nixpatch("wheel", "-w", wheelhouse, wheel)
    patched = os.path.join(wheelhouse, PATCHED)
    _changed_provenance(patched, change)
    code, _, err = nixpatch("restore", "-w", str(tmp_path), patched)
    assert code != 0
    assert complaint in err
    assert os.listdir(tmp_path) == []


def _changed_provenance(patched: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Edit what provenance has of the original, with RECORD right for it."""
    with zipfile.ZipFile(patched) as old:
        members = {name: old.read(name) for name in old.namelist()}
    document = json.loads(members[f"{INFO}/nixpatch.json"])
    change(document["wheel"])
    members[f"{INFO}/nixpatch.json"] = json.dumps(document).encode()
    del members[f"{INFO}/RECORD"]
    write(Path(patched), members)


def test_a_wheel_that_was_not_patched_has_nothing_to_restore(
    nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    code, _, err = nixpatch("restore", wheel)
    assert code == 0
    assert err == f"nixpatch: {wheel}: nixpatch did not patch it (no nixpatch.json): nothing to restore\n"
    assert nixpatch("restore", "-w", wheelhouse, wheel)[0] == 0
    assert Path(wheelhouse, NAME).read_bytes() == Path(wheel).read_bytes()


def test_a_patched_file_that_another_tool_changed_stops_it(
    nixpatch: Run, wheel: str, wheelhouse: str, tmp_path: Path
) -> None:
    nixpatch("wheel", "-w", wheelhouse, wheel)
    patched = Path(wheelhouse, PATCHED)
    with zipfile.ZipFile(patched) as old:
        members = {name: old.read(name) for name in old.namelist() if not name.endswith("/RECORD")}
    members["pkg/_ext.so"] = members["pkg/_ext.so"][:-1] + b"?"
    write(patched, members)
    code, out, err = nixpatch("restore", "-w", str(tmp_path), str(patched))
    assert code == 1
    assert "pkg/_ext.so" in out + err
    assert os.listdir(tmp_path) == []


def test_after_the_installation_restore_gives_files_and_no_wheel(
    world: World, nixpatch: Run, wheel: str, wheelhouse: str
) -> None:
    """The record of the archive is a part of nixpatch.json, which goes with the restore."""
    nixpatch("wheel", "-w", wheelhouse, wheel)
    site = Path(world.root, "target")
    with zipfile.ZipFile(os.path.join(wheelhouse, PATCHED)) as archive:
        archive.extractall(site)
    assert nixpatch("restore", str(site))[0] == 0
    assert not (site / INFO / "nixpatch.json").exists()
    assert (site / "pkg" / "_ext.so").read_bytes() == contents(world)["pkg/_ext.so"]
    assert stat.S_ISREG((site / "pkg" / "_ext.so").stat().st_mode)
