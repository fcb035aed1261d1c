"""The report in a real browser, opened from a file: headless Chromium from Debian's packages."""

import json
import os
import shutil

import pytest

from lmcache_tutorial.report import write_report

MISSING = [name for name in ("chromium", "chromedriver") if not shutil.which(name)]
QUIET = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1100,1600"
).split()


@pytest.fixture
def browser(tmp_path):
    """A Chromium that logs its console and its requests."""
    if MISSING:
        reason = f"{' and '.join(MISSING)} not installed (Debian: apt-get install chromium chromium-driver)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in [*QUIET, f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_page_load_timeout(30)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, document, tmp_path):
    """The browser with the report of every outcome open in it."""
    write_report(document, tmp_path / "index.html")
    browser.get((tmp_path / "index.html").as_uri())
    return browser


def test_the_page_opens_without_error_request_or_script(page, tmp_path):
    messages = [entry["message"] for entry in page.get_log("browser")]
    assert messages == []
    address = (tmp_path / "index.html").as_uri()
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    ours = {one["request"]["url"] for one in sent if one["documentURL"] == address}
    assert {url for url in ours if not url.startswith("data:")} == {address}
    assert page.title == "LMCache tutorial: failed"  # the hostile text would have renamed it


def test_every_chart_is_visible_and_inside_the_page(page):
    charts = page.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => { const r = s.getBoundingClientRect();"
        " return [r.width, r.height, r.right <= innerWidth, s.querySelectorAll('path').length,"
        " s.ariaLabel] })"
    )
    assert len(charts) == 15
    for width, height, inside, paths, label in charts:
        assert width > 300
        assert height > 80
        assert inside
        assert paths > 3
        assert label


def test_colours_follow_the_theme(page):
    read = (
        "const s = getComputedStyle; const t = document.querySelector('svg text');"
        "return [s(document.body).backgroundColor, s(document.body).color, s(t).fill]"
    )
    seen = {}
    for scheme in ("light", "dark"):
        page.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        paper, ink, chart_ink = page.execute_script(read)
        assert chart_ink == ink
        seen[scheme] = (paper, ink)
    assert seen["light"][0] == "rgb(255, 255, 255)"
    assert seen["dark"][0] != seen["light"][0]
    assert seen["dark"][1] != seen["light"][1]


def test_the_page_fits_a_phone(page):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True},
    )
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
