"""What fails in one order of imports and not in another."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from nixpatch.model import LoadConflict, TargetLibrary
from nixpatch.resolve.load_order import LibraryUse, load_conflicts

_OLD, _NEW, _ANY = "/old/libv.so.1", "/new/libv.so.1", "/any/libv.so.1"
_DEFS = {_OLD: frozenset({"V1"}), _NEW: frozenset({"V1", "V2"}), _ANY: frozenset[str]()}


def _use(user: str, library: str, *wanted: str) -> LibraryUse:
    return LibraryUse(user, "libv.so.1", library, frozenset(wanted))


def _conflicts(
    *uses: LibraryUse, target: Mapping[str, TargetLibrary] | None = None, ignored: bool = False
) -> list[LoadConflict]:
    def libraries(_sonames: Collection[str]) -> Mapping[str, TargetLibrary]:
        return target or {}

    return list(load_conflicts(uses, libraries, lambda path: _DEFS[path], lambda _path, _soname: ignored))


def test_the_order_in_which_the_library_without_the_version_comes_first_is_named() -> None:
    (conflict,) = _conflicts(
        _use("/a/x.so", _OLD, "V1"), _use("/b/y.so", _NEW, "V2"), _use("/b/z.so", _NEW, "V2")
    )
    assert conflict == LoadConflict("libv.so.1", ("/b/y.so", "/b/z.so"), _NEW, _OLD, "/a/x.so", ("V2",))
    finding = conflict.finding
    assert (finding.severity, finding.path) == ("error", "/b/y.so")
    for part in ("V2 of libv.so.1", _OLD, "for /a/x.so", "1 more file"):
        assert part in finding.text


def test_one_library_for_all_is_no_conflict() -> None:
    assert not _conflicts(_use("/a/x.so", _NEW, "V1"), _use("/b/y.so", _NEW, "V2"))


def test_libraries_that_each_have_all_versions_are_no_conflict() -> None:
    assert not _conflicts(_use("/a/x.so", _OLD, "V1"), _use("/b/y.so", _NEW, "V1"))


def test_a_library_without_versions_satisfies_every_request() -> None:
    assert not _conflicts(_use("/a/x.so", _ANY), _use("/b/y.so", _NEW, "V2"))


def test_a_library_that_the_target_loads_itself_hides_the_one_of_the_tree() -> None:
    target = {"libv.so.1": TargetLibrary(_OLD, "by Python's module _ssl")}
    (conflict,) = _conflicts(_use("/b/y.so", _NEW, "V2"), target=target)
    assert (conflict.other, conflict.loaded_by) == (_OLD, "by Python's module _ssl")
    assert "loaded by Python's module _ssl" in conflict.finding.text


def test_a_soname_that_may_be_missing_is_a_note() -> None:
    (conflict,) = _conflicts(_use("/a/x.so", _OLD, "V1"), _use("/b/y.so", _NEW, "V2"), ignored=True)
    assert conflict.finding.severity == "note"


def test_the_target_is_not_read_for_files_that_want_no_version() -> None:
    def libraries(_sonames: Collection[str]) -> Mapping[str, TargetLibrary]:
        raise AssertionError("read")

    uses = [_use("/a/x.so", _OLD), _use("/b/y.so", _NEW)]
    assert not list(load_conflicts(uses, libraries, lambda path: _DEFS[path], lambda _path, _soname: False))
