from __future__ import annotations

import os
from pathlib import Path

import pytest

from nixpatch.installed.dists import find_dists
from nixpatch.model import Dist
from support.installed_trees import ELF, SITE, dist, write


@pytest.fixture
def prefix(tmp_path: Path) -> str:
    path = os.path.realpath(tmp_path / "venv")
    os.makedirs(os.path.join(path, SITE))
    return path


def only(prefix: str) -> tuple[Dist, tuple[str, ...]]:
    (found,), notes = find_dists(os.path.join(prefix, SITE), prefix)
    return found, notes


def listed(prefix: str, rows: bytes) -> tuple[set[str], tuple[str, ...]]:
    """The files below the prefix that a RECORD of these rows lists, relative to it."""
    dist(os.path.join(prefix, SITE), "pkg", {}, more_rows=rows)
    found, notes = only(prefix)
    own = {os.path.join(found.info, name) for name in ("METADATA", "RECORD")}
    return {os.path.relpath(path, prefix) for path in found.files - own}, notes


def test_name_version_and_requirements_come_from_the_metadata(prefix: str) -> None:
    requires = ("numpy>=1.2", 'Foo.Bar ; extra == "x"')
    info = dist(os.path.join(prefix, SITE), "My_Pkg.x", {"pkg/m.so": ELF}, version="2.0", requires=requires)

    found, notes = only(prefix)

    assert (found.name, found.version, found.requires) == ("my-pkg-x", "2.0", requires)
    assert (found.info, found.site, found.has_record) == (info, os.path.join(prefix, SITE), True)
    assert notes == ()


def test_folded_and_windows_headers_are_read(prefix: str) -> None:
    info = dist(os.path.join(prefix, SITE), "pkg", {})
    text = b"name: pkg\r\nVERSION :3\r\nRequires-Dist: numpy\r\n  >=1.2\r\n\r\nName: body\r\n"
    write(os.path.join(info, "METADATA"), text)

    found, _ = only(prefix)

    assert (found.name, found.version, found.requires) == ("pkg", "3", ("numpy >=1.2",))


def test_without_metadata_the_directory_name_tells(prefix: str) -> None:
    os.unlink(os.path.join(dist(os.path.join(prefix, SITE), "pkg_a", {}, version="4.5"), "METADATA"))

    found, _ = only(prefix)

    assert (found.name, found.version) == ("pkg-a", "4.5")


@pytest.mark.parametrize(
    ("row", "file"),
    [
        (b"pkg/m.so,,", f"{SITE}/pkg/m.so"),
        (b"./pkg/m.so,,", f"{SITE}/pkg/m.so"),
        (b"pkg//./m.so,,", f"{SITE}/pkg/m.so"),
        (b"pkg/../pkg/m.so,,", f"{SITE}/pkg/m.so"),
        (b"pkg\\m.so,,", f"{SITE}/pkg/m.so"),
        (b'"a,b.so",,', f"{SITE}/a,b.so"),
        (b"../../../bin/ruff,,", "bin/ruff"),
        (b"..\\..\\..\\bin\\ruff,,", "bin/ruff"),
        (b"caf\xe9.so,,", os.fsdecode(SITE.encode() + b"/caf\xe9.so")),
    ],
)
def test_every_spelling_of_a_row_means_the_file(prefix: str, row: bytes, file: str) -> None:
    assert listed(prefix, row + b"\n") == ({file}, ())


def test_an_absolute_row_means_the_file(prefix: str) -> None:
    assert listed(prefix, os.fsencode(prefix) + b"/bin/ruff,,\n") == ({"bin/ruff"}, ())


def test_a_back_slash_can_be_part_of_a_name(prefix: str) -> None:
    write(os.path.join(prefix, SITE, "odd\\m.so"))

    assert listed(prefix, b"odd\\m.so,,\n")[0] == {f"{SITE}/odd\\m.so"}


@pytest.mark.parametrize(
    "row", ["../../../../victim.so", "/etc/passwd", "/victim.so", "a/../../../../../x.so"]
)
def test_a_row_that_leaves_the_prefix_is_refused_with_a_note(prefix: str, row: str) -> None:
    files, (note,) = listed(prefix, f"{row},,\n".encode())

    assert files == set()
    assert note.startswith("pkg-1.0.dist-info: 1 of its RECORD rows lead out of ")
    assert note.endswith(row)


def test_a_neighbour_with_the_same_beginning_is_outside(prefix: str) -> None:
    files, notes = listed(prefix, b"../../../../venv-other/m.so,,\n")

    assert (files, len(notes)) == (set(), 1)


def test_many_refused_rows_make_one_note_of_one_line(prefix: str) -> None:
    rows = b'"../../../../new\nline",,\n' + b"/x,,\n" * 3

    _, (note,) = listed(prefix, rows)

    assert " 4 of its RECORD rows" in note
    assert "\n" not in note


def test_a_linked_directory_is_followed_but_only_inside(prefix: str, tmp_path: Path) -> None:
    os.symlink("lib", os.path.join(prefix, "lib64"))
    write(tmp_path / "cache/pkg/m.so")
    os.symlink(tmp_path / "cache/pkg", os.path.join(prefix, SITE, "linked"))

    files, (note,) = listed(prefix, b"../../../lib64/x.so,,\nlinked/m.so,,\n")

    assert files == {"lib/x.so"}
    assert note.endswith("linked/m.so")


def test_a_row_of_a_link_means_the_link(prefix: str) -> None:
    os.symlink("/etc/passwd", os.path.join(prefix, SITE, "link.so"))

    assert listed(prefix, b"link.so,,\n")[0] == {f"{SITE}/link.so"}


def test_directories_and_broken_rows_are_no_files(prefix: str) -> None:
    assert listed(prefix, b"pkg/,,\nlonely\n\n") == (set(), ())


def test_a_dist_without_record_is_known_but_owns_nothing(prefix: str) -> None:
    os.unlink(os.path.join(dist(os.path.join(prefix, SITE), "pkg", {"m.so": ELF}), "RECORD"))

    found, (note,) = only(prefix)

    assert (found.name, found.files, found.has_record) == ("pkg", frozenset(), False)
    assert "pkg-1.0.dist-info" in note


@pytest.mark.parametrize("kind", ["link", "fifo", "directory"])
def test_a_record_that_is_no_file_is_not_read(prefix: str, kind: str) -> None:
    record = os.path.join(dist(os.path.join(prefix, SITE), "pkg", {"m.so": ELF}), "RECORD")
    os.rename(record, os.path.join(prefix, "RECORD"))
    if kind == "link":
        os.symlink(os.path.join(prefix, "RECORD"), record)
    elif kind == "fifo":
        os.mkfifo(record)
    else:
        os.mkdir(record)

    found, (note,) = only(prefix)

    assert not found.has_record
    assert note.startswith("pkg-1.0.dist-info: RECORD is not used: ")


def test_a_linked_dist_info_is_not_trusted_with_a_record(prefix: str, tmp_path: Path) -> None:
    info = dist(tmp_path / "elsewhere", "pkg", {})
    os.symlink(info, os.path.join(prefix, SITE, "pkg-1.0.dist-info"))

    found, notes = only(prefix)

    assert (found.name, found.has_record, len(notes)) == ("pkg", False, 1)


def test_what_an_interrupted_pip_left_behind_is_not_installed(prefix: str) -> None:
    dist(os.path.join(prefix, SITE), "~kg", {})

    dists, (note,) = find_dists(os.path.join(prefix, SITE), prefix)

    assert dists == ()
    assert "~kg-1.0.dist-info" in note


def test_dists_come_sorted(prefix: str) -> None:
    for name in ("b", "c", "a"):
        dist(os.path.join(prefix, SITE), name, {})

    dists, _ = find_dists(os.path.join(prefix, SITE), prefix)

    assert [found.name for found in dists] == ["a", "b", "c"]
