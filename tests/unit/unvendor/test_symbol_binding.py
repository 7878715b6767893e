"""Files whose symbols nobody can read: what they need is not known, so nothing in their scope changes."""

import pytest

from nixpatch.model import Definition, Reference, SymbolKind, Symbols
from nixpatch.unvendor.symbol_binding import LinkedFiles, ServedNeed, Substitute, conflicts

USER, GRAFT, OTHER, NEW = "/t/user.so", "/t/libs/libz-1.so", "/t/libs/libo.so", "/s/lib/libz.so.1"
NEEDS = {USER: (ServedNeed("libz-1.so", GRAFT), ServedNeed("libo.so", OTHER)), GRAFT: (), OTHER: (), NEW: ()}
EXPORTS = Symbols({"inflate": (Definition(None, 1, False, SymbolKind.CODE, 8, False),)}, (), versioned=False)
SYMBOLS = {
    USER: Symbols({}, (Reference("inflate", None, None),), versioned=False),
    GRAFT: EXPORTS,
    OTHER: Symbols({}, (), versioned=False),
    NEW: EXPORTS,
}


def _conflicts(unreadable: str = "") -> list[str]:
    world = LinkedFiles(
        NEEDS.__getitem__,
        lambda path: SYMBOLS[OTHER if path == unreadable else path],
        in_tree=lambda path: path.startswith("/t/"),
        is_libc=lambda _: False,
        unreadable=lambda path: "malformed" if path == unreadable else None,
    )
    found = list(conflicts([USER], world, {GRAFT: Substitute("libz.so.1", NEW)}))
    assert all(conflict.replaced == {GRAFT} for conflict in found)
    return [conflict.text for conflict in found]


def test_where_all_is_known_nothing_speaks_against_it() -> None:
    assert _conflicts() == []


@pytest.mark.parametrize("path", [USER, GRAFT, OTHER, NEW])
def test_one_that_cannot_be_read_keeps_the_graft(path: str) -> None:
    assert f"the symbols of {path} cannot be read: malformed" in _conflicts(path)
