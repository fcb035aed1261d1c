"""Outcomes of claims -> outcome of a lesson -> verdict of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OUTCOMES = ("failed", "error", "undecided", "not_run", "skipped", "passed")  # the worst first
INCOMPLETE_EXIT_CODE = 6


def worst(outcomes: Sequence[str]) -> str:
    """Return the worst outcome; a lesson without any has not run.

    >>> worst(["passed", "skipped", "passed"])
    'skipped'
    """
    return min(outcomes, key=OUTCOMES.index, default="not_run")


def verdict(lessons: Mapping[str, Sequence[str]]) -> str:
    """Judge a run by the outcomes of every selected claim, by lesson.

    ``failed`` if a claim failed or errored; ``incomplete`` if one was skipped, not run or ``undecided`` (its
    rounds could not decide it); else ``passed``.

    >>> verdict({"lesson1": ["passed"], "lesson2": ["passed", "not_run"]})
    'incomplete'
    >>> verdict({"lesson1": ["passed", "undecided"], "lesson2": ["error"]})
    'failed'
    """
    found = worst([worst(outcomes) for outcomes in lessons.values()])
    return {"passed": "passed", "failed": "failed", "error": "failed"}.get(found, "incomplete")
