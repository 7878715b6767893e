"""What an ELF file needs and provides, read by pyelftools."""

import io
from dataclasses import dataclass

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile


@dataclass(frozen=True, slots=True)
class Dynamic:
    """The dynamic section, as far as linking packages to each other goes."""

    machine: str
    soname: str | None
    needed: tuple[str, ...]


def read_dynamic(data: bytes) -> Dynamic | None:
    """The dynamic section of an ELF file; None for a static file and for anything else."""
    if not data.startswith(b"\x7fELF"):
        return None
    try:
        elf = ELFFile(io.BytesIO(data))
        segment = next((part for part in elf.iter_segments() if isinstance(part, DynamicSegment)), None)
        if segment is None:
            return None
        sonames, needed = _strings(segment, "soname"), _strings(segment, "needed")
    except ELFError:
        return None
    return Dynamic(elf["e_machine"], next(iter(sonames), None), tuple(needed))


def _strings(segment: DynamicSegment, name: str) -> list[str]:
    """The strings of all DT_<NAME>: pyelftools gives the tag an attribute of that name."""
    return [getattr(tag, name) for tag in segment.iter_tags(f"DT_{name.upper()}")]
