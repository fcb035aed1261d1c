"""A reader's own numbers: read from what was typed, and kept in a file, ``reports/predictions.toml``.

The file has a table for each lesson, in which a question's name stands with the answer to it. It may be
written by hand, before a run or instead of being asked::

    [lesson2]
    "Reused tokens of the second ask" = 3584

A notebook shows the questions of a lesson (:func:`.questions.questions_of`) and keeps the answers with
:func:`read` and :func:`write`.
"""

from __future__ import annotations

import json
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..machine.files import write_atomically
from .questions import QUESTIONS, Question, questions_of

FILE = "predictions.toml"  # its name, in the folder of the report
LARGEST = 10**15
COLUMNS = 100
SHOWN = 40  # characters of an answer that an error repeats
DIGITS = r"(\d{1,3}(?:[,_' \u00a0\u202f]\d{3})+|\d+(?:_\d+)*)(\.\d+)?"
ANSWER = re.compile(rf"{DIGITS}\s*([a-z]*)", re.IGNORECASE)
BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
HEAD = """\
# Your own numbers for the lessons. On a terminal pytest --kv-predict asks for those that are missing, and
# then writes this file anew; a comment of yours is not kept. You may as well write them here: take away
# the # in front of a line, and put your number behind its =.
"""
Answers = Mapping[str, Mapping[str, int]]
"""Lesson -> the name of a question -> the reader's number, in the question's unit."""


class AnswerError(ValueError):
    """What was answered is no number that the question can have; the message says what is wrong."""


class PredictionsError(ValueError):
    """A file of predictions that cannot be read; the message names the line and says what to do."""


def number(text: str, question: Question) -> int:
    """Read an answer as a reader types it.

    Args:
        text: a whole number of 0 or more, perhaps with its thousands apart, and perhaps with its unit behind
            it. Bytes may be given in kB, MB, GB, KiB, MiB and GiB, with decimal places.
        question: what it answers; its unit is the number's.

    Returns:
        The number, in the question's unit.

    Raises:
        AnswerError: it is no number, negative, too large, no whole one, or in another unit.

    >>> number("3,584 tokens", Question("Reused", "How many?", "Count."))
    3584
    >>> number("448.3 MB", Question("Kept", "How many?", "Count.", unit="bytes"))
    448300000
    """
    text = text.strip()
    said = repr(text if len(text) <= SHOWN else f"{text[:SHOWN]}…")
    if re.match(r"[-\u2212]\s*\d", text):
        raise AnswerError(f"{said} is negative, and {question.unit} are 0 or more")
    found = ANSWER.fullmatch(text)
    if not found:
        raise AnswerError(f"{said} is no number: a whole number of {question.unit} is meant, such as 12,345")
    whole, places, unit = found.groups()
    value = Decimal(re.sub(r"\D", "", whole) + (places or "")) * _factor(unit, question.unit)
    if value != value.to_integral_value():
        raise AnswerError(f"{said} is no whole number of {question.unit}")
    if value > LARGEST:
        raise AnswerError(f"{said} is too large: {question.unit} up to {LARGEST:,} are taken")
    return int(value)


def read(path: Path) -> dict[str, dict[str, int]]:
    """Read a file of predictions.

    Args:
        path: the file; where there is none, nothing was answered.

    Returns:
        Lesson -> the name of a question -> the reader's number.

    Raises:
        PredictionsError: it cannot be read, is no TOML, or holds a lesson, a question or a number that cannot
            be. Only the first of them is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PredictionsError(f"{path} cannot be read: {reason}.\nTo fix: mend or delete it") from None
    try:
        document = tomllib.loads(f"{text}\n")  # so that an error at its end has a line, too
    except tomllib.TOMLDecodeError as error:
        raise PredictionsError(
            f'{path} is no TOML: {error}.\nTo fix: write a line as "name of the question" = number, below '
            f"the [lesson…] that it belongs to"
        ) from None
    return {lesson: dict(_numbers(path, text, lesson, table)) for lesson, table in document.items()}


def write(path: Path, answers: Answers) -> None:
    """Write the answers, with every question of every lesson beside them as a comment.

    Args:
        path: the file; it is replaced whole or not at all, and its folder must exist.
        answers: lesson -> the name of a question -> the number. What is missing is written as not answered.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    tables = [_table(lesson, answers.get(lesson, {})) for lesson in QUESTIONS]
    write_atomically(path, "\n".join([HEAD, *tables]))


def _factor(unit: str, wanted: str) -> int:
    """Return how many of the wanted unit one of a unit is."""
    given = unit.lower()
    if given in ("", wanted, wanted.removesuffix("s")):
        return 1
    if wanted == "bytes" and given in BYTES:
        return BYTES[given]
    raise AnswerError(f"the answer is in {unit}, and it is asked for in {wanted}")


def _numbers(path: Path, text: str, lesson: str, table: Any) -> Iterator[tuple[str, int]]:
    """Yield the answers of one lesson's table, each by the name of its question."""
    questions = {question.name: question for question in questions_of(lesson)}

    def wrong(what: str, name: str, fix: str) -> PredictionsError:
        return PredictionsError(f"{path}, line {_line(text, lesson, name)}: {what}.\nTo fix: {fix}")

    if not questions or not isinstance(table, dict):
        raise wrong(f"{lesson!r} is no table of a lesson", "", f"name one of {', '.join(QUESTIONS)}")
    for name, answer in table.items():
        if name not in questions:
            known = "; ".join(questions)
            raise wrong(f"{lesson} has no question {name!r}", name, f"name one of its questions: {known}")
        try:
            # A number of TOML and one in quotation marks, perhaps with a unit, are read alike.
            written = answer if isinstance(answer, str) else _plain(answer)
            yield name, number(written, questions[name])
        except AnswerError as error:
            fix = f"write a whole number of {questions[name].unit}, or delete the line"
            raise wrong(str(error), name, fix) from None


def _plain(value: Any) -> str:
    """Write a number of TOML without a power of ten; what is none is written as it is."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def _line(text: str, lesson: str, name: str) -> int:
    """Find the line, counted from 1, in which an answer stands; without a name, in which its lesson does."""
    table: dict[str, Any] = {}
    place = 1
    for row, line in enumerate(text.splitlines(), 1):
        try:
            read_alone = tomllib.loads(line)
        except tomllib.TOMLDecodeError:  # a part of something longer
            continue
        if line.lstrip().startswith("["):
            table = read_alone
        if lesson in read_alone:
            place = row
        inner = read_alone.get(lesson, read_alone if lesson in table else None)
        if isinstance(inner, dict) and name in inner:
            return row
    return place


def _table(lesson: str, answers: Mapping[str, int]) -> str:
    """Write the part of the file that belongs to one lesson."""
    lines = [f"[{lesson}]"]
    for question in questions_of(lesson):
        words = f"{question.asks} {question.how}"
        lines += textwrap.wrap(words, COLUMNS, initial_indent="# ", subsequent_indent="# ")
        key, answer = json.dumps(question.name, ensure_ascii=False), answers.get(question.name)
        given = f"{key} = {answer}" if answer is not None else f"# {key} ="
        lines.append(f"{given}  # {question.unit}")
    return "\n".join(lines) + "\n"
