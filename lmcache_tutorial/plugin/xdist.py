"""pytest-xdist runs tests side by side; what is measured must not be."""

from __future__ import annotations

import pytest

from ..settings.run import addresses
from .options import given_options
from .required import in_lessons, is_ours

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
    """Tell whether it is ours and would run: what is asked of a deployment is skipped where none is named."""
    return in_lessons(item) or (is_ours(item) and bool(addresses(given_options(item.config).url)))
