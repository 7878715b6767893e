"""The page as a person uses it, in a headless Chromium."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select
from selenium_axe_python.axe import Axe

from nixpatch.model import (
    Answer,
    Dist,
    ElfEdit,
    ElfFacts,
    FilePlan,
    Finding,
    Libc,
    Linkage,
    Machine,
    Origin,
    Plan,
    Skip,
    SkipReason,
    Tag,
    Target,
    Tree,
    TreeFile,
    TreeKind,
    VendoredPlan,
)
from nixpatch.report.html import page, plan_page

pytestmark = pytest.mark.browser

STORE = "/nix/store"
GCC = f"{STORE}/0123456789abcdfghijklmnpqrsvwxyz-gcc-13.2.0-lib/lib"
ZLIB = f"{STORE}/1123456789abcdfghijklmnpqrsvwxyz-zlib-1.3.1/lib"
SITE = "/venv/lib/python3.12/site-packages"
HOSTILE = "</script><img src=x onerror=document.title='broken'><script>document.title='broken'"
X86_64 = Machine(62, 64, "little")


def planned(path: str, owner: str, *answers: Answer, skip: Skip | None = None, size: int = 1000) -> FilePlan:
    before = Linkage("/usr/lib", Tag.RPATH, None)
    after = Linkage(f"$ORIGIN:{GCC}", Tag.RPATH, None)
    facts = ElfFacts(X86_64, False, None, (), before, before, None)
    changed = any(answer.origin is Origin.STORE for answer in answers)
    return FilePlan(
        TreeFile(path, size, (owner,)),
        facts,
        skip,
        answers,
        ElfEdit(after.search_path) if changed else None,
        after if changed else before,
        stops=(path,),
    )


def plan() -> Plan:
    """Three dists: numpy takes two libraries from the store, torch one from nvidia and lacks one."""
    dists = tuple(
        Dist(name, "1.0", SITE, f"{SITE}/{name}-1.0.dist-info") for name in ("numpy", "nvidia", "torch")
    )
    info = {dist.name: dist.info for dist in dists}
    cudart = f"{SITE}/nvidia/libcudart.so.12"
    files = (
        planned(cudart, info["nvidia"], Answer("libc.so.6", Origin.LIBC), size=5_000_000),
        planned(
            f"{SITE}/numpy/_a.so",
            info["numpy"],
            Answer("libstdc++.so.6", Origin.STORE, GCC, f"{GCC}/libstdc++.so.6"),
            Answer("libz.so.1", Origin.STORE, ZLIB, f"{ZLIB}/libz.so.1"),
            Answer(
                "libmagic.so.1", Origin.STORE, ZLIB, f"{ZLIB}/libmagic.so.1", opener=f"{SITE}/numpy/x.py:3"
            ),
        ),
        replace(
            planned(f"{SITE}/numpy/sql.so", info["numpy"], Answer("libmysqlclient.so.21", Origin.MISSING)),
            stops=(),
        ),
        planned(f"{SITE}/numpy/b.o", info["numpy"], skip=Skip(SkipReason.RELOCATABLE)),
        planned(
            f"{SITE}/torch/_C.so",
            info["torch"],
            Answer("libcudart.so.12", Origin.OTHER_DIST, "$ORIGIN/../nvidia", cudart),
            Answer("libstdc++.so.6", Origin.STORE, GCC, f"{GCC}/libstdc++.so.6"),
        ),
        planned(
            f"{SITE}/torch/{HOSTILE}.so",
            info["torch"],
            Answer("libGL.so.1", Origin.MISSING, considered=("store: no library of this name",)),
        ),
    )
    tree = Tree("/venv", "/venv", TreeKind.VENV, tuple(file.file for file in files), dists, (3, 12))
    target = Target(
        "/py", "pyvenv.cfg", (3, 12), X86_64, "/ld.so", Libc.GLIBC, (2, 40), frozenset(), "/glibc/lib"
    )
    return Plan(
        tree,
        target,
        STORE,
        files,
        (Finding("error", f"{SITE}/{HOSTILE}", f"odd {HOSTILE}"),),
        vendored=(
            VendoredPlan(
                TreeFile(f"{SITE}/numpy.libs/libz-1a2b.so.1", 9), "libz.so.1", kept=("no such soname",)
            ),
        ),
    )


@pytest.fixture(scope="module")
def chromium() -> Iterator[webdriver.Chrome]:
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("not installed: chromium, chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    made = webdriver.Chrome(options=options, service=Service(driver))
    yield made
    made.quit()


@pytest.fixture
def browser(chromium: webdriver.Chrome, tmp_path: os.PathLike[str]) -> webdriver.Chrome:
    path = os.path.join(tmp_path, "page.html")
    with open(path, "wb") as file:
        file.write(page("nixpatch plan", [plan_page(plan(), None, 1.0)]))
    chromium.get(f"file://{path}")
    return chromium


def one(browser: webdriver.Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def listed(browser: webdriver.Chrome) -> list[str]:
    """The names of the files in the table, in order."""
    return [element.text for element in browser.find_elements(By.CSS_SELECTOR, "td.file button")]


def node(browser: webdriver.Chrome, name: str) -> WebElement:
    return one(browser, f'[data-node="{name}"]')


def test_the_page_draws_itself_and_names_are_text(browser: webdriver.Chrome) -> None:
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]
    assert browser.title == "nixpatch plan"
    assert one(browser, "h1").text.startswith("Would patch 2 of 6 ELF files")
    assert browser.find_elements(By.TAG_NAME, "img") == []
    assert f"torch/{HOSTILE}.so" in listed(browser)
    assert HOSTILE in one(browser, "#findings").text
    assert one(browser, "#missing summary").text.startswith("libGL.so.1 nixpkgs has it in libGL")
    assert one(browser, "#missing pre").text == "buildInputs = with pkgs; [ libGL ];"
    assert "libmysqlclient.so.21, needed by" in one(browser, "#optional").text
    assert "libmagic.so.1, opened by " in one(browser, "#opened").text
    assert "libz-1a2b.so.1 stays: no such soname" in one(browser, "#grafts").text


def test_the_graph_leads_from_dists_to_what_serves_them(browser: webdriver.Chrome) -> None:
    places = {
        element.get_attribute("data-node"): element.location["x"]
        for element in browser.find_elements(By.CSS_SELECTOR, ".node")
    }
    assert places["torch 1.0"] < places["nvidia 1.0"] < places["gcc-13.2.0-lib"]
    assert places["gcc-13.2.0-lib"] == places["libGL.so.1"]
    assert len(browser.find_elements(By.CSS_SELECTOR, "path.edge")) == 5
    webdriver.ActionChains(browser).move_to_element(node(browser, "zlib-1.3.1")).perform()
    lit = {
        element.get_attribute("data-node") for element in browser.find_elements(By.CSS_SELECTOR, ".node.lit")
    }
    assert lit == {"zlib-1.3.1", "numpy 1.0"}


def test_a_click_on_a_box_shows_its_files(browser: webdriver.Chrome) -> None:
    node(browser, "gcc-13.2.0-lib").click()
    assert listed(browser) == ["numpy/_a.so", "torch/_C.so"]
    assert one(browser, "#focus").text == "from gcc-13.2.0-lib \u00d7"
    node(browser, "nvidia 1.0").send_keys(Keys.ENTER)
    assert listed(browser) == ["torch/_C.so", "nvidia/libcudart.so.12"]
    one(browser, "#focus").click()
    assert len(listed(browser)) == 6


def test_filter_states_and_order(browser: webdriver.Chrome) -> None:
    field = one(browser, "#filter")
    field.send_keys("LIBZ")
    assert listed(browser) == ["numpy/_a.so"]
    assert one(browser, "#shown").text == "1 of 6 files"
    field.send_keys("nothing of the kind")
    assert one(browser, ".empty").text == "No matching files."
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(Keys.DELETE)
    one(browser, '[data-state="skipped"]').click()
    assert listed(browser) == ["numpy/b.o"]
    one(browser, '[data-state="skipped"]').click()
    size = one(browser, '[data-sort="size"]')
    size.click()
    assert listed(browser)[0] == "nvidia/libcudart.so.12"
    assert size.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"


def test_a_file_opens_to_its_search_path_and_needs(browser: webdriver.Chrome) -> None:
    button = browser.find_element(By.XPATH, "//td/button[text()='numpy/_a.so']")
    button.click()
    detail = one(browser, "tr.detail")
    assert detail.find_element(By.CSS_SELECTOR, "dd.old").text == "RPATH /usr/lib"
    assert f"RPATH $ORIGIN:{GCC}" in detail.text
    assert f"{ZLIB}/libz.so.1" in detail.text
    button.click()
    assert browser.find_elements(By.CSS_SELECTOR, "tr.detail") == []


def crowded() -> Plan:
    """70 dists, each with a library of its own in the store and one that all share."""
    dists = tuple(Dist(f"d{n:02}", "1.0", SITE, f"{SITE}/d{n:02}-1.0.dist-info") for n in range(70))
    files = tuple(
        planned(
            f"{SITE}/{dist.name}/_x.so",
            dist.info,
            Answer("libz.so.1", Origin.STORE, ZLIB, f"{ZLIB}/libz.so.1"),
        )
        for dist in dists
    )
    small = plan()
    tree = replace(small.tree, files=tuple(file.file for file in files), dists=dists)
    return Plan(tree, small.target, STORE, files)


def show(browser: webdriver.Chrome, folder: os.PathLike[str], *plans: Plan) -> str:
    """Open a page of these plans and return its address."""
    path = os.path.join(folder, "other.html")
    with open(path, "wb") as file:
        file.write(page("nixpatch plan", [plan_page(each, None, 1.0) for each in plans]))
    browser.get(f"file://{path}")
    return f"file://{path}"


def test_the_counts_are_those_of_the_last_line(browser: webdriver.Chrome) -> None:
    counts = [element.text.replace("\n", " ") for element in browser.find_elements(By.CSS_SELECTOR, ".count")]
    title = one(browser, "h1").text
    assert counts == ["2 to patch", "2 unchanged", "1 skipped", "1 dependency not found"]
    assert title.startswith("Would patch 2 of 6 ")
    for count in counts[1:]:
        assert count in title


def test_the_keyboard_keeps_its_place_while_filtering(browser: webdriver.Chrome) -> None:
    button = one(browser, '[data-state="skipped"]')
    button.send_keys(Keys.ENTER)
    assert browser.switch_to.active_element == button
    assert button.get_attribute("aria-pressed") == "true"
    button.send_keys(Keys.ENTER)
    assert button.get_attribute("aria-pressed") == "false"


def test_the_address_holds_the_state(browser: webdriver.Chrome) -> None:
    one(browser, "#filter").send_keys("torch")
    one(browser, '[data-state="missing"]').click()
    one(browser, '[data-sort="size"]').click()
    before, address = listed(browser), browser.current_url
    assert before == [f"torch/{HOSTILE}.so"]

    browser.get("about:blank")
    browser.get(address)

    assert listed(browser) == before
    assert one(browser, "#filter").get_attribute("value") == "torch"
    assert one(browser, '[data-state="missing"]').get_attribute("aria-pressed") == "true"


def test_of_many_dists_the_graph_shows_what_is_chosen(
    browser: webdriver.Chrome, tmp_path: os.PathLike[str]
) -> None:
    show(browser, tmp_path, crowded())
    assert browser.find_elements(By.CSS_SELECTOR, ".node") == []
    Select(one(browser, "#choose")).select_by_value("d07 1.0")
    assert {
        element.get_attribute("data-node") for element in browser.find_elements(By.CSS_SELECTOR, ".node")
    } == {
        "d07 1.0",
        "zlib-1.3.1",
    }
    assert listed(browser) == ["d07/_x.so"]
    node(browser, "zlib-1.3.1").click()
    assert len(browser.find_elements(By.CSS_SELECTOR, ".node")) == 71
    assert len(listed(browser)) == 70


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1600])
@pytest.mark.parametrize("several", [False, True])
def test_every_width_is_readable_and_axe_finds_nothing(
    browser: webdriver.Chrome, tmp_path: os.PathLike[str], width: int, scheme: str, several: bool
) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        if several:
            show(browser, tmp_path, crowded(), plan())
            Select(one(browser, "#choose")).select_by_value("d07 1.0")
        else:
            browser.refresh()
        one(browser, "td.file button").click()
        wide = browser.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0
        for element in browser.find_elements(By.CSS_SELECTOR, "td.dist, td.state, td.number, td.origins"):
            assert element.is_displayed()
        axe = Axe(browser)
        axe.inject()  # type: ignore[no-untyped-call]
        violations = axe.run()["violations"]
        assert [(each["id"], [node["html"] for node in each["nodes"]][:3]) for each in violations] == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
