"""The table of faults: what is kept of each (faults.json), and its page (faults.html)."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

from ..machine.files import write_atomically
from ..pages.templating import TITLES, machine_words, page_environment
from ..settings.secrets import redact

SCHEMA = 1
INTERRUPTED = "the run was interrupted"
REASON_CHARACTERS = 400
Answer = Literal["right", "wrong", "an error", "–"]
Outcome = Literal["held", "not held", "not run"]


@dataclass(frozen=True, slots=True)
class FaultRow:
    """One fault, and what became of it.

    Attributes:
        fault: what was done, for example ``LMCache killed``.
        under: what was asked meanwhile: ``idle``, ``4 requests in flight``, ``a question after it``.
        seen: what the client saw, in a few words.
        answer: what the answers were; ``–`` where none was asked for.
        recovered_s: from the program's return until all was as before [s]; ``None`` is not measured.
        setting: the setting that decides it, its name between backticks, and its value.
        outcome: whether all that the fault's test asserts was so.
        reason: why it was not held, or not run; empty where it was held.
    """

    fault: str
    under: str
    seen: str
    answer: Answer
    recovered_s: float | None
    setting: str
    outcome: Outcome
    reason: str = ""


@dataclass(slots=True)
class OpenRow:
    """A row whose test still runs; the test fills it in, and its outcome follows from how the test ends."""

    fault: str
    under: str
    setting: str
    seen: str = ""
    answer: Answer = "–"
    recovered_s: float | None = None

    def saw(self, words: str) -> None:
        """Say in a few words what the client saw; the last call counts."""
        self.seen = words

    def closed(self, outcome: Outcome, reason: str = "") -> FaultRow:
        """Return the row with its outcome."""
        return FaultRow(**asdict(self), outcome=outcome, reason=reason)


@dataclass
class FaultsRecord:
    """The faults of one run; becomes faults.json and faults.html.

    Attributes:
        environment: as :func:`environment` describes it.
        give_up: ends a test that cannot run here, by an exception; it gets the reason.
        skipped: the exception by which a test is skipped.
    """

    environment: Mapping[str, Any]
    give_up: Callable[[str], NoReturn]
    skipped: type[BaseException]
    started: float = field(default_factory=time.time)
    _rows: dict[tuple[str, str], FaultRow] = field(default_factory=dict, init=False)
    _given_up: BaseException | None = field(default=None, init=False)

    @property
    def rows(self) -> tuple[FaultRow, ...]:
        """All rows, in the order in which their faults were first added."""
        return tuple(self._rows.values())

    def add(self, row: FaultRow) -> None:
        """Add a row, without secrets; it replaces an earlier one of the same fault under the same load."""
        texts = ("fault", "under", "seen", "setting", "reason")
        words: dict[str, Any] = {name: redact(getattr(row, name)) for name in texts}
        self._rows[row.fault, row.under] = replace(row, **words)

    @contextmanager
    def row(self, fault: str, *, under: str, setting: str) -> Iterator[OpenRow]:
        """Give a row to fill in; how the block ends decides its outcome.

        A clean end is ``held``. A skip, :meth:`not_run` and an interrupt are ``not run``; any other exception
        is ``not held``, with the first line of its message. Exceptions go on.
        """
        opened = OpenRow(fault, under, setting)
        try:
            yield opened
        except BaseException as error:
            self.add(opened.closed(*self._judge(error)))
            raise
        self.add(opened.closed("held"))

    def not_run(self, reason: str) -> NoReturn:
        """End the test that calls this: its fault cannot be made on this machine.

        Within :meth:`row` its row says so, also where the test then counts as failed.
        """
        try:
            self.give_up(reason)
        except BaseException as error:
            self._given_up = error
            raise

    def _judge(self, error: BaseException) -> tuple[Outcome, str]:
        if isinstance(error, KeyboardInterrupt):
            return "not run", INTERRUPTED
        cannot = isinstance(error, self.skipped) or error is self._given_up
        return "not run" if cannot else "not held", first_line(error)

    def document(self) -> dict[str, Any]:
        """Build the document; all that the page shows stands in it."""
        return {
            "schema": SCHEMA,
            "started": datetime.fromtimestamp(self.started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "environment": dict(self.environment),
            "rows": [asdict(row) for row in self.rows],
        }

    def write(self, folder: Path) -> Path:
        """Write faults.json, then faults.html, each atomically; return the page's path.

        Raises:
            OSError: one of them cannot be written.
        """
        document, page = self.document(), folder / "faults.html"
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(document, indent=1, allow_nan=False) + "\n"
        write_atomically(page.with_suffix(".json"), text)
        write_atomically(page, render_faults(document))
        return page


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message; an error of a program also has its kind before it.

    Secrets are taken out before the rest is cut off: a part of one would not be recognised.

    >>> first_line(AssertionError("two answers were wrong")), first_line(AssertionError())
    ('two answers were wrong', 'AssertionError')
    >>> first_line(KeyError("vllm"))
    "KeyError: 'vllm'"
    """
    kind = type(error).__name__
    line = redact(str(error)).strip().partition("\n")[0][:REASON_CHARACTERS]
    # What a test runner raises to end a test is no Exception, and its kind tells nothing.
    if isinstance(error, AssertionError) or not isinstance(error, Exception):
        return line or kind
    return f"{kind}: {line}" if line else kind


def render_faults(document: Mapping[str, Any]) -> str:
    """Build the page: no script, no network, everything that a run said escaped."""
    page = page_environment()
    page.globals |= {"title": TITLES["faults"], "machine_words": machine_words}
    return page.get_template("faults.html.jinja").render(run=document)
