"""The exercises that need an engine, on one stack: each fails for its reason until it is solved.

What its reader changes is tried as it stands, and as its last hint has it. The others are unit tests.
"""

import re
from inspect import signature
from pathlib import Path

import pytest

from lmcache_tutorial.lessons.exercises import Exercise, all_exercises
from lmcache_tutorial.stack.stack import Stack

ON_A_STACK = [one for one in all_exercises(Path(__file__).parents[1]) if one.fixtures]
each = pytest.mark.parametrize("exercise", ON_A_STACK, ids=lambda one: one.number)


def attempt(exercise: Exercise, request: pytest.FixtureRequest, *, solved: bool) -> None:
    """Call an exercise's tests with the fixtures that they ask for."""
    for check in exercise.checks(solved=solved):
        check(**{name: request.getfixturevalue(name) for name in signature(check).parameters})


@each
def test_unsolved_an_exercise_fails_for_the_stated_reason(
    exercise: Exercise, own_stack: None, stack: Stack, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(AssertionError, match=re.escape(exercise.reason)):
        attempt(exercise, request, solved=False)


@each
def test_solved_an_exercise_passes(
    exercise: Exercise, own_stack: None, stack: Stack, request: pytest.FixtureRequest
) -> None:
    attempt(exercise, request, solved=True)
