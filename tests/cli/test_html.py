"""--html: the bytes of the page; tests/browser looks at it."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from support.world import Run, World, shared

pytestmark = pytest.mark.gcc


class Elements(HTMLParser):
    """Every element of a page with its attributes and the text of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, str] = {}
        self.open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self.open = dict(attrs).get("id") or tag

    def handle_endtag(self, tag: str) -> None:
        self.open = f"after {tag}"

    def handle_data(self, data: str) -> None:
        self.text[self.open] = self.text.get(self.open, "") + data


def written(world: World, nixpatch: Run, *arguments: str) -> tuple[str, dict[str, Any]]:
    path = os.path.join(world.root, "page.html")
    nixpatch(*arguments, "--html", path)
    with open(path, encoding="utf-8") as file:
        page = file.read()
    return page, json.loads(Elements(page).text["data"])


def test_the_page_has_what_the_report_has(world: World, nixpatch: Run) -> None:
    _, data = written(world, nixpatch, "plan", world.venv)
    (tree,) = data["trees"]
    assert tree["closing"].startswith("Would patch 2 of 2 ELF files")
    assert [(node["id"], node["sort"]) for node in tree["graph"]["nodes"]] == [
        ("pkg 1.0", "dist"),
        ("answer-1.0", "store"),
    ]
    (edge,) = tree["graph"]["edges"]
    assert (edge["files"], edge["sonames"]) == (2, [["libanswer.so.1", 2]])
    assert {file["state"] for file in tree["files"]} == {"patched"}

    _, data = written(world, nixpatch, "patch", world.venv)
    assert data["trees"][0]["closing"].startswith("Patched 2 of 2 ELF files")
    _, data = written(world, nixpatch, "verify", world.venv)
    assert data["trees"][0]["closing"].startswith("OK: checked 2 patched files")
    assert data["trees"][0]["store_paths"] == [os.path.dirname(world.library)]


def test_the_page_allows_its_own_style_and_script_and_nothing_else(world: World, nixpatch: Run) -> None:
    page, _ = written(world, nixpatch, "plan", world.venv)
    elements = Elements(page)
    policy = next(
        attributes["content"] or ""
        for tag, attributes in elements.found
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'; ")
    for name in ("style", "script"):
        digest = base64.b64encode(hashlib.sha256(elements.text[name].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in policy
    for tag, attributes in elements.found:
        assert tag not in {"link", "img", "iframe", "base", "object"}
        assert not any(name.startswith("on") or name in {"src", "href", "style"} for name in attributes)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_a_name_cannot_break_out(world: World, nixpatch: Run) -> None:
    odd = os.path.join(world.site, "pkg", "<", "script><img src=x onerror=alert(1)>\u2028<!--.so")
    shared("extension.c", odd, "-Wl,-rpath,</style>&amp;")
    whole = len(Elements(written(world, nixpatch, "plan", world.venv)[0]).found)
    page, data = written(world, nixpatch, "plan", world.venv)
    assert "<img" not in page
    assert "<!--" not in page
    assert "\u2028" not in page
    assert any(
        "pkg/</script><img src=x onerror=alert(1)>" in file["path"] for file in data["trees"][0]["files"]
    )
    os.unlink(odd)
    assert len(Elements(written(world, nixpatch, "plan", world.venv)[0]).found) == whole


def test_a_page_that_cannot_be_written_is_said(world: World, nixpatch: Run) -> None:
    code, _, err = nixpatch("plan", world.venv, "--html", os.path.join(world.root, "no", "such", "page.html"))
    assert code == 3
    assert "--html" in err
    assert "cannot be written" in err
