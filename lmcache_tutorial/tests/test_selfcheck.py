"""Each lesson asks five questions back, and the numbers of their answers are those of the run."""

import copy
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.lessons.suite import SUITE
from lmcache_tutorial.selfcheck.chapters import CHAPTERS, questions
from lmcache_tutorial.selfcheck.question import NotShownError, Questions, Shown

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "reports" / "reference" / "cpu-avx512-smollm2-135m" / "results.json"
LESSONS = {lesson["id"]: lesson for lesson in json.loads(REFERENCE.read_text())["lessons"]}
MISSING = "This run holds no number for it"
ASKED = [(name, asked) for name, chapter in CHAPTERS.items() for asked in chapter.all]
# An engineer's numbers that are no measurement: a limit's default, the bar, and what follows from it.
SAID = ("300 s", "70 %", "30 %", "Exercise 1")


def test_every_lesson_of_the_suite_has_five_questions():
    assert {name: len(chapter.all) for name, chapter in CHAPTERS.items()} == {one.id: 5 for one in SUITE}


@pytest.mark.parametrize(("name", "asked"), ASKED, ids=[asked.evidence.__name__ for _, asked in ASKED])
def test_a_question_asks_and_its_reason_holds_no_measured_number(name, asked):
    assert asked.text.endswith("?")
    assert asked.reason.endswith(".")
    assert asked.where.lesson == name
    plain = asked.reason
    for words in SAID:
        plain = plain.replace(words, "")
    assert re.findall(r"\d", plain) == []


def test_the_reference_run_answers_nearly_all_of_them_with_its_numbers():
    unanswered = []
    for name, lesson in LESSONS.items():
        for asked, question in zip(CHAPTERS[name].all, questions(lesson), strict=True):
            if MISSING in question.answer:
                unanswered.append(asked.where.name)
            else:
                assert re.search(r"In this run .*\d", question.answer), question.answer
                assert question.where.found(lesson), question.where
    # What those lessons have shown since that run.
    assert set(unanswered) <= {"The client's TTFT less the engine's, cold", "KV that must come"}


@pytest.mark.parametrize("name", CHAPTERS, ids=range(1, 10))  # a lesson's id would be found by -k
def test_a_name_that_an_answer_looks_for_stands_in_its_lesson(name):
    (module,) = (ROOT / "tutorial_tests").glob(f"test_{name}_*.py")
    text = module.read_text()
    for asked in CHAPTERS[name].all:
        words = re.findall(r"[A-Za-z_]{4,}", asked.where.name)  # an f-string may stand between them
        assert [word for word in words if word not in text] == []


def test_a_number_in_an_answer_follows_the_run():
    lesson = copy.deepcopy(LESSONS["lesson2"])
    chart = next(one for one in lesson["charts"] if one["kind"] == "prefix")
    chart |= {"shared": 1050, "block": 32, "reused": {"engine": 1024, "lmcache_l1": 1024}}
    answer = questions(lesson)[0].answer
    assert "agree for 1,050 tokens. With blocks of 32 that makes 32 whole ones" in answer
    assert "1,024 tokens; 26 tokens were lost to rounding" in answer


def test_what_a_run_does_not_show_the_answer_says_plainly():
    for name in CHAPTERS:
        for question in questions({"id": name}):
            assert question.answer.endswith(f"it stands in {question.where}.")
            assert MISSING in question.answer


PARTS = ("predictions", "measurements", "charts", "headline")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_five_answers_come_from_whatever_a_lesson_has_shown(data):
    lesson = copy.deepcopy(LESSONS[data.draw(st.sampled_from(sorted(LESSONS)))])
    for part in PARTS:
        left = data.draw(st.sets(st.integers(0, 40)))
        if part == "headline":
            lesson[part] = {key: lesson[part][key] for n, key in enumerate(lesson[part]) if n not in left}
        else:
            lesson[part] = [one for n, one in enumerate(lesson[part]) if n not in left]
    asked = questions(lesson)
    assert len(asked) == 5
    assert all("In this run" in one.answer or MISSING in one.answer for one in asked)


def test_zeros_in_a_failed_run_break_no_answer():
    """A failed lesson may have measured nothing but zeros."""

    def zeros(value):
        if isinstance(value, list):
            return [zeros(one) for one in value]
        return 0 if isinstance(value, int | float) and not isinstance(value, bool) else value

    for lesson in LESSONS.values():
        nothing = {**lesson, **{part: copy.deepcopy(lesson[part]) for part in PARTS}}
        for one in nothing["predictions"]:
            one |= {"measured": zeros(one["measured"]), "predicted": zeros(one["predicted"])}
        for one in nothing["measurements"]:
            one["values"] = zeros(one["values"])
        for one in nothing["charts"]:
            one["rows"] = zeros(one["rows"])
        assert len(questions(nothing)) == 5


def unknown(found):
    """Replace each number, as a run on somebody else's deployment tells what it could not know."""
    if isinstance(found, dict):
        return {name: unknown(one) for name, one in found.items()}
    if isinstance(found, list):
        return [unknown(one) for one in found]
    return None if isinstance(found, int | float) else found


@pytest.mark.parametrize("name", LESSONS, ids=range(1, len(LESSONS) + 1))
def test_what_a_run_could_not_know_breaks_no_answer(name):
    parts = {part: unknown(LESSONS[name][part]) for part in ("headline", "charts", "predictions")}
    measurements = {"measurements": unknown(LESSONS[name]["measurements"])}
    for lesson in ({**LESSONS[name], **parts}, {**LESSONS[name], **parts, **measurements}):
        assert len(questions(lesson)) == 5


def test_whose_the_tokens_were_may_be_unknown_where_the_hit_rate_is_told():
    lesson = copy.deepcopy(LESSONS["lesson2"])
    lesson["headline"]["tokens"] |= {"engine": None, "lmcache_l1": None, "lmcache_l2": None, "untold": 512}
    answers = [MISSING in one.answer for one in questions(lesson)]
    assert any(answers)
    assert not all(answers)


def test_a_figure_that_is_not_there_is_no_zero():
    shown = Shown({"id": "lesson1", "measurements": [{"name": "TTFT", "arm": "cold", "values": []}]})
    for read in (
        lambda: shown.values("TTFT", "cold"),
        lambda: shown.measured("TTFT"),
        lambda: shown.headline("hit_rate"),
        lambda: shown.chart("TTFT"),
    ):
        with pytest.raises(NotShownError):
            read()


def test_questions_keep_the_order_in_which_they_are_written():
    chapter = Questions("lesson1")
    for text in ("One?", "Two?"):
        chapter.ask(text, reason="So.", where=chapter.chart("TTFT"))(lambda shown: "it was so.")
    assert [asked.text for asked in chapter.all] == ["One?", "Two?"]
    assert chapter.all[0].of({"id": "lesson1"}).answer == "So. In this run it was so."
