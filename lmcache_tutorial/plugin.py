"""The pytest plugin: options and hooks. Inert in a run that selects no lesson."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .config import (
    DEFAULT_MODEL,
    DTYPES,
    GPU_MODEL,
    MIN_HIT_RATE,
    MIN_TTFT_DROP,
    ConfigError,
    RunConfig,
    run_config,
    user_path,
    writable_folder,
)
from .gate import UndecidedError
from .lessons import HeaderError, lesson_id, parse_header
from .progress import Progress, on_terminal

if TYPE_CHECKING:  # the session loads matplotlib and pandas, which a run without a lesson does not need
    from .session import Session

CONFIG = pytest.StashKey[RunConfig]()
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
    believed = partial(_run_config, config, has_gpu=lambda: wanted == "gpu")
    _usage(partial(believed, peers=None) if wanted == "auto" else believed)


def run_configuration(config: pytest.Config) -> RunConfig:
    """Return the run's configuration; the first call decides whether ``auto`` takes a GPU.

    Raises:
        pytest.UsageError: a setting cannot work on this machine.
    """
    if CONFIG not in config.stash:
        config.stash[CONFIG] = _usage(partial(_run_config, config))
    return config.stash[CONFIG]


def _usage(make: Callable[[], RunConfig]) -> RunConfig:
    try:
        return make()
    except ConfigError as error:
        raise pytest.UsageError(str(error)) from None


def _run_config(config: pytest.Config, **others: Any) -> RunConfig:
    def bar(name: str) -> float:
        given = config.getoption(f"--{name.replace('_', '-')}")
        try:
            return float(config.getini(name) if given is None else given)
        except ValueError:
            raise ConfigError(
                f"{name} in the ini file is {config.getini(name)!r}, but must be a number."
            ) from None

    given: dict[str, Any] = dict(
        stack=config.getoption("--stack"),
        model=config.getoption("--model"),
        dtype=config.getoption("--dtype"),
        chunk_tokens=config.getoption("--chunk-tokens"),
        engine_memory_gib=config.getoption("--engine-memory-gib"),
        lmcache_memory_gib=config.getoption("--lmcache-memory-gib"),
        gpu_memory_share=config.getoption("--gpu-memory-share"),
        min_hit_rate=bar("min_hit_rate"),
        min_ttft_drop=bar("min_ttft_drop"),
        report_dir=config.rootpath / user_path("--report-dir", config.getoption("--report-dir")),
        keep_stack=config.getoption("--keep-stack"),
        allow_slow_lmcache=config.getoption("--allow-slow-lmcache"),
        peers=config.getoption("--peers"),
    )
    return run_config(**(given | others))


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
        from .doctor import compiled_operations

        if not (check := compiled_operations()).ok:
            raise pytest.UsageError(f"{check.name}: {check.seen}.\nTo fix: {check.remedy}")
    _orderly_signals(config)
    claims = [item for item in lessons if item not in benchmarks]
    if claims and not asked:
        from .session import Session

        session = config.stash[SESSION] = Session(config, run, claims)
        config.pluginmanager.register(session, "lmcache-tutorial-session")


def _alone(lessons: Sequence[pytest.Item]) -> None:
    """Refuse to measure peers beside anything else that runs engines on this machine."""
    from .stack import StackError, kept_servers

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


def _orderly_signals(config: pytest.Config) -> None:
    """Turn SIGTERM and SIGHUP into the interrupt that lets pytest tear everything down."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(f"signal {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:  # nohup: whoever started us wants it ignored
            continue
        restore: Callable[[], Any] = partial(signal.signal, number, signal.signal(number, interrupt))
        config.add_cleanup(restore)


def pytest_report_collectionfinish(config: pytest.Config) -> list[str] | None:
    """Say what will be measured, whether a kept stack is reused, and where traces go."""
    if CONFIG not in config.stash:
        return None
    from .session import header

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
    from .session import environment

    machine_info["lmcache_tutorial"] = environment(config.stash[CONFIG])
