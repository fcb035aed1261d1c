"""The report's page, its document and its charts, without a browser."""

from html.parser import HTMLParser

import jsonschema
import pytest

from lmcache_tutorial.charts import draw
from lmcache_tutorial.lessons import HeaderError, parse_header
from lmcache_tutorial.plotting import KINDS
from lmcache_tutorial.report import render, write_report
from lmcache_tutorial.results import write_results
from lmcache_tutorial.tests.conftest import HOSTILE, OUTCOMES

DATA = {
    "rounds": (["arm", "s"], [("a", 1.0), ("a", 2.0), ("b", 0.5)]),
    "growth": (["x", "s", "arm"], [(1, 1.0, "a"), (2, 2.0, "a"), (1, 0.5, "b")]),
    "parts": (["arm", "p", "q"], [("a", 1, 2), ("b", 3, 4)]),
    "served": (["arm", "requests", "engine's own cache", "prefilled"], [("a", 1, 2, 3), ("b", 2, 3, 4)]),
}


class Page(HTMLParser):
    """Collects tags, ids and references."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "xlink:href"):
                self.links.append(value)


def test_the_page_is_small_self_contained_and_has_no_script(document):
    text = render(document)
    page = Page(text)
    assert len(text.encode()) < 2_000_000
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "url(http" not in text


def test_ids_do_not_collide_and_every_reference_has_its_target(document):
    page = Page(render(document))
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)


def test_whatever_a_run_says_is_escaped(document):
    text = render(document)
    assert HOSTILE not in text
    assert "&lt;script&gt;" in text


def test_every_outcome_looks_like_itself(document):
    text = render(document)
    for word in ("passed", "failed", "error", "skipped", "not run"):
        assert f">{word}</span>" in text
    assert "The run was interrupted" in text
    assert ">differs<" in text
    assert ">exact in 2 of 2<" in text


def test_the_document_keeps_the_contract_and_breaking_it_is_an_error(document, tmp_path):
    write_results(document, tmp_path / "results.json")
    document["lessons"][0]["outcome"] = "fine"
    with pytest.raises(jsonschema.ValidationError, match="fine"):
        write_results(document, tmp_path / "results.json")
    assert "fine" not in (tmp_path / "results.json").read_text()


def test_a_report_is_written_whole_or_not_at_all(document, tmp_path):
    path = tmp_path / "index.html"
    write_report(document, path)
    before = path.read_text()
    del document["environment"]
    with pytest.raises(Exception, match="environment"):
        write_report(document, path)
    assert path.read_text() == before


def test_the_verdict_follows_the_worst_claim(document):
    assert document["verdict"] == "failed"
    assert [lesson["outcome"] for lesson in document["lessons"]] == list(OUTCOMES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_chart_follows_the_theme_and_has_a_name(kind):
    columns, rows = DATA[kind]
    stated = {"a": "engine", "p": "engine"} if kind != "served" else {}
    chart = {"kind": kind, "columns": columns, "rows": rows, "axis": "TTFT [s]", "name": 'a "name" <b>'}
    svg = draw({**chart, "served_by": stated}, "p1")
    assert svg.startswith("<svg")
    assert "var(--ink)" in svg
    assert "var(--engine)" in svg
    assert "#0a0b" not in svg
    assert "&lt;b&gt;" in svg
    assert all(name.startswith("p1-") for name in Page(svg).ids)


@pytest.mark.parametrize("missing", ["Question", "You will see", "Time", "Hardware", "Builds on"])
def test_a_header_without_a_field_is_an_error(missing):
    fields = {name: "text" for name in ("Question", "You will see", "Time", "Hardware", "Builds on")}
    del fields[missing]
    text = "A title.\n\n" + "\n".join(f"{name}  {value}\n      more" for name, value in fields.items())
    with pytest.raises(HeaderError, match=missing):
        parse_header(text)
    assert parse_header(text + f"\n{missing}  text").fields["Time"].startswith("text")


def test_the_report_links_the_pages_beside_it(tmp_path, document):
    (tmp_path / "peers.html").touch()
    write_report(document, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text()
    assert '<a href="peers.html">' in page
    assert "tuning.html" not in page
