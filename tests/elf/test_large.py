"""Files above 4 GiB, sparse ones: what an edit moves lies beyond 32 bits, and no hole is filled."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nixpatch.elf import read
from nixpatch.elf.check_inplace import check
from nixpatch.elf.inplace_writer import write_edited
from nixpatch.model import ElfEdit, ElfFacts
from support.programs import RICH, Workshop, load, need, read_headers

pytestmark = pytest.mark.gcc

FAR = 5 << 30
DIGEST = bytes(32)  # to hash gigabytes of zeros takes longer than all the rest
MEMORY = 100  # MB


def stretched(source: str, to: str) -> str:
    """A copy with all that no segment holds moved far behind, as behind gigabytes of debug data."""
    headers = read_headers(source)
    cut = max(p.file_end for p in headers.loads)
    with open(source, "rb") as old, open(to, "xb") as new:
        new.write(old.read(cut))
        new.seek(cut + FAR)
        new.write(old.read())
        moved = headers.ehdr._replace(shoff=headers.ehdr.shoff + FAR)
        new.seek(0)
        new.write(headers.layout.pack_ehdr(headers.ident, moved))
        new.seek(moved.shoff)
        for section in headers.shdrs:
            offset = section.offset + (FAR if section.offset >= cut else 0)
            new.write(headers.layout.pack_shdr(section._replace(offset=offset)))
    return to


def edited(source: str, to: str, edit: ElfEdit) -> None:
    with open(to, "xb+") as file:
        write_edited(source, file.fileno(), edit, DIGEST)
        assert check(source, file.fileno(), edit) == ()


@pytest.fixture
def large(workshop: Workshop, tmp_path: Path) -> str:
    path = stretched(workshop.library(*RICH, "-g"), os.path.join(tmp_path, "large.so"))
    if os.stat(path).st_blocks * 512 > 1 << 24:
        pytest.skip("this file system has no sparse files")
    return path


def test_file_above_4_gib(workshop: Workshop, tmp_path: Path, large: str) -> None:
    out, back = os.path.join(tmp_path, "out"), os.path.join(tmp_path, "back")
    edited(large, out, ElfEdit(workshop.there))
    assert load(out) == "42"
    found = read(out)
    assert isinstance(found, ElfFacts)
    assert found.original_sha256 == DIGEST
    assert os.stat(out).st_size > os.stat(large).st_size > FAR
    assert os.stat(out).st_blocks * 512 < 1 << 24
    done = subprocess.run([need("readelf"), "-SlW", out], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    with open(back, "xb") as file:
        assert not write_edited(out, file.fileno(), ElfEdit(None)).changed
    with open(large, "rb") as one, open(back, "rb") as other:
        cut = max(p.file_end for p in read_headers(large).loads)
        assert one.read(cut) == other.read(cut)
        one.seek(cut + FAR)
        other.seek(cut + FAR)
        assert one.read() == other.read()


def test_memory_does_not_depend_on_the_size(workshop: Workshop, tmp_path: Path, large: str) -> None:
    code = (
        "import os, sys\n"
        "from nixpatch.elf.check_inplace import check\n"
        "from nixpatch.elf.inplace_writer import write_edited\n"
        "from nixpatch.model import ElfEdit\n"
        "source, to, path = sys.argv[1:]\n"
        "edit = ElfEdit(path)\n"
        "fd = os.open(to, os.O_RDWR | os.O_CREAT)\n"
        "write_edited(source, fd, edit, bytes(32))\n"
        "assert check(source, fd, edit) == ()\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    command = [sys.executable, "-c", code, large, os.path.join(tmp_path, "out"), workshop.there]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MEMORY * 1000
