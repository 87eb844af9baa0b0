"""The dashboard and the report in a real Chromium: two widths, two schemes, by keyboard, and held against axe-core."""

import json
import subprocess
import tarfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.expected_conditions import url_contains
from selenium.webdriver.support.ui import WebDriverWait

from connectors.accounts import add
from connectors.dashboard import Dashboard
from connectors.report_page import write_report
from connectors.site import application
from connectors.views import PAGES
from connectors.wiring import cache_folder
from loop.config import Config
from loop.records import Arm, Role, Shadow, Stage
from loop.store import items, rounds, shadows
from loop.store.database import Store
from tests.browser import DRIVER, Browser
from tests.builders import RUN, a_campaign, a_reply, a_round, a_store, an_item, checked, id_of, queried, sent_to_review
from tests.served import served

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not DRIVER.exists(), reason="no Chromium here; `make test-browser` installs it"),
]

AXE = "axe-core@4.14.1"
LOOKS = [(width, scheme) for width in (390, 1280) for scheme in ("light", "dark")]
PLACES = ["", *(f"/{page.name}" for page in PAGES[1:]), "/items", "/item?key=q1", "/item?key=nothing"]
RUN_AXE = """
const done = arguments[arguments.length - 1];
axe.run({resultTypes: ['violations']}).then(found => done(found.violations.map(
  each => `${each.impact} ${each.id}: ${each.nodes.map(node => node.html.slice(0, 160)).join(' | ')}`)));
"""
OVERFLOWING = """
return [...document.querySelectorAll('body *')]
  .filter(each => each.getBoundingClientRect().right > innerWidth + 1 && !each.closest('.scroll, .pages, .hidden'))
  .map(each => each.outerHTML.slice(0, 120));
"""
BROKEN = "window.broken = []; addEventListener('securitypolicyviolation', each => broken.push(each.violatedDirective));"


@pytest.fixture(scope="module")
def axe() -> str:
    """The source of axe-core, by npm."""
    folder = cache_folder() / "axe"
    source = folder / AXE / "axe.min.js"
    if not source.is_file():
        source.parent.mkdir(parents=True, exist_ok=True)
        packed = subprocess.run(
            ["npm", "pack", "--silent", AXE], cwd=source.parent, check=True, capture_output=True, text=True
        )
        with tarfile.open(source.parent / packed.stdout.strip()) as archive:
            file = archive.extractfile("package/axe.min.js")
            assert file is not None
            source.write_bytes(file.read())
    return source.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two closed rounds that compared both arms, and one that waits for reviewers."""
    store = a_store(tmp_path_factory.mktemp("dashboard"))
    closed = a_campaign(store)
    for arm, right in ((Arm.SELECTED, 8), (Arm.CONTROL, 3)):
        correct = {f"h{number}": number < right for number in range(10)}
        row = Shadow(round_id=id_of(closed), pair=0, arm=arm, asked=3, examples=2, micro_usd=2000, correct=correct)
        shadows.keep(store, row)
    long = "x" * 300
    items.add(store, [an_item(long, question=long, domain=long), an_item("q9", domain="a b")])
    opened = queried(store, a_round(store), [long, "q6", "q7"])
    for key in (long, "q6", "q7"):
        checked(store, a_reply(store, opened, key, steps=[f"{key} is long", "So it is 3."], answer=3), 0.9, key)
    sent_to_review(store, rounds.enter(store, opened, Stage.REVIEW), [long, "q6", "q7"])
    return store


@pytest.fixture(scope="module")
def address(store: Store) -> Iterator[str]:
    with served(application(Dashboard(store, Config()), None)) as url:
        yield f"{url}/runs/{RUN}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = Browser()
    found.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": BROKEN})
    yield found
    found.close()


def look(browser: Browser, address: str, width: int, scheme: str) -> None:
    browser.resize(width, 844)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.driver.get(address)


def found_by_axe(browser: Browser, axe: str) -> list[str]:
    browser.driver.execute_script(axe)
    return [str(each) for each in browser.driver.execute_async_script(RUN_AXE)]


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
@pytest.mark.parametrize("place", PLACES)
def test_pages_fit_and_axe_finds_nothing(
    place: str, width: int, scheme: str, address: str, browser: Browser, axe: str
) -> None:
    look(browser, f"{address}{place}", width, scheme)
    assert browser.script(OVERFLOWING) == []
    assert browser.script("return document.documentElement.scrollWidth - innerWidth") <= 0
    assert browser.script("return window.broken") == [], "the Content-Security-Policy stopped something of ours"
    assert found_by_axe(browser, axe) == []


def test_an_owner_logs_in_and_their_pages_fit_and_axe_finds_nothing(browser: Browser, axe: str, tmp_path: Path) -> None:
    store = a_store(tmp_path)
    a_campaign(store)
    add(store, "otto", Role.OWNER, "correct horse battery")
    dashboard = Dashboard(store, Config(), lambda: pytest.fail("nothing is done here"))
    with served(application(dashboard, None)) as url:
        look(browser, url, 320, "dark")
        assert browser.script("return location.pathname") == "/login"
        assert found_by_axe(browser, axe) == []
        browser.press("otto", Keys.TAB, "correct horse battery", Keys.ENTER)
        WebDriverWait(browser.driver, 30).until(url_contains(f"/runs/{RUN}"))
        for (width, scheme), place in product(
            LOOKS, (f"/runs/{RUN}/queue", f"/runs/{RUN}/reviewers", "/users", "/password")
        ):
            look(browser, f"{url}{place}", width, scheme)
            assert browser.script("return document.querySelectorAll('form[method=post]').length") >= 1
            assert browser.script(OVERFLOWING) == []
            assert browser.script("return window.broken") == []
            assert found_by_axe(browser, axe) == []
        browser.driver.find_element(By.CSS_SELECTOR, ".visitor button").click()
        WebDriverWait(browser.driver, 30).until(url_contains("/login"))
        look(browser, f"{url}/users", 1280, "light")
        assert browser.script("return location.pathname") == "/login"
    store.close()


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_the_report_opens_from_a_file_and_looks_like_the_dashboard(
    width: int, scheme: str, store: Store, browser: Browser, axe: str, tmp_path: Path
) -> None:
    write_report(store, RUN, Config(), tmp_path / "report.html")
    look(browser, (tmp_path / "report.html").as_uri(), width, scheme)
    assert browser.script("return getComputedStyle(document.querySelector('.card')).borderRadius") == "12px"
    assert browser.script("return window.broken") == []
    assert browser.script("return performance.getEntriesByType('resource').length") == 0
    assert browser.script(OVERFLOWING) == []
    assert found_by_axe(browser, axe) == []


def test_schemes_differ_in_their_colours(address: str, browser: Browser) -> None:
    seen = set()
    for scheme in ("light", "dark"):
        look(browser, address, 1280, scheme)
        seen.add(browser.script("return getComputedStyle(document.body).backgroundColor"))
    assert len(seen) == 2


def test_the_keyboard_gets_to_the_page_and_everywhere_in_it(address: str, browser: Browser) -> None:
    look(browser, address, 1280, "light")
    browser.press(Keys.TAB)
    assert browser.script("return document.activeElement.className") == "skip"
    browser.press(Keys.ENTER)
    assert browser.script("return location.hash") == "#main"
    browser.press(Keys.TAB)
    assert browser.script("return document.activeElement.closest('main') !== null")
    assert browser.script("return getComputedStyle(document.activeElement).outlineStyle") != "none"


def test_what_happens_shows_without_a_reload(address: str, store: Store, browser: Browser) -> None:
    look(browser, address, 1280, "light")
    browser.script("window.same = true")
    assert "0 of 3 reviews with a verdict" in browser.text("#live")
    current = rounds.current(store, RUN)
    assert current is not None
    rounds.enter(store, current, Stage.TRAIN)
    browser.until(lambda: "the student is trained" in browser.text("#live"))
    browser.until(lambda: "round 3, train" in browser.script("return document.getElementById('told').textContent"))
    assert "train" in browser.text("#figures table tbody tr")
    assert browser.script("return window.same") is True
    assert json.dumps(browser.script("return window.broken")) == "[]"
