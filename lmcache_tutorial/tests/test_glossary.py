"""One glossary for README and report, whose words lead to where a run shows them; which lessons there are."""

import ast
import json
import re
from pathlib import Path

import pytest

from lmcache_tutorial.lessons.glossary import GLOSSARY, glossary_table
from lmcache_tutorial.lessons.header import parse_header
from lmcache_tutorial.lessons.places import Place
from lmcache_tutorial.lessons.suite import SUITE
from lmcache_tutorial.report.page import render, shown_at

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "reports" / "reference" / "cpu-avx512-smollm2-135m" / "results.json"
LESSONS = {lesson["id"]: lesson for lesson in json.loads(REFERENCE.read_text())["lessons"]}


def test_the_readme_shows_the_glossary():
    shown = (ROOT / "README.md").read_text().partition("<!-- glossary -->")[2]
    shown = shown.partition("<!-- /glossary -->")[0].strip()
    assert shown == glossary_table(), "add the word to lessons/glossary.py, then: python .ci/readme_tables.py"


@pytest.mark.parametrize("term", GLOSSARY, ids=lambda term: term.words)
def test_a_word_leads_to_a_part_that_its_lesson_shows(term):
    place = term.shown
    if place.lesson in LESSONS:
        assert place.found(LESSONS[place.lesson]), place
    else:  # no reference run holds it
        (module,) = (ROOT / "tutorial_tests").glob(f"test_{place.lesson}_*.py")
        assert f'"{place.name}"' in module.read_text()


def test_the_suites_titles_and_questions_are_those_of_its_modules():
    paths = sorted((ROOT / "tutorial_tests").glob("test_lesson*.py"))
    headers = [parse_header(ast.get_docstring(ast.parse(path.read_text()))) for path in paths]
    assert [(one.title, one.question) for one in SUITE] == [
        (header.title, header.fields["Question"]) for header in headers
    ]
    assert [one.id for one in SUITE] == [re.search(r"lesson\d", path.name)[0] for path in paths]


def test_a_kind_of_which_a_chapter_has_one_needs_no_name():
    assert Place("lesson2", "claims").found({"claims": [{"name": "It holds"}]}) == "lesson2-claims"
    assert Place("lesson2", "served").found({"headline": {"hit_rate": 1}}) is None
    assert Place("lesson2", "served").found({"headline": {"tokens": {}}}) == "lesson2-served"


def test_the_page_has_the_words_and_says_which_lessons_were_not_run(document):
    text = render(document)
    left = [one for one in SUITE if one.id not in {lesson["id"] for lesson in document["lessons"]}]
    assert [one.id for one in left] == ["lesson7", "lesson8", "lesson9"]
    for one in left:
        assert f'<dt id="{one.id}">{one.title}</dt>' in text
        assert f"<code>pytest -k {one.id}</code>" in text
    assert shown_at(Place("lesson7", "chart", "x"), {}) == ("Lesson 7, which was not run", "lesson7")
    assert 'Shown in <a href="#lesson7">Lesson 7, which was not run</a>' in text
    assert "<em>and all before it</em>" in text
    assert "<code>cache_salt</code>" in text


def test_a_run_of_prompts_alone_misses_no_lesson(document):
    document["lessons"] = []
    text = render(document)
    assert "Lessons that were not run" not in text
    assert "Shown in" not in text
    assert "time to first token" in text


def test_the_contents_lead_to_every_chapter(document):
    contents = render(document).partition('<nav aria-label="Contents">')[2].partition("</nav>")[0]
    targets = re.findall(r'href="#([\w-]+)"', contents)
    chapters = [one for lesson in document["lessons"] for one in (lesson["id"], f"{lesson['id']}-selfcheck")]
    assert targets == [*chapters, "not-run", "glossary", "environment"]
