"""What a diagnosis says: its records, and how they are printed."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from ..pages.templating import page_environment
from ..quantities.formats import percent

SHOWN_LINES = 20
SHOWN_REASONS = 5
SHOWN_OF_REASON = 3


@dataclass(frozen=True, slots=True)
class Culprit:
    """One cause, over all requests that it hit; ``before`` and ``after`` surround the change in the first.

    ``message_index`` is that of the first, too; ``messages`` counts the different places in which it stood.
    """

    kind: str
    segment: str
    message_index: int | None
    lost_tokens: int
    share_of_requests: float
    before: str
    after: str
    advice: str
    requests: int = 0
    messages: int = 1


@dataclass(frozen=True, slots=True)
class Unread:
    """Why something was not read, and in which lines; a line of many requests stands there as often."""

    reason: str
    lines: list[int]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The prediction for a whole log. Rates are fractions of 1, of all prompt tokens.

    ``broken_lines`` could not be read or rendered, at least in part; the chat template refused those
    in ``refused_lines``. ``unread`` gives the reasons. ``forgotten_blocks`` were pushed out because more
    than the stated number would have to be remembered.
    """

    requests: int
    prompt_tokens: int
    hit_rate: float
    best_hit_rate: float
    block_tokens: int
    chunk_tokens: int
    broken_lines: list[int]
    other_lines: int
    forgotten_blocks: int
    culprits: list[Culprit]
    refused_lines: list[int] = field(default_factory=list)
    unread: list[Unread] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def unread_share(self) -> float:
        """The part of the log's requests that was not read, a fraction of 1; other lines do not count."""
        unread = sum(len(one.lines) for one in self.unread)
        return unread / (unread + self.requests) if unread else 0.0

    def document(self) -> dict[str, Any]:
        """Return it as plain data, for JSON."""
        return asdict(self)


def diagnosis_text(found: Diagnosis) -> str:
    """Print a diagnosis for a terminal."""
    units = f"block {found.block_tokens}, chunk {found.chunk_tokens} tokens"
    lines = [
        f"requests            {found.requests:,}, {found.prompt_tokens:,} prompt tokens",
        f"predicted hit rate  {percent(found.hit_rate)} ({units})",
        f"after the fixes     {percent(found.best_hit_rate)}",
    ]
    lines += _unread_lines(found)
    if found.other_lines:
        lines.append(f"other lines         {found.other_lines} hold no request")
    if found.forgotten_blocks:
        lines.append(f"forgotten           {found.forgotten_blocks:,} blocks, the least recently used first")
    lines += [f"note                {warning}" for warning in found.warnings]
    for number, culprit in enumerate(found.culprits, 1):
        where = culprit.segment
        if culprit.message_index is not None:
            where += f", message {culprit.message_index}"
        if culprit.messages > 1:
            where += f" and {culprit.messages - 1} more"
        lines += [
            "",
            f"{number}. {culprit.kind} in {where}: {culprit.lost_tokens:,} tokens lost, "
            f"{percent(culprit.share_of_requests)} of the requests",
            f"   …{culprit.before!r} -> {culprit.after!r}…",
            f"   fix: {culprit.advice}",
        ]
    return "\n".join(lines)


def unread_text(found: Diagnosis) -> str:
    """Say in a sentence how much was not read, and why, the commonest reason first."""
    counts = Counter({one.reason: len(one.lines) for one in found.unread})
    reasons = "; ".join(f"{reason} ({count})" for reason, count in counts.most_common(SHOWN_REASONS))
    more = "; and more" if len(counts) > SHOWN_REASONS else ""
    return f"{percent(found.unread_share)} of the requests could not be read: {reasons}{more}"


def _unread_lines(found: Diagnosis) -> list[str]:
    refused = set(found.refused_lines)
    unreadable = [line for line in found.broken_lines if line not in refused]
    lines = []
    if unreadable:
        lines.append(f"broken lines        {_numbers(unreadable)}")
    if refused:
        lines.append(f"refused lines       {_numbers(found.refused_lines)}")
    shown = sorted(found.unread, key=lambda one: -len(one.lines))
    for one in shown[:SHOWN_REASONS]:
        more = f", … ({len(one.lines)})" if len(one.lines) > SHOWN_OF_REASON else ""
        where = ", ".join(map(str, one.lines[:SHOWN_OF_REASON])) + more
        lines.append(f"                    line {where}: {one.reason}")
    if len(shown) > SHOWN_REASONS:
        lines.append(f"                    and {len(shown) - SHOWN_REASONS} other reasons")
    return lines


def _numbers(lines: list[int]) -> str:
    more = ", …" if len(lines) > SHOWN_LINES else ""
    return f"{len(lines)}: {', '.join(map(str, lines[:SHOWN_LINES]))}{more}"


def diagnosis_page(found: Diagnosis, name: str) -> str:
    """Render a diagnosis as a page of its own; everything that the log says is escaped."""
    return page_environment().get_template("diagnosis.html.jinja").render(run=found, name=name)
