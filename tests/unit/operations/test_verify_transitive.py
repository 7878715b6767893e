"""Needs behind needs: what ends a load, told once, at the file that lacks something."""

from dataclasses import replace

from nixpatch.model import ElfFacts, Finding
from nixpatch.operations.plan import Reader
from nixpatch.operations.verify_transitive import unmet_needs
from support.resolving import LOADER, SITE, STORE, TARGET, elf

LIB = f"{STORE}/eeee-pulse/lib"


def looked_at(
    tree: dict[str, ElfFacts], store: dict[str, ElfFacts], known: tuple[Finding, ...] = ()
) -> list[str]:
    reader = Reader()
    reader.known.update(tree | store)
    reader.known |= {TARGET.python: elf(interp=LOADER), LOADER: elf(soname="ld-linux-x86-64.so.2")}
    found = unmet_needs(
        tree, replace(TARGET), reader, ignored=lambda _, need: need == "libmay.so", known=known
    )
    return [f"{finding.path}: {finding.text}" for finding in found]


TREE = {
    f"{SITE}/a/x.so": elf("libpulse.so.0", path=LIB),
    f"{SITE}/a/y.so": elf("libpulse.so.0", path=LIB),
}


def test_a_library_behind_that_lacks_something_is_named_once() -> None:
    told = looked_at(TREE, {f"{LIB}/libpulse.so.0": elf("libgone.so", soname="libpulse.so.0")})

    text = f"needs libgone.so, which ld.so does not find; loaded by {SITE}/a/x.so and 1 more"
    assert told == [f"{LIB}/libpulse.so.0: {text}"]


def test_nothing_is_said_where_all_is_found_or_may_be_missing() -> None:
    assert looked_at(TREE, {f"{LIB}/libpulse.so.0": elf(soname="libpulse.so.0")}) == []
    assert looked_at(TREE, {f"{LIB}/libpulse.so.0": elf("libmay.so", soname="libpulse.so.0")}) == []


def test_what_a_file_itself_lacks_is_not_repeated() -> None:
    known = (Finding("error", f"{SITE}/a/y.so", "needs libgone.so, which nothing provides"),)
    tree = {f"{SITE}/a/x.so": elf("y.so", path="$ORIGIN"), f"{SITE}/a/y.so": elf("libgone.so", soname="y.so")}

    assert looked_at(tree, {}, known) == []
    assert len(looked_at(tree, {})) == 1
