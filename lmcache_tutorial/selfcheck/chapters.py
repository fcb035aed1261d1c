"""A lesson's results -> its five questions, answered from them."""

from __future__ import annotations

from collections.abc import Mapping

from .caches import ASK_TWICE, FIRST_TOKEN, SURVIVES
from .capacity import MANY_ENGINES, MORE_DATA
from .keeping import COSTS, WATCH
from .prompts import AGENT, STATIC_FIRST
from .question import Lesson, Question, Questions

CHAPTERS: Mapping[str, Questions] = {
    one.lesson: one
    for one in (FIRST_TOKEN, ASK_TWICE, SURVIVES, STATIC_FIRST, AGENT, MORE_DATA, MANY_ENGINES, COSTS, WATCH)
}


def questions(lesson: Lesson) -> list[Question]:
    """Ask a lesson's reader back.

    Args:
        lesson: one lesson's part of a results.json; it may have failed, or shown a part only.

    Returns:
        Five questions in their order, each with an answer and where it can be seen. An answer's numbers are
        those of the lesson's results; one that they do not hold is named as missing.

    >>> [one.where.lesson for one in questions({"id": "lesson2"})]
    ['lesson2', 'lesson2', 'lesson2', 'lesson2', 'lesson2']
    >>> questions({"id": "lesson2"})[4].answer.endswith("it stands in the chart “TTFT”.")
    True
    """
    return [asked.of(lesson) for asked in CHAPTERS[lesson["id"]].all]
