"""Lines and rounds shown past pytest's capturing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..lessons.progress import Progress, on_terminal


def progress_line(config: pytest.Config) -> Callable[[str], None]:
    """Return a function that prints a line at once, past pytest's capturing."""

    def progress(line: str) -> None:
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        capture = config.pluginmanager.get_plugin("capturemanager")
        if reporter and capture:
            with capture.global_and_fixture_disabled():
                reporter.ensure_newline()
                reporter.write_line(line)

    return progress


def round_progress(config: pytest.Config) -> Progress:
    """Return what shows, on a terminal only, how far a lesson's rounds are."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if not (reporter and capture and reporter.isatty()):
        return Progress(None)
    return Progress(on_terminal(reporter.ensure_newline, capture.global_and_fixture_disabled))
