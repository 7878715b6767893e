"""Libraries that are opened by name: what the commands show of them."""

from __future__ import annotations

import json
import os
from importlib import resources
from typing import Any

import jsonschema
import pytest

from support.installed_trees import dist
from support.opening import add_opener
from support.world import Run, World

pytestmark = pytest.mark.gcc

SCHEMA = json.loads(resources.files("nixpatch").joinpath("data/report.schema.json").read_text("utf-8"))


@pytest.fixture
def package(world: World) -> str:
    """The package directory of a dist that opens libraries by name."""
    return add_opener(world)


def _document(out: str) -> Any:
    document = json.loads(out)
    jsonschema.validate(document, SCHEMA)
    (tree,) = document["trees"]
    return tree


def test_missing_lists_optional_libraries_apart_and_ends_with_0(
    world: World, nixpatch: Run, package: str
) -> None:
    code, out, _ = nixpatch("missing", world.venv)

    assert code == 0
    needed, _, optional = out.partition("Optional: ")
    assert needed == "Nothing is missing.\n\n"
    assert "opener 2.0\n  libsodium.so.26, opened by name by opener/optional.py:4: nixpkgs has" in optional
    assert "  libykpers-1.so.1, opened by name by opener/_lacks.so: nixpkgs has it in yubikey" in optional
    assert optional.endswith(
        "\n\nAll that is optional, in a Nix build: "
        "buildInputs = with pkgs; [ libsodium yubikey-personalization ];\n"
    )


def test_missing_says_whether_what_is_there_is_linked(world: World, nixpatch: Run) -> None:
    """Nothing is missing, and yet an import fails."""
    linked = f"nixpatch: {world.venv}: not linked yet against what is there: nixpatch {world.venv}\n"
    assert nixpatch("missing", world.venv) == (0, "Nothing is missing.\n", linked)
    nixpatch(world.venv)
    assert nixpatch("missing", world.venv) == (0, "Nothing is missing.\n", "")


def test_missing_offers_a_second_list_for_nix(world: World, nixpatch: Run, package: str) -> None:
    code, out, _ = nixpatch("missing", "--format", "nix", world.venv)

    assert code == 0
    assert out.splitlines()[0] == "pkgs: [ ]"
    assert out.splitlines()[-1] == "# ++ (with pkgs; [ libsodium yubikey-personalization ])"


def test_missing_as_json_has_them_apart(world: World, nixpatch: Run, package: str) -> None:
    code, out, _ = nixpatch("missing", "--json", world.venv)

    tree = _document(out)
    assert (code, tree["missing"], tree["build_inputs"]) == (0, [], [])
    assert tree["optional_build_inputs"] == ["libsodium", "yubikey-personalization"]
    assert [(one["soname"], one["dists"], one["files"]) for one in tree["optional"]] == [
        ("libsodium.so.26", ["opener 2.0"], [f"{package}/optional.py:4"]),
        ("libykpers-1.so.1", ["opener 2.0"], [f"{package}/_lacks.so"]),
    ]


def test_what_a_rule_ignores_is_not_optional_either(world: World, nixpatch: Run, package: str) -> None:
    _, out, _ = nixpatch("missing", "--ignore-missing", "lib*", world.venv)

    assert out == "Nothing is missing.\n"


def test_frameworks_of_macos_in_pip_are_no_libraries_that_lack(world: World, nixpatch: Run) -> None:
    """Every venv of Python 3.11 has this pip: its first report shall be about the user's dists."""
    source = b"from ctypes.util import find_library\nfrom ctypes import CDLL\n" + b"".join(
        b"CDLL(find_library('%s'))\n" % name for name in (b"Security", b"CoreFoundation")
    )
    dist(world.site, "pip", {"pip/_vendor/urllib3/contrib/_securetransport/bindings.py": source})

    assert "optional" not in nixpatch(world.venv)[1]
    assert nixpatch("missing", world.venv)[:2] == (0, "Nothing is missing.\n")
    assert nixpatch("env", "--tree", world.venv, "--print") == (0, "\n", "")


def test_a_run_reports_text_files_in_one_line(world: World, nixpatch: Run, package: str) -> None:
    code, out, _ = nixpatch(world.venv)

    assert code == 0
    lines = [
        (
            "Text files: 1 start-up file for what Python code opens by name; "
            "1 script with a program of the store (-v lists them)"
        ),
        "2 optional libraries, opened by name, are not there: nixpatch missing lists them",
    ]
    assert [line for line in out.splitlines() if line in lines] == lines
    assert "computes" not in out


def test_plan_shows_the_needs_where_they_are_searched_and_the_texts(
    world: World, nixpatch: Run, package: str
) -> None:
    code, out, _ = nixpatch("plan", "-v", world.venv)

    assert code == 0
    where, site = os.path.relpath(package, world.venv), os.path.relpath(world.site, world.venv)
    library = f"{world.library}/libanswer.so.1"
    native = f"{where}/_opens.so"
    assert f"    libanswer.so.1: store {library} (opened by name by {native}, searched in {native})\n" in out
    assert f"  {site}/nixpatch-opener.pth: start-up file, answers for answer, libanswer.so.1\n" in out
    assert "  bin/opener-run: script, run by " in out
    assert " instead of /bin/bash\n" in out
    assert f"  libsodium.so.26: opened by name by {where}/optional.py:4\n" in out
    assert (
        f"Opened by a name that the code computes (see nixpatch env):\n  {where}/computed.py: line 4" in out
    )

    _, out, _ = nixpatch("plan", "-vv", world.venv)
    assert f"    libanswer.so.1: {library}\n" in out
    assert f"    libykpers-1.so.1: not there (opened by name by {where}/_lacks.so, searched in " in out


def test_json_of_a_run(world: World, nixpatch: Run, package: str) -> None:
    _, out, _ = nixpatch("--json", world.venv)

    tree = _document(out)
    startup, script = sorted(tree["texts"], key=lambda text: str(text["kind"]), reverse=True)
    assert (startup["kind"], startup["status"]) == ("startup", "changed")
    library = f"{world.library}/libanswer.so.1"
    assert startup["answers"] == {"answer": library, "libanswer.so.1": library}
    assert (script["kind"], script["program"]) == ("script", "/bin/bash")
    assert [one["soname"] for one in tree["optional"]] == ["libsodium.so.26", "libykpers-1.so.1"]
    assert tree["computed"] == [f"{package}/computed.py:4"]
    openers = {
        file["path"]: need["opener"]
        for file in tree["files"]
        for need in file["needs"]
        if need["soname"] == "libanswer.so.1"
    }
    assert openers[f"{package}/_opens.so"] == f"{package}/_opens.so"
    assert openers[world.extension] is None
    _, out, _ = nixpatch("--json", world.venv)
    assert {text["status"] for text in _document(out)["texts"]} == {"untouched"}


def test_the_page_has_them(world: World, nixpatch: Run, package: str) -> None:
    path = os.path.join(world.root, "page.html")
    nixpatch("plan", "--html", path, world.venv)

    with open(path, encoding="utf-8") as file:
        data = json.loads(file.read().partition('id="data">')[2].partition("</script>")[0])
    (tree,) = data["trees"]
    assert [row[0] for row in tree["optional"]] == ["libsodium.so.26", "libykpers-1.so.1"]
    assert {kind for kind, _ in tree["texts"]} == {"start-up file", "script"}


@pytest.fixture
def patched(world: World, nixpatch: Run, package: str) -> World:
    """The world after nixpatch."""
    assert nixpatch(world.venv)[0] == 0
    return world


def test_verify_counts_text_files_and_their_store_paths(patched: World, nixpatch: Run) -> None:
    code, out, _ = nixpatch("verify", "--json", patched.venv)

    tree = _document(out)
    assert code == 0, tree["findings"]
    assert tree["summary"]["texts"] == 2
    assert [os.path.basename(path).partition("-")[2] for path in tree["store_paths"]] == [
        "answer-1.0",
        "bash-5.2",
    ]


def test_verify_load_opens_the_names(patched: World, nixpatch: Run) -> None:
    code, out, _ = nixpatch("verify", "--load", patched.venv)

    # Two files of each dist; libanswer for _opens.so, by its name and by find_library.
    assert code == 0, out
    assert "7 files opened by the loader: no errors" in out


def test_verify_load_reports_a_linked_library_that_does_not_load(patched: World, nixpatch: Run) -> None:
    with open(os.path.join(patched.library, "libanswer.so.1"), "r+b") as file:
        file.seek(24)
        file.truncate(64)

    code, out, _ = nixpatch("verify", "--load", patched.venv)

    assert code == 1
    assert "nixpatch-opener.pth: answers for libanswer.so.1, but the loader failed: " in out
    assert "nixpatch-opener.pth: answers for find_library('answer'), but the loader failed: " in out


def test_verify_reports_a_start_up_file_that_is_gone_or_changed(patched: World, nixpatch: Run) -> None:
    path = os.path.join(patched.site, "nixpatch-opener.pth")
    with open(path, "a", encoding="utf-8") as file:
        file.write("# more\n")
    code, out, _ = nixpatch("verify", patched.venv)
    assert code == 1
    assert out.count("nixpatch-opener.pth: was changed after nixpatch") == 1

    os.unlink(path)
    code, out, _ = nixpatch("verify", patched.venv)
    assert code == 1
    assert out.count("nixpatch-opener.pth: RECORD lists it, but it is gone") == 1


def test_verify_reports_a_program_and_a_library_that_are_gone(patched: World, nixpatch: Run) -> None:
    with open(os.path.join(patched.venv, "bin", "opener-run"), encoding="utf-8") as file:
        bash = file.readline().removeprefix("#!").strip()
    os.unlink(bash)
    os.rename(patched.library, f"{patched.library}-gone")

    code, out, _ = nixpatch("verify", patched.venv)

    assert code == 1
    assert f"bin/opener-run: is run by {bash}, which is gone" in out
    assert f"nixpatch-opener.pth: opens {patched.library}/libanswer.so.1, which is gone" in out
    assert "_opens.so: needs libanswer.so.1 from " in out


def test_tree_shows_what_is_opened_by_name_before_and_after(
    world: World, nixpatch: Run, package: str
) -> None:
    where = os.path.relpath(package, world.venv)
    _, out, _ = nixpatch("tree", "-v", world.venv)
    searched = f"opened by name by {where}/_opens.so, searched in {where}/_opens.so"
    assert f"libanswer.so.1  not found  opened by name by {where}/by_ctypes.py:3, searched in " in out
    assert f"libykpers-1.so.1  not found  opened by name by {where}/_lacks.so" in out

    nixpatch(world.venv)
    code, out, _ = nixpatch("tree", world.venv)
    assert code == 0
    assert f"libanswer.so.1  answer-1.0/lib  [RUNPATH]  {searched}\n" in out
    assert "libanswer.so.1  answer-1.0/lib  [start-up file]  opened by name by " in out
    assert "2 not found; -v lists them" in out
    assert out.endswith(": all found; 4 opened by name, 2 of them not found.\n")


def test_tree_of_one_file(world: World, nixpatch: Run, package: str) -> None:
    nixpatch(world.venv)

    code, out, _ = nixpatch("tree", os.path.join(package, "_opens.so"))

    assert code == 0
    assert "libanswer.so.1  answer-1.0/lib  [RUNPATH]  opened by name by opener/_opens.so" in out


def test_why_shows_the_steps_for_opened_names(world: World, nixpatch: Run, package: str) -> None:
    nixpatch(world.venv)

    code, out, _ = nixpatch("tree", "--why", "libanswer.so.1", world.venv)
    assert code == 0
    where, site = os.path.relpath(package, world.venv), os.path.relpath(world.site, world.venv)
    start = f"libanswer.so.1, opened by name by {where}/"
    native = out[out.index(f"{start}_opens.so, searched in {where}/_opens.so\n") :]
    startup = out[out.index(f"{start}by_") :]
    assert f", searched in {site}/nixpatch-opener.pth\n" in startup
    assert f"RUNPATH:\n     {world.library}/libanswer.so.1: found\n" in native
    assert startup.splitlines()[1].startswith("  1. start-up file ")

    code, out, _ = nixpatch("tree", "--why", "libykpers-1.so.1", world.venv)
    assert code == 0
    assert "-> not found. nixpkgs has it in yubikey-personalization" in out


def test_tree_as_json(world: World, nixpatch: Run, package: str) -> None:
    nixpatch(world.venv)

    _, out, _ = nixpatch("tree", "--json", world.venv)

    opened = {(need["opener"], need["how"]): need["path"] for need in _document(out)["opened"]}
    assert opened[f"{package}/_opens.so", "runpath"] == f"{world.library}/libanswer.so.1"
    assert opened[f"{package}/by_find.py:3", "startup"] == f"{world.library}/libanswer.so.1"
    assert opened[f"{package}/_lacks.so", None] is None
