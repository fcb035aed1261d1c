"""Several runs on one page: what they found, times as ratios where the work was the same, what differs."""

import copy
import json
import re

import pytest

from lmcache_tutorial.quantities.formats import percent
from lmcache_tutorial.report.compared import Count, chapters, render_compared
from lmcache_tutorial.report.runs import NamedRun, read_run
from lmcache_tutorial.tests.conftest import HOSTILE
from lmcache_tutorial.tests.test_joined import GROUP, ROOT, command, run, written
from lmcache_tutorial.tests.test_report import Page

FASTER = [{"name": "TTFT", "unit": "s", "arm": "cold", "values": [1.0, 1.1, 0.9]}]
SLOWER = [{"name": "TTFT", "unit": "s", "arm": "cold", "values": [2.0, 2.2, 1.8]}]


def rendered(*runs):
    return render_compared([NamedRun(f"run{number}", one) for number, one in enumerate(runs, 1)])


def timed(measurements, **environment):
    made = run(2, **environment)
    made["lessons"][0]["measurements"] = measurements
    return made


def test_times_of_the_same_work_have_a_ratio_to_the_first_run_with_its_interval():
    (chapter,) = chapters([timed(SLOWER), timed(FASTER)])
    first, second = chapter.times["TTFT", "cold"]
    assert (first.median_s, first.ratio) == (2.0, None)
    assert second.median_s == 1.0
    assert second.ratio.low < second.ratio.value == 0.5 < second.ratio.high
    assert ">0.5 (0.4" in rendered(timed(SLOWER), timed(FASTER))


@pytest.mark.parametrize(
    "other",
    [{"model": "another"}, {"workload": {"short": 1, "medium": 2, "long": 3, "reason": "", "class": ""}}],
)
def test_times_of_other_work_have_no_ratio_and_the_page_says_why(other):
    runs = [timed(SLOWER), timed(FASTER, **other)]
    (chapter,) = chapters(runs)
    assert [one.ratio for one in chapter.times["TTFT", "cold"]] == [None, None]
    assert "such times are not of the same work" in rendered(*runs)
    assert "such times are not of the same work" not in rendered(timed(SLOWER), timed(FASTER))


@pytest.mark.parametrize("values", [[1.0, 2.0], [0.0, 1.0, 2.0], [-0.1, 0.1, 0.2]])
def test_too_few_rounds_or_a_time_that_is_not_above_nothing_has_no_ratio(values):
    odd = [{**FASTER[0], "values": values}]
    (chapter,) = chapters([timed(SLOWER), timed(odd)])
    assert chapter.times["TTFT", "cold"][1].ratio is None


def test_a_group_whose_prompts_are_others_has_no_ratio():
    def grouped(digest):
        request = {"line": 1, "prompt_tokens": 9, "shared_tokens": 1, "predicted": 1, "reused": [1]}
        request |= {"segments": [["message 0", digest]], "forerunner_segments": []}
        return {**run(), "groups": [{**GROUP, "measurements": FASTER, "requests": [request]}]}

    for digest, same in (("aa", True), ("bb", False)):
        (chapter,) = chapters([grouped("aa"), grouped(digest)])
        assert list(chapter.same_work) == [True, same]
        assert (chapter.times["TTFT", "cold"][1].ratio is not None) == same


def test_what_differs_is_told_and_what_is_equal_is_counted():
    text = rendered(run(1), run(1, port=21002, hardware="another machine", code="xyz"))
    table = text.partition('<section id="fingerprints">')[2].partition("</section>")[0]
    assert re.findall(r"<tr><th>(.*?)</th>", table)[1:] == ["code", "machine"]
    assert "another machine" in table
    assert "other properties are the same in all" in table
    assert "Nothing: " in rendered(run(1), run(2))


def test_a_lesson_that_one_run_lacks_says_so():
    text = rendered(run(1, 2), run(2, 3))
    assert text.count(">not run</span>") == 4  # in the headlines and in the chapters of lessons 1 and 3
    assert "Lesson 3. LMCache survives the engine" in text


def test_headlines_and_hits_stand_side_by_side():
    text = rendered(run(2), run(2, started="2026-11-28T10:00:00Z"))
    head = run(2)["lessons"][0]["headline"]
    assert text.count(percent(head["hit_rate"])) == 4
    assert text.count("engine&#39;s own cache") >= 3
    low, high = (f"{100 * head[end]:.1f}" for end in ("ttft_drop_low", "ttft_drop_high"))
    assert f"{percent(head['ttft_drop'])} ({low} to {high})" in text


def test_a_prediction_that_was_missed_is_told_beside_what_was_counted():
    missed = run(2)
    first = missed["lessons"][0]["predictions"][0]
    measured = f"{first['measured'][0]:,} tokens"
    first["predicted"] = [2432] * 7
    request = {"line": 3, "prompt_tokens": 9, "shared_tokens": 1, "predicted": 64}
    for one, reused in ((missed, [64, 32]), (other := run(2), [None, None])):
        one["groups"] = [{**GROUP, "requests": [{**request, "reused": reused, "segments": []}]}]
    group, lesson = chapters([missed, other])
    assert lesson.counts["Reused tokens of the second ask"] == [
        Count(measured, "2,432 tokens"),
        Count(measured),
    ]
    assert group.counts["Reused, line 3"] == [Count("32 to 64 tokens", "64 tokens"), Count("not told")]
    assert "predicted: 2,432 tokens" in rendered(missed, other)


def test_the_page_escapes_what_runs_say_and_asks_for_nothing(document):
    other = copy.deepcopy(document)
    other["environment"] |= {"hardware": HOSTILE, "model": HOSTILE, "code": HOSTILE}
    other["environment"]["packages"] = {HOSTILE: HOSTILE}
    other["environment"]["stack"]["vllm"]["command"] = ["python", f"--{HOSTILE}", HOSTILE]
    other |= {"notes": [HOSTILE], "groups": [{**GROUP, "name": HOSTILE, "file": HOSTILE, "id": HOSTILE}]}
    other["lessons"][0]["measurements"].append(
        {"name": HOSTILE, "unit": "s", "arm": HOSTILE, "values": [1.0]}
    )
    text = render_compared([NamedRun(HOSTILE, document, "a%20b/index.html"), NamedRun(HOSTILE, other)])
    page = Page(text)
    assert HOSTILE not in text
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert len(page.ids) == len(set(page.ids))
    inner = {link[1:] for link in page.links if link.startswith("#")}
    assert inner <= set(page.ids)
    assert {link for link in page.links if not link.startswith("#")} == {"data:,", "a%20b/index.html"}


def test_the_command_puts_folders_side_by_side_and_links_their_reports(tmp_path):
    first, second = written(tmp_path / "a: b#c", run(1)), written(tmp_path / "b", run(1, 2))
    (first / "index.html").touch()
    done = command(first, second / "results.json", "--into", tmp_path / "both" / "page.html")
    assert done.exit_code == 0, done.output
    assert done.stdout == f"side by side: 2 runs in {tmp_path / 'both' / 'page.html'}\n"
    links = Page((tmp_path / "both" / "page.html").read_text()).links
    assert "../a%3A%20b%23c/index.html" in links
    assert not any("../b/" in link for link in links)


def test_the_reference_runs_stand_on_one_page(tmp_path):
    folders = sorted(path.parent for path in (ROOT / "reports" / "reference").glob("*/results.json"))
    done = command(*folders, "--into", tmp_path / "runs.html")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "runs.html").read_text()
    assert len(text) < 500_000
    for folder in folders:
        assert json.dumps(read_run(folder)["started"]).strip('"') in text
