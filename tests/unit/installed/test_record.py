from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from nixpatch.errors import FileRefused
from nixpatch.installed import record
from nixpatch.installed.hashing import hash_file
from nixpatch.installed.record import parse
from nixpatch.model import FileHash
from support.installed_trees import digest, row, write

NEW = b"patched"


def hashed(data: bytes = NEW, *algorithms: str) -> FileHash:
    names = algorithms or ("sha256",)
    return FileHash(len(data), {name: hashlib.new(name, data).digest() for name in names})


def changed(data: bytes, path: str, *algorithms: str) -> bytes:
    return parse(data).with_changes({path: hashed(NEW, *algorithms)}).data


@pytest.mark.parametrize("ending", [b"\r\n", b"\n", b"\r"])
def test_a_change_keeps_the_other_rows_their_order_and_the_line_ending(ending: bytes) -> None:
    before = [row("z/b.py"), row("a/m.so"), b"z-1.dist-info/RECORD,,", b""]
    after = [row("z/b.py"), row("a/m.so", NEW), b"z-1.dist-info/RECORD,,", b""]

    assert changed(ending.join(before), "a/m.so") == ending.join(after)


def test_a_last_row_without_line_ending_stays_without() -> None:
    assert changed(row("a.py") + b"\n" + row("m.so"), "m.so") == row("a.py") + b"\n" + row("m.so", NEW)


def test_quoting_is_kept_as_each_row_has_it() -> None:
    data = b'"a,b.so","sha256=x","1"\n"c.so",sha256=x,1\n"with ""quotes"".so",sha256=x,"1"\n'
    new = digest(NEW)

    result = parse(data).with_changes(dict.fromkeys(("a,b.so", "c.so", 'with "quotes".so'), hashed())).data

    assert (
        result
        == (
            f'"a,b.so","sha256={new}","7"\n"c.so",sha256={new},7\n"with ""quotes"".so",sha256={new},"7"\n'
        ).encode()
    )


def test_a_quoted_name_may_hold_a_newline() -> None:
    data = b'"two\nlines.so",sha256=x,1\r\nother.so,sha256=y,2\r\n'

    assert [item.path for item in parse(data).rows] == ["two\nlines.so", "other.so"]
    assert changed(data, "two\nlines.so").endswith(b"\r\nother.so,sha256=y,2\r\n")


def test_rows_of_another_shape_are_kept_and_mean_nothing() -> None:
    odd = b"\n,\na,b.so,sha256=x,1\nlonely\n" + b'"never closed,sha256=x,1\n'
    data = row("m.so") + b"\n" + odd

    assert [item.path for item in parse(data).rows if item.path is not None] == ["m.so"]
    assert changed(data, "m.so") == row("m.so", NEW) + b"\n" + odd


@pytest.mark.parametrize("old", [b"m.so,,\n", b"m.so,,\r\n"])
def test_a_row_without_hash_stays_without(old: bytes) -> None:
    assert changed(old, "m.so") == old


def test_a_size_that_was_given_is_kept_true() -> None:
    assert changed(b"m.so,,3\n", "m.so") == b"m.so,,7\n"
    assert changed(b"m.so,sha256=x,\n", "m.so") == f"m.so,sha256={digest(NEW)},\n".encode()


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_a_good_algorithm_is_kept(algorithm: str) -> None:
    old, new = row("m.so", b"old", algorithm), row("m.so", NEW, algorithm)

    assert parse(old).algorithms(["m.so"]) == {algorithm}
    assert changed(old, "m.so", algorithm) == new


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha224", "crc32", "shake_128"])
def test_a_poor_or_unknown_algorithm_becomes_sha256(algorithm: str) -> None:
    old = f"m.so,{algorithm}=AAAA,3\n".encode()

    assert "sha256" in parse(old).algorithms(["m.so"])
    assert changed(old, "m.so") == row("m.so", NEW) + b"\n"


def test_a_digest_that_was_not_computed_is_replaced_by_sha256() -> None:
    assert parse(row("n", b"old", "sha512")).with_row("n", hashed()).data == row("n", NEW)


def test_a_hash_that_names_no_algorithm_becomes_sha256() -> None:
    assert changed(b"m.so,abcdef,3\n", "m.so") == row("m.so", NEW) + b"\n"


def test_every_row_of_a_file_that_is_listed_twice_changes() -> None:
    old, new = row("m.so") + b"\n", row("m.so", NEW) + b"\n"

    assert changed(old + b"a.py,,\n" + old, "m.so") == new + b"a.py,,\n" + new


def test_a_path_that_no_row_has_is_an_error_of_the_caller() -> None:
    with pytest.raises(KeyError):
        parse(row("m.so")).with_changes({"n.so": hashed()})


@pytest.mark.parametrize("ending", [b"\r\n", b"\n"])
def test_a_file_is_added_once_and_updated_after_that(ending: bytes) -> None:
    data = row("m.so") + ending
    path = "m-1.dist-info/nixpatch.json"

    first = parse(data).with_row(path, hashed(b"one"))
    second = parse(first.data).with_row(path, hashed(b"two"))

    assert first.data == data + row(path, b"one") + ending
    assert second.data == data + row(path, b"two") + ending
    assert second.without(path).data == data


def test_a_row_can_be_added_to_any_file() -> None:
    assert parse(b"").with_row("n", hashed()).data == row("n", NEW) + b"\n"
    before_last = parse(b"m.so,,").with_row("n", hashed())
    assert before_last.data == row("n", NEW) + b"\nm.so,,"
    assert before_last.without("n").data == b"m.so,,"
    assert parse(b"").with_row('a,"b', hashed()).data == f'"a,""b",sha256={digest(NEW)},7\n'.encode()


def test_a_row_added_to_a_file_that_ends_in_an_open_quote_can_be_read_back() -> None:
    data = parse(b'm.so,,\n"open,,\n').with_row("n", hashed()).data

    assert [item.path for item in parse(data).rows] == ["m.so", "n", None]


def test_names_that_are_not_utf_8_survive() -> None:
    name = os.fsdecode(b"caf\xe9/m.so")

    assert changed(b"caf\xe9/m.so,sha256=x,1\n", name) == row(name, NEW) + b"\n"


def test_a_row_tells_whether_a_file_is_the_one_it_describes() -> None:
    described = parse(row("m.so", NEW)).rows[0]
    by_md5 = parse(row("m.so", NEW, "md5")).rows[0]

    assert described.agrees(hashed()) is True
    assert described.agrees(hashed(b"strange")) is False
    assert described.agrees(hashed(NEW + b"longer")) is False
    assert by_md5.check_algorithm == "md5"
    assert by_md5.agrees(hashed(NEW, "md5")) is True
    assert by_md5.agrees(hashed(b"strange", "md5")) is False
    assert parse(b"m.so,,\n").rows[0].agrees(hashed()) is None
    assert parse(b"m.so,crc32=x,\n").rows[0].agrees(hashed()) is None


def test_a_padded_digest_is_the_same_digest() -> None:
    padded = row("m.so", NEW).replace(b",7", b"=,7")

    assert parse(padded).rows[0].agrees(hashed()) is True


def test_the_quick_reader_sees_the_same_paths() -> None:
    data = b'a.py,,\n"b,c.so",sha256=x,1\nd,e,f,g\n\nx.so,sha256=x,\n"open,,'

    assert list(record.paths(data)) == [item.path for item in parse(data).rows if item.path is not None]


def test_a_record_of_absurd_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "MAX_RECORD_SIZE", 10)

    with pytest.raises(FileRefused):
        parse(b"m.so,sha256=x,1\n")


def test_one_pass_gives_every_digest(tmp_path: Path) -> None:
    data = os.urandom((1 << 20) + 17)
    path = write(tmp_path / "m.so", data)

    found = hash_file(path, ["sha256", "md5"])

    assert found == hashed(data, "sha256", "md5")


def test_a_descriptor_is_hashed_from_its_start_and_stays_where_it_is(tmp_path: Path) -> None:
    with open(write(tmp_path / "m.so", NEW), "rb", buffering=0) as file:
        file.seek(3)

        assert hash_file(file.fileno()) == hashed()
        assert file.tell() == 3


def test_no_link_and_no_fifo_is_hashed(tmp_path: Path) -> None:
    write(tmp_path / "m.so")
    os.symlink("m.so", tmp_path / "link.so")
    os.mkfifo(tmp_path / "fifo")

    for name in ("link.so", "fifo"):
        with pytest.raises(OSError, match=name):
            hash_file(str(tmp_path / name))


def test_rows_of_nixpatch_have_one_order_whichever_comes_first() -> None:
    record = parse(b"nixpatch/__init__.py,,\nm.so,,\n")
    names = ("nixpatch-pkg.pth", "pkg.dist-info/nixpatch.json", "pkg.dist-info/sboms/nixpatch.cdx.json")
    first, second = record, record
    for name in names:
        first = first.with_announced(name).with_contents(name, b"")
    for name in reversed(names):
        second = second.with_contents(name, b"")
    assert first.data == second.data
    for name in names:
        first = first.without(name)
    assert first == record
