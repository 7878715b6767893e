"""The HTML page of a run: one file, which needs no network and no other file.

Style and script come from ``data/page``. The page's Content-Security-Policy allows these two by their digests
and nothing else (https://www.w3.org/TR/CSP3/). Names are JSON data that the script inserts as text, never as
markup.
"""

from __future__ import annotations

import base64
import hashlib
import json
import string
from collections.abc import Sequence
from importlib import resources
from typing import Any

from nixpatch.escape import below, shown
from nixpatch.model import FilePlan, Finding, Linkage, Outcome, Plan, Verdict
from nixpatch.model.missing import Missing
from nixpatch.operations.missing import find_dispensable, find_missing, find_unopened
from nixpatch.report.closing import run_closing, run_counts, verdict_closing
from nixpatch.report.graph import NodeFinder, graph
from nixpatch.report.missing import line_to_paste, source_text
from nixpatch.report.phrases import first_few, target_text
from nixpatch.report.unvendor import graft_texts
from nixpatch.store_paths import store_paths_of
from nixpatch.version import __version__

# Characters that could end the element with the JSON, or a line of a script (U+2028 and U+2029).
_JSON_ESCAPES = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}
_HTML_ESCAPES = {ord("<"): "&lt;", ord(">"): "&gt;", ord("&"): "&amp;", ord('"'): "&quot;"}


def page(title: str, trees: Sequence[dict[str, Any]]) -> bytes:
    """Return the page in UTF-8; ``trees`` come from :func:`plan_page` and :func:`verdict_page`."""
    style, script = _part("page.css"), _part("page.js")
    data = json.dumps({"tool": f"nixpatch {__version__}", "title": shown(title), "trees": trees})
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        string.Template(_part("page.html"))
        .substitute(
            title=shown(title).translate(_HTML_ESCAPES),
            policy=policy,
            style=style,
            script=script,
            data=data.translate(_JSON_ESCAPES),
        )
        .encode("utf-8")
    )


def plan_page(plan: Plan, outcome: Outcome | None, seconds: float) -> dict[str, Any]:
    """Return the data of the page for a plan (``outcome`` None) or its outcome."""
    errors = {done.plan.file.path: done.error or "" for done in outcome.failed} if outcome else {}
    finder = NodeFinder(plan)
    return {
        "root": shown(plan.tree.root),
        "closing": run_closing(plan, outcome, seconds),
        "target": target_text(plan.target) if plan.target is not None else "",
        "counts": [[kind, number, text] for kind, number, text in run_counts(plan, outcome) if number],
        "graph": graph(plan),
        "files": [_file(file, plan, finder, errors.get(file.file.path)) for file in plan.files],
        "missing": [
            {
                "soname": shown(missing.soname),
                "files": _below(missing.files, plan),
                "considered": [shown(line) for line in missing.considered],
                "stops": _below(missing.stops, plan),
                "advice": _advice(missing),
            }
            for missing in find_missing(plan)
        ],
        "paste": line_to_paste([plan]),
        "optional": [
            [shown(library.soname), use, first_few(_below(library.files, plan)), _advice(library)]
            for use, libraries in (
                ("needed by", find_dispensable(plan)),
                ("opened by name by", find_unopened(plan)),
            )
            for library in libraries
        ],
        "opened": sorted(
            {
                (shown(answer.need), below(answer.opener, plan.tree.root), shown(answer.path))
                for file in plan.files
                for answer in file.answers
                if answer.opener is not None and answer.path is not None
            }
        ),
        "grafts": [
            [graft.goes, below(graft.file.path, plan.tree.root), *map(shown, graft_texts(graft))]
            for graft in plan.vendored
        ],
        "texts": [[text.kind.value, below(text.path, plan.tree.root)] for text in plan.texts],
        "findings": _findings((*plan.findings, *(outcome.findings if outcome else ())), plan.tree.root),
        "store_paths": [],
    }


def verdict_page(verdict: Verdict, store_dir: str) -> dict[str, Any]:
    """Return the data of the page for a verdict."""
    return {
        "root": shown(verdict.tree.root),
        "closing": verdict_closing(verdict, store_dir),
        "target": target_text(verdict.target) if verdict.target is not None else "",
        "counts": [],
        "graph": None,
        "files": [],
        "missing": [],
        "paste": "",
        "optional": [],
        "opened": [],
        "grafts": [],
        "texts": [],
        "findings": _findings(verdict.findings, verdict.tree.root),
        "store_paths": [shown(path) for path in store_paths_of(verdict.libraries, store_dir)],
    }


def _file(file: FilePlan, plan: Plan, finder: NodeFinder, error: str | None) -> dict[str, Any]:
    if error is not None:
        state, why = "failed", error
    elif file.skip is not None:
        detail = f" ({file.skip.detail})" if file.skip.detail else ""
        state, why = "skipped", file.skip.reason.value + detail
    else:
        state, why = ("patched" if file.edit is not None else "" if file.blocking else "unchanged"), ""
    before = file.facts.current if file.facts is not None else None
    return {
        "path": below(file.file.path, plan.tree.root),
        "dist": shown(finder.owner(file.file.path)),
        "size": file.file.size,
        "state": state,
        "why": shown(why),
        "lacks": [shown(answer.need) for answer in file.blocking],
        "changed": file.edit is not None and error is None,
        "before": _linkage(before),
        "after": _linkage(file.after),
        "dropped": [[shown(drop.entry), drop.why] for drop in file.dropped],
        "needs": [
            [
                shown(answer.need),
                answer.origin.value,
                shown((finder.node(file.file.path, answer) or ("", ""))[1]),
                shown(answer.path or ""),
                shown(answer.detail),
            ]
            for answer in file.answers
        ],
    }


def _below(paths: Sequence[str], plan: Plan) -> list[str]:
    return [below(path, plan.tree.root) for path in paths]


def _advice(missing: Missing) -> str:
    return shown(source_text(missing.attribute, missing.near))


def _linkage(linkage: Linkage | None) -> list[str]:
    if linkage is None:
        return ["", "", ""]
    tag = linkage.tag.value if linkage.tag else ""
    return [tag, shown(linkage.search_path or ""), shown(linkage.interp or "")]


def _findings(findings: Sequence[Finding], root: str) -> list[list[str]]:
    return [
        [finding.severity, below(finding.path, root) if finding.path != root else "", shown(finding.text)]
        for finding in findings
    ]


def _part(name: str) -> str:
    return resources.files("nixpatch").joinpath("data/page", name).read_text("utf-8").rstrip("\n")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
