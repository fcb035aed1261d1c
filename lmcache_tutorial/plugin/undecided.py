"""A claim that its rounds could not decide is shown as one: neither passed, failed nor skipped."""

from __future__ import annotations

import pytest

from ..gate.decide import UndecidedError

UNDECIDED = "undecided"


def mark_undecided(item: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    """Mark the report of a claim that is undecided."""
    if call.excinfo and isinstance(call.excinfo.value, UndecidedError):
        path, line, _ = item.location
        report.outcome = "skipped"  # neither passed nor failed; the run's exit code tells it from a skip
        report.longrepr = (path, line or 0, str(call.excinfo.value))
        report.user_properties.append((UNDECIDED, True))


def is_undecided(report: pytest.TestReport | pytest.CollectReport) -> bool:
    """Tell whether a report was marked."""
    return (UNDECIDED, True) in getattr(report, "user_properties", ())
