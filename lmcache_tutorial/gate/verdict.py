"""Outcomes of claims -> outcome of a lesson -> verdict of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

OUTCOMES = ("failed", "error", "undecided", "not_run", "skipped", "inconclusive", "passed")  # the worst first
EXIT_CODES = {
    "passed": 0,
    "failed": 1,
    "incomplete": 6,
    "inconclusive": 7,
}  # of a run that pytest ends with 0


def worst(outcomes: Sequence[str]) -> str:
    """Return the worst outcome; a lesson without any has not run.

    >>> worst(["passed", "skipped", "passed"])
    'skipped'
    """
    return min(outcomes, key=OUTCOMES.index, default="not_run")


def verdict(lessons: Mapping[str, Sequence[str]]) -> str:
    """Judge a run by the outcomes of every selected claim, by lesson or group.

    ``failed`` if a claim failed or errored; ``incomplete`` if one was skipped, not run or ``undecided`` (its
    rounds could not decide it); ``inconclusive`` if two comparisons with a baseline disagree; else
    ``passed``.

    >>> verdict({"lesson1": ["passed"], "lesson2": ["passed", "not_run"]})
    'incomplete'
    >>> verdict({"lesson1": ["passed", "undecided"], "lesson2": ["error"]})
    'failed'
    >>> verdict({"agent.prompts.jsonl::manual": ["inconclusive"]})
    'inconclusive'
    """
    found = worst([worst(outcomes) for outcomes in lessons.values()])
    return {"error": "failed"}.get(found, found if found in EXIT_CODES else "incomplete")
