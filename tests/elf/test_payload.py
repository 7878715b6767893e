"""Programs that carry data they look for in their own file: real ones, and how each is told from the rest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nixpatch.elf import read
from nixpatch.model import ElfEdit, ElfFacts, SkipReason
from support.programs import (
    RICH,
    Workshop,
    content,
    copy,
    edit_file,
    interpreter_alias,
    need,
    patched_bytes,
    run,
)

COOKIE = b"MEI\014\013\012\013\016" + bytes(80)


def facts(path: str) -> ElfFacts:
    found = read(path, payload_ok=True)
    assert isinstance(found, ElfFacts), found
    return found


def named(path: str) -> str | None:
    """What a program is said to carry."""
    found = read(path)
    if isinstance(found, ElfFacts):
        return None
    assert found.reason is SkipReason.PAYLOAD
    return found.detail


def installed(directory: str, package: str) -> str:
    """Install a package into a new environment and give its bin directory."""
    venv = os.path.join(directory, "venv")
    uv = [sys.executable, "-m", "uv", "-q"]
    subprocess.run([*uv, "venv", "-p", sys.executable, venv], check=True)
    python = os.path.join(venv, "bin", "python")
    subprocess.run([*uv, "pip", "install", "-p", python, package], check=True)
    return os.path.join(venv, "bin")


def edited(path: str, to: str, directory: str) -> str:
    """An edited copy that cannot run any more unless its interpreter and its own data are found."""
    loader = facts(path).current.interp
    assert loader
    edit_file(path, to, ElfEdit("/nowhere", interp=interpreter_alias(directory, loader, 100)))
    return to


@pytest.mark.pypi
def test_real_pyinstaller_program(tmp_path: Path) -> None:
    need("objcopy")  # PyInstaller's way to put its archive into a section
    tool = os.path.join(installed(str(tmp_path), "pyinstaller>=6.20,<7"), "pyinstaller")
    Path(tmp_path, "app.py").write_text("print('frozen', 6 * 7)\n")
    command = [tool, "--onefile", "--log-level=ERROR", "app.py"]
    environment = {**os.environ, "PYINSTALLER_CONFIG_DIR": str(tmp_path)}
    subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, env=environment)
    app = os.path.join(tmp_path, "dist", "app")
    assert run(app) == "frozen 42"
    found = named(app)
    assert found
    assert found.startswith("PyInstaller, ")
    # Who insists loses nothing: the archive is found by its cookie, wherever it stands.
    assert run(edited(app, os.path.join(tmp_path, "forced"), str(tmp_path))) == "frozen 42"


@pytest.mark.pypi
def test_real_deno(tmp_path: Path) -> None:
    """The runtime itself carries nothing and is edited; what ``deno compile`` makes of it does, see below."""
    deno = os.path.join(installed(str(tmp_path), "deno>=2.5,<3"), "deno")
    assert named(deno) is None
    out = edited(deno, os.path.join(tmp_path, "deno"), str(tmp_path))
    done = subprocess.run(
        [out, "eval", "console.log(6 * 7)"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "DENO_DIR": os.path.join(tmp_path, "cache"), "NO_COLOR": "1"},
    )
    assert done.stdout == "42\n"
    compiled = copy(deno, os.path.join(tmp_path, "compiled"))
    with open(compiled, "ab") as file:
        file.write(b"d3n0l4nd" + b"x" * 5000 + b"d3n0l4nd" + bytes(12))
    assert named(compiled) == "deno, 5028 bytes"


APPENDED = {
    "zip": b"PK\3\4" + b"x" * 500 + b"PK\5\6" + bytes(18),
    "PyInstaller": b"x" * 500 + COOKIE,
    "bun": b"x" * 500 + b"\n---- Bun! ----\n" + bytes(8),
}


@pytest.mark.gcc
@pytest.mark.parametrize("kind", APPENDED)
def test_payload_in_a_section_of_its_own(workshop: Workshop, tmp_path: Path, kind: str) -> None:
    blob = os.path.join(tmp_path, "blob")
    Path(blob).write_bytes(APPENDED[kind])
    out = os.path.join(tmp_path, "out")
    command = [need("objcopy"), "--add-section", f"data={blob}", workshop.program(*RICH), out]
    subprocess.run(command, check=True)
    assert named(out) == f"{kind}, {os.stat(blob).st_size} bytes in a section"
    plain = os.path.join(tmp_path, "plain")
    Path(blob).write_bytes(APPENDED[kind] + b"any other end" * 20)
    subprocess.run([*command[:-1], plain], check=True)
    assert named(plain) is None


@pytest.mark.gcc
def test_appimage_is_one_by_its_mark_alone(workshop: Workshop, tmp_path: Path) -> None:
    def change(data: bytearray) -> None:
        data[8:11] = b"AI\2"
        data.extend(b"hsqs" + bytes(5000))

    path = patched_bytes(workshop.program(), os.path.join(tmp_path, "with"), change)
    assert named(path) == "AppImage, 5004 bytes"


@pytest.mark.gcc
def test_payload_at_an_address_survives_the_edit(workshop: Workshop, tmp_path: Path) -> None:
    """A blob that is mapped, as in a node SEA: found through the program headers, it needs no protection."""
    program = workshop.gcc("sea", workshop.source("sea.c"), workshop.source("use.c"), *RICH, workshop.answer)
    assert named(program) is None
    out = os.path.join(tmp_path, "out")
    edit_file(program, out, ElfEdit(workshop.there))
    assert run(out) == "42 blob"


@pytest.mark.gcc
def test_payload_of_an_edited_program_is_still_recognised(workshop: Workshop, tmp_path: Path) -> None:
    path = patched_bytes(
        workshop.program(*RICH), os.path.join(tmp_path, "with"), lambda data: data.extend(APPENDED["zip"])
    )
    out = os.path.join(tmp_path, "out")
    edit_file(path, out, ElfEdit(workshop.there))
    assert named(out) == named(path)
    assert content(out).endswith(APPENDED["zip"])
    assert run(out) == "42 phdr"
