"""A needed library gets any name, in DT_NEEDED and in the version needs, and its old one back."""

import os
from pathlib import Path

import pytest
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nixpatch.elf import read
from nixpatch.elf.check_inplace import check
from nixpatch.elf.inplace_writer import write_edited
from nixpatch.model import ElfEdit, ElfFacts, Tag
from support.programs import RICH, Workshop, content, restore_file

pytestmark = pytest.mark.gcc

names = st.binary(min_size=1, max_size=300).filter(lambda data: 0 not in data).map(os.fsdecode)
renames = st.dictionaries(st.sampled_from(["libanswer.so", "libc.so.6"]), names)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(str(tmp_path_factory.mktemp("elf")))


def independent(path: str) -> tuple[list[bytes], list[bytes]]:
    """Names in DT_NEEDED and in the version needs, by pyelftools' idea of where they are."""
    with open(path, "rb") as file:
        elf, data = ELFFile(file), content(path)
        dynamic = next(s for s in elf.iter_segments() if isinstance(s, DynamicSegment))
        address = next(t.entry.d_val for t in dynamic.iter_tags("DT_STRTAB"))
        start = next(iter(elf.address_offsets(address)))
        offsets = [tag.entry.d_val for tag in dynamic.iter_tags("DT_NEEDED")]
        versions = next(s for s in elf.iter_sections() if isinstance(s, GNUVerNeedSection))
        files = [need.entry["vn_file"] for need, _ in versions.iter_versions()]
        found = ([data[start + at :].split(b"\0", 1)[0] for at in of] for of in (offsets, files))
        return next(found), next(found)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    new=renames,
    path=st.none() | st.just("") | names,
    interp=st.none() | names,
    shape=st.integers(0, 2),
    again=renames,
)
def test_round_trip(
    workshop: Workshop,
    tmp_path: Path,
    new: dict[str, str],
    path: str | None,
    interp: str | None,
    shape: int,
    again: dict[str, str],
) -> None:
    flags = [(), ("-Wl,-rpath,/old", "-Wl,--spare-dynamic-tags=1"), ("-no-pie", "-fno-pie")]
    source = workshop.program(*RICH, *flags[shape])
    before = read(source)
    assert isinstance(before, ElfFacts)
    was = independent(source)
    file = source
    for step, wish in enumerate((again, new)):
        out = os.path.join(tmp_path, f"out{step}")
        Path(out).unlink(missing_ok=True)
        edit = ElfEdit(path, Tag.RUNPATH, interp, tuple(wish.items()))
        fd = os.open(out, os.O_RDWR | os.O_CREAT)
        try:
            write_edited(file, fd, edit)
            assert check(file, fd, edit, deep=True) == ()
        finally:
            os.close(fd)
        wanted = {os.fsencode(old): os.fsencode(name) for old, name in wish.items()}
        assert independent(out) == tuple([wanted.get(name, name) for name in some] for some in was)
        after = read(out)
        assert isinstance(after, ElfFacts)
        assert after.original == before.original
        file = out
    if content(file) != content(source):
        back = os.path.join(tmp_path, "back")
        Path(back).unlink(missing_ok=True)
        restore_file(file, back)
        assert content(back) == content(source)
    once = os.path.join(tmp_path, "once")
    Path(once).unlink(missing_ok=True)
    fd = os.open(once, os.O_RDWR | os.O_CREAT)
    try:
        write_edited(source, fd, ElfEdit(path, Tag.RUNPATH, interp, tuple(new.items())))
    finally:
        os.close(fd)
    assert content(once) == content(file)
