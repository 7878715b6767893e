"""Which libraries that code opens by name are reported as not there."""

from __future__ import annotations

from nixpatch.model import Answer, FilePlan, OpenedNeed, Origin, Tree, TreeFile, TreeKind
from nixpatch.policy import Policy, Rule
from nixpatch.resolve.optional_libraries import optional_libraries
from nixpatch.resolve.python_libraries import PythonLibraries

SITE = "/t/site-packages"
INFO, OTHER = f"{SITE}/a-1.dist-info", f"{SITE}/b-1.dist-info"
FILES = (TreeFile(f"{SITE}/a/x.so", 1, (INFO,)), TreeFile(f"{SITE}/b/qt.so", 1, (OTHER,)))
TREE = Tree("/t", "/t", TreeKind.PREFIX, FILES)


def unmet(soname: str, opener: str) -> Answer:
    return Answer(soname, Origin.IGNORED, considered=("store: none",), opener=opener)


def names(*answers: Answer, policy: Policy | None = None, **python: PythonLibraries) -> dict[str, list[str]]:
    """Return the openers of each library; the first file of the tree calls dlopen."""
    by_info = {INFO if key == "a" else OTHER: libraries for key, libraries in python.items()}
    files = [FilePlan(FILES[0], None, answers=answers)]
    libraries = optional_libraries(TREE, files, by_info, policy or Policy())
    return {library.soname: [opener for opener, _ in library.openers] for library in libraries}


def test_the_dist_is_that_of_the_code_not_that_of_the_file_that_calls_dlopen() -> None:
    files = [FilePlan(FILES[0], None, answers=(unmet("libx.so.1", FILES[1].path),))]

    (library,) = optional_libraries(TREE, files, {}, Policy())

    assert library.openers == ((FILES[1].path, OTHER),)


def test_several_versions_count_as_one_library_the_newest() -> None:
    one, other = unmet("libx.so.1", FILES[0].path), unmet("libx.so.2", FILES[0].path)
    assert names(one, other) == {"libx.so.2": [FILES[0].path]}


def test_one_version_that_is_there_serves_for_all() -> None:
    served = Answer("libx.so.1", Origin.STORE, path="/s/libx.so.1", opener=FILES[0].path)
    assert names(served, unmet("libx.so.2", FILES[0].path)) == {}
    python = PythonLibraries(answers={"x": "/s/libx.so.1"}, unmet=(("libx.so.2", "a.py:1"),))
    assert names(a=python) == {}
    cffi = PythonLibraries(cffi=(OpenedNeed(("libx.so.1",), "a.py:2"),), unmet=(("libx.so.2", "a.py:1"),))
    assert names(a=cffi) == {}


def test_each_dist_that_lacks_it_counts() -> None:
    lacks = PythonLibraries(unmet=(("libx.so.1", "a.py:1"),))
    other = PythonLibraries(unmet=(("libx.so.1", "b.py:1"),))
    assert names(a=lacks, b=other) == {"libx.so.1": [f"{SITE}/a.py:1", f"{SITE}/b.py:1"]}
    assert names(unmet("libx.so.1", FILES[0].path), b=other) == {
        "libx.so.1": [FILES[0].path, f"{SITE}/b.py:1"]
    }


def test_what_a_rule_ignores_is_left_out() -> None:
    ignored = Answer("libx.so.1", Origin.IGNORED, detail="not used here", opener=FILES[0].path)
    policy = Policy(ignore=(Rule("*", ("liby.*",), "not used"),))
    lacks = PythonLibraries(unmet=(("liby.so.1", "a.py:1"),))
    assert names(ignored, policy=policy, a=lacks) == {}
