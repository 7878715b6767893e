"""``nixpatch wheel`` and ``restore`` of a wheel file: the whole new file is there, or none."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from faults.stories import Bench
from nixpatch.fs import is_temporary
from support.injector import Ended, Fault, Kind, Site
from support.wheels import NAME, PATCHED, contents, write

pytestmark = [pytest.mark.gcc, pytest.mark.faults]

FAULTS = (Fault.KILL_ALL, Fault.TORN, Fault.SHORT, Fault.ENOSPC, Fault.EIO, Fault.EACCES, Fault.INTERRUPT)


class House:
    """A wheel, its directory for patched ones, and the scratch directory of the runs."""

    def __init__(self, bench: Bench, directory: Path) -> None:
        self._injector = bench.injector
        self.scratch, self.output = directory / "scratch", directory / "output"
        self.scratch.mkdir()
        self._injector.environment["TMPDIR"] = str(self.scratch)
        self.wheel = write(directory / NAME, contents(bench.world))
        assert self._injector.run(["wheel", "-w", str(directory / "patched"), self.wheel]).code == 0
        self.patched = str(directory / "patched" / PATCHED)

    def run(self, arguments: Sequence[str], fault: Fault = Fault.NONE, number: int = 0) -> Ended:
        return self._injector.run(arguments, fault, Kind.CHANGE, number)

    def left(self) -> list[str]:
        """Return what is in the directory but temp files."""
        names = os.listdir(self.output) if self.output.is_dir() else []
        return [name for name in names if not is_temporary(name)]

    def unpacked(self) -> list[str]:
        """Return the scratch directories; a file is one with which ``tempfile`` tries the directory."""
        return [entry.name for entry in os.scandir(self.scratch) if entry.is_dir()]

    def clear(self) -> None:
        shutil.rmtree(self.output, ignore_errors=True)
        shutil.rmtree(self.scratch)
        self.scratch.mkdir()


def _some(sites: Sequence[Site], house: House) -> list[Site]:
    """Return the sites in the output directory, and one of each call in the scratch directory."""
    of_output = [site for site in sites if site.path.startswith(str(house.output))]
    return of_output + list({site.call: site for site in sites if site not in of_output}.values())


@pytest.mark.parametrize("command", ["wheel", "restore"])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_wheel_is_whole_or_not_there(command: str, fault: Fault, bench: Bench, tmp_path: Path) -> None:
    house = House(bench, tmp_path)
    name, source, result = (
        (PATCHED, house.wheel, house.patched) if command == "wheel" else (NAME, house.patched, house.wheel)
    )
    arguments = [command, "-w", str(house.output), source]
    sites = _some(house.run(arguments).sites, house)
    assert len(sites) > 5
    for site in sites:
        if fault in {Fault.TORN, Fault.SHORT} and not site.writes:
            continue
        house.clear()
        ended = house.run(arguments, fault, site.number)
        assert "Traceback" not in ended.said, site
        assert not ended.hung, site
        assert house.left() in ([], [name]), site
        if house.left():
            assert (house.output / name).read_bytes() == Path(result).read_bytes(), site
        elif fault.is_error or fault is Fault.INTERRUPT:
            assert ended.code > 0, site
            assert house.unpacked() == [], site
        assert house.run(arguments).code == 0, site
        assert os.listdir(house.output) == [name], site  # temp files of the killed run are gone, too
        assert (house.output / name).read_bytes() == Path(result).read_bytes(), site
