"""Wheel files (PEP 427): unpack one within bounds as an installer would lay it out.

A wheel is untrusted. It is refused as a whole if a member would land outside of the directory, is a link or
encrypted, or appears twice, or if RECORD does not describe every file.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Final

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from nixpatch.arch import ARCHES
from nixpatch.errors import RequestError
from nixpatch.escape import reason, shown
from nixpatch.installed.dists import MAX_HEADERS, headers
from nixpatch.installed.hashing import encode_digest
from nixpatch.installed.record import MAX_RECORD_SIZE, quoted

_MAX_MEMBERS: Final = 200_000
_MAX_SIZE: Final = 16 << 30
"""bytes of all members unpacked; torch has three billion"""
_SHOWN: Final = 200
"""characters of the name of a member in a message"""
_MAX_RATIO: Final = 1100
"""of unpacked to packed bytes; deflate reaches 1,032 (zlib.net, "Maximum compression factor")"""
_ENCRYPTED: Final = 0x1  # general purpose bit 0 (APPNOTE 4.4.4)
_DAMAGE: Final = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError),
    *(struct.error, ValueError, OverflowError, OSError),
)
"""what zipfile raises for an archive that is not one, or only in part; the second line is for offsets and
lengths beyond the file, and for names in no encoding"""
_MEND: Final = "mend the wheel first"
_SDISTS: Final = (".tar.gz", ".tar.bz2")
_PLATFORMS: Final = ("any", "linux_", "manylinux", "musllinux_")
"""beginnings of the platform tags of wheels that may have ELF files (PEP 425, PEP 600, PEP 656)"""
SIGNATURES: Final = frozenset({"RECORD.jws", "RECORD.p7s"})
"""they are not in RECORD (PEP 427)"""
_SCHEMES: Final = {"purelib": "", "platlib": "", "scripts": "bin", "headers": "include", "data": "."}
BUILD: Final = "nixpatch"
"""what the build tag of a patched wheel ends with: installers prefer it to the same version without"""


@dataclass(frozen=True, slots=True)
class UnpackedMember:
    """A file of a wheel that was unpacked."""

    path: str
    digest: str
    """its SHA-256 as RECORD has it"""


@dataclass(frozen=True, slots=True)
class WheelFile:
    """What is known of a wheel from its name and its directory of members."""

    path: str
    name: str
    """as the file name has it"""
    version: str
    build: str
    tags: str
    """``cp311-cp311-manylinux_2_28_x86_64``"""
    info: str
    """the ``.dist-info`` directory among the members"""
    members: tuple[zipfile.ZipInfo, ...]
    """files in the order of the archive"""

    @property
    def python_version(self) -> tuple[int, int] | None:
        """The version of CPython that the wheel is for; None for one that runs on several."""
        python, abi, _ = self.tags.split("-")
        if python.startswith("cp3") and abi == python and python[3:].isdigit():
            return 3, int(python[3:])
        return None

    @property
    def rewritten(self) -> frozenset[str]:
        """The members that are written anew in every patched wheel."""
        return frozenset({f"{self.info}/WHEEL", f"{self.info}/RECORD"})

    @property
    def machine(self) -> str:
        """The machine that the wheel is for, as its platform tags spell it; "" for one that runs on any."""
        return next((arch.name for arch in ARCHES if self.tags.endswith(f"_{arch.name}")), "")

    @property
    def patched_name(self) -> str:
        """The file name of the patched wheel: the same tags, and a build tag that is preferred (PEP 427)."""
        return f"{self.name}-{self.version}-{self.patched_build}-{self.tags}.whl"

    @property
    def patched_build(self) -> str:
        """The build tag of the patched wheel."""
        return self.build if self.build.endswith(BUILD) else f"{self.build or '0'}{BUILD}"

    def installed_path(self, member: str) -> str:
        """Return where an installer puts a member, relative to the prefix; ``{site}`` is its site-packages.

        Raises:
            RequestError: it is in a directory of ``.data`` that has no meaning.

        """
        data = f"{self.name}-{self.version}.data/"
        if not member.startswith(data):
            return f"{{site}}/{member}"
        scheme, _, rest = member.removeprefix(data).partition("/")
        if scheme not in _SCHEMES or not rest:
            raise RequestError(
                f"{self.path}: {_shown_name(member)}: no such scheme as {_shown_name(scheme)} (PEP 427)"
            )
        directory = _SCHEMES[scheme] or "{site}"
        if scheme == "headers":
            directory = f"include/{self.name}"
        return os.path.normpath(f"{directory}/{rest}")

    def path_of(self, member: str, prefix: str, site: str) -> str:
        """Return where an installer puts a member, for a prefix and its site-packages.

        Raises:
            RequestError: as :meth:`installed_path` does.

        """
        below = self.installed_path(member).replace("{site}", os.path.relpath(site, prefix), 1)
        return os.path.normpath(os.path.join(prefix, below))


def _shown_name(member: str) -> str:
    """Return the name of a member for a message: 65,535 bytes are allowed, which are no sentence."""
    return shown(member if len(member) <= _SHOWN else f"{member[:_SHOWN]}...")


def read_wheel(path: str) -> WheelFile:
    """Read the directory of a wheel, and refuse what must not be unpacked.

    Raises:
        RequestError: it is no wheel, or one of its members is not allowed.

    """
    base = os.path.basename(path)
    try:
        if stat.S_ISDIR(os.stat(path).st_mode):
            raise RequestError(f"{path} is a directory: name the wheels in it: {path.rstrip('/')}/*.whl")
        if base.endswith(_SDISTS):
            raise RequestError(f"{path} is no wheel: build one of it first: pip wheel --no-deps {path}")
        parse_wheel_filename(base)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except InvalidWheelFilename as error:
        raise RequestError(f"{path}: not the name of a wheel (PEP 427): {error}") from error
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {reason(error)}") from error
    except _DAMAGE as error:
        raise RequestError(f"{path}: not a zip file that can be read: {reason(error)}") from error
    words = base.removesuffix(".whl").split("-")
    build = words[2] if len(words) == 6 else ""
    _check_members(path, members)
    files = tuple(info for info in members if not info.is_dir())
    infos = {info.filename.partition("/")[0] for info in files if ".dist-info/" in info.filename}
    wanted = [info for info in infos if _names(info, words[0], words[1])]
    if len(infos) != 1 or len(wanted) != 1:
        raise RequestError(f"{path}: it has no .dist-info directory of its name, or several")
    platforms = words[-1].split(".")
    if not any(platform.startswith(_PLATFORMS) for platform in platforms):
        raise RequestError(f"{path} is a wheel for {shown(words[-1])}: only those for Linux can be patched")
    return WheelFile(path, words[0], words[1], build, "-".join(words[-3:]), wanted[0], files)


def _names(info: str, name: str, version: str) -> bool:
    own, _, rest = info.removesuffix(".dist-info").partition("-")
    same_version = rest.replace("_", "-") == version.replace("_", "-")
    return canonicalize_name(own) == canonicalize_name(name) and same_version


def _check_members(path: str, members: list[zipfile.ZipInfo]) -> None:
    if len(members) > _MAX_MEMBERS:
        raise RequestError(f"{path}: more than {_MAX_MEMBERS} members; it was not unpacked")
    seen: set[str] = set()
    for info in members:
        name = info.filename
        problem = _problem(info)
        if problem is None and name in seen:
            problem = "is in it twice"
        if problem is not None:
            raise RequestError(f"{path}: {_shown_name(name)}: {problem}; it was not unpacked")
        seen.add(name)
    if sum(info.compress_size for info in members) > os.path.getsize(path):
        raise RequestError(f"{path}: its members overlap; it was not unpacked")
    if sum(info.file_size for info in members) > _MAX_SIZE:
        raise RequestError(f"{path}: more than {_MAX_SIZE >> 30} GiB unpacked; it was not unpacked")


def _problem(info: zipfile.ZipInfo) -> str | None:
    parts = info.filename.rstrip("/").split("/")
    mode = info.external_attr >> 16
    if "\\" in info.filename or any(part in {"", ".", ".."} for part in parts) or "\0" in info.orig_filename:
        return "is not a relative path of plain names"
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "is a link or a special file"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.file_size > _MAX_RATIO * (info.compress_size + 1):
        return "unpacks to more than deflate can pack"
    return None


def unpack(
    wheel: WheelFile, prefix: str, site: str, write: Callable[[str, IO[bytes], bool], None]
) -> dict[str, UnpackedMember]:
    """Write the files of a wheel where an installer would put them, with RECORD as it would write it.

    Scripts keep their first line. Each file is held against RECORD while it is copied.

    Args:
        wheel: as :func:`read_wheel` returns it.
        prefix: an empty directory.
        site: the site-packages in it.
        write: ``write(path, contents, executable)`` makes one file.

    Returns:
        the files, by member.

    Raises:
        RequestError: RECORD is missing, does not describe a file, or describes one that is not there.
        OSError: a file cannot be written.

    """
    record = f"{wheel.info}/RECORD"
    paths = {info.filename: wheel.path_of(info.filename, prefix, site) for info in wheel.members}
    if len(set(paths.values())) < len(paths):
        raise RequestError(f"{wheel.path}: two of its files would be installed at one place")
    rows: list[tuple[str, str, str]] = []
    hashes: dict[str, str] = {}
    with zipfile.ZipFile(wheel.path) as archive:
        digests = _read_record(wheel, archive)
        if absent := sorted(digests.keys() - paths.keys()):
            raise RequestError(f"{wheel.path}: {_shown_name(absent[0])}: in RECORD, but not in it; {_MEND}")
        for info in wheel.members:
            name = info.filename
            if name == record:
                continue
            with readable(wheel):
                contents = archive.open(info)
            with contents:
                hashed = _Hashed(wheel, contents, info.file_size)
                executable = bool(info.external_attr >> 16 & 0o111) or ".data/scripts/" in name
                write(paths[name], hashed, executable)  # type: ignore[arg-type]
            digest, hashes[name] = digests.get(name), hashed.digest()
            if digest is None and os.path.basename(name) not in SIGNATURES:
                raise RequestError(f"{wheel.path}: {_shown_name(name)}: not in RECORD; {_MEND}")
            if digest is not None and digest != hashes[name]:
                raise RequestError(
                    f"{wheel.path}: {_shown_name(name)}: RECORD describes another file; {_MEND}"
                )
            rows.append((os.path.relpath(paths[name], site), f"sha256={hashes[name]}", str(info.file_size)))
    rows.append((os.path.relpath(paths[record], site), "", ""))
    write(paths[record], io.BytesIO(csv_of(rows)), False)
    hashes[record] = ""
    return {name: UnpackedMember(path, hashes[name]) for name, path in paths.items()}


@contextlib.contextmanager
def readable(wheel: WheelFile) -> Iterator[None]:
    """Turn what zipfile raises on a damaged archive into one line."""
    try:
        yield
    except _DAMAGE as error:
        raise RequestError(
            f"{wheel.path}: cannot be unpacked: {reason(error)}; get the wheel again"
        ) from error


def _read_record(wheel: WheelFile, archive: zipfile.ZipFile) -> dict[str, str]:
    """Return the SHA-256 of each row of RECORD.

    Raises:
        RequestError: it cannot be read, or a row has no SHA-256.

    """
    try:
        info = archive.getinfo(f"{wheel.info}/RECORD")
        if info.file_size > MAX_RECORD_SIZE:
            raise RequestError(f"{wheel.path}: its RECORD has more than {MAX_RECORD_SIZE >> 20} MiB")
        with readable(wheel):
            data = archive.read(info)
        text = data.decode("utf-8")
        rows = [row for row in csv.reader(io.StringIO(text)) if row]
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{wheel.path}: its RECORD cannot be read: {error}") from error
    hashes = {}
    for row in rows:
        algorithm, _, digest = (row[1] if len(row) > 1 else "").partition("=")
        if row[0].startswith(f"{wheel.info}/RECORD"):
            continue
        if algorithm != "sha256":
            text = f"{wheel.path}: {_shown_name(row[0])}: RECORD has no sha256 of it; {_MEND}"
            raise RequestError(text)
        hashes[row[0]] = digest.rstrip("=")
    return hashes


class _Hashed(io.RawIOBase):
    """Passes on the contents of a member and hashes them; more than the archive declares is an error."""

    def __init__(self, wheel: WheelFile, contents: IO[bytes], size: int) -> None:
        self._wheel, self._contents, self._left, self._hash = wheel, contents, size, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        with readable(self._wheel):
            data = self._contents.read(size)
        self._left -= len(data)
        if self._left < 0:
            text = "a member is longer than the archive says; nothing was written"
            raise RequestError(f"{self._wheel.path}: {text}")
        self._hash.update(data)
        return data

    def digest(self) -> str:
        """Return the digest as RECORD has it."""
        return encode_digest(self._hash.digest())


def csv_of(rows: Iterable[tuple[str, str, str]]) -> bytes:
    """Return rows of RECORD as CSV. Python's writer does not quote a carriage return before 3.13."""
    return b"".join(b",".join(quoted(field.encode("utf-8")) for field in row) + b"\n" for row in rows)


def requirements_of(wheel: WheelFile) -> tuple[str, ...]:
    """Return the Requires-Dist lines of METADATA, unparsed.

    Raises:
        RequestError: it cannot be read.

    """
    name = f"{wheel.info}/METADATA"
    if not any(info.filename == name for info in wheel.members):
        return ()
    with readable(wheel), zipfile.ZipFile(wheel.path) as archive, archive.open(name) as file:
        return tuple(headers(file.read(MAX_HEADERS)).get("requires-dist", ()))
