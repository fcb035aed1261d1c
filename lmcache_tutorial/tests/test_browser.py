"""The report in a real browser, opened from a file: headless Chromium from Debian's packages."""

import base64
import json
import re
from pathlib import Path

import jsonschema
import pytest

from lmcache_tutorial.peers.page import render_peers
from lmcache_tutorial.report.compared import render_compared
from lmcache_tutorial.report.faults import render_faults
from lmcache_tutorial.report.page import write_report
from lmcache_tutorial.report.results import schema
from lmcache_tutorial.report.runs import NamedRun
from lmcache_tutorial.tests.browsing import requests_of
from lmcache_tutorial.tests.conftest import HOSTILE, OUTCOMES

pytestmark = pytest.mark.xdist_group("browser")  # one worker: it is started once


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
    assert requests_of(page, address) == {address}
    assert page.title == "LMCache tutorial: failed"  # the hostile text would have renamed it


def show(page, scheme, width):
    """Let the browser show the page in a theme and at a width."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)


# What a reader sees of each chart: its size, the box that it may be scrolled in, its texts and their colour.
SEEN = """
return [...document.querySelectorAll('figure svg')].map(svg => {
  const box = svg.parentElement.getBoundingClientRect(), own = svg.getBoundingClientRect();
  const caption = svg.closest('figure').querySelector('.caption');
  const texts = [...svg.querySelectorAll('text')].filter(text => text.textContent.trim());
  const cut = texts.filter(text => {
    const r = text.getBoundingClientRect();
    const across = r.left < own.left - 1 || r.right > own.right + 1;
    return across || r.top < own.top - 1 || r.bottom > own.bottom + 1;
  });
  const paper = getComputedStyle(svg.closest('section')).backgroundColor;
  return {
    width: own.width, height: own.height, left: box.left, right: box.right, seen: box.width,
    scrolls: getComputedStyle(svg.parentElement).overflowX === 'auto', label: svg.ariaLabel,
    shapes: svg.querySelectorAll('path, rect').length, texts: texts.length,
    cut: cut.map(text => text.textContent), caption: caption && caption.textContent,
    smallest: Math.min(...texts.map(text => text.getBoundingClientRect().height)),
    invisible: texts.filter(text => getComputedStyle(text).fill === paper).map(text => text.textContent),
  };
})
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 400])
def test_every_chart_is_visible_and_inside_the_page(page, scheme, width):
    show(page, scheme, width)
    charts = page.execute_script(SEEN)
    assert len(charts) == 5 * len(OUTCOMES)
    for chart in charts:
        assert chart["left"] >= 0
        assert chart["right"] <= width
        assert chart["seen"] > 300
        assert chart["height"] > 80
        assert chart["scrolls"]
        assert chart["width"] <= chart["seen"] + 1 or width == 400, "only a phone scrolls a chart"
        assert chart["shapes"] > 3
        assert chart["texts"] > 3
        assert chart["smallest"] > 7
        assert chart["cut"] == []
        assert chart["invisible"] == []
        assert chart["label"]
        assert chart["caption"]
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


def test_no_number_is_printed_as_a_power_of_ten(page):
    texts = page.execute_script("return document.body.textContent")
    assert re.findall(r"\b\d[\d.]*e[+-]?\d+\b", texts.replace(HOSTILE, "")) == []


def test_colours_follow_the_theme(page):
    read = (
        "const s = getComputedStyle; const t = document.querySelector('svg text');"
        "return [s(document.body).backgroundColor, s(document.body).color, s(t).fill]"
    )
    seen = {}
    for scheme in ("light", "dark"):
        show(page, scheme, 1100)
        paper, ink, chart_ink = page.execute_script(read)
        assert chart_ink == ink
        seen[scheme] = (paper, ink)
    assert seen["light"][0] == "rgb(255, 255, 255)"
    assert seen["dark"][0] != seen["light"][0]
    assert seen["dark"][1] != seen["light"][1]


PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
# Whatever stands beyond the page's right edge, but for what a box of its own scrolls.
BEYOND = """
return [...document.body.querySelectorAll('*')].filter(e =>
  !e.closest('.scroll, pre') && e.getBoundingClientRect().right > document.documentElement.clientWidth + 1
).map(e => e.outerHTML.slice(0, 120))
"""
WIDER = (
    "return [...document.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
)


REFERENCE = Path(__file__).parents[2] / "reports" / "reference"
RENDERERS = {"faults": render_faults, "peers": render_peers, "tuning": render_peers}
TOLD = [path for name in RENDERERS for path in sorted(REFERENCE.glob(f"*/{name}.json"))]


@pytest.mark.parametrize("told", TOLD, ids=lambda path: f"{path.stem} of {path.parent.name}")
def test_the_tables_of_real_runs_are_seen_whole_on_a_screen(browser, tmp_path, told):
    made = tmp_path / "page.html"
    made.write_text(RENDERERS[told.stem](json.loads(told.read_text())))
    for page in (made, told.with_suffix(".html")):
        browser.get(page.as_uri())
        show(browser, "light", 1100)
        assert browser.execute_script("return document.querySelectorAll('.scroll table').length") > 0
        assert browser.execute_script(WIDER) == 0, page


def test_three_real_runs_side_by_side_are_seen_whole_on_a_screen(browser, tmp_path):
    found = [(path.parent.name, json.loads(path.read_text())) for path in REFERENCE.glob("*/results.json")]
    runs = [NamedRun(name, told) for name, told in sorted(found) if told["schema"] == 2][:3]
    assert len(runs) == 3
    page = tmp_path / "runs.html"
    page.write_text(render_compared(runs))
    browser.get(page.as_uri())
    show(browser, "light", 1100)
    assert browser.execute_script(WIDER) == 0


def on_a_phone(page):
    """What does not fit a phone, and how many boxes are scrolled there by themselves."""
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    assert page.execute_script("return document.documentElement.scrollWidth <= innerWidth")
    return page.execute_script(BEYOND), page.execute_script(WIDER)


def test_the_page_fits_a_phone_and_wide_tables_scroll_in_boxes_of_their_own(page):
    assert page.execute_script(
        "return [...document.querySelectorAll('table')].every(t => t.closest('.scroll'))"
    )
    beyond, scrolled = on_a_phone(page)
    assert beyond == []
    assert scrolled > 3


# What a reader sees on paper: folded parts, charts and their width, what sticks or scrolls.
ON_PAPER = """
const all = [...document.querySelectorAll('*')], style = e => getComputedStyle(e);
const wide = document.documentElement.clientWidth + 1;
return {
  folded: [...document.querySelectorAll('details')].filter(d => {
    const inner = [...d.children].find(e => e.tagName !== 'SUMMARY');
    return !inner.checkVisibility() || inner.getBoundingClientRect().height < 5;
  }).length,
  details: document.querySelectorAll('details').length,
  sticky: all.filter(e => ['sticky', 'fixed'].includes(style(e).position)).length,
  scrolled: all.filter(e => ['auto', 'scroll'].includes(style(e).overflowX) && e.tagName !== 'PRE').length,
  cut: [...document.querySelectorAll('svg')].filter(e => e.getBoundingClientRect().right > wide).length,
  split: all.filter(e => e.matches('.scroll:has(svg)') && style(e).breakInside !== 'avoid').length,
  paper: style(document.body).backgroundColor,
  grey: all.filter(e => style(e).printColorAdjust !== 'exact').length,
};
"""


def test_on_paper_folded_parts_are_open_and_charts_are_whole(page):
    dark = {"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {**PHONE, "width": 690, "mobile": False})
    seen = page.execute_script(ON_PAPER)
    assert seen.pop("details") > 5 * len(OUTCOMES)  # the answers at least
    paper = {"folded": 0, "sticky": 0, "scrolled": 0, "cut": 0, "split": 0, "grey": 0}
    assert seen == {**paper, "paper": "rgb(255, 255, 255)"}
    printed = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF-")


def test_runs_side_by_side_do_nothing_and_fit_a_phone(browser, document, tmp_path):
    other = {**document, "environment": {**document["environment"], "hardware": HOSTILE, "code": HOSTILE}}
    other["groups"] = [hostile_group(1, "failed")]
    runs = [NamedRun(HOSTILE, document), NamedRun("b", other), NamedRun("c", document)]
    (tmp_path / "runs.html").write_text(render_compared(runs))
    browser.get((tmp_path / "runs.html").as_uri())
    assert browser.get_log("browser") == []
    assert browser.title == "3 runs, side by side"
    beyond, scrolled = on_a_phone(browser)
    assert beyond == []
    assert scrolled > 3


def hostile_group(number, outcome):
    """A group of prompts with a hostile text wherever a text can stand."""
    claims = [{"name": HOSTILE, "outcome": outcome, "message": f"{HOSTILE}\n\x1b[31m{HOSTILE}"}]
    request = {"line": 2, "prompt_tokens": 1234, "shared_tokens": 1200, "forerunner": 1, "predicted": 1184}
    unknown = {"line": 3, "prompt_tokens": None, "shared_tokens": None, "forerunner": None, "predicted": None}
    segments = {"segments": [[HOSTILE, "00"]], "forerunner_segments": []}
    times = {"cold": [0.9, 1.0, 1.1], "warm": [0.1, 0.12, 0.09]}
    return {
        "id": f"{HOSTILE}::{number}",
        "file": HOSTILE,
        "line": 2,
        "name": HOSTILE,
        "outcome": outcome,
        "reason": None if outcome == "passed" else HOSTILE,
        "duration_s": 3.0,
        "claims": claims,
        "headline": {"hit_rate": 0.96, "ttft_drop": 0.9, "ttft_drop_low": 0.8, "ttft_drop_high": 0.95},
        "requests": [
            {**request, "reused": [1184, 1184, 1120], **segments},
            {**unknown, "reused": [None] * 3, **segments},
        ],
        "measurements": [{"name": "TTFT", "unit": "s", "arm": arm, "values": v} for arm, v in times.items()],
    }


DEPLOYMENT = {
    "url": HOSTILE,
    "model": HOSTILE,
    "engine_version": HOSTILE,
    "lmcache_url": HOSTILE,
    "template": None,
    "block_tokens": 16,
    "chunk_tokens": None,
    "cold_by": "nonce",
    "not_told": [HOSTILE],
}


@pytest.mark.parametrize("width", [1100, 390])
def test_groups_of_prompts_do_nothing_and_fit(browser, document, tmp_path, width):
    outcomes = (*OUTCOMES, "inconclusive")
    document["lessons"] = []
    document["groups"] = [hostile_group(number, outcome) for number, outcome in enumerate(outcomes)]
    document["environment"]["deployments"] = [DEPLOYMENT]
    jsonschema.validate(document, schema())
    write_report(document, tmp_path / "index.html")
    browser.get((tmp_path / "index.html").as_uri())
    show(browser, "light", width)
    assert browser.get_log("browser") == []
    assert browser.title == "LMCache tutorial: failed"
    assert browser.execute_script("return document.querySelectorAll('section').length") == len(outcomes) + 2
    assert browser.execute_script("return document.querySelectorAll('.lane b').length") == 6 * len(outcomes)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert "not told" in browser.execute_script("return document.body.textContent")
