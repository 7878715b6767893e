import os

import pytest

from nixpatch.resolve.search_path import SearchPathParts, expand, join, leads_to, relative_entry, split
from support.resolving import DRIVERS

HERE = "/venv/lib/pkg"
STORE_DIRS = {"/nix/store/a-zlib/lib", "/nix/store/b-gcc/lib", "/nix/store/b-gcc/lib/../lib"}


def sorted_out(search_path: str | None, *, prefix: str = "/venv") -> SearchPathParts:
    return split(
        search_path,
        directory=HERE,
        prefix=prefix,
        store_dir="/nix/store",
        driver_directory=DRIVERS,
        exists=STORE_DIRS.__contains__,
    )


def rewritten(search_path: str | None, *new: str, driver: bool = False, append: tuple[str, ...] = ()) -> str:
    old = sorted_out(search_path)
    directory = DRIVERS if driver or old.driver else None
    return join(old, directory=HERE, new=new, driver_directory=directory, append=append)


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        ("$ORIGIN", HERE),
        ("${ORIGIN}", HERE),
        ("$ORIGIN/", HERE),
        ("$ORIGIN/.", HERE),
        ("$ORIGIN//x/./y", f"{HERE}/x/y"),
        ("$ORIGIN/../pkg.libs", "/venv/lib/pkg.libs"),
        ("${ORIGIN}/../../../../..", "/"),
        ("${ORIGIN}x", f"{HERE}x"),
        ("$ORIGIN-x", f"{HERE}-x"),
        ("/venv/lib/pkg/../x", "/venv/lib/x"),
        ("/venv/$ORIGIN", f"/venv{HERE}"),
        ("$ORIGIN\u00e9", f"{HERE}\u00e9"),  # only ASCII letters go on with a name
        ("$ORIGIN\udce9", f"{HERE}\udce9"),
        # A name that is not known to be a directory stays: it may be a link, or not be there.
        ("$ORIGIN/x/..", f"{HERE}/x/.."),
        ("/opt/x/../y", "/opt/x/../y"),
        ("/../opt", "/opt"),
    ],
)
def test_entry_leads_to(entry: str, where: str) -> None:
    assert expand(entry, HERE) == where


@pytest.mark.parametrize(
    "entry",
    [
        *("", ".", "lib", "../lib", "x$ORIGIN", "$ORIGINX/lib", "$ORIGIN_", "$ORIGIN2"),
        *("$origin", "{ORIGIN}", "${ORIGIN", "${ORIGINX}"),
        *("/usr/$LIB", "${LIB}", "$ORIGIN/$PLATFORM", "/x/${PLATFORM}/y"),
    ],
)
def test_entry_that_the_place_of_the_file_does_not_decide(entry: str) -> None:
    assert expand(entry, HERE) is None


def test_names_that_only_begin_like_a_token_are_ordinary() -> None:
    assert expand("/opt/$LIBRARY/$PLATFORMS", HERE) == "/opt/$LIBRARY/$PLATFORMS"


@pytest.mark.parametrize(
    ("entry", "why", "hole"),
    [
        ("", "empty or relative", True),
        ("lib", "empty or relative", True),
        ("$ORIGINX/lib", "empty or relative", True),
        ("$LIB", "how the loader was built", True),
        ("$PLATFORM/$ORIGIN", "how the loader was built", True),
        ("/usr/$LIB", "how the loader was built", False),
        ("$ORIGIN/${PLATFORM}", "how the loader was built", False),
        ("/usr/lib", "FHS", False),
        ("/usr/lib/x86_64-linux-gnu", "FHS", False),
        ("/home/runner/work/build", "machine that built it", False),
        ("/nix/store-of-mine/lib", "machine that built it", False),
        ("/venv2/lib", "machine that built it", False),
        ("/nix/store/gone-zlib/lib", "does not exist", False),
        ("$ORIGIN/../../..", "leaves the tree", False),
        ("$ORIGIN/x/../../../../..", "leaves the tree", False),
        ("$ORIGIN/../../../usr/lib", "leaves the tree", False),
    ],
)
def test_entry_left_out_with_a_reason(entry: str, why: str, hole: bool) -> None:
    found = sorted_out(f"$ORIGIN:{entry}")
    assert found.kept == ("$ORIGIN",)
    assert found.store == ()
    (dropped,) = found.dropped
    assert dropped.entry == entry
    assert why in dropped.why
    assert dropped.harmful
    assert found.has_relative is hole


def test_entries_that_stay_are_written_as_they_were() -> None:
    entries = ["${ORIGIN}/", "$ORIGIN/../pkg.libs", "$ORIGIN//plugins/../x", "$ORIGIN/\udce9t\udce9"]
    assert sorted_out(":".join(entries)).kept == tuple(entries)
    assert rewritten(":".join(entries)) == ":".join(entries)
    assert os.fsencode(rewritten(":".join(entries))).endswith(b"/\xe9t\xe9")


def test_duplicates_by_the_directory_they_mean() -> None:
    found = sorted_out("$ORIGIN:${ORIGIN}/.:/usr/lib:/usr/lib/:$ORIGIN/../pkg")
    assert found.kept == ("$ORIGIN",)
    assert [(drop.entry, drop.harmful) for drop in found.dropped] == [
        ("${ORIGIN}/.", False),
        ("/usr/lib", True),
        ("/usr/lib/", False),
        ("$ORIGIN/../pkg", False),
    ]


def test_what_looks_like_a_duplicate_but_goes_through_an_unknown_name_is_kept() -> None:
    # ld.so does not find the first where there is no such directory; the second it always finds.
    assert sorted_out("$ORIGIN/gone/../libs:$ORIGIN/libs").kept == ("$ORIGIN/gone/../libs", "$ORIGIN/libs")


def test_absolute_entry_into_the_tree_moves_with_the_tree() -> None:
    found = sorted_out("/venv/lib/other:/venv/lib/pkg")
    assert found.kept == ("$ORIGIN/../other", "$ORIGIN")
    assert all(not drop.harmful and "$ORIGIN" in drop.why for drop in found.dropped)


def test_tree_in_the_store_refers_to_itself_by_origin() -> None:
    out = "/nix/store/x-out"
    found = split(
        f"{out}/lib/other:/nix/store/a-zlib/lib",
        directory=f"{out}/lib/pkg",
        prefix=out,
        store_dir="/nix/store",
        driver_directory=DRIVERS,
        exists=STORE_DIRS.__contains__,
    )
    assert (found.kept, found.store) == (("$ORIGIN/../other",), ("/nix/store/a-zlib/lib",))


def test_store_inside_the_tree_is_the_store() -> None:
    assert sorted_out("/nix/store/a-zlib/lib", prefix="/").store == ("/nix/store/a-zlib/lib",)


def test_order_of_the_result() -> None:
    old = f"{DRIVERS}:/nix/store/a-zlib/lib:$ORIGIN/sub:/usr/lib"
    found = rewritten(
        old, "/nix/store/b-gcc/lib", "$ORIGIN/../x.libs", "/nix/store/c/lib", append=("/opt/last", "/opt/end")
    )
    assert found.split(":") == [
        "$ORIGIN/sub",
        "$ORIGIN/../x.libs",
        "/nix/store/a-zlib/lib",
        "/nix/store/b-gcc/lib",
        "/nix/store/c/lib",
        DRIVERS,
        "/opt/last",
        "/opt/end",
    ]


def test_each_directory_once() -> None:
    new = ("$ORIGIN", "/nix/store/a-zlib/lib", "$ORIGIN/.", "/nix/store/a-zlib/lib")
    path = rewritten("/nix/store/a-zlib/lib", *new, driver=True, append=(DRIVERS, "/nix/store/a-zlib/lib/"))
    assert path == f"$ORIGIN:/nix/store/a-zlib/lib:{DRIVERS}"


def test_appended_text_with_colons_makes_no_hole() -> None:
    assert rewritten(None, append=("/a:/b:", ":/c")) == "/a:/b:/c"


@pytest.mark.parametrize("nothing", [None, "", ":", "::", "/usr/lib", "."])
def test_nothing_remains(nothing: str | None) -> None:
    assert rewritten(nothing) == ""


@pytest.mark.parametrize(
    ("wanted", "entry"),
    [
        (HERE, "$ORIGIN"),
        (f"{HERE}/sub", "$ORIGIN/sub"),
        ("/venv/lib/numpy.libs", "$ORIGIN/../numpy.libs"),
        ("/venv/lib", "$ORIGIN/.."),
        ("/venv/lib/pkg2", "$ORIGIN/../pkg2"),
        ("/opt", "$ORIGIN/../../../opt"),
    ],
)
def test_relative_entry(wanted: str, entry: str) -> None:
    assert relative_entry(HERE, wanted) == entry
    assert leads_to(entry, HERE, wanted)


@pytest.mark.parametrize("name", ["a:b", "$LIB", "$ORIGIN", "${PLATFORM}"])
def test_directories_that_no_search_path_can_name(name: str) -> None:
    wanted = f"{HERE}/{name}"
    assert not leads_to(relative_entry(HERE, wanted), HERE, wanted)
    # As a part of $ORIGIN itself the name does no harm: ld.so puts it in after it has split the path.
    assert leads_to("$ORIGIN/x", wanted, f"{wanted}/x")
