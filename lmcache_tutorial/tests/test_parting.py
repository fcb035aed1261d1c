"""Two prompts that part: the data of the picture, and the picture."""

import re

import pytest

from lmcache_tutorial.pages.charts import caption, draw
from lmcache_tutorial.prompts.parting import prefix_chart
from lmcache_tutorial.tests.conftest import layout


def prompts(before: int, after: int, first: str = "12", second: str = "14"):
    """Two prompts that differ in one token, with so many tokens before and after it."""
    head = [f"w{place}" for place in range(before)]
    tail = [f"t{place}" for place in range(after)]
    return [layout(("manual", head), ("clock", [clock]), ("rest", tail)) for clock in (first, second)]


def test_the_chart_tells_where_they_part_and_what_can_be_reused():
    chart = prefix_chart(*prompts(1000, 50), block=32, chunk=64)
    assert (chart["shared"], chart["equal_at_end"]) == (1000, 50)
    assert chart["tokens"] == {"first": 1051, "second": 1051}
    assert chart["reused"] == {"engine": 992, "lmcache_l1": 960}
    assert chart["window"] == [832, 1051]
    runs = [row for row in chart["rows"] if row[:2] == ["run", "second"]]
    assert [(row[2], row[3], row[4], row[6]) for row in runs] == [
        (832, 168, "manual", "equal"),
        (1000, 1, "clock", "differs"),
        (1001, 50, "rest", "equal"),
    ]
    words = [row for row in chart["rows"] if row[:2] == ["token", "second"]]
    assert [row[5] for row in words if row[6] == "differs"] == ["14"]
    assert words[0][5] == "w990"


def test_equal_words_between_others_are_seen():
    first, second = (
        layout(("a", ["x", "y", *clock, " seconds", " past"]), ("b", end))
        for clock, end in ((["1", "2"], ["u"]), (["3"], ["v", "w"]))
    )
    chart = prefix_chart(first, second, block=1, chunk=2)
    equal = {row[5] for row in chart["rows"] if row[0] == "token" and row[2] >= 2 and row[6] == "equal"}
    assert equal == {" seconds", " past"}
    assert chart["equal_at_end"] == 0


@pytest.mark.parametrize(("block", "chunk"), [(32, 32), (32, 64), (64, 256)])
@pytest.mark.parametrize(("before", "after"), [(0, 600), (300, 300), (599, 1), (59_000, 900), (40, 60_000)])
def test_the_picture_stays_in_its_frame(before, after, block, chunk):
    chart = prefix_chart(*prompts(before, after), block=block, chunk=chunk)
    svg = draw({"name": "x", **chart}, "p")
    width = int(re.search(r'viewBox="0 0 (\d+)', svg)[1])
    for x, size in re.findall(r'<rect x="([-\d.]+)" y="\d+" width="([\d.]+)"', svg):
        assert float(x) >= 0
        assert float(x) + float(size) <= width
    assert all(0 <= float(x) <= width for x in re.findall(r'<text x="([-\d.]+)"', svg))
    assert svg.count('class="parting"') == 2
    assert ("more<" in svg) == (chart["window"][0] > 0 or chart["window"][1] < before + 1 + after)
    assert len(svg) < 60_000
    blocks = before // block
    assert chart["reused"] == {"engine": blocks * block, "lmcache_l1": before // chunk * chunk}
    assert ('class="engine"' in svg) == (blocks > 0)
    assert ('class="lmcache_l1"' in svg) == (before >= chunk)
    assert f"can serve {blocks * block:,} of them" in caption(chart)


def test_prompts_that_do_not_part_say_so():
    one, _ = prompts(100, 20)
    chart = prefix_chart(one, one, block=32, chunk=64)
    assert chart["shared"] == 121
    svg = draw({"name": "x", **chart}, "p")
    assert "they do not part" in svg
    assert "differs" not in svg
