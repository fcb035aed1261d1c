"""The pytest plugin: its hooks, each of which calls a module of this room.

In a run that selects nothing of the tutorial it checks the values of its options and does nothing else: no
CUDA driver is asked, nothing is written, and the session, the header and the stack are not even imported.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from ..lessons.header import lesson_id
from . import kv_fixtures
from .configuration import check_options
from .exercises import note_solved
from .opening import open_prompts, open_run
from .options import add_options
from .prompt_items import PromptsFile, is_prompts_file
from .required import fail_a_skip
from .selection import MARKERS, LessonModule, set_aside
from .stash import CONFIG, FAULTS_PAGE, SESSION
from .undecided import UNDECIDED, is_undecided, mark_undecided
from .xdist import is_worker, refuse_side_by_side


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the table."""
    add_options(parser)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Check every option before anything starts; a bad value ends the run with exit code 4."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
    check_options(config)
    config.pluginmanager.register(kv_fixtures, "lmcache-tutorial-fixtures")


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect a lesson as one."""
    return LessonModule.from_parent(parent, path=module_path) if lesson_id(module_path) else None


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a file of prompts: a test for each group."""
    return PromptsFile.from_parent(parent, path=file_path) if is_prompts_file(file_path) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Set aside what runs on request only, and make ready for what is left of the tutorial."""
    selection = set_aside(config, items)
    if not is_worker(config):
        open_run(config, selection)
        open_prompts(config, items)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Refuse to measure side by side."""
    refuse_side_by_side(item)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str] | None:
    """Say what will be measured, whether a kept stack is reused, and where traces go."""
    if CONFIG not in config.stash:
        return None
    from .header import header

    session = config.stash.get(SESSION, None)
    own = [session.predicting.words()] if session and session.predicting else []
    return [*header(config.stash[CONFIG]), *own]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell an undecided claim from a failed one, and note the outcome of claims and exercises."""
    report = yield
    mark_undecided(item, call, report)
    fail_a_skip(item, report)
    note_solved(item, report)
    if session := item.config.stash.get(SESSION, None):
        session.saw(report)
    return report


def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, str] | None:
    """Show an undecided claim as one."""
    return (UNDECIDED, "?", UNDECIDED.upper()) if is_undecided(report) else None


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> Generator[None]:
    """Name the page of faults, below what the session says, if this run has written it."""
    yield
    if page := config.stash.get(FAULTS_PAGE, None):
        terminalreporter.write_line(f"faults: {page}")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Write the versions that decide a timing beside pytest-benchmark's own machine info."""
    if CONFIG not in config.stash:
        return
    from ..report.environment import environment

    machine_info["lmcache_tutorial"] = environment(config.stash[CONFIG])
