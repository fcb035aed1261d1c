"""An exercise that has passed is written down."""

from __future__ import annotations

from contextlib import suppress

import pytest

from ..lessons.exercises import exercise_number
from ..lessons.learned import note_learned


def note_solved(item: pytest.Item, report: pytest.TestReport) -> None:
    """Note that an exercise was solved; where that cannot be written, the run goes on without."""
    if report.when == "call" and report.passed and (number := exercise_number(item.path)):
        with suppress(OSError):
            note_learned(item.config.rootpath, number, solved=True)
