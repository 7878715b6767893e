"""Names of grafts, and who may take their place: decisions over values, without files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import pytest

from nixpatch.model import Definition, Provider, Reference, SymbolKind, Symbols, TreeFile
from nixpatch.unvendor.decision import (
    UnvendorCandidate,
    UnvendorInputs,
    decide,
    is_selected,
    possible_sonames,
    unmangled,
)
from nixpatch.unvendor.symbol_binding import LinkedFiles, ServedNeed, Substitute, conflicts, match, scope
from support.resolving import SITE, elf, provider

LIBS = f"{SITE}/pkg.libs"
GRAFT, OTHER = f"{LIBS}/libz-0badf00d.so.1.2.11", f"{LIBS}/liby-0badf00d.so.2"
EXT = f"{SITE}/pkg/ext.so"
STORE_Z, STORE_Y = "/nix/store/aaaa-zlib/lib/libz.so.1", "/nix/store/bbbb-y/lib/liby.so.2"


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("libz-0badf00d.so.1.2.11", "libz.so.1.2.11"),
        ("libgfortran-040039e1-0352e75f.so.5.0.0", "libgfortran.so.5.0.0"),
        ("libscipy_openblas64_-32a4b2a6.so", "libscipy_openblas64_.so"),
        ("libfoo-1.2-0badf00d.so.3", "libfoo-1.2.so.3"),
        ("libfoo-0badf00d.cpython-311.so", "libfoo.cpython-311.so"),
        ("libz.so.1.2.11", None),
        ("libz-0BADF00D.so.1", None),
        ("libz-0badf00.so.1", None),
        ("libz-0badf00d.dylib", None),
        ("-0badf00d.so", None),
    ],
)
def test_unmangled(name: str, plain: str | None) -> None:
    assert unmangled(name) == plain


def test_possible_sonames() -> None:
    assert possible_sonames("libz.so.1.2.11") == ("libz.so.1.2.11", "libz.so.1.2", "libz.so.1", "libz.so")
    assert possible_sonames("libfoo-1.2.so") == ("libfoo-1.2.so",)


@pytest.mark.parametrize("glob", ["*", "libz*", "libz.so.1", "libz.so.1.2.11", "libz-0badf00d*"])
def test_globs_that_mean_it(glob: str) -> None:
    assert is_selected([glob], "libz-0badf00d.so.1.2.11", "libz.so.1.2.11")


@pytest.mark.parametrize("glob", ["libz", "libzstd*", "libz.so.2"])
def test_globs_that_do_not(glob: str) -> None:
    assert not is_selected([glob], "libz-0badf00d.so.1.2.11", "libz.so.1.2.11")


def exports(**kinds: tuple[SymbolKind, int]) -> dict[str, tuple[Definition, ...]]:
    return {name: (Definition(None, 1, False, kind, size, False),) for name, (kind, size) in kinds.items()}


def imports(*names: str) -> tuple[Reference, ...]:
    return tuple(Reference(name, None, None) for name in names)


CODE = (SymbolKind.CODE, 10)
PLAIN: Mapping[str, Symbols] = {
    EXT: Symbols(exports(init=CODE), imports("inflate", "table"), False),
    GRAFT: Symbols(exports(inflate=CODE, table=(SymbolKind.DATA, 8)), (), False),
    STORE_Z: Symbols(exports(inflate=CODE, table=(SymbolKind.DATA, 8), newer=CODE), (), False),
}
NEEDS: Mapping[str, tuple[ServedNeed, ...]] = {EXT: (ServedNeed("libz-0badf00d.so.1.2.11", GRAFT),)}
INSTEAD = {GRAFT: Substitute("libz.so.1", STORE_Z)}


def world(
    symbols: Mapping[str, Symbols], needs: Mapping[str, tuple[ServedNeed, ...]] = NEEDS, **more: object
) -> LinkedFiles:
    return LinkedFiles(
        needs=lambda path: needs.get(path, ()),
        symbols=lambda path: symbols[path],
        in_tree=lambda path: path.startswith(SITE),
        is_libc=lambda soname: soname == "libc.so.6",
        **more,  # type: ignore[arg-type]
    )


def told(symbols: Mapping[str, Symbols], **more: object) -> list[str]:
    around = world({**PLAIN, **symbols}, NEEDS, **more)
    return [one.text for one in conflicts([EXT], around, INSTEAD)]


def test_the_same_symbols_conflict_with_nothing() -> None:
    assert told({}) == []


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        (exports(inflate=CODE), "table, imported by .* is not exported by"),
        (exports(inflate=CODE, table=(SymbolKind.DATA, 16)), "16 bytes, not 8"),
        (exports(inflate=(SymbolKind.DATA, 8), table=(SymbolKind.DATA, 8)), "a object, not a function"),
        (exports(inflate=CODE, table=(SymbolKind.DATA, 8), init=CODE), "init, which .* would be answered by"),
    ],
)
def test_what_speaks_against(theirs: Mapping[str, tuple[Definition, ...]], text: str) -> None:
    (found,) = told({STORE_Z: Symbols(theirs, (), False)})
    assert re.search(text, found)


@pytest.mark.parametrize("dark", [EXT, GRAFT, STORE_Z])
def test_what_cannot_be_read_speaks_against(dark: str) -> None:
    found = told({}, unreadable=lambda path: "its disk" if path == dark else None)
    assert found == [f"the symbols of {dark} cannot be read: its disk"]


def test_the_symbol_that_names_a_version_is_no_conflict() -> None:
    node = {"V_1": (Definition("V_1", 2, False, SymbolKind.DATA, 0, False),)}
    mine = Symbols({**PLAIN[EXT].defined, **node}, PLAIN[EXT].wanted, True)
    theirs = Symbols({**PLAIN[STORE_Z].defined, **node}, (), True)
    assert told({EXT: mine, STORE_Z: theirs}) == []


def test_a_program_has_its_copy_of_data() -> None:
    mine = Symbols(exports(table=(SymbolKind.DATA, 8)), imports("inflate"), False)
    theirs = Symbols(exports(inflate=CODE, table=(SymbolKind.DATA, 12)), (), False)
    found = told({EXT: mine, STORE_Z: theirs}, programs=frozenset({EXT}))
    assert f"table, copied into {EXT}, is not of the same size" in found


def test_each_name_is_looked_up_once_breadth_first() -> None:
    needs = {
        EXT: (ServedNeed("a", "/a"), ServedNeed("b", "/b")),
        "/a": (ServedNeed("c", "/c"), ServedNeed("b", "/other-b")),
        "/b": (ServedNeed("c", "/other-c"),),
    }
    assert scope(EXT, world({}, needs), {}) == (EXT, "/a", "/b", "/c")
    assert scope(EXT, world({}, needs), {"/a": Substitute("b", "/new")}) == (EXT, "/new")


def test_match_by_version() -> None:
    old, new = (
        Definition(v, i, h, SymbolKind.CODE, 1, False) for v, i, h in (("V1", 2, True), ("V2", 3, False))
    )
    symbols = Symbols({"f": (old, new), "g": (replace(new, version=None, index=1),)}, (), True)
    assert match(Reference("f", "V1", "x"), symbols) is old
    assert match(Reference("f", "V2", "x"), symbols) is new
    assert match(Reference("f", "V3", "x"), symbols) is None
    assert match(Reference("f", None, None), symbols) is old
    assert match(Reference("g", "V3", "x"), symbols) is not None
    assert match(Reference("h", None, None), symbols) is None


def matter(
    symbols: Mapping[str, Symbols],
    providers: Mapping[str, Provider],
    *candidates: UnvendorCandidate,
    stuck: str = "",
) -> UnvendorInputs:
    names = {found.file.path: found.file.path.rpartition("/")[2] for found in candidates}
    facts = {EXT: elf(*names.values()), **{path: elf(soname=name) for path, name in names.items()}}
    needs = {EXT: tuple(ServedNeed(name, path) for path, name in names.items())}
    return UnvendorInputs(
        candidates=candidates,
        files=world(symbols, needs),
        facts=facts,
        provider=lambda soname, _: providers.get(soname),
        incompatibility=lambda _: None,
        holder_of=lambda _: None,
        unlinkable=lambda path: stuck if path == EXT else None,
    )


def candidate(path: str, *objections: str) -> UnvendorCandidate:
    name = unmangled(path.rpartition("/")[2]) or ""
    return UnvendorCandidate(TreeFile(path, 100, ("/info",)), name, (EXT,), objections)


def test_settle() -> None:
    (plan,) = decide(matter(PLAIN, {"libz.so.1": provider(STORE_Z)}, candidate(GRAFT)))
    assert (plan.goes, plan.soname) == (True, "libz.so.1")
    (plan,) = decide(matter(PLAIN, {}, candidate(GRAFT)))
    assert "the store has no libz.so.1.2.11, libz.so.1.2, libz.so.1, libz.so" in plan.kept[0]
    (plan,) = decide(matter(PLAIN, {"libz.so.1": provider(STORE_Z)}, candidate(GRAFT, "somebody opens it")))
    assert plan.kept == ("somebody opens it",)
    (plan,) = decide(matter(PLAIN, {"libz.so.1": provider(STORE_Z)}, candidate(GRAFT), stuck="signed"))
    assert plan.kept == (f"{EXT} cannot be linked anew: signed",)
    unnamed = replace(provider(STORE_Z), soname="libz-ng.so.2")
    (plan,) = decide(matter(PLAIN, {"libz.so.1": unnamed}, candidate(GRAFT)))
    assert not plan.goes


def test_one_that_stays_does_not_keep_the_other() -> None:
    symbols = {
        **PLAIN,
        OTHER: Symbols(exports(other=CODE), (), False),
        STORE_Y: Symbols(exports(something=CODE), (), False),
        EXT: Symbols(exports(init=CODE), imports("inflate", "table", "other"), False),
    }
    providers = {"libz.so.1": provider(STORE_Z), "liby.so.2": provider(STORE_Y)}
    one, two = decide(matter(symbols, providers, candidate(GRAFT), candidate(OTHER)))
    assert one.goes
    assert two.kept == (f"other, imported by {EXT}, is not exported by {STORE_Y}",)
