"""Every place where ld.so looked for one need, in its order, and why each did or did not serve."""

from __future__ import annotations

import os
from collections.abc import Iterator

from rich.text import Text

from nixpatch.escape import shown
from nixpatch.model import ElfFacts, Tag
from nixpatch.model.trace import SearchedPlace, SearchStep, Trace, TracedNeed


def steps(link: TracedNeed, trace: Trace, indent: str) -> Iterator[Text]:
    """Yield a line for each step of ld.so(8), and below it one for each place where there are more."""
    if link.places and link.places[0].how is SearchStep.LOADED:
        first = link.places[0]
        who = "the program itself" if first.of == first.path else shown(first.of)
        text = f"{indent}1. loaded already: {shown(first.path or '')}, first asked for by {who}"
        yield Text(text, style="green")
        return
    for number, (title, places) in enumerate(_steps(link, trace), 1):
        served = any(place.why is None for place in places)
        yield Text(f"{indent}{number}. {title}", style="green" if served else "")
        for place in places:
            where = "" if place.how is SearchStep.CACHE else f"{shown(os.path.dirname(place.path or ''))}: "
            entry = f"{shown(place.entry) or '(empty)'} = " if _differs(place) else ""
            text = f"{indent}   {entry}{where}{place.why or 'serves'}"
            if place.why is None:
                text = f"{indent}   {entry}{shown(place.path or '')}: serves"
            yield Text(text, style="green" if place.why is None else "dim")
        if served:
            return


def _differs(place: SearchedPlace) -> bool:
    """Whether the entry as written says more than the directory that it means."""
    return place.how in {SearchStep.RPATH, SearchStep.PARENT_RPATH, SearchStep.RUNPATH} and "$" in place.entry


def _steps(link: TracedNeed, trace: Trace) -> Iterator[tuple[str, list[SearchedPlace]]]:
    """Yield the steps up to the one that serves, those too that had nothing to look at."""
    facts = trace.files.get(link.by)
    by_how: dict[SearchStep, list[SearchedPlace]] = {}
    for place in link.places:
        by_how.setdefault(place.how, []).append(place)
    if SearchStep.NAMED in by_how or "/" in link.need:
        yield "named by path, so nothing is searched", by_how.get(SearchStep.NAMED, [])
        return
    yield "loaded already under this name: no", []
    tag = facts.current.tag if facts else None
    if tag is Tag.RUNPATH:
        yield "RPATH: not asked, because the file has a RUNPATH", []
    else:
        yield (
            _title("RPATH", by_how.get(SearchStep.RPATH), "the file has none"),
            by_how.get(SearchStep.RPATH, []),
        )
        parents = by_how.get(SearchStep.PARENT_RPATH)
        names = dict.fromkeys(shown(os.path.basename(place.of)) for place in parents or ())
        yield _title(f"RPATH of {', '.join(names) or 'who loads it'}", parents, "none"), parents or []
    path = by_how.get(SearchStep.LIBRARY_PATH)
    yield _title("LD_LIBRARY_PATH", path, "not set"), path or []
    runpath = by_how.get(SearchStep.RUNPATH)
    yield _title("RUNPATH", runpath, "the file has none"), runpath or []
    yield from _built_in(by_how, trace, facts)


def _built_in(
    by_how: dict[SearchStep, list[SearchedPlace]], trace: Trace, facts: ElfFacts | None
) -> Iterator[tuple[str, list[SearchedPlace]]]:
    known = trace.start.known
    cache = by_how.get(SearchStep.CACHE, [])
    if known.cache is None:
        yield "ld.so.cache: this loader has none", []
    elif cache and cache[0].path is None:
        yield f"{shown(known.cache)}: does not have it", []
    else:
        yield f"{shown(known.cache)}:", cache
    default = by_how.get(SearchStep.DEFAULT, [])
    if default:
        yield "the loader's own directories:", default
    elif facts is not None and facts.no_default_lib:
        yield "the loader's own directories: not asked (DF_1_NODEFLIB)", []
    elif trace.start.loader is None:
        yield "the loader's own directories: no loader is known", []


def _title(name: str, places: list[SearchedPlace] | None, none: str) -> str:
    return f"{name}:" if places else f"{name}: {none}"
