"""A run with lessons, faults or peers is opened: refused or configured, and its session registered."""

from __future__ import annotations

import pytest

from ..settings.paths import writable_folder
from ..settings.run import bars
from .configuration import run_configuration, usage_errors
from .options import given_options
from .prompt_items import PromptItem
from .selection import Selection, refuse_a_slow_lmcache, refuse_company
from .signals import orderly_signals
from .stash import PROMPTS, SESSION


def open_prompts(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Make ready to ask a deployment, where one is named and a group of prompts is selected.

    Nothing is asked yet, of it or of a GPU.
    """
    if config.option.collectonly or not any(isinstance(item, PromptItem) for item in items):
        return
    with usage_errors(config):
        options = given_options(config)
        thresholds = bars(options)
    if options.url is None:
        return
    from .prompt_run import PromptRun

    run = config.stash[PROMPTS] = PromptRun(options, thresholds)
    config.pluginmanager.register(run, "lmcache-tutorial-prompts")


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
