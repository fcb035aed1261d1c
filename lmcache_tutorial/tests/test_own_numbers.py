"""A reader's own numbers in results.json, on the page and in the terminal's summary."""

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_tutorial.lessons.header import LessonHeader
from lmcache_tutorial.lessons.questions import Question
from lmcache_tutorial.report.own_numbers import distance, own_summary, own_words
from lmcache_tutorial.report.page import render
from lmcache_tutorial.report.results import LessonReport, RunRecord, schema
from lmcache_tutorial.report.terminal import summary_lines
from lmcache_tutorial.settings.bars import Thresholds

ASKED = (
    Question("Reused", "How many?", "Count."),
    Question("In order", "How many?", "Count.", of=2),
    Question("Together", "How many?", "Count.", unit="bytes", of="all"),
)
FIELDS = {"Question": "Why?", "You will see": "it."}


def predicted(answers):
    """The predictions of a lesson whose reader gave some answers, as results.json has them."""
    record = RunRecord(Thresholds())
    record.select("lesson2", LessonHeader("Chapter 2", FIELDS), "lesson2", "It holds")
    lesson = record.lessons["lesson2"]
    lesson.own_numbers(ASKED, answers)
    lesson.compare("Reused", predicted=[96, 96], measured=[96, 128])
    lesson.compare("In order", predicted=[0, 64], measured=[0, 64], sequence=True)
    lesson.compare("Together", predicted=[10, 20], measured=[10, 20], unit="bytes")
    lesson.compare("Not asked", predicted=[1], measured=[1])
    return record.results()["lessons"][0]["predictions"]


def test_results_tell_a_number_what_it_is_about_and_what_was_not_answered():
    first, second, third, fourth = predicted({"Reused": 64, "Together": 30})
    assert first["yours"] == {"value": 64, "of": "each"}
    assert second["yours"] is None
    assert third["yours"] == {"value": 30, "of": "all"}
    assert "yours" not in fourth


def test_without_a_wish_for_them_results_are_as_they_were():
    report = LessonReport("lesson2", LessonHeader("Chapter 2", FIELDS))
    assert report.yours == {}
    assert all(
        "yours" not in one
        for one in RunRecord(Thresholds(), {"a": report}, {"a": {}}).lessons["a"].predictions
    )


def test_the_contract_has_room_for_them_and_for_nothing_else(document):
    document["lessons"][0]["predictions"] = predicted({"Reused": 64, "In order": 64})
    jsonschema.validate(document, schema())
    for wrong in (
        {"value": -1, "of": "each"},
        {"value": 1, "of": 0},
        {"value": 1},
        {"value": 1, "of": "some"},
        3,
    ):
        document["lessons"][0]["predictions"][0]["yours"] = wrong
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, schema())


def test_the_page_has_a_column_of_them_only_where_they_were_wanted(document):
    assert ">Yours<" not in render(document)
    document["lessons"][0]["predictions"] = predicted({"Reused": 64, "In order": 64})
    text = render(document)
    assert text.count(">Yours<") == 1
    assert "64 tokens, 32 too few</td>" in text
    assert "request 2: 64 tokens, as measured</td>" in text
    (row,) = [line for line in text.split("<tr>") if "<td>Together</td>" in line]
    assert '<td class="num in-order"></td>' in row  # it was not answered, so it stays empty


def test_the_terminal_says_how_many_were_right(document):
    document["lessons"][1]["predictions"] = predicted({"Reused": 64, "In order": 64, "Together": 30})
    document["lessons"][2]["predictions"] = predicted({})
    own = [line.strip() for line in summary_lines(document) if "your numbers" in line]
    assert own == ["your numbers: 2 of 3 as measured"]


MEASURED = st.lists(st.integers(0, 10**9), min_size=1)


@given(MEASURED, st.integers(0, 10**9))
def test_a_number_about_each_value_is_right_within_their_range(measured, value):
    apart = distance({"measured": measured, "yours": {"value": value, "of": "each"}})
    assert (apart == 0) == (min(measured) <= value <= max(measured))
    assert apart == 0 or value - apart in measured


@given(MEASURED, st.integers(0, 10**9), st.data())
def test_a_number_about_one_request_or_about_all_is_held_against_that(measured, value, data):
    place = data.draw(st.integers(1, len(measured)))
    one = {"measured": measured, "yours": {"value": value, "of": place}}
    assert distance(one) == value - measured[place - 1]
    assert distance(one | {"yours": {"value": value, "of": "all"}}) == value - sum(measured)


def test_a_request_that_was_not_sent_is_held_against_nothing():
    one = {"unit": "tokens", "measured": [0], "yours": {"value": 64, "of": 4}}
    assert distance(one) is None
    assert own_words(one) == "request 4: 64 tokens"
    assert own_summary([one]) == ""
