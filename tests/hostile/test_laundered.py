"""RECORD never gets the digest of a file that something else than nixpatch changed."""

from __future__ import annotations

import os

import pytest

from nixpatch.installed import provenance
from support.installed_trees import row, write
from support.opening import add_opener
from support.programs import content
from support.world import Run, World, record_row

pytestmark = pytest.mark.gcc


def flip(path: str) -> None:
    """Change one byte of the code of a patched file: no checksum of its undo record covers that."""
    data = bytearray(content(path))
    data[data.index(b"\xc3")] ^= 0xFF
    write(path, bytes(data), os.stat(path).st_mode & 0o777)


def rows(world: World, path: str) -> list[str]:
    name = os.path.relpath(path, world.site)
    with open(world.record, encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file if line.startswith(f"{name},")]


def replace_rows(world: World, path: str, *new: str) -> None:
    old = rows(world, path)
    with open(world.record, encoding="utf-8") as file:
        text = file.read()
    with open(world.record, "w", encoding="utf-8") as file:
        file.write(text.replace(old[0] + "\n", "".join(row + "\n" for row in new)))


@pytest.mark.parametrize("kept", [True, False], ids=["with nixpatch.json", "without"])
def test_a_changed_byte_where_a_run_seems_to_have_been_killed(
    world: World, nixpatch: Run, kept: bool
) -> None:
    """RECORD has the original's row, as before a run writes it down."""
    original = rows(world, world.extension)
    assert nixpatch(world.venv)[0] == 0
    replace_rows(world, world.extension, *original)
    if not kept:
        os.unlink(os.path.join(world.info, provenance.NAME))
    flip(world.extension)

    for _ in range(2):
        code, out, _ = nixpatch(world.venv)
        if kept:
            assert code == 1
            assert "another tool changed the file after the patch" in " ".join(out.split())
        else:
            assert "an undo record, which is ignored" in " ".join(out.split())
        assert rows(world, world.extension) == original
        assert nixpatch("verify", world.venv)[0] == 1


@pytest.mark.parametrize("kind", ["digest", "size"])
def test_a_row_that_was_wrong_as_published(world: World, nixpatch: Run, kind: str) -> None:
    """The same answer each time, and advice that helps; restore gives back what was there."""
    (right,) = rows(world, world.extension)
    wrong = right.replace("sha256=", "sha256=x") if kind == "digest" else right + "0"
    replace_rows(world, world.extension, wrong)
    before = world.snapshot()

    for _ in range(3):
        code, out, _ = nixpatch(world.venv)
        assert code == 1
        assert "--accept-modified updates the row" in " ".join(out.split())
        assert rows(world, world.extension) == [wrong]
        code, out, _ = nixpatch("verify", world.venv)
        assert code == 1
        assert "--accept-modified updates the row" in " ".join(out.split())
    for _ in range(2):
        assert nixpatch("restore", world.venv)[0] == 0
        assert world.snapshot() == before


def test_accepted_rows_are_right_until_a_restore_brings_the_old_ones_back(
    world: World, nixpatch: Run
) -> None:
    (right,) = rows(world, world.extension)
    replace_rows(world, world.extension, right.replace("sha256=", "sha256=x"))
    before = world.snapshot()
    assert nixpatch(world.venv)[0] == 1  # and accepted only then

    for options in (["--accept-modified"], [], ["--append-rpath", "/nix/extra"]):
        assert nixpatch(world.venv, *options)[0] == 0
        assert rows(world, world.extension) == [record_row(world.extension, world.site)]
        assert nixpatch("verify", world.venv)[0] == 0

    assert nixpatch("restore", world.venv)[0] == 0
    assert world.snapshot() == before


def test_two_rows_for_one_file_of_which_one_is_wrong(world: World, nixpatch: Run) -> None:
    (right,) = rows(world, world.extension)
    wrong = right.replace("sha256=", "sha256=x")
    replace_rows(world, world.extension, wrong, right)
    before = world.snapshot()

    for _ in range(2):
        assert nixpatch(world.venv)[0] == 0
        assert rows(world, world.extension) == [wrong, record_row(world.extension, world.site)]
        code, out, _ = nixpatch("verify", "-v", world.venv)
        assert (code, "another row" in out) == (0, True)
    assert nixpatch("restore", world.venv)[0] == 0
    assert world.snapshot() == before


def test_verify_accepts_a_wheel_that_was_published_with_a_wrong_record(world: World, nixpatch: Run) -> None:
    """Also for files that nixpatch does not change; what was changed after the patch stays an error."""
    module = os.path.join(world.site, "pkg", "__init__.py")
    for path in (world.extension, module):
        (right,) = rows(world, path)
        replace_rows(world, path, right.replace("sha256=", "sha256=x"))
    assert nixpatch(world.venv, "--accept-modified")[0] == 0

    code, out, _ = nixpatch("verify", world.venv)
    assert (code, "if its wheel was published so, verify --accept-modified" in out) == (1, True)
    code, out, _ = nixpatch("verify", "--accept-modified", world.venv)
    assert (code, "pkg/__init__.py: differs from RECORD" in out) == (0, True)
    flip(world.extension)
    assert nixpatch("verify", "--accept-modified", world.venv)[0] == 1


@pytest.mark.parametrize("kind", ["adjusted", "missing", "without a digest", "none"])
def test_verify_compares_provenance_with_the_file_whatever_record_says(
    world: World, nixpatch: Run, kind: str
) -> None:
    if kind == "none":
        os.unlink(world.record)
    assert nixpatch(world.venv)[0] == 0
    assert nixpatch("verify", world.venv)[0] == 0
    flip(world.extension)
    new = {
        "adjusted": (record_row(world.extension, world.site),),
        "missing": (),
        "without a digest": (os.path.relpath(world.extension, world.site) + ",,",),
    }
    if kind in new:
        replace_rows(world, world.extension, *new[kind])

    code, out, _ = nixpatch("verify", world.venv)

    assert code == 1
    assert "pkg/_ext.so: was changed after nixpatch" in out


@pytest.mark.parametrize("same", [True, False])
def test_verify_notices_a_patched_file_that_is_a_link_now(world: World, nixpatch: Run, same: bool) -> None:
    assert nixpatch(world.venv)[0] == 0
    os.rename(world.extension, world.extension + "-moved")
    os.symlink("_ext.so-moved" if same else world.program, world.extension)

    code, out, _ = nixpatch("verify", world.venv)

    assert code == 1
    assert "pkg/_ext.so: was patched and is a link now" in out


def test_a_row_without_digest_beside_a_wrong_one_is_a_plain_install(world: World, nixpatch: Run) -> None:
    """As of numpy 1.26: the wheel brings a .pyc with a row, and pip compiles it anew and adds another."""
    compiled = write(os.path.join(world.site, "pkg", "__pycache__", "m.cpython-311.pyc"), b"compiled")
    name = os.path.relpath(compiled, world.site)
    with open(world.record, "a", encoding="utf-8") as file:
        file.write(f"{name},,\n{name},sha256=zd9yf0Ycn-ffRFlFlSAZzXZuBjj2t-2rX1pwgtsyCPk,14202\n")
    assert nixpatch(world.venv)[0] == 0

    code, out, _ = nixpatch("verify", world.venv)

    assert (code, "__pycache__" in out) == (0, False)


@pytest.mark.parametrize("kind", ["wrong", "md5", "size"])
def test_the_row_of_a_script(world: World, nixpatch: Run, kind: str) -> None:
    """The same story for scripts, whose first line nixpatch changes."""
    add_opener(world)
    script = os.path.join(world.venv, "bin", "opener-run")
    record = os.path.join(world.site, "opener-2.0.dist-info", "RECORD")
    name = os.path.relpath(script, world.site)
    text = content(record).decode()
    (right,) = [line for line in text.splitlines() if line.startswith(f"{name},")]
    md5 = row(name, content(script), "md5").decode()
    odd = {"wrong": right.replace("sha256=", "sha256=x"), "md5": md5, "size": right + "0"}[kind]
    write(record, text.replace(right, odd).encode())
    before = world.snapshot()

    if kind != "md5":
        for _ in range(2):
            code, out, _ = nixpatch(world.venv)
            assert (code, "--accept-modified updates the row" in " ".join(out.split())) == (1, True)
            assert nixpatch("verify", world.venv)[0] == 1
            assert odd in content(record).decode().splitlines()
    for options in (["--accept-modified"], []):
        assert nixpatch(world.venv, *options)[0] == 0
        assert nixpatch("verify", world.venv)[0] == 0
    assert odd not in content(record).decode().splitlines()
    assert nixpatch("restore", world.venv)[0] == 0
    assert world.snapshot() == before
