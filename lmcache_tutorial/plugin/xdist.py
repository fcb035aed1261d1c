"""pytest-xdist runs tests side by side; what is measured must not be."""

from __future__ import annotations

import pytest

from ..lessons.header import lesson_id
from .prompt_items import PromptItem
from .selection import PEERS, is_other

REFUSAL = (
    "pytest-xdist cannot run this: lessons share one stack, and what is asked of a deployment one engine. "
    "Side by side they would mix up its counters and its timings.\nTo fix: leave -n out."
)


def is_worker(config: pytest.Config) -> bool:
    """Tell whether this process is one of pytest-xdist's. The process that starts them collects nothing."""
    return hasattr(config, "workerinput")


def refuse_side_by_side(item: pytest.Item) -> None:
    """Fail a test that measures; a worker cannot end the run, for pytest-xdist would call that a crash."""
    if is_worker(item.config) and _measures(item):
        pytest.fail(REFUSAL, pytrace=False)


def _measures(item: pytest.Item) -> bool:
    asks = isinstance(item, PromptItem) or "kv_stack" in getattr(item, "fixturenames", ())
    return asks or bool(lesson_id(item.path)) or is_other(item) or bool(item.get_closest_marker(PEERS))
