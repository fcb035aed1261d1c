"""One pytest session with lessons or prompts: collects outcomes, writes the report, prints the summary."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..gate.verdict import EXIT_CODES
from ..lessons.header import lesson_id, parse_header, sentence
from ..machine.files import write_atomically
from ..machine.pss import pss_bytes
from ..pages.templating import machine_words
from ..report.environment import workload_document
from ..report.page import write_report
from ..report.results import GroupReport, RunRecord, write_results
from ..report.telling import ctrf, github_annotations, markdown
from ..report.terminal import summary_lines
from ..settings.bars import Thresholds
from ..settings.shown import shown
from .deployments import deployments
from .junit import start_junit, take_secrets_out
from .options import given_options
from .predicting import Predicting
from .prompt_items import PromptItem
from .sending import send_run
from .undecided import UNDECIDED, is_undecided

if TYPE_CHECKING:
    from ..stack.stack import Stack

MESSAGE_CHARACTERS = 4_000


class Session:
    """A pytest plugin of its own, registered when a run selects claims of lessons or groups of prompts."""

    def __init__(
        self, config: pytest.Config, bars: Thresholds, report_dir: Path, environment: Mapping[str, Any]
    ) -> None:
        """Begin a record; its report goes into a folder."""
        self._report_dir = report_dir
        self.record = RunRecord(bars, environment=dict(environment))
        self._results: dict[str, Any] = {}
        self._problems: list[str] = []
        self._notes: list[str] = []
        self._junit = start_junit(config, report_dir)
        self._config = config
        self.spool: Path | None = None  # the run's file of traces, where there is one
        self.lesson_now = ""  # whose claim is measured; empty between lessons
        self.predicting: Predicting | None = None  # where the reader's own numbers are wanted
        self._stacks: list[Stack] = []

    def select_claims(self, claims: Sequence[pytest.Item]) -> None:
        """Note every selected claim of a lesson; what does not run in the end says so."""
        for item in claims:
            lesson = lesson_id(item.path)
            assert lesson
            assert isinstance(item, pytest.Function)
            header = parse_header(item.module.__doc__)
            self.record.select(lesson, header, item.nodeid, sentence(item.name, lesson))

    def select_groups(self, items: Sequence[PromptItem], root: Path) -> None:
        """Note every selected group of prompts; ``root`` is what their files' names are relative to."""
        for item in items:
            file = item.path.relative_to(root) if item.path.is_relative_to(root) else item.path
            group = GroupReport(str(file), item.group.prompts[0].line, item.name)
            self.record.groups[item.nodeid] = group

    def describe_stack(self, stack: Stack, dtype_reason: str) -> None:
        """Take the servers or the deployment, and the model, into the report's environment.

        ``dtype_reason`` says why the number format was chosen; empty where it was not chosen here.
        """
        self._stacks.append(stack)
        self.record.environment |= {"stack": stack.describe(), "model": stack.model.name}
        if found := deployments(self._config).documents:
            self.record.environment["deployments"] = found
        if stack.workload:
            why = f"{stack.config.dtype}, since {dtype_reason}" if dtype_reason else ""
            self.record.environment |= {
                "prefill_tokens_s": round(stack.workload.prefill_tokens_s, 1),
                "workload": workload_document(stack.workload, why),
            }

    def describe_beside(self, lesson: str, stack: Stack) -> None:
        """Take the servers of a lesson's own stack into the report's environment."""
        self._stacks.append(stack)
        own = {f"{lesson}: {name}": about for name, about in stack.describe().items()}
        self.record.environment |= {"stack": {**self.record.environment["stack"], **own}}

    def saw(self, report: pytest.TestReport) -> None:
        """Take in a test's report: the worst of set-up, call and teardown counts.

        A teardown that fails after a claim has failed adds its message; the claim's own stays in front.
        """
        if group := self.record.groups.get(report.nodeid):
            _saw_group(group, report)
        if (claim := self.record.claim(report.nodeid)) is None:
            return
        claim.duration_s += report.duration - (self.predicting.waited_s() if self.predicting else 0)
        if report.when == "setup":
            self._see_memory()
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
        claim = self.record.claim(item.nodeid)
        self.lesson_now = (lesson_id(item.path) or "") if claim else ""
        if claim is None:
            return (yield)
        gc.freeze()
        try:
            return (yield)
        finally:
            gc.unfreeze()

    def _see_memory(self) -> None:
        """Note what the servers and this run take now, when all that a claim needs is running."""
        if self.record.environment["profile"] == "deployment":  # its memory is not seen from here
            return
        servers = [program.server for stack in self._stacks for program in stack.programs]
        roots = {os.getpid(), *(server.record.supervisor for server in servers if server)}
        lesson = self.record.lessons[self.lesson_now]
        lesson.memory_bytes = max(lesson.memory_bytes, pss_bytes(roots))

    @property
    def ttft_drops(self) -> dict[str, float]:
        """The TTFT drop of each lesson that has stated one, 0 to 1."""
        heads = {name: lesson.headline_figures for name, lesson in self.record.lessons.items()}
        return {name: head["ttft_drop"] for name, head in heads.items() if "ttft_drop" in head}

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
            self._problems.append(shown(f"the teardown failed: {type(error).__name__}: {error}"))
        finally:
            sent = send_run(given_options(self._config), self.spool)
            self.record.environment |= {"langfuse": sent.link} if sent.link else {}
            self._results = self.record.results()
            self._notes, self._problems = sent.lines, [*self._problems, *sent.failures]
            if not self._write() or sent.failures:
                session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED
            elif session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = EXIT_CODES[self._results["verdict"]]

    def _write(self) -> bool:
        """Write the report, and take secrets out of JUnit's file; tell whether all could be written."""
        folder = self._report_dir
        writers: dict[Path, Callable[[Path], None]] = {
            folder / "results.json": lambda path: write_results(self._results, path),
            folder / "index.html": lambda path: write_report(self._results, path),
            folder / "ctrf.json": self._write_ctrf,
        }
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            writers[Path(summary)] = self._add_summary
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

    def _write_ctrf(self, path: Path) -> None:
        write_atomically(path, json.dumps(ctrf(self._results), indent=1) + "\n")

    def _add_summary(self, path: Path) -> None:
        """Add to what other steps of the job have written there."""
        with path.open("a", encoding="utf-8") as file:
            file.write(markdown(self._results))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the summary; it ends with the report's path."""
        if not self._results:  # the session never got as far as its end
            return
        terminalreporter.section("LMCache tutorial")
        if words := machine_words(self._results["environment"]):
            terminalreporter.write_line(f"machine: {words}")
        for line in summary_lines(self._results):
            terminalreporter.write_line(line)
        told = github_annotations(self._results) if os.environ.get("GITHUB_ACTIONS") == "true" else []
        for line in (*self._notes, *told):
            terminalreporter.write_line(line)
        for problem in self._problems:
            terminalreporter.write_line(problem, red=True)
        if not any(problem.startswith("report:") for problem in self._problems):
            terminalreporter.write_line(f"report: {self._report_dir / 'index.html'}")


def _saw_group(group: GroupReport, report: pytest.TestReport) -> None:
    """Take in a report of a group's test; what it was judged by is in the group already."""
    group.duration_s += report.duration
    if report.failed and not (group.claims and report.when == "call"):
        group.outcome = "failed" if report.when == "call" else "error"
        group.reason = _message(report)
    elif report.skipped and not group.claims:
        group.outcome, group.reason = "skipped", _message(report)


def _message(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):  # a skip: (file, line, reason)
        text = report.longrepr[2]
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash else str(report.longrepr)
    return shown(text)[:MESSAGE_CHARACTERS]
