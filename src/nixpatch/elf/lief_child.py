"""Run as a program of its own, never imported: let LIEF edit one file that is open, into another.

Reads one JSON object from standard input, writes one to standard output: ``{}`` when the output is written,
``{"refused": why}`` otherwise; says nothing if LIEF ends the process. Imports nothing of nixpatch, so that it
also runs isolated from the environment (``-I``).
"""

import json
import resource
import sys
from typing import Any

_PATH_TAGS = ("RPATH", "RUNPATH")


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
        answer = edit(request)
    except ImportError as error:  # where its libstdc++ is not found: NixOS, before nixpatch patched itself
        answer = {"refused": f"LIEF cannot be imported here ({error})"}
    except MemoryError:
        answer = {"refused": "LIEF ran out of the memory it may take"}
    except Exception as error:  # noqa: BLE001 - whatever it is, it is about this one file
        answer = {"refused": f"LIEF failed: {type(error).__name__}: {error}"}
    json.dump(answer, sys.stdout)


def edit(request: dict[str, Any]) -> dict[str, str]:
    """Parse, change, write; return what to tell."""
    import lief  # noqa: PLC0415 - it may fail, and the limits come first

    lief.logging.set_level(lief.logging.LEVEL.ERROR)
    parsing = lief.ELF.ParserConfig()
    # No address moves, so relocations and the static symbols stay as they are, unread: that is most of
    # LIEF's time and memory, and its limit of 3,000,000 relocations does not matter.
    parsing.parse_relocations = parsing.parse_symtab_symbols = parsing.parse_notes = False
    binary = lief.ELF.parse(f"/proc/self/fd/{request['source']}", parsing)
    if binary is None:
        return {"refused": "LIEF cannot parse it"}
    if not make_room(lief, binary, program=request["program"]):
        return {"refused": "LIEF has no room for its program headers unless every address moves"}
    set_search_path(lief, binary, request)
    if request["interp"] is not None:
        binary.interpreter = request["interp"]
    binary.write(f"/proc/self/fd/{request['output']}", building(lief))
    return {}


def make_room(lief: Any, binary: Any, *, program: bool) -> bool:
    """Find the program headers, which are to become more, a place that moves no address.

    The default puts them where they were and shifts all that follows by a page, with all pointers to it. A
    program gets no table at its end: the kernel tells it where the table is, and before Linux 5.18 counts
    from the first segment for that (fs/binfmt_elf.c, load_addr + e_phoff).
    """
    kinds = lief.ELF.Binary.PHDR_RELOC
    places = (kinds.SEGMENT_GAP,) if program else (kinds.SEGMENT_GAP, kinds.FILE_END)
    return any(binary.relocate_phdr_table(place) for place in places)


def set_search_path(lief: Any, binary: Any, request: dict[str, Any]) -> None:
    """Leave exactly one entry, or none."""
    wished = request["search_path"]
    if wished is None and not request["remove"]:
        return
    tags = [getattr(lief.ELF.DynamicEntry.TAG, name) for name in _PATH_TAGS]
    for entry in [entry for entry in binary.dynamic_entries if entry.tag in tags]:
        binary.remove(entry)
    if wished is not None:
        kind = lief.ELF.DynamicEntryRpath if request["tag"] == "RPATH" else lief.ELF.DynamicEntryRunPath
        binary.add(kind(wished))


def building(lief: Any) -> Any:
    """Configure LIEF to build anew only what refers to the string table, which is what grows."""
    config = lief.ELF.Builder.config_t()
    config.keep_empty_version_requirement = True
    config.force_relocate = config.notes = config.coredump_notes = False
    config.rela = config.jmprel = config.relr = config.android_rela = False
    config.init_array = config.fini_array = config.preinit_array = False
    config.dt_hash = config.static_symtab = config.sym_versym = False
    return config


if __name__ == "__main__":
    main()
