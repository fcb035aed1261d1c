"""A run with lessons, faults or peers is opened: refused or configured, and its session registered."""

from __future__ import annotations

import pytest

from ..settings.paths import writable_folder
from .configuration import run_configuration, usage_errors
from .selection import Selection, refuse_a_slow_lmcache, refuse_company
from .signals import orderly_signals
from .stash import SESSION


def open_run(config: pytest.Config, selection: Selection) -> None:
    """Make ready for what is selected of the tutorial; where nothing is, do nothing.

    Raises:
        pytest.UsageError: it cannot run.
    """
    if not selection or config.option.collectonly:
        return
    refuse_company(config, selection)
    run = run_configuration(config)
    with usage_errors(config):
        writable_folder(run.report_dir)
    refuse_a_slow_lmcache(run)
    orderly_signals(config)
    # pytest-benchmark skips the claims of a run that is for benchmarks alone.
    if selection.claims and not config.getoption("benchmark_only", default=False):
        from .lesson_run import Session

        session = config.stash[SESSION] = Session(config, run, selection.claims)
        config.pluginmanager.register(session, "lmcache-tutorial-session")
