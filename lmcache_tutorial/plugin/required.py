"""``--kv-require-all``: what of ours is skipped counts as failed."""

from __future__ import annotations

import pytest

from ..lessons.header import LESSONS_FOLDER
from ..settings.spelling import PYTEST
from .options import given_options
from .prompt_items import PromptItem
from .undecided import is_undecided

REQUIRES_ALL = PYTEST("require_all")


def fail_a_skip(item: pytest.Item, report: pytest.TestReport) -> None:
    """Turn the report of a lesson, a group of prompts or a graph's test that was skipped into a failure."""
    if not report.skipped or is_undecided(report) or hasattr(report, "wasxfail"):
        return
    if is_ours(item) and given_options(item.config).require_all:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = (
            f"{REQUIRES_ALL} was given, and this was skipped: {reason.removeprefix('Skipped: ')}"
        )


def in_lessons(item: pytest.Item) -> bool:
    """Tell whether it stands in the lessons' folder."""
    return item.path.parent.name == LESSONS_FOLDER


def is_ours(item: pytest.Item) -> bool:
    """Tell whether it is a lesson's or stands beside them, a group of prompts, or a graph's test."""
    asks = isinstance(item, PromptItem) or "kv_stack" in getattr(item, "fixturenames", ())
    return asks or in_lessons(item)
