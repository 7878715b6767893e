"""A trace as JSON: the part of the document that ``nixpatch tree --json`` prints."""

from __future__ import annotations

from typing import Any

from nixpatch.model import ElfFacts
from nixpatch.model.trace import Trace, TracedNeed


def trace_entry(trace: Trace, why: str | None = None) -> dict[str, Any]:
    """Return the entry for what was asked about; with ``why`` only the needs of that soname."""
    start = trace.start
    links = [link for link in trace.links if why is None or link.need == why]
    return {
        "root": trace.root,
        "kind": trace.tree.kind.value if trace.tree else "file",
        "process": {
            "program": start.program,
            "found_by": start.found_by,
            "loader": start.loader,
            "default_directories": list(start.known.directories),
            "cache": start.known.cache,
            "library_path": list(start.library_path),
        },
        "files": [_file(path, facts) for path, facts in trace.files.items()],
        "skipped": [
            {"path": path, "reason": skip.reason.value, "detail": skip.detail}
            for path, skip in trace.skipped.items()
        ],
        "needs": [_need(link) for link in links],
        "summary": {
            "files": len(trace.asked),
            "needs": len(links),
            "not_found": sum(link.path is None for link in links),
        },
    }


def _file(path: str, facts: ElfFacts) -> dict[str, Any]:
    return {
        "path": path,
        "soname": facts.soname,
        "machine": facts.machine.name,
        "search_path": facts.current.search_path,
        "tag": facts.current.tag.value if facts.current.tag else None,
        "interpreter": facts.current.interp,
        "patched": facts.original_sha256 is not None,
    }


def _need(link: TracedNeed) -> dict[str, Any]:
    return {
        "by": link.by,
        "soname": link.need,
        "path": link.path,
        "how": link.how.name.lower() if link.how else None,
        "places": [
            {
                "how": place.how.name.lower(),
                "path": place.path,
                "of": place.of,
                "entry": place.entry,
                "why_not": place.why,
            }
            for place in link.places
        ],
    }
