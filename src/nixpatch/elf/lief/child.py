"""Runs in a child process only (:mod:`nixpatch.elf.child_process`): let LIEF add one segment to a file.

The answer is ``{"address": ...}`` once the file is written, ``{"refused": ...}`` otherwise.
"""

import base64
from collections.abc import Iterator
from typing import Any


def answers(request: dict[str, Any]) -> Iterator[dict[str, object]]:
    """Answer the one request."""
    yield add_segment(request)


def add_segment(request: dict[str, Any]) -> dict[str, object]:
    """Parse the source, add the segment, write the output; return the answer."""
    import lief  # noqa: PLC0415 - it may fail, and the limits must be set first

    lief.logging.set_level(lief.logging.LEVEL.ERROR)
    parsing = lief.ELF.ParserConfig()
    # No address moves, so everything that refers to addresses stays unread. It would take most of LIEF's time
    # and memory; LIEF also sorts the symbols that it reads, and stops at 3,000,000 relocations.
    for name in ("relocations", "symtab_symbols", "dyn_symbols", "symbol_versions", "notes"):
        setattr(parsing, f"parse_{name}", False)
    binary = lief.ELF.parse(f"/proc/self/fd/{request['source']}", parsing)
    if binary is None:
        return {"refused": "LIEF cannot parse it"}
    if not make_room(lief, binary, program=request["program"]):
        return {"refused": "LIEF has no room for its program headers unless every address moves"}
    for entry in list(binary.dynamic_entries):
        binary.remove(entry)  # from LIEF's view: it rebuilds everything that an entry points to
    segment = lief.ELF.Segment()
    segment.type = lief.ELF.Segment.TYPE.LOAD
    segment.flags = lief.ELF.Segment.FLAGS(request["flags"])
    segment.alignment = request["alignment"]
    segment.content = list(base64.b64decode(request["content"]))
    added = binary.add(segment)
    if added is None:
        return {"refused": "LIEF could not add a segment"}
    address = added.virtual_address
    binary.write(f"/proc/self/fd/{request['output']}", nothing_else(lief))
    return {"address": address}


def make_room(lief: Any, binary: Any, *, program: bool) -> bool:
    """Find a place for one more program header without moving an address. Return False if there is none.

    LIEF's default leaves the table in place and shifts everything behind it, and all pointers to that, by a
    page. A program gets no table at its end: before Linux 5.18, the kernel computes its address from the
    first segment (fs/binfmt_elf.c, load_addr + e_phoff).
    """
    relocation = lief.ELF.Binary.PHDR_RELOC
    kinds = (relocation.SEGMENT_GAP,) if program else (relocation.SEGMENT_GAP, relocation.FILE_END)
    return any(binary.relocate_phdr_table(kind) for kind in kinds)


def nothing_else(lief: Any) -> Any:
    """Make a configuration with which LIEF builds only the header tables."""
    config = lief.ELF.Builder.config_t()
    for name in dir(config):
        if not name.startswith("_") and isinstance(getattr(config, name), bool):
            setattr(config, name, False)
    config.keep_empty_version_requirement = config.skip_dynamic = True
    return config
