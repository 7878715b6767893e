"""Whatever RECORD, provenance and links say, a run of patch, verify and restore writes nothing outside."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostile.test_outside import links, rows
from nixpatch import elf
from nixpatch.cli import run
from nixpatch.installed import provenance
from nixpatch.model import ElfFacts
from support import world as worlds
from support.injector import state_of
from support.world import World

pytestmark = pytest.mark.gcc

_DIGEST = "sha256=" + "0" * 64


@dataclass(frozen=True)
class Place:
    """A world, and a copy of it as it was made."""

    world: World
    pristine: str

    @property
    def outside(self) -> str:
        """A directory beside the tree, with files such as the tree has."""
        return os.path.join(self.world.root, "outside")

    def renew(self) -> None:
        """Make everything as it was."""
        shutil.rmtree(self.world.root)
        shutil.copytree(self.pristine, self.world.root, symlinks=True)

    def beyond(self) -> dict[str, tuple[int, str, int, int]]:
        """Return the state of all that is not of the tree, time and number included: no file is replaced."""
        found = {}
        for path, state in state_of(self.world.root).items():
            if path.split("/")[0] not in {"venv", "cache"}:
                status = os.lstat(os.path.join(self.world.root, path))
                found[path] = (*state, status.st_mtime_ns, status.st_ino)
        return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    world = worlds.make(str(tmp_path_factory.mktemp("world")))
    outside = os.path.join(world.root, "outside")
    os.makedirs(os.path.join(outside, "p"))
    for name in ("secret.so", "x.so", "p/x.so", "RECORD"):
        shutil.copy(world.extension, os.path.join(outside, name))
    shutil.copy(world.extension, os.path.join(world.root, "secret.so"))
    pristine = os.path.join(str(tmp_path_factory.mktemp("pristine")), "root")
    shutil.copytree(world.root, pristine, symlinks=True)
    return Place(world, pristine)


def _said(names: list[str], kept: list[str], outside: str) -> bytes:
    """Give provenance that names these files as patched, and those as grafts with originals to bring back."""
    names = [name.replace("OUTSIDE", outside) for name in names]
    file = provenance.PatchedFile(_DIGEST, _DIGEST, "$ORIGIN/../outside", None, None, {}, writer="lief")
    grafts = {
        name: provenance.RemovedGraft(_DIGEST, f"{name},,\n", other.replace("OUTSIDE", outside), "x.so", None)
        for name, other in zip(names, kept, strict=False)
    }
    return provenance.dump(provenance.Provenance("t", dict.fromkeys(names, file), grafts))


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    listed=st.lists(rows, max_size=6),
    patched=st.lists(rows, max_size=4),
    kept=st.lists(rows, max_size=4),
    links=links,
    twice=st.booleans(),
)
def test_nothing_outside_the_tree_is_written(
    place: Place, listed: list[str], patched: list[str], kept: list[str], links: dict[str, str], twice: bool
) -> None:
    place.renew()
    world = place.world
    for name, target in links.items():
        os.symlink(target.replace("OUTSIDE", place.outside), os.path.join(world.site, name))
    named = (os.fsencode(row.replace("OUTSIDE", place.outside)) for row in listed)
    with open(world.record, "ab") as file:
        file.writelines(b'"' + name.replace(b'"', b'""') + b'",sha256=AAAA,1\n' for name in named)
    with open(os.path.join(world.info, "nixpatch.json"), "wb") as file:
        file.write(_said(patched, kept, place.outside))
    before = place.beyond()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NIX_STORE_DIR", world.store)
        patch.setenv("XDG_CACHE_HOME", os.path.join(world.root, "cache"))
        patch.delenv("NIX_BUILD_TOP", raising=False)
        commands = [(world.venv,), ("verify", world.venv), ("restore", world.venv)]
        for command in commands * (2 if twice else 1):
            code = run(command)
            assert code in {0, 1}  # it went on to the end
            assert place.beyond() == before
            if command == (world.venv,):
                facts = elf.read(world.extension)
                assert isinstance(facts, ElfFacts)
                assert facts.original_sha256 is not None
