"""Run as a program of its own, never imported: let LIEF add one segment to a file.

Reads one JSON object from standard input, writes one to standard output: ``{"address": where}`` when the
output is written, ``{"refused": why}`` otherwise; says nothing if LIEF ends the process. Imports nothing of
nixpatch, so that it also runs isolated from the environment (``-I``).
"""

import base64
import json
import resource
import sys
from typing import Any


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    for name, limit in request["limits"].items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        most = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(number, (most, most))
    sys.path.append(request["lief"])
    try:
        answer = add_segment(request)
    except ImportError as error:  # where its libstdc++ is not found: NixOS, before nixpatch patched itself
        answer = {"refused": f"LIEF cannot be imported here ({error})"}
    except MemoryError:
        answer = {"refused": "LIEF ran out of the memory it may take"}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is about this one file
        answer = {"refused": f"LIEF failed: {type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


def add_segment(request: dict[str, Any]) -> dict[str, object]:
    """Parse, add, write; return what to tell."""
    import lief  # noqa: PLC0415 - it may fail, and the limits come first

    lief.logging.set_level(lief.logging.LEVEL.ERROR)
    parsing = lief.ELF.ParserConfig()
    # No address moves, so what refers to addresses stays as it is, unread. That is most of LIEF's time and
    # memory; it also sorts the symbols that it reads, and stops at 3,000,000 relocations.
    for name in ("relocations", "symtab_symbols", "dyn_symbols", "symbol_versions", "notes"):
        setattr(parsing, f"parse_{name}", False)
    binary = lief.ELF.parse(f"/proc/self/fd/{request['source']}", parsing)
    if binary is None:
        return {"refused": "LIEF cannot parse it"}
    if not make_room(lief, binary, program=request["program"]):
        return {"refused": "LIEF has no room for its program headers unless every address moves"}
    for entry in list(binary.dynamic_entries):
        binary.remove(entry)  # from LIEF's sight: it builds anew whatever an entry leads it to
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
    """Find the program headers, which are to become more, a place that moves no address.

    The default puts them where they were and shifts all that follows by a page, with all pointers to it. A
    program gets no table at its end: the kernel tells it where the table is, and before Linux 5.18 counts
    from the first segment for that (fs/binfmt_elf.c, load_addr + e_phoff).
    """
    kinds = lief.ELF.Binary.PHDR_RELOC
    places = (kinds.SEGMENT_GAP,) if program else (kinds.SEGMENT_GAP, kinds.FILE_END)
    return any(binary.relocate_phdr_table(place) for place in places)


def nothing_else(lief: Any) -> Any:
    """Configure LIEF to build nothing but the header tables."""
    config = lief.ELF.Builder.config_t()
    for name in dir(config):
        if not name.startswith("_") and isinstance(getattr(config, name), bool):
            setattr(config, name, False)
    config.keep_empty_version_requirement = config.skip_dynamic = True
    return config


if __name__ == "__main__":
    main()
