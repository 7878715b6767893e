"""Reasons to keep a vendored library, apart from its symbols: its owner, RECORD, code that names it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from fuzz.forge import Forged
from nixpatch import fs
from nixpatch.elf.inplace_writer import write_edited
from nixpatch.installed.dist_records import TreeRecords
from nixpatch.installed.scan import scan
from nixpatch.model import ElfEdit, ElfFacts
from nixpatch.unvendor.objections import objections
from support import recorded
from support.installed_trees import dist as install
from support.installed_trees import row, write
from support.recorded import ENTRY, Recorded
from support.resolving import elf

NAME = "libz-0badf00d.so.1"
COPY = f"pkg.libs/{NAME}"
CONTENTS = Forged().data()


@pytest.fixture
def dist(tmp_path: Path) -> Recorded:
    """A dist with a vendored library and a user, both with headers that can be read."""
    made = recorded.make(str(tmp_path), CONTENTS)
    write(os.path.join(made.site, COPY), CONTENTS)
    made.write(made.read().encode() + row(COPY, CONTENTS) + b"\n")
    return made


def reasons(dist: Recorded, copy: ElfFacts | None = None, *, unread: str = "") -> tuple[str, ...]:
    """Return the reasons to keep the library, for the dist as it is on the disk."""
    tree = scan(dist.site)
    facts = {file.path: elf() for file in tree.files if os.path.basename(file.path) != unread}
    path = os.path.join(dist.site, COPY)
    facts[path] = copy or elf(soname=NAME)
    (file,) = (file for file in tree.files if file.path == path)
    return objections(tree, [file], facts, TreeRecords())[path]


def code(dist: Recorded, text: str, name: str = "pkg/code.py") -> str:
    """Add a file to the dist, and return its path."""
    path = write(os.path.join(dist.site, name), text.encode())
    dist.write(dist.read().encode() + row(name, text.encode()) + b"\n")
    return path


def test_one_that_is_recorded_and_not_named_may_go(dist: Recorded) -> None:
    code(dist, "import ctypes\nctypes.CDLL('libm.so.6')\n")
    assert reasons(dist) == ()


def test_no_dist_claims_it(dist: Recorded) -> None:
    dist.write(row("pkg/x.so", CONTENTS) + b"\n")
    assert reasons(dist) == ("no dist claims it, so nothing could bring it back",)


def test_several_dists_claim_it(dist: Recorded) -> None:
    install(dist.site, "other", {COPY: CONTENTS})
    assert reasons(dist) == ("several dists claim it, so nothing could bring it back",)


def test_record_has_two_rows_for_it(dist: Recorded) -> None:
    dist.write(dist.read().encode() + row(f"./{COPY}", CONTENTS) + b"\n")
    assert reasons(dist) == ("RECORD has 2 rows for it",)


def test_record_describes_another_file(dist: Recorded) -> None:
    write(os.path.join(dist.site, COPY), CONTENTS + b"more")
    assert reasons(dist) == ("RECORD does not describe it as it is",)


def test_record_may_describe_the_original_of_a_patched_one(dist: Recorded) -> None:
    path = os.path.join(dist.site, COPY)
    with fs.replacement(path) as temp:
        write_edited(path, temp, ElfEdit("/somewhere"))
    assert reasons(dist) == ()


def test_a_patched_one_that_was_changed_since_stays(dist: Recorded) -> None:
    path = os.path.join(dist.site, COPY)
    with fs.replacement(path) as temp:
        write_edited(path, temp, ElfEdit("/somewhere"))
    with open(path, "r+b") as file:
        file.seek(len(CONTENTS) - 1)
        byte = file.read(1)[0]
        file.seek(len(CONTENTS) - 1)
        file.write(bytes([byte ^ 1]))
    assert reasons(dist) == ("RECORD does not describe it as it is",)


@pytest.mark.parametrize("algorithm", ["sha512", "md5"])
def test_any_algorithm_of_record_is_compared(dist: Recorded, algorithm: str) -> None:
    dist.write(row("pkg/x.so", CONTENTS) + b"\n" + row(COPY, CONTENTS, algorithm) + b"\n")
    assert reasons(dist) == ()
    write(os.path.join(dist.site, COPY), CONTENTS[:-1] + b"x")
    assert reasons(dist) == ("RECORD does not describe it as it is",)


def test_its_original_is_lost(dist: Recorded) -> None:
    text = "its original is lost: another tool changed it after nixpatch, or LIEF wrote it"
    assert reasons(dist, replace(elf(soname=NAME), stale_undo=True)) == (text,)
    dist.write_provenance({COPY: replace(ENTRY, writer="lief")})
    assert reasons(dist) == (text,)


def test_code_that_has_its_name(dist: Recorded) -> None:
    path = code(dist, f"NAME = '{NAME}'\n")
    assert reasons(dist) == (f"{path} has its name: it may open it",)


@pytest.mark.parametrize(
    ("text", "is_kept"),
    [
        ("import ctypes\nctypes.CDLL(os.path.join(here, 'pkg.libs', name))\n", True),
        ("open_it = dlopen\npath = f'{here}/pkg.libs/{name}'\n", True),
        ("os.add_dll_directory(os.path.join(here, 'pkg.libs'))\n", False),
        ("ctypes.CDLL('libm.so.6')  # see pkg.libs\n", False),
    ],
)
def test_code_that_opens_libraries_and_names_its_directory(dist: Recorded, text: str, is_kept: bool) -> None:
    path = code(dist, text)
    reason = f"{path} opens libraries and has the name of its directory"
    assert reasons(dist) == ((reason,) if is_kept else ())


def test_code_of_another_dist_does_not_count(dist: Recorded) -> None:
    install(dist.site, "other", {"other/code.py": NAME.encode()})
    assert reasons(dist) == ()


def test_code_that_cannot_be_read(dist: Recorded) -> None:
    path = code(dist, "")
    os.unlink(path)
    os.symlink("elsewhere.py", path)
    (reason,) = reasons(dist)
    assert reason.startswith(f"{path} cannot be read (")


def test_a_library_that_has_its_name_outside_of_its_strings(dist: Recorded) -> None:
    assert reasons(dist) == ()
    write(dist.path, Forged().data() + NAME.encode())
    assert reasons(dist) == (f"{dist.path} has its name outside the dynamic section: it may open it",)


def test_a_library_that_has_its_name_as_a_need(dist: Recorded) -> None:
    strings = b"\0libself.so.1\0" + NAME.encode() + b"\0$ORIGIN/../lib\0"
    write(dist.path, Forged(strings=strings, dynamic=[(14, 1), (1, 14)]).data())
    assert reasons(dist) == ()


def test_a_file_whose_headers_cannot_be_read(dist: Recorded) -> None:
    broken = code(dist, "\x7fELF" + "x" * 100, "pkg/broken.so")
    assert reasons(dist, unread="broken.so") == ()
    write(broken, b"\x7fELF" + b"x" * 100 + NAME.encode())
    assert reasons(dist, unread="broken.so") == (
        f"{broken} has its name and is no file that nixpatch can link anew: it may need it",
    )
