"""A question that a lesson asks back, and what its answer may take from the lesson's results.

An answer has two parts: the reason, which holds in every run, and what this run shows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..lessons.places import Place
from ..quantities.formats import figure, seconds

Lesson = Mapping[str, Any]
"""A lesson's part of results.json."""


class NotShownError(LookupError):
    """The run has no such figure."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question, its answer, and the part of the lesson where the answer can be seen."""

    text: str
    answer: str
    where: Place


@dataclass(frozen=True)
class Shown:
    """What a lesson has shown, by the names that its report has.

    What is not there is a LookupError, and so is what the run could not know: ``None`` in results.json, for
    example whose the reused tokens were on a deployment that others use.
    """

    lesson: Lesson

    def predicted(self, name: str) -> Sequence[float]:
        """Return what was predicted, one value a round."""
        return self._values("predictions", "predicted", name=name)

    def measured(self, name: str) -> Sequence[float]:
        """Return what was measured of a prediction, one value a round."""
        return self._values("predictions", "measured", name=name)

    def values(self, name: str, arm: str) -> Sequence[float]:
        """Return the values of one arm, one a round."""
        return self._values("measurements", "values", name=name, arm=arm)

    def median(self, name: str, arm: str) -> float:
        """Return the median of one arm."""
        return median(self.values(name, arm))

    def time(self, name: str, arm: str) -> str:
        """Print the median of one arm, a time [s]."""
        return seconds(self.median(name, arm))

    def chart(self, name: str) -> Mapping[str, Any]:
        """Return a chart."""
        found: Mapping[str, Any] = _known(self._entry("charts", name=name))
        return found

    def row(self, chart: str, first: str) -> Mapping[str, Any]:
        """Return the row of a chart that begins with a word, by its columns."""
        found = self.chart(chart)
        for row in found["rows"]:
            if row[0] == first:
                return dict(zip(found["columns"], row, strict=True))
        raise NotShownError(first)

    def headline(self, name: str) -> Any:
        """Return a figure of the headline."""
        found = (self.lesson.get("headline") or {}).get(name)
        if found is None:
            raise NotShownError(name)
        return _known(found)

    def _entry(self, part: str, **wanted: str) -> Mapping[str, Any]:
        for entry in self.lesson.get(part) or []:
            if wanted.items() <= entry.items():
                found: Mapping[str, Any] = entry
                return found
        raise NotShownError(*wanted.values())

    def _values(self, part: str, key: str, **wanted: str) -> Sequence[float]:
        values: Sequence[float] = self._entry(part, **wanted)[key]
        if not values or None in values:
            raise NotShownError(*wanted.values())
        return values


def _known(figures: Any) -> Any:
    """Leave out what the run could not know: a name without a value, a row that lacks one."""
    if isinstance(figures, Mapping):
        return {name: _known(one) for name, one in figures.items() if one is not None}
    if isinstance(figures, list):
        return [_known(one) for one in figures if not (isinstance(one, list) and None in one)]
    return figures


Evidence = Callable[[Shown], str]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, the reason that answers it, and what is taken from a run."""

    text: str
    reason: str
    evidence: Evidence
    where: Place

    def of(self, lesson: Lesson) -> Question:
        """Answer it from a lesson's results; what a run does not show the answer says plainly."""
        try:
            seen = f"In this run {self.evidence(Shown(lesson))}"
        except LookupError:  # not shown, or a chart of an earlier version lacks a field
            seen = (
                f"This run holds no number for it; with this version of the suite it stands in {self.where}."
            )
        return Question(self.text, f"{self.reason} {seen}", self.where)


class Questions:
    """The questions of one lesson, in the order in which they are written down."""

    def __init__(self, lesson: str) -> None:
        """Begin with none."""
        self.lesson = lesson
        self.all: list[Asked] = []

    def ask(self, text: str, *, reason: str, where: Place) -> Callable[[Evidence], Evidence]:
        """Add a question; it decorates what takes the answer's numbers from a run, and says them."""

        def add(evidence: Evidence) -> Evidence:
            self.all.append(Asked(text, reason, evidence, where))
            return evidence

        return add

    def chart(self, name: str) -> Place:
        """Name a chart of the lesson."""
        return Place(self.lesson, "chart", name)

    def prediction(self, name: str) -> Place:
        """Name a row of its predictions."""
        return Place(self.lesson, "prediction", name)


def tokens(count: float) -> str:
    """Print a number of tokens.

    >>> tokens(3616)
    '3,616 tokens'
    """
    return figure(count, "tokens")


def times(ratio: float) -> str:
    """Print how many times as much something is.

    >>> times(1.3872)
    '1.39 times'
    """
    return figure(ratio, "times", digits=3)
