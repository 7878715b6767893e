"""The steps of ld.so's search for one need, and why each did or did not find it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rich.text import Text

from nixpatch.escape import shown
from nixpatch.model import ElfFacts, Tag
from nixpatch.model.trace import SearchedPlace, SearchStep, Trace, TracedNeed
from nixpatch.resolve.search_path import names_path

_SEARCH_PATHS = frozenset({SearchStep.RPATH, SearchStep.PARENT_RPATH, SearchStep.RUNPATH})


def steps(link: TracedNeed, trace: Trace, indent: str) -> Iterator[Text]:
    """Yield a line for each step of ld.so(8), and below it a line for each searched place."""
    if link.places and link.places[0].how is SearchStep.LOADED:
        first = link.places[0]
        if not first.of:
            text = f"{indent}1. only if it is loaded before under this soname: {shown(first.path or '')}"
            yield Text(text, style="green")
            return
        requester = "the program itself" if first.of == first.path else shown(first.of)
        text = f"{indent}1. loaded already: {shown(first.path or '')}, first requested by {requester}"
        yield Text(text, style="green")
        return
    if link.places and link.places[0].how is SearchStep.STARTUP:
        place = link.places[0]
        yield Text(f"{indent}1. start-up file {shown(place.of)}", style="green" if place.why is None else "")
        yield Text(f"{indent}   {shown(place.path or '')}: {place.why or 'found'}")
        return
    for number, (title, places) in enumerate(_steps(link, trace), 1):
        succeeded = any(place.why is None for place in places)
        yield Text(f"{indent}{number}. {title}", style="green" if succeeded else "")
        yield from (_place_line(place, f"{indent}   ") for place in places)
        if succeeded:
            return


def _place_line(place: SearchedPlace, indent: str) -> Text:
    # The entry as written and its directory differ where it has $ORIGIN or another token.
    expanded = place.how in _SEARCH_PATHS and "$" in place.entry
    entry = f"{shown(place.entry)} = " if expanded else ""
    if place.why is None:
        return Text(f"{indent}{entry}{shown(place.path or '')}: found", style="green")
    directory = "" if place.how is SearchStep.CACHE else f"{shown(os.path.dirname(place.path or ''))}: "
    return Text(f"{indent}{entry}{directory}{place.why}", style="dim")


def _steps(link: TracedNeed, trace: Trace) -> Iterator[tuple[str, list[SearchedPlace]]]:
    """Yield every step up to the one that succeeds, including those without a place to search."""
    facts = trace.files.get(link.by)
    by_how: dict[SearchStep, list[SearchedPlace]] = {}
    for place in link.places:
        by_how.setdefault(place.how, []).append(place)
    if SearchStep.NAMED in by_how or names_path(link.need):
        yield "a path, so nothing is searched", by_how.get(SearchStep.NAMED, [])
        return
    yield "loaded already under this name: no", []
    tag = facts.current.tag if facts else None
    if tag is Tag.RUNPATH:
        yield "RPATH: not used, because the file has a RUNPATH", []
    else:
        yield _title("RPATH", by_how.get(SearchStep.RPATH), "none"), by_how.get(SearchStep.RPATH, [])
        parents = by_how.get(SearchStep.PARENT_RPATH)
        names = dict.fromkeys(shown(os.path.basename(place.of)) for place in parents or ())
        yield _title(f"RPATH of {', '.join(names) or 'the loading files'}", parents, "none"), parents or []
    path = by_how.get(SearchStep.LIBRARY_PATH)
    yield _title("LD_LIBRARY_PATH", path, "not set"), path or []
    runpath = by_how.get(SearchStep.RUNPATH)
    yield _title("RUNPATH", runpath, "none"), runpath or []
    yield from _loader_steps(by_how, trace, facts)


def _loader_steps(
    by_how: dict[SearchStep, list[SearchedPlace]], trace: Trace, facts: ElfFacts | None
) -> Iterator[tuple[str, list[SearchedPlace]]]:
    known = trace.start.known
    cache = by_how.get(SearchStep.CACHE, [])
    if known.cache is None:
        yield "ld.so.cache: this loader has none", []
    elif cache and cache[0].path is None:
        yield f"{shown(known.cache)}: not in the cache", []
    else:
        yield f"{shown(known.cache)}:", cache
    default = by_how.get(SearchStep.DEFAULT, [])
    if default:
        yield "the loader's default directories:", default
    elif facts is not None and facts.no_default_lib:
        yield "the loader's default directories: not searched (DF_1_NODEFLIB)", []
    elif trace.start.loader is None:
        yield "the loader's default directories: no loader is known", []


def _title(name: str, places: list[SearchedPlace] | None, none: str) -> str:
    return f"{name}:" if places else f"{name}: {none}"
