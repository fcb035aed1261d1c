"""``--kv-predict``: before a lesson measures, its reader writes numbers of their own.

They are asked for on a terminal alone. Where nobody can answer, the file's answers are used, and what is not
answered stays empty.
"""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..lessons.predictions import FILE, AnswerError, PredictionsError, number, read, write
from ..lessons.questions import QUESTIONS, Question, questions_of
from ..quantities.formats import figure
from ..settings.errors import ConfigError
from ..settings.spelling import PYTEST
from .xdist import is_worker

if TYPE_CHECKING:
    from ..report.results import LessonReport
    from ..stack.stack import Stack

COLUMNS, INDENT = 90, " " * 8
CI_VARIABLES = ("CI", "BUILD_NUMBER")  # pytest takes the same two for a CI's


@dataclass(frozen=True)
class Terminal:
    """Somebody who reads and answers.

    ``show`` writes a text and does not end its line; ``read`` returns the line that was typed, which is empty
    where that was enter alone.
    """

    show: Callable[[str], None]
    read: Callable[[], str]


class Predicting:
    """Asks for the numbers of one lesson after the other, and keeps them."""

    def __init__(self, config: pytest.Config, folder: Path, *, again: bool) -> None:
        """Read what was answered beforehand, and let a file stand there that can be filled in.

        Args:
            config: which knows pytest's terminal and its capturing.
            folder: the report's, which exists.
            again: ask also for what was answered.

        Raises:
            ConfigError: the file cannot be read or written, or holds what cannot be an answer.
        """
        self._config, self._again, self._ended = config, again, False
        self._waited_s = 0.0
        self.path = folder / FILE
        try:
            self.answers = read(self.path)
            if not self.path.exists():
                write(self.path, self.answers)
        except PredictionsError as error:
            raise ConfigError(str(error)) from None
        except OSError as error:
            raise ConfigError(f"{self.path} cannot be written: {error.strerror}.") from None

    def words(self) -> str:
        """Say, before the first test, how many numbers there are and where."""
        given = sum(map(len, self.answers.values()))
        asked = "all are asked for" if self._again else "the others are asked for"
        of = sum(map(len, QUESTIONS.values()))
        return f"your numbers: {given} of {of} in {self.path}; {asked} where somebody can answer"

    def ask_for(self, lesson: LessonReport, stack: Stack) -> None:
        """Ask for the numbers of a lesson that are missing, if somebody can answer; report all there are.

        Each is kept at once, so that what interrupts the asking costs none. At the end of the input nothing
        more is asked in this run.

        Raises:
            PredictionsError: the file was changed meanwhile, and cannot be read any more.
            OSError: it cannot be written any more.
        """
        begun, questions = time.monotonic(), questions_of(lesson.id)
        self.answers = read(self.path)  # it may be filled in while earlier lessons run
        given = self.answers.get(lesson.id, {})
        asked = [one for one in questions if self._again or one.name not in given]
        with somebody(self._config) as terminal:
            if terminal and asked and not self._ended:
                terminal.show(f"\n{self._head(lesson.header.title)}\n{facts(stack)}\n")
                try:
                    for question, answer in interview(terminal, asked, given):
                        self._keep(lesson.id, question, answer)
                except EOFError:
                    self._ended = True
                    terminal.show("\nNo more numbers are asked for in this run.\n")
        lesson.own_numbers(questions, self.answers.get(lesson.id, {}))
        self._waited_s += time.monotonic() - begun

    def waited_s(self) -> float:
        """Return how long a reader was waited for since this was last asked [s]: no lesson took that time."""
        waited, self._waited_s = self._waited_s, 0.0
        return waited

    def _head(self, title: str) -> str:
        return (
            f"{title}: write your number first.\n"
            f"Enter leaves a question open, Ctrl-D leaves open all that follow. Your answers are kept in\n"
            f"{self.path}; {PYTEST('predict_again')} asks once more."
        )

    def _keep(self, lesson: str, question: Question, answer: int) -> None:
        """Write an answer into the file as it is now: it may have been changed by hand, or by another run."""
        self.answers = read(self.path)
        self.answers.setdefault(lesson, {})[question.name] = answer
        write(self.path, self.answers)


def facts(stack: Stack) -> str:
    """Say what is needed to work the numbers out: the sizes that this machine was given."""
    assert stack.workload
    sizes = stack.workload.sizes
    return (
        f"Here: documents of {sizes.short:,} (short), {sizes.medium:,} (medium) and {sizes.long:,} tokens "
        f"(long), in lessons 6 and 7 of {sizes.tokens('kept'):,};\n"
        f"blocks of {stack.block_tokens} tokens, chunks of {stack.chunk_tokens}; KV of "
        f"{stack.kv_bytes_per_token:,} bytes a token; {sizes.rounds} rounds."
    )


def interview(
    terminal: Terminal, questions: Sequence[Question], given: Mapping[str, int]
) -> Iterator[tuple[Question, int]]:
    """Ask one question after the other; enter keeps the answer that was given, or leaves it empty.

    An answer that cannot be is asked for again.

    Yields:
        Each question that has a new answer, with it.

    Raises:
        EOFError: the input has ended.
    """
    for place, question in enumerate(questions, 1):
        terminal.show(f"\n{place} of {len(questions)}  {_wrapped(question.asks)}\n")
        terminal.show(f"{INDENT}{_wrapped(question.how)}\n")
        held = given.get(question.name)
        prompt = question.unit if held is None else f"{question.unit} [{figure(held)}]"
        while True:
            terminal.show(f"{INDENT}{prompt}: ")
            text = terminal.read().strip()
            if not text:
                break
            try:
                yield question, number(text, question)
                break
            except AnswerError as error:
                terminal.show(f"{INDENT}{error}.\n")


@contextmanager
def somebody(config: pytest.Config) -> Iterator[Terminal | None]:
    """Give somebody who can answer, with pytest's capturing suspended meanwhile; else ``None``.

    Nobody can in a CI, in a worker of pytest-xdist, where input or output is no terminal, and in the
    background of a shell, which would stop this process for reading.
    """
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    capture = config.pluginmanager.get_plugin("capturemanager")
    if is_worker(config) or any(map(os.environ.get, CI_VARIABLES)) or not (reporter and reporter.isatty()):
        yield None
        return
    if capture:
        capture.suspend(in_=True)  # of input as well, as for pytest's debugger
    try:
        if _can_answer():
            reporter.ensure_newline()
            yield Terminal(_show, _read)
        else:
            yield None
    finally:
        if capture:
            capture.resume()


def _can_answer() -> bool:
    """Tell whether input and output are a terminal, in whose foreground this process is."""
    if not all(stream and not stream.closed and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        return False
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except OSError:  # a terminal that does not control this process stops nobody
        return True


def _show(text: str) -> None:
    print(text, end="", flush=True)


def _read() -> str:
    """Read a line, with the terminal's own editing.

    Raises:
        EOFError: the input has ended.
    """
    try:
        line = sys.stdin.readline()
    except UnicodeDecodeError:  # no number, and a reason to ask again
        return "?"
    if not line:
        raise EOFError
    return line


def _wrapped(text: str) -> str:
    return textwrap.fill(text, COLUMNS).replace("\n", f"\n{INDENT}")
