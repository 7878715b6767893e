"""A wheel that brings a ``nixpatch.json`` of its own: what it claims of removed grafts is not believed."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from nixpatch.cli import run
from nixpatch.errors import MachineError
from nixpatch.installed import provenance
from nixpatch.installed.provenance import PatchedText
from nixpatch.model import TextKind
from nixpatch.model.installed import ROOTS_DIRECTORY
from nixpatch.store import gc_roots
from nixpatch.store.nix_store import Store
from support import vendored as vendoring
from support import world as worlds
from support.injector import state_of
from support.installed_trees import dist
from support.recorded import sha256
from support.vendored import ANSWER, HELPER, Vendored
from support.world import World

pytestmark = pytest.mark.gcc

DIGEST = "sha256=" + "0" * 64


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Vendored:
    return vendoring.make(worlds.make(str(tmp_path_factory.mktemp("forged"))))


@pytest.fixture
def vendored(template: Vendored, monkeypatch: pytest.MonkeyPatch) -> Vendored:
    root = os.path.join(template.world.root, "work")
    shutil.rmtree(root, ignore_errors=True)
    monkeypatch.setenv("NIX_STORE_DIR", template.world.store)
    monkeypatch.setenv("XDG_CACHE_HOME", os.path.join(template.world.root, "cache"))
    monkeypatch.delenv("NIX_BUILD_TOP", raising=False)
    world = template.world.copy("work/venv")
    outside = os.path.join(root, "outside")
    os.makedirs(outside)
    with open(os.path.join(outside, "victim"), "wb") as file:
        file.write(b"precious")
    return Vendored(World(root, world.venv, world.store, world.library))


def outside(vendored: Vendored) -> str:
    return os.path.join(vendored.world.root, "outside")


def victim(vendored: Vendored) -> str:
    return os.path.join(outside(vendored), "victim")


def forge(vendored: Vendored, path: str, **fields: Any) -> None:
    """Put a nixpatch.json into the dist, listed in RECORD, as a wheel could bring it."""
    row = fields.pop("row", f"{path},,\n")
    graft = provenance.RemovedGraft(
        **{"sha256": DIGEST, "row": row, "kept": None, "soname": None, "library": None} | fields
    )
    data = provenance.dump(provenance.Provenance("nixpatch 0", {}, {path: graft}))
    place = os.path.join(vendored.world.info, provenance.NAME)
    with open(place, "wb") as file:
        file.write(data)
    with open(vendored.world.record, "ab") as file:
        file.write((worlds.record_row(place, vendored.world.site) + "\n").encode())


def digest(path: str) -> str:
    with open(path, "rb") as file:
        return f"sha256={hashlib.sha256(file.read()).hexdigest()}"


def told(vendored: Vendored, capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, str]:
    capsys.readouterr()
    code = run((*command, vendored.world.venv))
    return code, capsys.readouterr().out


FORGED: dict[str, Callable[[Vendored], dict[str, Any]]] = {
    "the original is said to be outside": lambda v: {"path": f"pkg.libs/{ANSWER}", "kept": victim(v)},
    "the same by way of parents": lambda v: {
        "path": f"pkg.libs/{ANSWER}",
        "kept": os.path.relpath(victim(v), v.world.site),
    },
    "a program is said to be a graft that was deleted": lambda v: {
        "path": os.path.relpath(v.world.program, v.world.site)
    },
    "the same with the right digest": lambda v: {
        "path": os.path.relpath(v.world.program, v.world.site),
        "sha256": digest(v.world.program),
    },
    "the interpreter's configuration": lambda v: {
        "path": os.path.relpath(os.path.join(v.world.venv, "pyvenv.cfg"), v.world.site)
    },
    "a graft, with another digest": lambda _: {"path": f"pkg.libs/{HELPER}"},
    "a graft, with the row of another file": lambda v: {
        "path": f"pkg.libs/{HELPER}",
        "sha256": digest(os.path.join(v.libs, HELPER)),
        "row": "pkg/__init__.py,,\n",
    },
    "a graft, with more rows than one": lambda v: {
        "path": f"pkg.libs/{HELPER}",
        "sha256": digest(os.path.join(v.libs, HELPER)),
        "row": f"pkg.libs/{HELPER},,\npkg/__init__.py,,\n",
    },
    "an absolute path outside": lambda v: {"path": os.path.join(outside(v), "libx-0badf00d.so.1")},
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_entry_does_nothing_and_is_reported(
    vendored: Vendored, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    beyond = state_of(outside(vendored))
    fields = FORGED[name](vendored)
    forge(vendored, **fields)
    names = set(state_of(vendored.world.venv))

    code, said = told(vendored, capsys, "plan")
    assert code == 1
    assert "nothing is done for it" in " ".join(said.split())

    code, said = told(vendored, capsys, "patch")
    assert code == 1
    assert "nothing is done for it" in " ".join(said.split())
    assert told(vendored, capsys, "verify")[0] == 1
    assert told(vendored, capsys, "restore")[0] == 1

    assert state_of(outside(vendored)) == beyond
    # Nothing went: each file that the wheel brought is still there, and the program is the same again.
    assert names - set(state_of(vendored.world.venv)) <= {
        os.path.relpath(os.path.join(vendored.world.info, provenance.NAME), vendored.world.venv)
    }


def test_what_another_dist_owns_is_not_a_dists_to_remove(vendored: Vendored) -> None:
    other = os.path.join(vendored.world.site, "other-1.0.dist-info")
    os.makedirs(other)
    path = os.path.join(vendored.libs, HELPER)
    row = worlds.record_row(path, vendored.world.site) + "\n"
    graft = provenance.RemovedGraft(digest(path), row, None, None, None)
    data = provenance.dump(provenance.Provenance("t", {}, {f"pkg.libs/{HELPER}": graft}))
    for name, content in (
        (provenance.NAME, data),
        ("METADATA", b"Metadata-Version: 2.1\nName: other\nVersion: 1.0\n"),
        ("RECORD", b"other-1.0.dist-info/METADATA,,\nother-1.0.dist-info/RECORD,,\n"),
    ):
        with open(os.path.join(other, name), "wb") as file:
            file.write(content)

    assert run((vendored.world.venv,)) == 1
    assert os.path.isfile(path)


@pytest.mark.parametrize("name", ["nixpatch-grafts", "sboms", "the libraries"])
def test_unvendoring_goes_through_no_link(vendored: Vendored, name: str) -> None:
    """The places that un-vendoring writes to are links to a directory of somebody else."""
    beyond = state_of(outside(vendored))
    if name == "the libraries":
        assert run((vendored.world.venv, "--unvendor=*")) == 0
        os.symlink(outside(vendored), vendored.libs)
    else:
        os.symlink(outside(vendored), os.path.join(vendored.world.info, name))
        assert run((vendored.world.venv, "--unvendor=*")) == 1
        assert state_of(outside(vendored)) == beyond
    run(("restore", vendored.world.venv))
    assert state_of(outside(vendored)) == beyond


def test_roots_go_through_no_link(vendored: Vendored, tmp_path: pathlib.Path) -> None:
    """``.nixpatch-roots`` of the tree leads elsewhere: Nix is not asked to write there."""
    program = tmp_path / "nix-store"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/asked\n")
    program.chmod(0o755)
    store = Store(vendored.world.store, vendored.world.store, program=str(program))
    os.symlink(outside(vendored), os.path.join(vendored.world.venv, ROOTS_DIRECTORY))
    beyond = state_of(outside(vendored))
    with pytest.raises(MachineError, match="nothing was changed"):
        gc_roots.add(store, vendored.world.venv, [os.path.dirname(vendored.world.library)])
    assert not (tmp_path / "asked").exists()
    assert state_of(outside(vendored)) == beyond


def test_the_real_entry_still_counts(vendored: Vendored) -> None:
    """Un-vendored and restored, with the entry that nixpatch itself wrote."""
    before = vendored.world.snapshot()
    assert run((vendored.world.venv, "--unvendor=*")) == 0
    place = os.path.join(vendored.world.info, provenance.NAME)
    with open(place, encoding="ascii") as file:
        assert set(json.load(file)["unvendored"]) == {f"pkg.libs/{name}" for name in (ANSWER, HELPER)}
    assert run(("verify", vendored.world.venv)) == 0
    assert run(("restore", vendored.world.venv)) == 0
    assert vendored.world.snapshot() == before


EVIL = b"#!/nowhere/evil\n"
OTHER = b"#!/bin/bash\n"
STARTUP = b"# Written by nixpatch for other.\nimport sys\n"


def _text(
    kind: TextKind, current: bytes, original: bytes = b"", program: str = "/nowhere/evil"
) -> PatchedText:
    return PatchedText(kind, sha256(current), sha256(original) if original else "", program, ("/nowhere",))


def forge_texts(vendored: Vendored, **texts: PatchedText) -> None:
    """Give the dist ``other`` a script and a start-up file, and ``pkg`` provenance that is about them."""
    site = vendored.world.site
    dist(site, "other", {"other.py": b"", "../../../bin/other": OTHER, "nixpatch-other.pth": STARTUP})
    data = provenance.dump(provenance.Provenance("nixpatch 0", {}, texts=texts))
    place = os.path.join(vendored.world.info, provenance.NAME)
    with open(place, "wb") as file:
        file.write(data)
    with open(vendored.world.record, "ab") as file:
        file.write((worlds.record_row(place, site) + "\n").encode())


FORGED_TEXTS: dict[str, tuple[str, PatchedText]] = {
    "a script of another dist, with digests that fit": (
        "../../../bin/other",
        _text(TextKind.SCRIPT, OTHER, EVIL),
    ),
    "a start-up file of another dist": ("nixpatch-other.pth", _text(TextKind.STARTUP, STARTUP)),
    "a script that is said to be a start-up file": (
        "../../../bin/pkg-tool",
        _text(TextKind.STARTUP, OTHER),
    ),
    "the interpreter's configuration": ("../../../pyvenv.cfg", _text(TextKind.SCRIPT, OTHER, EVIL)),
    "the same as a start-up file": ("../../../pyvenv.cfg", _text(TextKind.STARTUP, OTHER)),
    "a file outside": ("../../../../outside/victim", _text(TextKind.SCRIPT, b"precious", EVIL)),
    "the same as a start-up file outside": (
        "../../../../outside/victim",
        _text(TextKind.STARTUP, b"precious"),
    ),
    "a module of the dist, with digests that do not fit": (
        "pkg/__init__.py",
        _text(TextKind.SCRIPT, OTHER, EVIL),
    ),
    "a line feed in the program": (
        "../../../bin/pkg-tool",
        _text(TextKind.SCRIPT, OTHER, b"#!/bin/bash\nrm -rf ~\n", "/bin/bash\nrm -rf ~"),
    ),
    "digests that are none": (
        "pkg/__init__.py",
        PatchedText(TextKind.SCRIPT, "sha256=zz", "nothing", "/bin/bash", (), "sha256=zz"),
    ),
}


@pytest.mark.parametrize("name", FORGED_TEXTS)
def test_a_forged_text_entry_does_nothing(
    vendored: Vendored, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key, entry = FORGED_TEXTS[name]
    forge_texts(vendored, **{key: entry})
    before, beyond = state_of(vendored.world.venv), state_of(outside(vendored))

    # "other" begins with #!/bin/bash, for which this store has nothing: reported, and otherwise left alone.
    assert told(vendored, capsys, "patch")[0] == 1
    assert told(vendored, capsys, "restore")[0] == 1

    assert state_of(outside(vendored)) == beyond
    after = state_of(vendored.world.venv)
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    # RECORD and provenance, which the run on the ELF files of the dist writes anew. "other" needs no
    # start-up file, so its own goes, by its own RECORD.
    names = {os.path.basename(path) for path in changed}
    assert names <= {"RECORD", "nixpatch.json", "nixpatch-other.pth"}
