"""A run with lessons, prompts, faults or peers is opened: refused or configured, its session registered."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..settings.bars import Thresholds
from ..settings.errors import ConfigError
from ..settings.options import RunOptions
from ..settings.paths import user_path, writable_folder
from ..settings.run import bars
from .configuration import run_configuration, usage_errors
from .options import given_options
from .predicting import Predicting
from .prompt_items import PromptItem
from .selection import Selection, refuse_a_slow_lmcache, refuse_company
from .sending import check_langfuse
from .signals import orderly_signals
from .stash import PROMPTS, SESSION

if TYPE_CHECKING:
    from ..gate.baseline import Baseline
    from .session import Session


def open_run(config: pytest.Config, selection: Selection) -> None:
    """Make ready for what is selected of the tutorial; where nothing is, do nothing.

    Raises:
        pytest.UsageError: it cannot run.
    """
    if not selection or config.option.collectonly:
        return
    refuse_company(selection, given_options(config).url)
    run = run_configuration(config)
    with usage_errors(config):
        writable_folder(run.report_dir)
    refuse_a_slow_lmcache(run)
    check_langfuse(given_options(config))
    orderly_signals(config)
    # pytest-benchmark skips the claims of a run that is for benchmarks alone.
    if selection.claims and not config.getoption("benchmark_only", default=False):
        from ..report.environment import client_environment, environment

        predicting = _predicting(config, run.report_dir)
        about = client_environment() if run.url else environment(run)
        session = _session(config, run.thresholds, run.report_dir, about)
        session.select_claims(selection.claims)
        session.predicting = predicting


def open_prompts(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Make ready to ask a deployment, where one is named and a group of prompts is selected.

    Nothing is asked yet, of it or of a GPU.

    Raises:
        pytest.UsageError: a setting cannot work, or the report cannot be written.
    """
    groups = [item for item in items if isinstance(item, PromptItem) and item.url]
    if config.option.collectonly or not groups:
        return
    with usage_errors(config):
        options = given_options(config)
        thresholds, folder = bars(options), user_path("report_dir", options.report_dir).absolute()
        writable_folder(folder)
        baseline = read_baseline(options)
    from ..gate.baseline import Margin
    from ..report.environment import client_environment
    from .deployments import deployments
    from .prompt_run import PromptRun

    session = config.stash.get(SESSION, None)
    session = session or _session(config, thresholds, folder, client_environment())
    session.select_groups(groups, config.rootpath)
    margin = Margin(options.max_ttft_ratio, options.max_ttft_growth_ms / 1000)
    config.stash[PROMPTS] = PromptRun(deployments(config), session.record, baseline, margin)


def read_baseline(options: RunOptions) -> Baseline | None:
    """Read the baseline that a run is compared with.

    Raises:
        ConfigError: it is none, or a margin cannot be.
    """
    if not options.max_ttft_ratio >= 1:
        raise ConfigError(lambda option: f"{option('max_ttft_ratio')} must be 1 or more.")
    if not options.max_ttft_growth_ms >= 0:
        raise ConfigError(lambda option: f"{option('max_ttft_growth_ms')} must be 0 or more.")
    if options.baseline is None:
        return None
    from ..gate.baseline import Baseline, BaselineError

    try:
        return Baseline.read(user_path("baseline", options.baseline))
    except BaselineError as error:
        raise ConfigError(str(error)) from None


def _predicting(config: pytest.Config, folder: Path) -> Predicting | None:
    """Make ready to ask for a reader's own numbers, where they are wanted."""
    with usage_errors(config):
        options = given_options(config)
        if not (options.predict or options.predict_again):
            return None
        return Predicting(config, folder, again=options.predict_again)


def _session(
    config: pytest.Config, bars: Thresholds, folder: Path, environment: Mapping[str, Any]
) -> Session:
    from .session import Session

    session = config.stash[SESSION] = Session(config, bars, folder, environment)
    config.pluginmanager.register(session, "lmcache-tutorial-session")
    return session
