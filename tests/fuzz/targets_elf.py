"""What must hold for any bytes that are taken for an ELF file. Each target is a function of bytes."""

import contextlib
import os
from dataclasses import replace

from fuzz.forge import Forged, dlopen_note
from nixpatch.elf import mentions, read, read_symbols
from nixpatch.elf.check_inplace import check
from nixpatch.elf.headers import parse
from nixpatch.elf.image import Image
from nixpatch.elf.inplace_writer import Digests, write_edited, write_original
from nixpatch.elf.undo import UndoState, guard, guarded_tables, views_of
from nixpatch.elf.undo_record import FOOTER_SIZE, UndoFooter, UndoRecord
from nixpatch.errors import FileRefused
from nixpatch.installed.hashing import Hashing, hash_file
from nixpatch.model import ElfEdit, ElfFacts, ManualEdit, ResolutionCache, Skip, Tag

_LARGE = 1 << 20  # bytes; .bss may become 256 MiB of file, which takes its time to compare in full
PREFIX = 5
"""bytes of an input of :func:`edit` that say what the edit shall be"""


_RENAMES: tuple[tuple[tuple[str, str], ...], ...] = (
    (),
    (("libneed.so.2", "libn.so"),),
    (("libneed.so.2", "libneed-0a1b2c3d.so.2" * 9), ("libanswer.so", "a")),
    (("libanswer.so", "/nix/store/x/libanswer.so.1"),),
    (("libself.so.1", "\udcff"),),
    (("libneed.so.2", "libneed.so.2"),),
    (("libanswer.so", "libc.so.6"), ("libc.so.6", "libanswer.so")),
)
"""names that the seeds have, names that they have not, two that are one afterwards"""


_CACHES: tuple[ResolutionCache | None, ...] = (
    None,
    (),
    (("libneed.so.2", "=/nix/store/x/libneed.so.2"),),
    tuple(
        (f"lib{number}.so", f"?$ORIGIN:=/nix/store/{number:032}/lib/lib{number}.so") for number in range(9)
    ),
    (("", "="),),
)
"""none at all, a short one, a long one, and one that no note can hold"""
_MANUAL: tuple[ManualEdit, ...] = (
    ManualEdit(),
    ManualEdit(soname="libnew.so", os_abi=9, executable_stack=True),
    ManualEdit(needed=("liba.so", "libneed.so.2"), no_default_lib=True, debug_tag=True),
    ManualEdit(needed=()),
    ManualEdit(renamed_symbols=(("answer", "reply"), ("memset", "\udcff"), ("use", "employ" * 9))),
    ManualEdit(unversioned_symbols=("answer", "memset", "use"), soname="x" * 40),
)
"""names that the seeds have, and others"""


class Scratch:
    """A file in memory that is written anew for each input."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._owner = -1
        self._fd = -1

    @property
    def fd(self) -> int:
        """The descriptor; each process has a file of its own."""
        if self._owner != os.getpid():
            self._owner, self._fd = os.getpid(), os.memfd_create(self._name)
        return self._fd

    def fill(self, data: bytes) -> int:
        """Make the file hold these bytes."""
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, data, 0)
        return self.fd

    def content(self) -> bytes:
        """Give all of it."""
        return os.pread(self.fd, os.fstat(self.fd).st_size, 0)


_SOURCE, _OUT, _AGAIN = Scratch("source"), Scratch("out"), Scratch("again")


def reader(data: bytes) -> None:
    """Reading ends with facts or with a reason, and every name in the facts can be a file's."""
    source = _SOURCE.fill(data)
    found = read(source, payload_ok=True)
    assert isinstance(found, ElfFacts | Skip)
    if isinstance(found, ElfFacts):
        for name in _names(found):
            os.fsencode(name)
        assert found.stale_undo or found.original_sha256 or found.original == found.current


def edit(data: bytes) -> None:
    """What gets out of an edit is right in every byte, leads back to its source and stays what it is."""
    wish, body = edit_of(data)
    source = _SOURCE.fill(body)
    digests = Digests(old := Hashing(), made := Hashing())
    try:
        result = write_edited(source, _OUT.fill(b""), wish, digests=digests)
    except FileRefused:
        return
    if check(source, _OUT.fd, wish):
        return  # thrown away, as write_checked does
    if result.digested and result.size < _LARGE:
        assert (old.result(), made.result()) == (hash_file(source), hash_file(_OUT.fd))
    if result.size < _LARGE:
        assert check(source, _OUT.fd, wish, deep=True) == ()
    before = views_of(source)
    original = before.original.image.read(0, before.original.image.size)
    if not result.changed:
        assert _OUT.content() == original
        return
    if isinstance(read(source, payload_ok=True, any_os=True), Skip):
        return  # no plan has an edit for such a file
    after = read(_OUT.fd, payload_ok=True, any_os=True)
    assert isinstance(after, ElfFacts)
    assert wish.search_path is None or (after.current.search_path or "") == wish.search_path
    assert wish.interp is None or after.current.interp == wish.interp
    assert wish.resolution_cache is None or after.current.resolution_cache == wish.resolution_cache
    new = dict(wish.renames)
    was = read(source, payload_ok=True, any_os=True)
    if isinstance(was, ElfFacts) and before.state is UndoState.NONE:
        needed = tuple(new.get(name, name) for name in was.needed)
        assert after.needed == (needed if wish.manual.needed is None else wish.manual.needed)
        assert after.soname == (wish.manual.soname or was.soname)
        assert [need.soname for need in after.version_needs] == [
            new.get(need.soname, need.soname) for need in was.version_needs
        ]
    if before.state is UndoState.STALE:
        return
    try:
        write_original(_OUT.fd, _AGAIN.fill(b""))
    except FileRefused:
        assert before.state is UndoState.INTACT  # whose digest of the original is believed
    else:
        assert _AGAIN.content() == original
    write_edited(_OUT.fd, _AGAIN.fill(b""), wish)
    assert _AGAIN.content() == _OUT.content()


def undo(data: bytes) -> None:
    """A record is data like any other: whoever forges one gets no further than with a forged header."""
    source = _SOURCE.fill(data)
    with contextlib.suppress(FileRefused):
        forged = _guarded(source, data)
        if forged is not None:
            source = _SOURCE.fill(forged)
    reader(_SOURCE.content())
    try:
        write_original(source, _OUT.fill(b""))
    except FileRefused:
        pass
    else:
        seen = views_of(source)
        assert _OUT.content() == seen.original.image.read(0, seen.original.image.size)
    if len(data) % 4 == 0:  # dear, and much of it is the same
        edit(b"\1\1\0\0\0" + _SOURCE.content())


def symbols(data: bytes) -> None:
    """Symbols are those of a file or it is refused; the names of a file stand in it or nowhere."""
    source = _SOURCE.fill(data)
    with contextlib.suppress(FileRefused):
        found = read_symbols(source)
        for name, definitions in found.defined.items():
            os.fsencode(name)
            assert definitions
            assert all(one.index <= 0x7FFF for one in definitions)
        names = {os.fsencode(reference.name) for reference in found.wanted}
        assert all(reference.version is None or reference.soname is not None for reference in found.wanted)
        assert mentions(source, names) <= names
        assert all(name in data for name in mentions(source, {b"lib", b"\0", b"", *names}))


def note(data: bytes) -> None:
    """A note of libraries that are opened names such as can be files, or says nothing."""
    align = data[:1] or b"\0"
    content = data[1:]
    noted = content if align[0] & 1 else dlopen_note(content)
    reader(Forged(notes=(noted,)).data())


def edit_of(data: bytes) -> tuple[ElfEdit, bytes]:
    """Split an input into the edit that its first bytes stand for and the file."""
    path, interp, tag, length, renamed = data[:PREFIX].ljust(PREFIX, b"\0")
    search_path = {0: None, 1: "", 2: "$ORIGIN/../lib", 3: "/new/\udcff:" + "x" * length * 16}[path % 4]
    loader = {0: None, 1: "/l", 2: "/nix/store/" + "i" * length * 4, 3: "/lib64/ld-linux-x86-64.so.2"}[
        interp % 4
    ]
    edit = ElfEdit(search_path, (None, Tag.RPATH, Tag.RUNPATH)[tag % 3], loader)
    names, cache = _RENAMES[renamed % len(_RENAMES)], _CACHES[tag // 3 % len(_CACHES)]
    manual = _MANUAL[interp // 4 % len(_MANUAL)]
    return replace(edit, renames=names, resolution_cache=cache, manual=manual), data[PREFIX:]


def _names(facts: ElfFacts) -> "list[str]":
    names = [*facts.needed, *facts.version_defs, facts.soname or ""]
    for linkage in (facts.current, facts.original):
        names += [linkage.search_path or "", linkage.interp or ""]
    for need in facts.version_needs:
        names += [need.soname, *need.versions]
    for opened in facts.dlopen_needs:
        names += opened.sonames
    return names


def _guarded(fd: int, data: bytes) -> bytes | None:
    """Give the file with checksum, digest and size of its undo record made right, None if it has none."""
    image = Image.of(fd)
    headers = parse(image)
    at = headers.last_load.file_end - FOOTER_SIZE
    footer = UndoFooter.unpack(data[at : at + FOOTER_SIZE]) if at >= 0 else None
    if footer is None or not 0 < footer.record_length <= at:
        return None
    packed = data[at - footer.record_length : at]
    record = UndoRecord.unpack(packed)
    if record is None or sum(length for _, length in record.left) > len(data):
        return None
    footer = replace(footer, size=len(data))
    if all(p.offset + len(p.data) <= footer.original_size for p in record.patches) and footer.delta > 0:
        size = min(footer.original_size, len(data))
        footer = replace(footer, original_size=size)
        with contextlib.suppress(FileRefused):
            original = image.before_edit(footer.cut, footer.delta, size, record.patches)
            footer = replace(footer, sha256=original.sha256())
    checksum = guard(image, guarded_tables(image, headers), packed, footer, record.left)
    return data[:at] + replace(footer, guard=checksum).pack() + data[at + FOOTER_SIZE :]
