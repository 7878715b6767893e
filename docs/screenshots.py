"""Make the pictures of the README from a real run: ``python docs/screenshots.py VENV [DIRECTORY]``.

VENV is a venv that nixpatch can plan for on this machine; it is not changed. Needs chromium and selenium, and
writes page.png and report.svg into DIRECTORY, by default the folder of this file.
"""

import io
import os
import shutil
import sys
import tempfile
import time

from rich.console import Console
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from nixpatch.operations.plan import make_plan
from nixpatch.operations.request import PatchRequest
from nixpatch.operations.trace import TraceOptions, trace_file
from nixpatch.report.html import page, plan_page
from nixpatch.report.text import plan_report
from nixpatch.report.trace import tree_report
from nixpatch.store.nix_store import find_store

_SIZE = "1180,1000"
_COLUMNS = 100


def main(venv: str, directory: str) -> None:
    """Plan once, then take a screenshot of the page and draw the terminal."""
    store = find_store(None, os.environ)
    begun = time.monotonic()
    plan = make_plan(PatchRequest(path=venv, store=store, path_env=os.environ["PATH"]))
    seconds = time.monotonic() - begun
    picture = os.path.join(directory, "page.png")
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "page.html")
        with open(path, "wb") as written:
            written.write(page("nixpatch plan", [plan_page(plan, None, seconds)]))
        _screenshot(path, picture)

    ignored = io.StringIO()
    console = Console(record=True, width=_COLUMNS, highlight=False, file=ignored)
    console.print("$ nixpatch plan .venv", style="bold")
    console.print(plan_report(plan, None, verbosity=0, seconds=seconds))
    for file in plan.files:
        if "_multiarray_umath" in file.file.path:
            console.print(f"\n$ nixpatch tree {os.path.basename(file.file.path)}", style="bold")
            trace = trace_file(file.file.path, TraceOptions(path_env=os.environ["PATH"]))
            console.print(tree_report(trace, store_dir=store.directory, verbosity=0, plan=plan))
    console.save_svg(os.path.join(directory, "report.svg"), title="nixpatch")
    print(picture, os.path.getsize(picture), "bytes")


def _screenshot(path: str, picture: str) -> None:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or "chromium"
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument(f"--window-size={_SIZE}")
    browser = webdriver.Chrome(
        options=options, service=Service(shutil.which("chromedriver") or "chromedriver")
    )
    try:
        browser.get(f"file://{path}")
        browser.save_screenshot(picture)
    finally:
        browser.quit()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else os.path.dirname(os.path.abspath(__file__)))
