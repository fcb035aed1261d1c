"""The lessons of the suite: what each is called and what it asks, also where it was not run."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SuiteLesson:
    """One lesson; its title and question are those of its module's docstring, which a test compares."""

    id: str
    title: str
    question: str

    @property
    def command(self) -> str:
        """What runs it."""
        return f"pytest -k {self.id}"


SUITE = (
    SuiteLesson(
        "lesson1",
        "Lesson 1. What the first token costs",
        "What do you wait for before the first token, and how does the wait grow with the prompt?",
    ),
    SuiteLesson(
        "lesson2",
        "Lesson 2. Ask twice, prefill once",
        "Two questions about one manual: how much of the second prompt is prefilled again?",
    ),
    SuiteLesson(
        "lesson3",
        "Lesson 3. LMCache survives the engine",
        "The engine's own cache serves a repeated prompt already: what does LMCache add?",
    ),
    SuiteLesson(
        "lesson4",
        "Lesson 4. Static first, dynamic last",
        "A clock stands in your prompt: what does its place cost?",
    ),
    SuiteLesson(
        "lesson5",
        "Lesson 5. An agent that keeps its prefix",
        "A router, three experts, tools, many turns: what makes an agent's prompts reusable?",
    ),
    SuiteLesson(
        "lesson6",
        "Lesson 6. More data than fits",
        "Your documents do not all fit: who still serves a question, and where is the cliff?",
    ),
    SuiteLesson(
        "lesson7",
        "Lesson 7. Many engines, one cache",
        "Two engines stand behind a router: does a question find what the other engine has computed?",
    ),
    SuiteLesson(
        "lesson8",
        "Lesson 8. What it costs, and what breaks",
        "When does LMCache not pay, what does it cost then, and what happens when it fails?",
    ),
    SuiteLesson(
        "lesson9",
        "Lesson 9. Watch it, and keep it",
        "Your agent keeps its prefix today. How do you learn that it lost it, and how do you keep it?",
    ),
)


def left_out(ids: Collection[str]) -> tuple[SuiteLesson, ...]:
    """Return the lessons of the suite that a run does not hold, in their order.

    >>> [one.id for one in left_out(["lesson1", "lesson3", "lesson4", "lesson5", "lesson6", "lesson7"])]
    ['lesson2', 'lesson8', 'lesson9']
    """
    return tuple(one for one in SUITE if one.id not in ids)
