"""What a diagnosis says: its records, and how they are printed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .pages import page_environment, percent

SHOWN_LINES = 20


@dataclass(frozen=True, slots=True)
class Culprit:
    """One cause, over all requests that it hit; ``before`` and ``after`` surround the change in the first."""

    kind: str
    segment: str
    message_index: int | None
    lost_tokens: int
    share_of_requests: float
    before: str
    after: str
    advice: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The prediction for a whole log. Rates are fractions of 1, of all prompt tokens.

    ``forgotten_blocks`` were pushed out because more than the stated number would have to be remembered.
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
    if found.broken_lines:
        shown = ", ".join(map(str, found.broken_lines[:SHOWN_LINES]))
        more = ", …" if len(found.broken_lines) > SHOWN_LINES else ""
        lines.append(f"broken lines        {len(found.broken_lines)}: {shown}{more}")
    if found.other_lines:
        lines.append(f"other lines         {found.other_lines} hold no request")
    if found.forgotten_blocks:
        lines.append(f"forgotten           {found.forgotten_blocks:,} blocks, the least recently used first")
    for number, culprit in enumerate(found.culprits, 1):
        where = culprit.segment
        if culprit.message_index is not None:
            where += f", message {culprit.message_index}"
        lines += [
            "",
            f"{number}. {culprit.kind} in {where}: {culprit.lost_tokens:,} tokens lost, "
            f"{percent(culprit.share_of_requests)} of the requests",
            f"   …{culprit.before!r} -> {culprit.after!r}…",
            f"   fix: {culprit.advice}",
        ]
    return "\n".join(lines)


def diagnosis_page(found: Diagnosis, name: str) -> str:
    """Render a diagnosis as a page of its own; everything that the log says is escaped."""
    return page_environment().get_template("diagnosis.html.jinja").render(run=found, name=name)
