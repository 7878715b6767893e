"""Any search path and interpreter that a file can hold comes back as it went in, and the original with it."""

import os
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import InterpSegment
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nixpatch.elf import read
from nixpatch.elf.check_inplace import check
from nixpatch.elf.inplace_writer import write_edited
from nixpatch.model import ElfEdit, ElfFacts, Linkage, Tag
from support.programs import RICH, Workshop, content, restore_file

pytestmark = pytest.mark.gcc

texts = st.binary(min_size=1, max_size=300).filter(lambda data: 0 not in data).map(os.fsdecode)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(str(tmp_path_factory.mktemp("elf")))


def independent(path: str) -> tuple[list[bytes], bytes]:
    """Raw search path strings and interpreter, by pyelftools' idea of where they are."""
    with open(path, "rb") as file:
        elf = ELFFile(file)
        data = content(path)
        dynamic = next(s for s in elf.iter_segments() if isinstance(s, DynamicSegment))
        interp = next(s for s in elf.iter_segments() if isinstance(s, InterpSegment))
        address = next(t.entry.d_val for t in dynamic.iter_tags("DT_STRTAB"))
        start = next(iter(elf.address_offsets(address)))
        tags = [t for t in dynamic.iter_tags() if t.entry.d_tag in {"DT_RPATH", "DT_RUNPATH"}]
        found = [data[start + t.entry.d_val :].split(b"\0", 1)[0] for t in tags]
        name = data[interp["p_offset"] : interp["p_offset"] + interp["p_filesz"]].rstrip(b"\0")
        return found, name


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=texts, tag=st.none() | st.sampled_from(Tag), interp=texts, shape=st.integers(0, 3))
def test_round_trip(
    workshop: Workshop, tmp_path: Path, path: str, tag: Tag | None, interp: str, shape: int
) -> None:
    flags = [(), ("-Wl,-rpath,/old",), ("-Wl,-rpath,/old,--disable-new-dtags",), ("-no-pie", "-fno-pie")]
    source = workshop.program(*RICH, *flags[shape])
    before = read(source)
    assert isinstance(before, ElfFacts)
    out, back = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back")
    for stale in (out, back):
        Path(stale).unlink(missing_ok=True)
    fd = os.open(out, os.O_RDWR | os.O_CREAT)
    try:
        edit = ElfEdit(path, tag, interp)
        assert write_edited(source, fd, edit).changed
        assert check(source, fd, edit) == ()
    finally:
        os.close(fd)
    after = read(out)
    assert isinstance(after, ElfFacts)
    assert after.current == Linkage(path, tag or before.original.tag or Tag.RUNPATH, interp)
    assert after.original == before.original
    assert independent(out) == ([os.fsencode(path)], os.fsencode(interp))
    restore_file(out, back)
    assert content(back) == content(source)
