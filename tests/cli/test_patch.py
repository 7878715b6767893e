"""nixpatch PATH: the main job, end to end, on compiled files with the real loader."""

from __future__ import annotations

import json
import os
import shutil
import struct

import pytest

from nixpatch import elf, fs
from nixpatch.elf import writer
from nixpatch.installed import provenance
from support.world import NO_LOADER, Run, World, record_row, shared

pytestmark = pytest.mark.gcc


def test_an_extension_finds_the_library_of_the_store(world: World, nixpatch: Run) -> None:
    assert "libanswer.so.1: cannot open shared object file" in world.ask()

    code, out, _ = nixpatch(world.venv)

    assert code == 0
    assert "Patched 2 of 2 ELF files" in out
    assert world.ask() == "42"


def test_a_program_gets_the_loader_of_the_target(world: World, nixpatch: Run) -> None:
    assert world.run_program() == "No such file or directory"

    assert nixpatch(world.venv)[0] == 0

    assert world.run_program() == 42


@pytest.mark.parametrize("place", ["venv", "site"])
def test_a_program_outside_site_packages_is_reached_through_its_record_row(
    world: World, nixpatch: Run, place: str
) -> None:
    assert nixpatch(getattr(world, place))[0] == 0

    assert world.run_program() == 42


def test_record_changes_only_in_the_rows_of_changed_files(world: World, nixpatch: Run) -> None:
    world.write_record(ending="\r\n")
    with open(world.record, "rb") as file:
        before = file.read().splitlines(keepends=True)

    nixpatch(world.venv)

    with open(world.record, "rb") as file:
        after = file.read().splitlines(keepends=True)
    changed = [new.split(b",")[0] for old, new in zip(before, after, strict=False) if old != new]
    assert changed == [b"../../../bin/pkg-tool", b"pkg/_ext.so"]
    assert after[len(before) :] == [
        record_row(os.path.join(world.info, "nixpatch.json"), world.site).encode() + b"\r\n"
    ]
    assert after[2] == record_row(world.extension, world.site).encode() + b"\r\n"


def test_a_second_run_writes_nothing(world: World, nixpatch: Run) -> None:
    nixpatch(world.venv)
    before = {path: os.stat(os.path.join(world.venv, path)).st_ino for path in world.snapshot()}

    code, out, _ = nixpatch(world.venv)

    assert code == 0
    assert "Patched 0 of 2" in out
    assert before == {path: os.stat(os.path.join(world.venv, path)).st_ino for path in world.snapshot()}


def test_plan_shows_the_same_and_writes_nothing(world: World, nixpatch: Run) -> None:
    before = world.snapshot()

    code, out, _ = nixpatch("plan", world.venv, "-v")

    assert code == 0
    assert "Would patch 2 of 2" in out
    assert f"RUNPATH {world.library}" in out
    assert f"{NO_LOADER}" in out
    assert before == world.snapshot()


def test_check_tells_by_its_exit_code_whether_something_would_change(world: World, nixpatch: Run) -> None:
    before = world.snapshot()
    assert nixpatch(world.venv, "--check")[0] == 1
    assert before == world.snapshot()

    nixpatch(world.venv)

    assert nixpatch(world.venv, "--check")[0] == 0


def test_json_goes_to_standard_output_alone(world: World, nixpatch: Run) -> None:
    code, out, err = nixpatch(world.venv, "--json")

    document = json.loads(out)
    assert (code, err, document["version"]) == (0, "", 1)
    (tree,) = document["trees"]
    assert tree["summary"]["changed"] == 2
    extension = next(file for file in tree["files"] if file["path"] == world.extension)
    assert extension["after"]["search_path"] == world.library
    (need,) = [need for need in extension["needs"] if need["soname"] == "libanswer.so.1"]
    assert (need["origin"], need["path"]) == ("store", f"{world.library}/libanswer.so.1")


def test_a_missing_library_is_explained_and_the_rest_is_patched(world: World, nixpatch: Run) -> None:
    gone = os.path.join(world.root, "libgone.so.3")
    shared("library.c", gone, "-Wl,-soname,libgone.so.3")
    shared("extension.c", os.path.join(world.site, "pkg", "_other.so"), gone, "-DPyInit__ext=PyInit__other")
    world.write_record(record_row(os.path.join(world.site, "pkg", "_other.so"), world.site))

    code, out, _ = nixpatch(world.venv)

    assert code == 1
    assert "Not found, and without these an import or a program fails:" in out
    assert "  libgone.so.3, needed by pkg/_other.so: no nixpkgs package is known to have it" in out
    assert "store: no library of this name in any source" not in out
    assert "store: no library of this name in any source" in nixpatch("plan", "-v", world.venv)[1]
    assert world.ask() == "42"


def test_a_library_that_may_be_missing_is_not_a_failure(world: World, nixpatch: Run) -> None:
    shutil.rmtree(os.path.dirname(world.library))
    os.makedirs(os.path.join(world.store, "0123456789abcdfghijklmnpqrsvwxyy-empty-1"))

    assert nixpatch(world.venv)[0] == 1
    assert nixpatch(world.venv, "--ignore-missing", "libanswer.*")[0] == 0


def test_another_name_of_the_same_inode_keeps_its_bytes(world: World, nixpatch: Run) -> None:
    cache = os.path.join(world.root, "cache-of-uv.so")
    os.link(world.extension, cache)
    with open(cache, "rb") as file:
        before = file.read()

    nixpatch(world.venv)

    with open(cache, "rb") as file:
        assert file.read() == before
    assert os.stat(cache).st_nlink == 1
    assert world.ask() == "42"


def test_mode_and_times_stay_and_setuid_goes(world: World, nixpatch: Run) -> None:
    os.chmod(world.extension, 0o444)
    os.chmod(world.program, 0o4755)
    os.utime(world.extension, (1, 1))

    nixpatch(world.venv)

    assert os.stat(world.extension).st_mode & 0o7777 == 0o444
    assert os.stat(world.extension).st_mtime == 1
    assert os.stat(world.program).st_mode & 0o7777 == 0o755


NET_RAW = struct.pack("<5I", 0x02000001, 1 << 13, 0, 0, 0)  # capabilities(7), VFS_CAP_REVISION_2, effective


@pytest.fixture
def granted(world: World) -> list[str]:
    """Give the program what a system grants to certain bytes, and an attribute that it does not."""
    os.chmod(world.program, 0o6755)
    attributes = {"security.capability": NET_RAW, "security.evm": b"\3" * 20, "security.ima": b"\1" * 21}
    try:
        for name, value in {**attributes, "user.note": b"kept"}.items():
            os.setxattr(world.program, name, value)
    except OSError as error:
        pytest.skip(f"extended attributes: {error.strerror}")
    return ["setuid", "setgid", *attributes]


@pytest.mark.parametrize("command", ["patch", "elf"])
def test_what_was_granted_to_other_contents_goes_and_is_reported(
    world: World, nixpatch: Run, granted: list[str], command: str
) -> None:
    arguments = ("elf", "--set-rpath", "/a", world.program) if command == "elf" else (world.venv,)
    code, out, err = nixpatch(*arguments)
    assert code == 0
    assert ", ".join(granted) + ": granted to the old contents, and removed" in " ".join((out + err).split())
    assert os.listxattr(world.program) == ["user.note"]
    assert os.stat(world.program).st_mode & 0o7777 == 0o755
    code, out, err = nixpatch(*arguments)
    assert "granted" not in out + err


@pytest.mark.parametrize("name", ["_ext.chk", "._ext.so.hmac"])
def test_a_signature_beside_a_library_is_reported(world: World, nixpatch: Run, name: str) -> None:
    with open(os.path.join(world.site, "pkg", name), "wb") as file:
        file.write(b"\xf1\xc5\1\2")
    text = f"no longer fits its signature {name}"
    for command in (("plan", world.venv), (world.venv,)):
        code, out, _ = nixpatch(*command)
        assert (code, out.count(text)) == (0, 1)
    assert text not in nixpatch(world.venv)[1]
    assert text in nixpatch("elf", "--set-rpath", "/a", world.extension)[2]


def test_a_row_that_was_wrong_before_is_not_laundered(world: World, nixpatch: Run) -> None:
    with open(world.record, "rb") as file:
        data = file.read()
    row = record_row(world.extension, world.site)
    wrong = row.replace(row[20:28], "AAAAAAAA").encode()
    assert wrong != row.encode()
    with open(world.record, "wb") as file:
        file.write(data.replace(row.encode(), wrong))

    code, out, _ = nixpatch(world.venv)

    assert code == 1
    assert "did not describe this file before the patch" in out
    with open(world.record, "rb") as file:
        assert wrong in file.read()
    assert world.ask() == "42"


def test_two_dists_that_claim_a_file_are_both_brought_up_to_date(world: World, nixpatch: Run) -> None:
    other = os.path.join(world.site, "other-2.0.dist-info")
    os.makedirs(other)
    with open(os.path.join(other, "METADATA"), "w", encoding="utf-8") as file:
        file.write("Metadata-Version: 2.1\nName: other\nVersion: 2.0\n")
    with open(os.path.join(other, "RECORD"), "w", encoding="utf-8") as file:
        file.write(f"{record_row(world.extension, world.site)}\nother-2.0.dist-info/RECORD,,\n")

    assert nixpatch(world.venv)[0] == 0

    for record in (world.record, os.path.join(other, "RECORD")):
        with open(record, encoding="utf-8") as file:
            assert record_row(world.extension, world.site) in file.read()
    assert nixpatch("verify", world.venv)[0] == 0


def test_the_same_input_gives_the_same_bytes_anywhere(world: World, nixpatch: Run) -> None:
    other = world.copy("a-directory-with-a-much-longer-name")

    nixpatch(world.venv)
    nixpatch(other.venv)

    ours, theirs = world.snapshot(), other.snapshot()
    ours.pop("bin/activate", None), theirs.pop("bin/activate", None)
    assert ours == theirs


def test_provenance_names_neither_the_tree_nor_the_time(world: World, nixpatch: Run) -> None:
    nixpatch(world.venv)

    path = os.path.join(world.info, "nixpatch.json")
    with open(path, encoding="ascii") as file:
        text = file.read()
    assert world.venv not in text
    known = provenance.read(path)
    assert known is not None
    assert known.files["pkg/_ext.so"].needs["libanswer.so.1"] == f"{world.library}/libanswer.so.1"


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


@pytest.mark.parametrize("moment", ["before RECORD", "before provenance"])
def test_a_killed_run_is_finished_by_the_next_one(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    reference = world.copy("reference")
    nixpatch(reference.venv)

    with monkeypatch.context() as patch:
        targets = {
            "before RECORD": "nixpatch.installed.dist_records.DistRecords.replace_record",
            "before provenance": "nixpatch.operations.apply.update_records",
        }

        def kill(*_: object, **__: object) -> None:
            raise Killed

        patch.setattr(targets[moment], kill)
        with pytest.raises(Killed):
            nixpatch(world.venv)
    assert world.ask() == "42"
    with open(world.record, encoding="utf-8") as file:
        assert record_row(world.extension, world.site) not in file.read()

    code, _, _ = nixpatch(world.venv)

    assert code == 0
    for path, data in reference.snapshot().items():
        if not path.startswith("bin/activate"):
            assert world.snapshot()[path] == data, path


def test_a_file_that_fails_its_checks_stays_as_it_was(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = world.snapshot()
    monkeypatch.setattr(writer, "check_views", lambda *_: ("PT_LOADs overlap",))

    code, out, _ = nixpatch(world.venv)

    assert code == 1
    assert "failed its checks and was thrown away: PT_LOADs overlap" in out
    assert before == world.snapshot()


def test_temp_files_of_a_killed_run_are_cleared_away(world: World, nixpatch: Run) -> None:
    left = os.path.join(world.site, "pkg", ".nixpatch-123-_ext.so.tmp")
    with open(left, "wb") as file:
        file.write(b"\x7fELF half")

    code, out, _ = nixpatch(world.venv)

    assert code == 0
    assert "left by a run that was killed" in out
    assert not os.path.lexists(left)


def test_a_directory_that_an_uninstall_left_for_a_temp_file_goes_with_it(world: World, nixpatch: Run) -> None:
    left = os.path.join(world.site, "gone.libs")
    os.makedirs(left)
    with open(os.path.join(left, ".nixpatch-0123456789ab-libx.so.tmp"), "wb") as file:
        file.write(b"half")

    assert nixpatch(world.venv)[0] == 0

    assert not os.path.exists(left)


def test_a_file_of_the_wheel_that_is_named_like_a_temp_file_is_patched_and_stays(
    world: World, nixpatch: Run
) -> None:
    named = [".nixpatch-0123456789ab-_ext.so.tmp", ".nixpatch-0123456789ab-data.tmp"]
    library, data = (os.path.join(world.site, "pkg", name) for name in named)
    shutil.copy(world.extension, library)
    with open(data, "wb") as file:
        file.write(b"data of the wheel")
    world.write_record(*(record_row(path, world.site) for path in (library, data)))

    code, out, _ = nixpatch(world.venv)

    assert (code, "left by a run" in out) == (0, False)
    assert elf.read(library).current.search_path == world.library  # type: ignore[union-attr]
    assert nixpatch("verify", world.venv)[0] == 0
    assert nixpatch("restore", world.venv)[0] == 0
    assert os.path.getsize(data) == len(b"data of the wheel")


def test_a_temp_file_that_another_run_of_elf_writes_to_stays(world: World, nixpatch: Run) -> None:
    """It locks its file, not the tree."""
    data = os.path.join(os.path.dirname(world.extension), "data")
    with fs.replacement(data) as descriptor:
        os.write(descriptor, b"of the other run")

        assert nixpatch(world.venv)[0] == 0

    with open(data, "rb") as file:
        assert file.read() == b"of the other run"


def test_a_plain_directory_of_libraries_is_patched_too(world: World, nixpatch: Run) -> None:
    plain = os.path.join(world.root, "plain")
    os.makedirs(plain)
    shutil.copy(world.extension, plain)

    code, _, _ = nixpatch(plain, "--python", os.path.join(world.venv, "bin", "python"))

    assert code == 0
    facts = elf.read(os.path.join(plain, "_ext.so"))
    assert facts.current.search_path == world.library  # type: ignore[union-attr]
    assert os.path.exists(os.path.join(plain, ".nixpatch.json"))
    assert nixpatch("verify", plain, "--python", os.path.join(world.venv, "bin", "python"))[0] == 0
    assert nixpatch("restore", plain)[0] == 0
    assert sorted(os.listdir(plain)) == ["_ext.so"]


def test_lib_goes_before_the_store(world: World, nixpatch: Run) -> None:
    other = os.path.join(world.root, "other")
    shared("library.c", os.path.join(other, "libanswer.so.1"), "-Wl,-soname,libanswer.so.1", "-DANSWER=7")

    nixpatch(world.venv, "--lib", other)

    assert world.ask() == "7"


def test_patching_with_another_store_path_gives_the_bytes_of_one_patch(world: World, nixpatch: Run) -> None:
    second = os.path.join(world.store, f"{'b' * 32}-answer-with-a-longer-name-2.0", "lib")
    shared("library.c", os.path.join(second, "libanswer.so.1"), "-Wl,-soname,libanswer.so.1", "-DANSWER=9")
    once = world.copy("once")
    nixpatch(once.venv, "--lib", second)

    for library in [world.library, second] * 5:
        nixpatch(world.venv, "--lib", library)

    assert world.ask() == "9"
    assert (
        world.snapshot()[f"lib/{os.path.basename(os.path.dirname(world.site))}/site-packages/pkg/_ext.so"]
        == (once.snapshot()[f"lib/{os.path.basename(os.path.dirname(world.site))}/site-packages/pkg/_ext.so"])
    )


def test_restore_gives_back_every_byte(world: World, nixpatch: Run) -> None:
    before = world.snapshot()
    nixpatch(world.venv)
    assert before != world.snapshot()

    code, out, _ = nixpatch("restore", world.venv)

    assert code == 0
    assert "Restored 2 of 2" in out
    assert before == world.snapshot()


def test_a_program_that_is_a_link_into_a_cache_is_reached_from_site_packages(
    world: World, nixpatch: Run
) -> None:
    """As uv makes it with ``--link-mode symlink``."""
    cache = os.path.join(world.root, "cache-of-uv", "pkg-tool")
    os.makedirs(os.path.dirname(cache))
    shutil.move(world.program, cache)
    os.symlink(cache, world.program)

    assert nixpatch(world.site)[0] == 0

    assert world.run_program() == 42
    assert nixpatch("restore", world.site)[0] == 0
    assert os.readlink(world.program) == cache
