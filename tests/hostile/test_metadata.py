"""What lies beside the files themselves: signatures, other digests, SBOMs, eggs, unpacked wheels."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
from collections.abc import Callable

import pytest

from nixpatch import elf
from nixpatch.installed import record
from nixpatch.installed.hashing import hash_file
from nixpatch.model import ElfFacts, FileHash
from support.world import Run, World, record_row, shared

pytestmark = pytest.mark.gcc


def patched(path: str) -> bool:
    facts = elf.read(path)
    return isinstance(facts, ElfFacts) and facts.original_sha256 is not None


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def write(path: str, data: bytes) -> str:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    return path


def wrong_rows(directory: str, book: str) -> list[str]:
    """Return the rows of a RECORD that do not describe their files."""
    wrong = []
    for row in record.parse(read(book)).rows:
        path = os.path.join(directory, row.path or "")
        found: FileHash = hash_file(path, {"sha256", row.check_algorithm or "sha256"})
        if row.agrees(found) is False:
            wrong.append(row.path or "")
    return wrong


@pytest.mark.parametrize("algorithm", ["sha384", "sha512", "md5"])
def test_a_row_keeps_its_algorithm_if_that_is_a_good_one(world: World, nixpatch: Run, algorithm: str) -> None:
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, read(world.extension)).digest()).rstrip(b"=")
    old = record_row(world.extension, world.site).encode()
    size = old.rpartition(b",")[2]
    row = b"pkg/_ext.so," + algorithm.encode() + b"=" + digest + b"," + size
    write(world.record, read(world.record).replace(old, row))

    assert nixpatch(world.venv)[0] == 0

    (line,) = [line for line in read(world.record).splitlines() if line.startswith(b"pkg/_ext.so,")]
    assert line.startswith(b"pkg/_ext.so," + {"md5": "sha256"}.get(algorithm, algorithm).encode() + b"=")
    assert wrong_rows(world.site, world.record) == []


@pytest.mark.parametrize("name", ["RECORD.jws", "RECORD.p7s"])
@pytest.mark.parametrize("listed", [True, False])
def test_a_signature_of_record_stays_and_fits_again_after_restore(
    world: World, nixpatch: Run, name: str, listed: bool
) -> None:
    signature = write(os.path.join(world.info, name), b"signed")
    if listed:
        world.write_record(f"pkg-1.0.dist-info/{name},,")
    before = read(world.record)

    code, out, _ = nixpatch(world.venv)

    assert code == 0
    assert f"{name}: signs RECORD as it was installed" in out
    assert read(signature) == b"signed"
    code, out, _ = nixpatch("restore", world.venv)
    assert (code, name in out) == (0, False)
    assert (read(signature), read(world.record)) == (b"signed", before)


FORMS: dict[str, Callable[[bytes], bytes]] = {
    "no line feed at the end": lambda data: data.removesuffix(b"\n"),
    "one row without a line feed behind CRLF": lambda data: data.replace(b"\n", b"\r\n")[:-2],
    "CRLF": lambda data: data.replace(b"\n", b"\r\n"),
    "two line endings": lambda data: data.replace(b"\n", b"\r\n", 2),
    "quotes": lambda data: b"".join(
        b",".join(b'"' + field + b'"' for field in line.split(b",")) + b"\n" for line in data.splitlines()
    ),
    "backwards": lambda data: b"".join(reversed(data.splitlines(keepends=True))),
    "blank lines and comments": lambda data: b"\n# of a packager\n" + data + b"\n\n",
    "other spellings of paths": lambda data: data.replace(b"pkg/", b"./pkg/"),
    "an open quote at the end": lambda data: data + b'"x,,\n',
}


def _hash(algorithm: str, data: bytes) -> bytes:
    return base64.urlsafe_b64encode(hashlib.new(algorithm.lower(), data).digest())


ROWS: dict[str, Callable[[bytes], bytes]] = {
    "md5": lambda data: b"md5=%b,%d" % (_hash("md5", data).rstrip(b"="), len(data)),
    "sha1 with padding": lambda data: b"sha1=%b,%d" % (_hash("sha1", data), len(data)),
    "sha512 in capitals": lambda data: b"SHA512=%b," % _hash("sha512", data),
    "capitals and padding": lambda data: b"SHA256=%b,%d" % (_hash("sha256", data), len(data)),
    "a zero before the size": lambda data: b"sha256=%b,0%d" % (_hash("sha256", data).rstrip(b"="), len(data)),
    "quotes": lambda data: b'"sha256=%b","%d"' % (_hash("sha256", data).rstrip(b"="), len(data)),
    "no size": lambda data: b"sha256=%b," % _hash("sha256", data).rstrip(b"="),
    "a size alone": lambda data: b",%d" % len(data),
    "nothing": lambda _: b",",
    "an unknown algorithm": lambda data: b"crc=1234,%d" % len(data),
}


@pytest.mark.parametrize("fields", ROWS)
@pytest.mark.parametrize("more", [[], ["--append-rpath", "/nix/extra"]], ids=["once", "twice"])
def test_any_row_comes_back_byte_for_byte(world: World, nixpatch: Run, fields: str, more: list[str]) -> None:
    data = read(world.extension)
    old = record_row(world.extension, world.site).encode()
    before = read(world.record).replace(old, b"pkg/_ext.so," + ROWS[fields](data)).removesuffix(b"\n")
    write(world.record, before)

    assert nixpatch(world.venv)[0] == 0
    assert nixpatch(world.venv, *more)[0] == 0
    assert nixpatch("verify", world.venv)[0] == 0
    assert nixpatch("restore", world.venv)[0] == 0

    assert (read(world.record), read(world.extension)) == (before, data)
    assert set(os.listdir(world.info)) == {"METADATA", "RECORD"}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("more", [[], ["--append-rpath", "/nix/extra"]], ids=["once", "twice"])
def test_record_comes_back_byte_for_byte(world: World, nixpatch: Run, form: str, more: list[str]) -> None:
    with open(world.record, "rb") as file:
        before = FORMS[form](file.read())
    write(world.record, before)
    signature = write(os.path.join(world.info, "RECORD.jws"), b"signed")

    assert nixpatch(world.venv)[0] == 0
    assert nixpatch(world.venv, *more)[0] == 0
    assert read(world.record) != before
    assert nixpatch("verify", world.venv)[0] == 0
    assert nixpatch("restore", world.venv)[0] == 0

    assert (read(world.record), read(signature)) == (before, b"signed")


def test_a_plan_and_a_run_that_changes_nothing_leave_a_signature(world: World, nixpatch: Run) -> None:
    signature = write(os.path.join(world.info, "RECORD.jws"), b"signed")
    assert nixpatch("plan", world.venv)[0] == 0
    assert read(signature) == b"signed"


def test_a_dist_without_record_is_patched_and_gets_none(world: World, nixpatch: Run) -> None:
    os.unlink(world.record)
    before = world.snapshot()

    code, out, _ = nixpatch(world.venv)

    assert code == 0, out
    assert patched(world.extension)
    assert not os.path.exists(world.record)
    assert nixpatch("verify", world.venv)[0] == 0
    assert nixpatch("restore", world.venv)[0] == 0
    assert world.snapshot() == before


def test_a_dist_without_record_is_left_if_only_what_is_owned_is_wanted(world: World, nixpatch: Run) -> None:
    os.unlink(world.record)
    before = world.snapshot()
    nixpatch(world.venv, "--owned-only")
    assert world.snapshot() == before


def test_eggs_and_editable_installs_lead_nowhere(world: World, nixpatch: Run) -> None:
    """Their files are named by other means than RECORD; what lies outside the tree is no business of ours."""
    library = os.path.join(world.library, "libanswer.so.1")
    outside = shared("extension.c", os.path.join(world.root, "src", "build", "_dev.so"), library)
    before = read(outside)
    write(os.path.join(world.site, "__editable__.dev.pth"), os.fsencode(os.path.join(world.root, "src")))
    write(os.path.join(world.site, "dev.egg-link"), os.fsencode(os.path.join(world.root, "src") + "\n."))
    egg = os.path.join(world.site, "old-1.0-py3.11.egg-info")
    write(os.path.join(egg, "PKG-INFO"), b"Metadata-Version: 1.0\nName: old\nVersion: 1.0\n")
    listing = write(
        os.path.join(egg, "installed-files.txt"), b"../old/_old.so\n../../../../../src/build/_dev.so\n"
    )
    inside = shared("extension.c", os.path.join(world.site, "old", "_old.so"), library)

    assert nixpatch(world.venv)[0] == 0

    assert read(outside) == before
    assert patched(inside)
    assert read(listing) == b"../old/_old.so\n../../../../../src/build/_dev.so\n"
    assert sorted(os.listdir(egg)) == ["PKG-INFO", "installed-files.txt"]


def test_what_no_dist_claims_is_patched_and_told_or_left_if_so_wished(world: World, nixpatch: Run) -> None:
    made = os.path.join(world.site, "pkg", "cache", "kernel.so")
    shared("extension.c", made, os.path.join(world.library, "libanswer.so.1"), "-DMADE")

    nixpatch(world.venv, "--owned-only")
    assert not patched(made)
    code, out, _ = nixpatch(world.venv)

    assert (code, patched(made)) == (0, True)
    assert "(no dist)" in out
    assert b"kernel.so" not in read(world.record)


def test_an_sbom_stays_byte_for_byte(world: World, nixpatch: Run) -> None:
    """PEP 770; the digests of components in it speak of what they were made from."""
    data = b'{"bomFormat": "CycloneDX",\r\n "components": [{"name": "answer", "hashes": []}]}'
    path = write(os.path.join(world.info, "sboms", "auditwheel.cdx.json"), data)
    world.write_record(record_row(path, world.site))

    assert nixpatch(world.venv)[0] == 0

    assert read(path) == data
    assert record_row(path, world.site).encode() in read(world.record)


def test_an_unpacked_wheel_can_be_packed_again(world: World, nixpatch: Run) -> None:
    """As ``wheel unpack`` leaves it: programs are in ``.data/scripts``, and RECORD names them there."""
    wheel = os.path.join(world.root, "unpacked", "pkg-1.0")
    library = os.path.join(world.library, "libanswer.so.1")
    extension = shared("extension.c", os.path.join(wheel, "pkg", "_ext.so"), library)
    script = os.path.join(wheel, "pkg-1.0.data", "scripts", "pkg-tool")
    os.makedirs(os.path.dirname(script))
    shutil.copy(world.program, script)
    info = os.path.join(wheel, "pkg-1.0.dist-info")
    metadata = write(os.path.join(info, "METADATA"), b"Metadata-Version: 2.1\nName: pkg\nVersion: 1.0\n")
    rows = [record_row(path, wheel) for path in (extension, script, metadata)]
    book = write(os.path.join(info, "RECORD"), "\n".join([*rows, "pkg-1.0.dist-info/RECORD,,\n"]).encode())

    code, out, _ = nixpatch(wheel, "--python", os.path.join(world.venv, "bin", "python"))

    assert code == 0, out
    assert patched(extension)
    assert patched(script)
    assert wrong_rows(wheel, book) == []
