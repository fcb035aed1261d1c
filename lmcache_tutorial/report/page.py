"""results.json -> one self-contained HTML page. Every number on it comes from the document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Any

from jinja2 import Environment

from ..lessons.glossary import GLOSSARY
from ..lessons.places import Place
from ..lessons.suite import left_out
from ..machine.files import write_atomically
from ..pages.charts import caption, draw, legend
from ..pages.templating import TITLES, machine_words, page_environment, workload_words
from ..quantities.sources import SOURCES, served_by
from ..selfcheck.chapters import questions
from .own_numbers import own_words

TEMPLATE = "report.html.jinja"
Draw = Callable[[Mapping[str, Any], str], str]
"""(chart, what is put before its ids) -> its drawing."""
OUTCOME_WORDS = {
    "passed": "passed",
    "failed": "failed",
    "error": "error",
    "undecided": "undecided",
    "skipped": "skipped",
    "not_run": "not run",
    "incomplete": "incomplete",
    "inconclusive": "inconclusive",
}


def render(results: Mapping[str, Any], pages: Mapping[str, str] = MappingProxyType({})) -> str:
    """Build the page: no script, no network, everything that a run said escaped.

    Args:
        results: a document of the results.json contract.
        pages: file name -> title of the pages beside this one.

    Returns:
        HTML text, well under 2 MB.
    """
    lessons = {lesson["id"]: lesson for lesson in results["lessons"]}
    return (
        _pages()
        .get_template(TEMPLATE)
        .render(
            run=results,
            pages=pages,
            left_out=left_out(lessons) if lessons else (),
            questions={name: questions(lesson) for name, lesson in lessons.items()},
            terms=[(term, *shown_at(term.shown, lessons)) for term in GLOSSARY],
        )
    )


def render_lesson(results: Mapping[str, Any], lesson: str, draw: Draw) -> str:
    """Build one lesson's part of the page by itself.

    Args:
        results: a document of the results.json contract, which holds the lesson.
        lesson: its id.
        draw: draws a chart in place of :func:`charts.draw`.

    Returns:
        A ``<section>``; its style is the page's.
    """
    (found,) = [one for one in results["lessons"] if one["id"] == lesson]
    page = _pages()
    page.globals["draw"] = draw
    template = page.get_template(TEMPLATE)
    seen = {"run": results, "lesson": found, "questions": {lesson: questions(found)}}
    return "".join(template.blocks["lesson"](template.new_context(seen)))


def _pages() -> Environment:
    """Return the environment of the page, with all that its template calls."""
    page = page_environment()
    page.globals |= {
        "draw": draw,
        "caption": caption,
        "legend": legend,
        "machine_words": machine_words,
        "workload_words": workload_words,
        "waterfall": waterfall,
        "holds": holds,
        "own_words": own_words,
        "median": median,
        "sources": SOURCES,
        "served_by": served_by,
    }
    page.filters |= {"word": OUTCOME_WORDS.__getitem__, "median": median}
    return page


def write_report(results: Mapping[str, Any], path: Path) -> None:
    """Render the page, with links to those that lie beside it, and write it, atomically."""
    beside = {f"{name}.html": title for name, title in TITLES.items()}
    pages = {name: title for name, title in beside.items() if path.with_name(name).is_file()}
    write_atomically(path, render(results, pages))


def shown_at(place: Place, lessons: Mapping[str, Any]) -> tuple[str, str]:
    """Say where a page shows something, and return the id of that part; a lesson that was not run says so.

    >>> shown_at(Place("lesson2", "chart", "TTFT"), {"lesson2": {"charts": [{"name": "TTFT"}]}})
    ('Lesson 2, the chart “TTFT”', 'lesson2-chart1')
    >>> shown_at(Place("lesson2", "chart", "TTFT"), {"lesson2": {}})
    ('Lesson 2', 'lesson2')
    >>> shown_at(Place("lesson2", "chart", "TTFT"), {})
    ('Lesson 2, which was not run', 'lesson2')
    """
    name, lesson = f"Lesson {place.lesson.removeprefix('lesson')}", lessons.get(place.lesson)
    if lesson is None:
        return f"{name}, which was not run", place.lesson
    part = place.found(lesson)
    return (f"{name}, {place}", part) if part else (name, place.lesson)


def holds(prediction: Mapping[str, Any]) -> bool:
    """Tell whether a prediction in whole units came out exactly, in every round."""
    return bool(prediction["predicted"] == prediction["measured"])


def waterfall(spans: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Place spans on a common axis: left edge, width and first token in per cent of the trace."""
    total = max((span["start_s"] + span["duration_s"] for span in spans), default=0) or 1
    depth: dict[str, int] = {}
    rows = []
    for span in spans:
        depth[span["span_id"]] = depth.get(span["parent_id"], -1) + 1
        ttft = span["ttft_s"]
        rows.append(
            {
                **span,
                "depth": depth[span["span_id"]],
                "left": 100 * span["start_s"] / total,
                "width": max(0.4, 100 * span["duration_s"] / total),
                "first": None if ttft is None else 100 * ttft / total,
            }
        )
    return rows
