"""The report's page, its document and its charts, without a browser."""

import re
from html.parser import HTMLParser

import pytest

from lmcache_tutorial.lessons.header import HeaderError, LessonHeader, parse_header
from lmcache_tutorial.pages.charts import caption, draw, legend
from lmcache_tutorial.pages.plotting import KINDS
from lmcache_tutorial.quantities.records import TokenSources
from lmcache_tutorial.quantities.sources import SourceError
from lmcache_tutorial.report.page import render, write_report
from lmcache_tutorial.report.results import LessonReport, upgrade, write_results
from lmcache_tutorial.report.terminal import summary_lines
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


def test_a_table_has_its_columns_and_its_numbers(document):
    text = render(document)
    assert '<th class="num">the tier [GiB]</th>' in text
    assert '<tr><td class="num">2</td><td class="num">1,235</td></tr>' in text


def test_every_outcome_looks_like_itself(document):
    text = render(document)
    for word in ("passed", "failed", "error", "undecided", "skipped", "not run"):
        assert f">{word}</span>" in text
    assert "The run was interrupted" in text
    assert ">differs<" in text
    assert ">exact in 2 of 2<" in text


def test_the_document_keeps_the_contract_and_breaking_it_is_an_error(document, tmp_path):
    write_results(document, tmp_path / "results.json")
    document["lessons"][0]["outcome"] = "fine"
    with pytest.raises(ValueError, match=r"lessons\[0\]\.outcome must be one of"):
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


SOURCE_COLOURS = {f"var(--{name})" for name in ("computed", "engine", "lmcache-l1", "lmcache-l2")}


def colours(svg: str) -> set[str]:
    """The colours of sources in a drawing."""
    return set(re.findall(r"var\(--[a-z0-9-]+\)", svg)) & SOURCE_COLOURS


@pytest.mark.parametrize("kind", ["rounds", "growth"])
def test_a_series_has_the_colour_of_who_served_it_wherever_it_stands(kind):
    columns, rows = DATA[kind]
    chart = {"kind": kind, "columns": columns, "rows": rows, "axis": "s", "name": "x"}
    assert colours(draw(chart, "p")) == set()
    assert "var(--neutral)" in draw(chart, "p")
    for stated in ({"a": "lmcache_l1"}, {"b": "lmcache_l1"}):
        assert colours(draw({**chart, "served_by": stated}, "p")) == {"var(--lmcache-l1)"}
        assert legend({**chart, "served_by": stated})[0] == ("lmcache_l1", "LMCache memory")


def test_a_prediction_is_a_dashed_line_without_dots():
    columns, rows = DATA["growth"]
    chart = {"kind": "growth", "columns": columns, "rows": rows, "axis": "s", "name": "x"}
    plain, dashed = (draw({**chart, "served_by": by}, "p") for by in ({}, {"b": "predicted"}))
    assert "var(--predicted)" in dashed
    assert dashed.count("<use") < plain.count("<use")
    assert "Dashed line without dots: predicted." in caption({**chart, "served_by": {"b": "predicted"}})


def test_parts_that_are_no_sources_have_no_sources_colour_but_the_prefill():
    chart = {
        "kind": "parts",
        "columns": ["ask", "prefill", "queue", "HTTP"],
        "rows": [["cold", 2.0, 0.1, 0.2]],
        "axis": "s",
        "name": "x",
    }
    assert colours(draw(chart, "p")) == {"var(--computed)"}
    assert [key for key, _ in legend(chart)] == ["computed", "part-1", "part-2"]


def test_what_no_chart_draws_or_no_source_is_cannot_be_stated(document):
    report = LessonReport("lesson1", LessonHeader("x", {}))
    with pytest.raises(SourceError, match=r"no series “hot”; it draws: cold"):
        report.rounds("TTFT", {"cold": [1.0]}, served_by={"hot": "engine"})
    with pytest.raises(SourceError, match="“LMCache” served it, which is no source"):
        report.rounds("TTFT", {"cold": [1.0]}, served_by={"cold": "LMCache"})


def test_arms_with_different_numbers_of_requests_are_compared_by_one_request():
    report = LessonReport("lesson1", LessonHeader("x", {}))
    seven, three = [TokenSources(10, 90, 0, 0)] * 7, [TokenSources(30, 270, 0, 0)]
    report.served("Who served", {"seven": seven, "a turn": three}, calls={"seven": 7, "a turn": 3})
    (chart,) = report.charts
    assert [row[1:] for row in chart["rows"]] == [[7, 90, 0, 0, 10], [3, 90, 0, 0, 10]]
    svg = draw(chart, "p")
    assert ">seven (7\u00a0requests)<" in svg
    assert ">a turn (3\u00a0requests)<" in svg
    assert "the mean of its arm's requests" in caption(chart)
    report.served("Alike", {"a": seven, "b": seven})
    assert "requests)" not in draw(report.charts[1], "p")
    assert "the mean of its arm's 7 requests" in caption(report.charts[1])


def test_a_sequence_is_shown_whole_and_in_order(document):
    text = render(document)
    assert ">512, 512, 576 tokens<" in text
    assert "512 to 576" not in text


def test_what_the_work_was_fitted_to_is_shown_where_it_is_known(document):
    text = render(document)
    assert (
        "AMX, 2 cores, bfloat16, prefill 2,130 tokens/s; documents of 1,200, 2,400 and 4,800 tokens" in text
    )
    for name in ("instruction_set", "cores", "dtype", "prefill_tokens_s", "workload"):
        del document["environment"][name]
    assert "AMX" not in render(document)


def test_numbers_are_never_powers_of_ten(document):
    text = render(document)
    assert "1,234,568" in text
    assert "0.0000123" in text
    chart = {"kind": "rounds", "columns": ["arm", "s"], "axis": "s", "name": "x"}
    for value, shown in ((1234.5, "1,234"), (0.000001234, "0.00000123"), (7_654_321.0, "7,654,321")):
        svg = draw({**chart, "rows": [["a", value]]}, "p")
        assert f">{shown}<" in svg
        assert not re.search(r">[^<]*\de[+-]?\d[^<]*<", svg)


def test_a_document_of_schema_1_is_converted_and_says_so(document, tmp_path):
    old = {**document, "schema": 1}
    environment = old["environment"]
    for name in ("instruction_set", "cores", "dtype", "prefill_tokens_s", "workload"):
        del environment[name]
    environment |= {"hardware": "A processor, 4 cores, 8 GiB"}
    environment["stack"] = {"vllm": {"command": ["vllm", "--dtype", "float32"], "port": 1}}
    new = upgrade(old)
    write_results(new, tmp_path / "results.json")
    assert (new["schema"], new["environment"]["dtype"], new["environment"]["cores"]) == (2, "float32", 4)
    assert "prefill_tokens_s" not in new["environment"]
    assert "converted from schema 1" in render(new)
    assert old["schema"] == 1
    assert upgrade(new) == new
    with pytest.raises(ValueError, match="got 7"):
        upgrade({**document, "schema": 7})


def test_the_terminals_table_fits_and_tells_who_served(document):
    mixed = {"engine": 50, "lmcache_l1": 30, "lmcache_l2": 20, "computed": 7}
    document["lessons"][0]["headline"]["tokens"] = mixed
    lines = summary_lines(document)
    assert max(map(len, lines)) <= 100
    assert "engine's own cache 62 %, LMCache memory 38 %" in "\n".join(lines)
    assert lines[1].split("  ")[-1] == "90.0 % (85.0 to 95.0)"
    assert lines[2].strip() == "LMCache second tier 20 %"


@pytest.mark.parametrize("missing", ["Question", "You will see", "Words", "Time", "Hardware", "Builds on"])
def test_a_header_without_a_field_is_an_error(missing):
    fields = {name: "text" for name in ("Question", "You will see", "Words", "Time", "Hardware", "Builds on")}
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
