"""One pytest session with lessons: collects their outcomes, writes the report, prints the summary."""

from __future__ import annotations

import platform
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from .config import RunConfig, langfuse_variables_set, machine_memory_gib, redact
from .doctor import COMPILED, ENGINES, compiled_operations
from .files import write_atomically
from .gate import INCOMPLETE_EXIT_CODE
from .lessons import lesson_id, parse_header, sentence
from .machine import gpu, instruction_set_here, processor, usable_cores
from .pages import RANDOM_WEIGHTS, machine_words, percent
from .report import write_report
from .results import RunRecord, write_results
from .shapes import SHAPES
from .sources import served_by
from .stack import Stack, StackError, kept_servers, state_file
from .workload import Workload

PACKAGES = (
    "lmcache",
    "torch",
    "transformers",
    "langgraph",
    "langchain-openai",
    "langfuse",
    "pytest",
    "lmcache-tutorial",
)
OPTIONAL = ("fastokens",)
MESSAGE_CHARACTERS = 4_000
SERVED_COLUMNS = 45  # two sources with their shares fit into one line of the summary


class Session:
    """A pytest plugin of its own, registered when a run selects at least one claim of a lesson."""

    def __init__(self, config: pytest.Config, run: RunConfig, claims: Sequence[pytest.Item]) -> None:
        """Note every selected claim; what does not run in the end says so."""
        self._config, self._run = config, run
        self.record = RunRecord(run.thresholds, environment=environment(run))
        for item in claims:
            lesson = lesson_id(item.path)
            assert lesson
            assert isinstance(item, pytest.Function)
            header = parse_header(item.module.__doc__)
            self.record.select(lesson, header, item.nodeid, sentence(item.name, lesson))
        self._results: dict[str, Any] = {}
        self._problems: list[str] = []
        self._junit = _start_junit(config, run.report_dir)

    def describe_stack(self, stack: Stack) -> None:
        """Take the servers and the model into the report's environment."""
        self.record.environment |= {"stack": stack.describe(), "model": stack.model.name}
        if stack.workload:
            self.record.environment |= {
                "prefill_tokens_s": round(stack.workload.prefill_tokens_s, 1),
                "workload": workload_document(stack.workload, self._run.dtype_reason, stack.config.dtype),
            }

    def saw(self, report: pytest.TestReport) -> None:
        """Take in a test's report: the worst of set-up, call and teardown counts.

        A teardown that fails after a claim has failed adds its message; the claim's own stays in front.
        """
        claim = self.record.claim(report.nodeid)
        if claim is None:
            return
        claim.duration_s += report.duration
        if report.failed and claim.outcome in ("failed", "error"):
            both = f"{claim.message}\n\nThen its teardown failed too:\n{_message(report)}"
            claim.message = both[: 2 * MESSAGE_CHARACTERS]
        elif report.failed:
            claim.outcome = "failed" if report.when == "call" else "error"
            claim.message = _message(report)
        elif report.skipped:
            undecided = ("undecided", True) in report.user_properties
            claim.outcome, claim.message = "undecided" if undecided else "skipped", _message(report)
        elif report.when == "call":
            claim.outcome = "passed"

    def pytest_keyboard_interrupt(self) -> None:
        """Mark the run."""
        self.record.interrupted = True

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Iterator[None]:
        """Hand the headlines to JUnit before it writes its file; when all is torn down, write the report.

        A run in which nothing failed, but some claim has no answer, does not end with exit code 0. After an
        interrupt pytest tears down here, and not within a test: what fails then is told in the
        summary, and the report is written all the same.
        """
        for lesson in self.record.results()["lessons"] if self._junit else []:
            for name, value in lesson["headline"].items():
                if not isinstance(value, dict):
                    self._junit.add_global_property(f"{lesson['id']}.{name}", value)
        try:
            yield
        except Exception as error:
            if not self.record.interrupted:
                raise
            self._problems.append(redact(f"the teardown failed: {type(error).__name__}: {error}"))
        finally:
            self._results = self.record.results()
            if not self._write():
                session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
            elif session.exitstatus == pytest.ExitCode.OK and self._results["verdict"] == "incomplete":
                session.exitstatus = INCOMPLETE_EXIT_CODE

    def _write(self) -> bool:
        """Write the report, and take secrets out of JUnit's file; tell whether all could be written."""
        folder = self._run.report_dir
        writers: dict[Path, Callable[[Path], None]] = {
            folder / "results.json": lambda path: write_results(self._results, path),
            folder / "index.html": lambda path: write_report(self._results, path),
        }
        if self._junit and Path(self._junit.logfile).exists():
            writers[Path(self._junit.logfile)] = _take_secrets_out
        before = len(self._problems)
        for path, write in writers.items():
            try:
                write(path)
            except OSError as error:
                self._problems.append(f"report: {path} could not be written: {error.strerror or error}")
        return len(self._problems) == before

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the summary; it ends with the report's path."""
        if not self._results:  # the session never got as far as its end
            return
        terminalreporter.section("LMCache tutorial")
        terminalreporter.write_line(f"machine: {machine_words(self._results['environment'])}")
        for line in summary_lines(self._results):
            terminalreporter.write_line(line)
        for problem in self._problems:
            terminalreporter.write_line(problem, red=True)
        if not any(problem.startswith("report:") for problem in self._problems):
            terminalreporter.write_line(f"report: {self._run.report_dir / 'index.html'}")


def summary_lines(results: dict[str, Any]) -> list[str]:
    """Format the terminal's summary table, 100 columns wide: each lesson, then the verdict."""
    line = "{:<8}{:<10}{:>8}  {:<" + str(SERVED_COLUMNS) + "}  {}"
    lines = [line.format("lesson", "outcome", "hit rate", "served by", "TTFT drop (95 % interval)")]
    for lesson in results["lessons"]:
        head = lesson["headline"]
        drop = "–"
        if "ttft_drop" in head:
            low, high = (percent(head[f"ttft_drop_{end}"]).removesuffix(" %") for end in ("low", "high"))
            drop = f"{percent(head['ttft_drop'])} ({low} to {high})"
        # Three sources with their shares take two lines.
        served, *more = textwrap.wrap(served_by(head.get("tokens")), SERVED_COLUMNS)
        outcome = lesson["outcome"].replace("_", " ")
        lines.append(line.format(lesson["id"], outcome, percent(head.get("hit_rate")), served, drop).rstrip())
        lines += [f"{'':<28}{words}" for words in more]
        if lesson["reason"]:
            lines.append(f"{'':<8}{lesson['reason'].splitlines()[0][:92]}")
    lines.append(f"verdict: {results['verdict']}")
    return lines


def environment(run: RunConfig) -> dict[str, Any]:
    """Describe the machine and the packages; the stack's part follows when it runs."""
    packages = {}
    for name in (ENGINES[run.stack.profile], *PACKAGES):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            packages[name] = "not installed"
    device = f"{gpu()}; " if run.stack.profile == "gpu" else ""
    for name in OPTIONAL:  # one that lies on PYTHONPATH has no version
        with suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    memory = machine_memory_gib()
    return {
        "hardware": f"{device}{processor()}, {usable_cores()} cores, {memory:.0f} GiB",
        "python": platform.python_version(),
        "packages": packages,
        "model": Path(run.stack.model).name if Path(run.stack.model).is_dir() else run.stack.model,
        "weights": "random" if run.stack.model in SHAPES else "real",
        "profile": run.stack.profile,
        "instruction_set": instruction_set_here(),
        "cores": usable_cores(),
        "dtype": run.stack.dtype,
        "prefill_tokens_s": None,
        "stack": {},
    }


def workload_document(workload: Workload, dtype_reason: str, dtype: str) -> dict[str, Any]:
    """Tell the sizes of a stack's documents, and why they and the number format were chosen."""
    sizes = workload.sizes
    return {
        "class": f"{sizes.long:,} tokens",
        "short": sizes.short,
        "medium": sizes.medium,
        "long": sizes.long,
        "reason": f"{workload.reason}; {dtype}, since {dtype_reason}",
    }


def header(run: RunConfig) -> list[str]:
    """Build the lines of the pytest header."""
    try:
        kept = kept_servers()
        where = (
            f"reusing the kept one at {kept['vllm'].url}, if it matches"
            if "vllm" in kept
            else "started when first needed"
        )
    except StackError:  # the first lesson that needs the stack tells all of it
        where = f"none: {state_file()} cannot be read"
    ignored = " (the LANGFUSE_* variables are ignored)" if langfuse_variables_set() else ""
    notes = [f"model: {run.stack.model} with {RANDOM_WEIGHTS}"] if run.stack.model in SHAPES else []
    if run.stack.profile == "gpu":
        notes.append(f"{COMPILED}: {compiled_operations().seen}")
    return [
        f"lmcache-tutorial: profile {run.stack.profile}, model {run.stack.model}, stack {where}",
        f"machine: {machine_words(environment(run))}, since {run.dtype_reason}",
        f"traces: written to {run.report_dir / 'traces'}, sent nowhere{ignored}",
        *notes,
    ]


def _message(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # a skip: (file, line, reason)
        text = report.longrepr[2]
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else str(report.longrepr)
    return redact(text)[:MESSAGE_CHARACTERS]


def _take_secrets_out(path: Path) -> None:
    write_atomically(path, redact(path.read_text()))


def _start_junit(config: pytest.Config, folder: Path) -> Any:
    """Return pytest's JUnit writer; start it on our own path if none was asked for.

    ``None`` where the user has switched it off (``-p no:junitxml``).
    """
    junit: Any = config.pluginmanager.get_plugin("junitxml")
    if junit is None:
        return None
    if not config.option.xmlpath:
        config.option.xmlpath = str(folder / "junit.xml")
        junit.pytest_configure(config)
        _junit_writer(config).pytest_sessionstart()
    return _junit_writer(config)


def _junit_writer(config: pytest.Config) -> Any:
    return next(
        (plugin for plugin in config.pluginmanager.get_plugins() if type(plugin).__name__ == "LogXML"), None
    )
