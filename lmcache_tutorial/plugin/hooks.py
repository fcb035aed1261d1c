"""The pytest plugin: options and hooks. Inert in a run that selects no lesson."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..gate.decide import UndecidedError
from ..lessons.header import HeaderError, lesson_id, parse_header
from ..settings.bars import MIN_HIT_RATE, MIN_TTFT_DROP
from ..settings.errors import ConfigError
from ..settings.number_format import DTYPES
from ..settings.paths import writable_folder
from ..settings.profiles import DEFAULT_MODEL, GPU_MODEL
from .configuration import CONFIG, read_options, run_configuration, usage_errors
from .signals import orderly_signals

if TYPE_CHECKING:  # the session loads matplotlib and pandas, which a run without a lesson does not need
    from .lesson_run import Session

SESSION: pytest.StashKey[Session] = pytest.StashKey()
UNDECIDED = "undecided"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options; they are checked in :func:`pytest_configure`."""
    group = parser.getgroup("lmcache-tutorial", "LMCache tutorial")
    group.addoption("--stack", default="auto", help="auto (a GPU if CUDA works, else the CPU), cpu or gpu")
    group.addoption("--keep-stack", action="store_true", help="leave the servers running for the next run")
    group.addoption(
        "--model",
        help=f"model folder, hub name, {DEFAULT_MODEL} (a small real model) or {GPU_MODEL} (random weights)",
    )
    group.addoption(
        "--dtype",
        default="auto",
        help=f"number format: {', '.join(DTYPES)} (auto: float32 where a processor has no bf16 instructions)",
    )
    group.addoption(
        "--chunk-tokens", type=int, help="LMCache's chunk, a multiple of the engine's block [tokens]"
    )
    group.addoption("--engine-memory-gib", type=float, help="memory of the engine's KV cache [GiB]")
    group.addoption("--lmcache-memory-gib", type=float, help="LMCache's memory [GiB]")
    group.addoption(
        "--gpu-memory-share", type=float, help="share of the GPU's memory that the engine takes (0.9)"
    )
    group.addoption(
        "--allow-slow-lmcache",
        action="store_true",
        help="measure on a GPU although LMCache's compiled operations are missing",
    )
    group.addoption(
        "--peers",
        nargs="?",
        const="peers",
        choices=("peers", "tuning"),
        help="measure LMCache and its peers side by side; =tuning: the steps of the tuning table",
    )  # fmt: skip
    for name, default in (("hit-rate", MIN_HIT_RATE), ("ttft-drop", MIN_TTFT_DROP)):
        ini = f"min_{name.replace('-', '_')}"
        text = f"the bar that a {name.replace('-', ' ')} must exceed, per cent (default {default:g})"
        group.addoption(f"--min-{name}", type=float, help=text)
        parser.addini(ini, text, default=str(default))
    group.addoption("--report-dir", default="reports", help="folder of the report (default: reports)")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Check every option; nothing has been started, and a bad value ends the run with exit code 4.

    The device is not asked yet: this may be a run of another project, whose tests fork after CUDA is set up.
    """
    config.addinivalue_line("markers", "peers: measures LMCache and its peers; runs with --peers alone")
    wanted = config.getoption("--stack")
    believed = partial(read_options, config, has_gpu=lambda: wanted == "gpu")
    usage_errors(partial(believed, peers=None) if wanted == "auto" else believed)


class LessonModule(pytest.Module):
    """A lesson's module: its docstring must have the title and the six fields."""

    def collect(self) -> Any:
        """Collect the tests; a missing field is a collection error."""
        try:
            parse_header(self.obj.__doc__)
        except HeaderError as error:
            raise self.CollectError(str(error)) from None
        return super().collect()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    """Collect a lesson as one."""
    return LessonModule.from_parent(parent, path=module_path) if lesson_id(module_path) else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Set benchmarks aside unless asked for, and open the session if lessons are selected."""
    lessons = [item for item in items if lesson_id(item.path)]
    peers = [item for item in items if item.get_closest_marker("peers")]
    asked = config.getoption("benchmark_only", default=False)
    benchmarks = [item for item in lessons if "benchmark" in getattr(item, "fixturenames", ())]
    aside = [*([] if asked else benchmarks), *([] if config.getoption("--peers") else peers)]
    if aside:
        config.hook.pytest_deselected(items=aside)
        items[:] = [item for item in items if item not in aside]
    peers = [item for item in peers if item in items]
    if not (lessons or peers) or config.option.collectonly:
        return
    if peers:
        _alone(lessons)
    if config.getoption("numprocesses", default=None) or hasattr(config, "workerinput"):
        raise pytest.UsageError(
            "pytest-xdist cannot run the lessons: they share one stack, and calls side by side would mix up "
            "its counters and its timings.\nTo fix: leave -n out."
        )
    run = run_configuration(config)
    try:
        writable_folder(run.report_dir)
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None
    if run.stack.profile == "gpu" and not run.allow_slow_lmcache:
        from ..stack.needs import compiled_operations

        if not (check := compiled_operations()).ok:
            raise pytest.UsageError(f"{check.name}: {check.seen}.\nTo fix: {check.remedy}")
    orderly_signals(config)
    claims = [item for item in lessons if item not in benchmarks]
    if claims and not asked:
        from .lesson_run import Session

        session = config.stash[SESSION] = Session(config, run, claims)
        config.pluginmanager.register(session, "lmcache-tutorial-session")


def _alone(lessons: Sequence[pytest.Item]) -> None:
    """Refuse to measure peers beside anything else that runs engines on this machine."""
    from ..stack.keep import StackError, kept_servers

    if lessons:
        raise pytest.UsageError(
            "--peers runs several engines of its own, and lessons beside them would disturb both.\n"
            "To fix: pytest --peers -k peers"
        )
    try:
        kept = kept_servers()
    except StackError as error:
        raise pytest.UsageError(str(error)) from None
    if kept:
        raise pytest.UsageError(
            "--peers would run beside the kept stack and disturb both.\nTo fix: lmcache-tutorial down"
        )


def pytest_report_collectionfinish(config: pytest.Config) -> list[str] | None:
    """Say what will be measured, whether a kept stack is reused, and where traces go."""
    if CONFIG not in config.stash:
        return None
    from .header import header

    return header(config.stash[CONFIG])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Tell an undecided claim from a failed one, and note each claim's outcome."""
    report = yield
    if call.excinfo and isinstance(call.excinfo.value, UndecidedError):
        path, line, _ = item.location
        report.outcome = "skipped"  # neither passed nor failed; the run's exit code tells it from a skip
        report.longrepr = (path, line or 0, str(call.excinfo.value))
        report.user_properties.append((UNDECIDED, True))
    if session := item.config.stash.get(SESSION, None):
        session.saw(report)
    return report


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """Show an undecided claim as one."""
    if (UNDECIDED, True) in getattr(report, "user_properties", ()):
        return UNDECIDED, "?", UNDECIDED.upper()
    return None


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Write the versions that decide a timing beside pytest-benchmark's own machine info."""
    if CONFIG not in config.stash:
        return
    from ..report.environment import environment

    machine_info["lmcache_tutorial"] = environment(config.stash[CONFIG])
