"""nixpatch lock and --locked, on compiled files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from importlib import resources
from typing import Any

import jsonschema
import pytest

from support.opening import add_opener
from support.world import HASH, Run, World, shared

pytestmark = pytest.mark.gcc

SCHEMA = json.loads(resources.files("nixpatch").joinpath("data/report.schema.json").read_text("utf-8"))
OTHER_HASH = HASH[::-1]


def _read(path: str) -> dict[str, Any]:
    with open(path, encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
    return document


def _newer(world: World) -> str:
    """Put a newer version of the library into the store, which a run without a lock prefers."""
    path = os.path.join(world.store, f"{OTHER_HASH}-answer-2.0", "lib", "libanswer.so.1")
    return shared("library.c", path, "-Wl,-soname,libanswer.so.1", "-O2")


def test_the_lock_says_what_serves_and_what_chose_it(world: World, nixpatch: Run, lock: str) -> None:
    before = world.snapshot()

    code, out, _ = nixpatch("lock", world.venv, "-o", lock)

    assert code == 0
    assert out.splitlines()[-1] == f"Locked 1 library from 1 store path in {lock}."
    library = os.path.join(world.library, "libanswer.so.1")
    with open(library, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()
    document = _read(lock)
    assert document["libraries"] == {
        "libanswer.so.1": {
            "store_path": os.path.dirname(world.library),
            "file": "lib/libanswer.so.1",
            "sha256": digest,
            "source": "local store",
            "package": "answer-1.0",
            "attribute": None,
        }
    }
    assert document["libc"]["name"] == "glibc"
    assert os.path.isabs(document["loader"])
    assert world.snapshot() == before


def test_the_lock_is_the_same_for_the_same_tree_anywhere(world: World, nixpatch: Run, lock: str) -> None:
    nixpatch("lock", world.venv, "-o", lock)
    with open(lock, "rb") as file:
        first = file.read()
    status = os.stat(lock)
    other = world.copy("other")

    code, out, _ = nixpatch("lock", other.venv, "-o", lock)

    with open(lock, "rb") as file:
        assert (code, file.read()) == (0, first)
    assert "Unchanged: 1 library" in out
    assert os.stat(lock).st_mtime_ns == status.st_mtime_ns
    assert os.fsencode(world.venv) not in first
    assert first == (json.dumps(json.loads(first), indent=1, sort_keys=True) + "\n").encode()


def test_a_patched_tree_gives_the_lock_of_the_unpatched(world: World, nixpatch: Run, lock: str) -> None:
    nixpatch("lock", world.venv, "-o", lock)
    before = _read(lock)
    nixpatch(world.venv)

    assert nixpatch("lock", world.venv, "-o", lock)[0] == 0

    assert _read(lock) == before


def test_by_default_it_lies_in_the_current_directory(
    world: World, nixpatch: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world.root)

    assert nixpatch("lock", world.venv)[0] == 0

    assert "libanswer.so.1" in _read(os.path.join(world.root, "nixpatch.lock"))["libraries"]


def test_same_lock_and_wheels_same_bytes_whatever_else_the_store_has(
    world: World, nixpatch: Run, lock: str
) -> None:
    here, there, unlocked = (world.copy(name) for name in ("here", "there", "unlocked"))
    nixpatch("lock", world.venv, "-o", lock)
    assert nixpatch("--locked", lock, here.venv)[0] == 0
    _newer(world)

    assert nixpatch("--locked", lock, there.venv)[0] == 0
    assert nixpatch(unlocked.venv)[0] == 0

    assert here.snapshot() == there.snapshot()
    assert here.snapshot() != unlocked.snapshot()
    assert there.ask() == "42"
    assert nixpatch("--locked", lock, "--check", unlocked.venv)[0] == 1
    assert nixpatch("--locked", lock, unlocked.venv)[0] == 0
    assert here.snapshot() == unlocked.snapshot()


def test_patch_with_the_lock_gives_what_patch_without_gave_when_it_was_made(
    world: World, nixpatch: Run, lock: str
) -> None:
    other = world.copy("other")
    nixpatch("lock", world.venv, "-o", lock)

    nixpatch("--locked", lock, world.venv)
    nixpatch(other.venv)

    assert world.snapshot() == other.snapshot()


def test_the_store_at_large_is_not_even_listed(
    world: World, nixpatch: Run, lock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nixpatch("lock", world.venv, "-o", lock)
    listed: list[object] = []
    monkeypatch.setattr("nixpatch.store.whole_store.list_store", listed.append)

    assert nixpatch("--locked", lock, world.venv)[0] == 0

    assert listed == []


def test_a_locked_directory_serves_nothing_but_what_is_locked(world: World, nixpatch: Run, lock: str) -> None:
    nixpatch("lock", world.venv, "-o", lock)
    another = os.path.join(world.library, "libanother.so.1")
    shared("library.c", another, "-Wl,-soname,libanother.so.1")
    shared("extension.c", os.path.join(world.site, "pkg", "_new.so"), another)

    code, out, _ = nixpatch("plan", "--locked", lock, "--json", world.venv)

    assert code == 1
    (tree,) = json.loads(out)["trees"]
    errors = [found["text"] for found in tree["findings"] if found["severity"] == "error"]
    assert errors == [f"libanother.so.1 is not in {lock}: run nixpatch lock again"]
    missing = [
        need["soname"] for file in tree["files"] for need in file["needs"] if need["origin"] == "missing"
    ]
    assert missing == ["libanother.so.1"]
    nixpatch("lock", world.venv, "-o", lock)
    assert nixpatch("--locked", lock, world.venv)[0] == 0


def test_verify_tells_whether_a_tree_is_what_the_lock_says(world: World, nixpatch: Run, lock: str) -> None:
    nixpatch("lock", world.venv, "-o", lock)
    nixpatch("--locked", lock, world.venv)
    assert nixpatch("verify", "--locked", lock, world.venv)[0] == 0
    newer = _newer(world)
    nixpatch("--lib", os.path.dirname(newer), world.venv)  # a patched tree keeps its libraries otherwise

    code, out, _ = nixpatch("verify", "--locked", lock, world.venv)

    assert code == 1
    assert f"{newer}: is used but not in {lock}" in out
    assert nixpatch("verify", world.venv)[0] == 0


def test_a_library_outside_the_store_cannot_be_locked_but_named_again(
    world: World, nixpatch: Run, lock: str
) -> None:
    own = os.path.join(world.root, "own")
    shared("library.c", os.path.join(own, "libown.so.1"), "-Wl,-soname,libown.so.1")
    shared("extension.c", os.path.join(world.site, "pkg", "_own.so"), os.path.join(own, "libown.so.1"))
    # What the lock has comes from the lock, whoever else has it.
    shutil.copy(os.path.join(world.library, "libanswer.so.1"), own)
    nixpatch("lock", world.venv, "-o", lock)

    code, out, _ = nixpatch("lock", world.venv, "-o", f"{lock}2", "--lib", own)
    assert code == 1
    assert f"libown.so.1 comes from {own}, which is not in the store" in out
    assert list(_read(f"{lock}2")["libraries"]) == []

    code, out, _ = nixpatch("--locked", lock, "--lib", own, "--json", world.venv)
    assert code == 0
    (tree,) = json.loads(out)["trees"]
    paths = {need["soname"]: need["path"] for file in tree["files"] for need in file["needs"]}
    assert paths["libown.so.1"] == os.path.join(own, "libown.so.1")
    assert paths["libanswer.so.1"] == os.path.join(world.library, "libanswer.so.1")


def test_what_nothing_provides_is_told_and_the_rest_is_locked(world: World, nixpatch: Run, lock: str) -> None:
    gone = os.path.join(world.root, "gone", "libxkbcommon.so.0")
    shared("library.c", gone, "-Wl,-soname,libxkbcommon.so.0")
    shared("extension.c", os.path.join(world.site, "pkg", "_xkb.so"), gone)
    shutil.rmtree(os.path.dirname(gone))

    code, out, _ = nixpatch("lock", world.venv, "-o", lock)

    assert code == 1
    assert "libxkbcommon.so.0, needed by" in out
    assert list(_read(lock)["libraries"]) == ["libanswer.so.1"]


def test_json_keeps_to_the_schema(world: World, nixpatch: Run, lock: str) -> None:
    code, out, _ = nixpatch("lock", world.venv, "-o", lock, "--json")

    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    assert (code, document["command"], document["lock"]["changed"]) == (0, "lock", True)
    assert document["trees"][0]["applied"] is False
    (library,) = document["lock"]["libraries"]
    assert library == {"soname": "libanswer.so.1", **_read(lock)["libraries"]["libanswer.so.1"]}
    del document["lock"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, SCHEMA)


def test_a_lock_that_cannot_be_written_is_the_machines_fault(world: World, nixpatch: Run) -> None:
    code, _, err = nixpatch("lock", world.venv, "-o", os.path.join(world.root, "absent", "nixpatch.lock"))

    assert code == 3
    assert "cannot be written: No such file or directory" in err


def test_what_is_only_opened_at_run_time_is_locked_too(world: World, nixpatch: Run, lock: str) -> None:
    shared("library.c", os.path.join(world.library, "libopened.so.1"), "-Wl,-soname,libopened.so.1")
    option = ("--runtime-dep", "libopened.so.1@*/_ext.so")

    assert nixpatch("lock", world.venv, "-o", lock, *option)[0] == 0

    assert list(_read(lock)["libraries"]) == ["libanswer.so.1", "libopened.so.1"]
    assert nixpatch("--locked", lock, *option, world.venv)[0] == 0


def test_what_code_opens_by_name_is_locked_and_served_from_the_lock(
    world: World, nixpatch: Run, lock: str
) -> None:
    package = add_opener(world)
    os.unlink(os.path.join(world.venv, "bin", "opener-run"))  # a lock has no programs
    # Only Python code opens this one.
    shared("library.c", os.path.join(world.library, "libonly.so.2"), "-Wl,-soname,libonly.so.2")
    with open(os.path.join(package, "by_find.py"), "w", encoding="utf-8") as file:
        file.write("from ctypes.util import find_library\n\nNAME = find_library('only')\n")

    assert nixpatch("lock", world.venv, "-o", lock)[0] == 0
    assert list(_read(lock)["libraries"]) == ["libanswer.so.1", "libonly.so.2"]

    # Newer ones are not locked.
    newer = os.path.join(world.store, f"{OTHER_HASH}-only-9", "lib", "libonly.so.3")
    shared("library.c", newer, "-Wl,-soname,libonly.so.3")
    code, out, _ = nixpatch("--locked", lock, "--json", world.venv)
    assert code == 0, out
    (tree,) = json.loads(out)["trees"]
    (answers,) = [text["answers"] for text in tree["texts"] if text["kind"] == "startup"]
    assert answers == {
        "libanswer.so.1": f"{world.library}/libanswer.so.1",
        "only": f"{world.library}/libonly.so.2",
    }
    code, out, _ = nixpatch("verify", "--locked", lock, world.venv)
    assert "libonly" not in out
