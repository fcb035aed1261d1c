"""One pytest session with lessons: collects their outcomes, writes the report, prints the summary."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ..gate.verdict import INCOMPLETE_EXIT_CODE
from ..lessons.header import lesson_id, parse_header, sentence
from ..pages.templating import machine_words
from ..report.environment import environment, workload_document
from ..report.page import write_report
from ..report.results import RunRecord, write_results
from ..report.terminal import summary_lines
from ..settings.run import RunConfig
from ..settings.secrets import redact
from ..stack.stack import Stack
from .junit import start_junit, take_secrets_out
from .undecided import UNDECIDED, is_undecided

MESSAGE_CHARACTERS = 4_000


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
        self._junit = start_junit(config, run.report_dir)

    def describe_stack(self, stack: Stack) -> None:
        """Take the servers and the model into the report's environment."""
        self.record.environment |= {"stack": stack.describe(), "model": stack.model.name}
        if stack.workload:
            self.record.environment |= {
                "prefill_tokens_s": round(stack.workload.prefill_tokens_s, 1),
                "workload": workload_document(stack.workload, self._run.dtype_reason, stack.config.dtype),
            }

    def describe_beside(self, lesson: str, stack: Stack) -> None:
        """Take the servers of a lesson's own stack into the report's environment."""
        own = {f"{lesson}: {name}": about for name, about in stack.describe().items()}
        self.record.environment |= {"stack": {**self.record.environment["stack"], **own}}

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
            claim.outcome = UNDECIDED if is_undecided(report) else "skipped"
            claim.message = _message(report)
        elif report.when == "call":
            claim.outcome = "passed"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Keep what the run has made so far out of garbage collection while a claim is measured.

        Without this Python would look through all of it now and then, for 0.1 to 0.2 s (measured), in the
        midst of calls that are timed. Other tests of the same run find the collector as they left it.
        """
        if self.record.claim(item.nodeid) is None:
            return (yield)
        gc.freeze()
        try:
            return (yield)
        finally:
            gc.unfreeze()

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
            writers[Path(self._junit.logfile)] = take_secrets_out
        before = len(self._problems)
        for path, write in writers.items():
            try:
                write(path)
            except (OSError, ModuleNotFoundError) as error:  # the latter: a chart without matplotlib
                reason = getattr(error, "strerror", None) or error
                self._problems.append(f"report: {path} could not be written: {reason}")
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


def _message(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # a skip: (file, line, reason)
        text = report.longrepr[2]
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else str(report.longrepr)
    return redact(text)[:MESSAGE_CHARACTERS]
