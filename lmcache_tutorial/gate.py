"""The acceptance gate: outcomes of claims -> outcome of a lesson -> verdict of the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .records import Verdict

OUTCOMES = ("failed", "error", "undecided", "not_run", "skipped", "passed")  # the worst first


def worst(outcomes: Sequence[str]) -> str:
    """Return the worst outcome; a lesson without any has not run.

    >>> worst(["passed", "skipped", "passed"])
    'skipped'
    """
    return min(outcomes, key=OUTCOMES.index, default="not_run")


def verdict(lessons: Mapping[str, Sequence[str]]) -> Verdict:
    """Judge a run by the outcomes of every selected claim, by lesson.

    ``failed`` if a claim failed or errored; ``incomplete`` if one was skipped, not run or ``undecided`` (its
    rounds could not decide it); else ``passed``.

    >>> verdict({"lesson1": ["passed"], "lesson2": ["passed", "not_run"]})
    Verdict(outcome='incomplete', reasons=('lesson2: not run',))
    >>> verdict({"lesson1": ["passed", "undecided", "skipped"]})
    Verdict(outcome='incomplete', reasons=('lesson1: undecided',))
    """
    judged = {lesson: worst(outcomes) for lesson, outcomes in lessons.items()}
    reasons = tuple(
        f"{lesson}: {outcome.replace('_', ' ')}" for lesson, outcome in judged.items() if outcome != "passed"
    )
    found = worst(list(judged.values()))
    names = {"passed": "passed", "failed": "failed", "error": "failed"}
    return Verdict(names.get(found, "incomplete"), reasons)
