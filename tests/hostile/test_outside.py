"""Whatever RECORD, provenance, search paths and links say, nothing outside the tree is taken for it."""

import os
import tempfile

from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz.forge import DT_NEEDED, DT_RUNPATH, Forged
from nixpatch.installed import provenance
from nixpatch.installed.dist_records import DistRecords
from nixpatch.installed.record_paths import Locator
from nixpatch.installed.scan import scan
from nixpatch.model import Linkage
from nixpatch.resolve.search_path import expand, inside, split

SITE = "lib/python3.11/site-packages"
words = st.sampled_from(
    [
        *(
            "..",
            ".",
            "",
            "p",
            "x.so",
            "lib",
            "out",
            "up",
            "self",
            "abs",
            "python3.11",
            "site-packages",
            "bin",
        ),
        *("secret.so", "outside", "venv", "\\", "..\\", "a,b", '"', "\n", "\udcff", " "),
    ]
)
rows = st.lists(words, min_size=1, max_size=9).flatmap(
    lambda parts: st.sampled_from(["", "/", "../../../", "../../../../"]).map(
        lambda head: head + "/".join(parts)
    )
)
links = st.dictionaries(
    st.sampled_from(["out", "up", "self", "abs"]),
    st.sampled_from(
        ["..", "../../../..", ".", "/", "OUTSIDE", "OUTSIDE/secret.so", "p", "self", "../../../../outside"]
    ),
)
paths = st.lists(
    st.tuples(st.sampled_from(["$ORIGIN", "${ORIGIN}", "", "/", "OUTSIDE", "PREFIX"]), rows), max_size=5
)


def _tree(directory: str, rows: list[str], links: dict[str, str], search_path: str) -> tuple[str, str]:
    """A venv with one dist, and beside it a directory that is none of it."""
    prefix, outside = os.path.join(directory, "venv"), os.path.join(directory, "outside")
    site = os.path.join(prefix, SITE)
    info = os.path.join(site, "p-1.dist-info")
    os.makedirs(os.path.join(site, "p"))
    os.mkdir(info)
    os.mkdir(outside)
    strings = b"\0secret.so\0" + os.fsencode(search_path) + b"\0"
    library = Forged(strings=strings, dynamic=[(DT_NEEDED, 1), (DT_RUNPATH, 11)]).data()
    for path in (os.path.join(outside, "secret.so"), os.path.join(site, "p", "x.so")):
        with open(path, "wb") as file:
            file.write(library)
    for name, target in links.items():
        os.symlink(target.replace("OUTSIDE", outside), os.path.join(site, name))
    with open(os.path.join(prefix, "pyvenv.cfg"), "w") as file:
        file.write("home = /usr/bin\nversion = 3.11.2\n")
    with open(os.path.join(info, "RECORD"), "wb") as file:
        file.writelines(
            b'"' + os.fsencode(row).replace(b'"', b'""') + b'",,\n'
            for row in ["p/x.so", *(row.replace("OUTSIDE", outside) for row in rows)]
        )
    entry = provenance.PatchedFile("sha256=00", "sha256=11", None, None, None, {}, writer="lief")
    said = provenance.Provenance("t", dict.fromkeys(rows, entry))
    with open(os.path.join(info, "nixpatch.json"), "wb") as file:
        file.write(provenance.dump(said))
    return prefix, outside


@settings(max_examples=150, deadline=None)
@given(st.lists(rows, max_size=8), links, paths)
def test_rows_provenance_links_and_search_paths(
    rows: list[str], links: dict[str, str], entries: list[tuple[str, str]]
) -> None:
    with tempfile.TemporaryDirectory() as made:
        directory = os.path.realpath(made)
        prefix, outside = (os.path.join(directory, name) for name in ("venv", "outside"))
        heads = {"OUTSIDE": outside, "PREFIX": prefix}
        parts = (heads.get(head, head) + "/" + row for head, row in entries)
        search_path = ":".join(part for part in parts if "\0" not in part)
        _tree(directory, rows, links, search_path)

        tree = scan(prefix)
        for dist in tree.dists:
            assert all(_is_in(path, prefix) for path in dist.files)
        assert [file.path for file in tree.files] == [os.path.join(prefix, SITE, "p", "x.so")]
        for dist in tree.dists:
            assert all(_is_in(path, prefix) for path in DistRecords(tree, dist.info).written_by_lief())

        locator = Locator(os.path.join(prefix, SITE), prefix)
        for row in rows:
            located = locator.locate(row)
            assert located is None or _is_in(located, prefix)

        here = os.path.join(prefix, SITE, "p")
        old = split(
            Linkage(search_path, None, None).search_path,
            directory=here,
            prefix=prefix,
            store_dir="/nix/store",
            driver_directory="/run/d",
            exists=os.path.exists,
        )
        for entry in old.kept:
            assert inside(os.path.normpath(expand(entry, here) or "/"), prefix)


def _is_in(path: str, prefix: str) -> bool:
    """Whether a file is in the tree, whatever links lead there; the last name may be a link itself."""
    parent = os.path.realpath(os.path.dirname(path))
    return parent == prefix or parent.startswith(prefix + "/")
