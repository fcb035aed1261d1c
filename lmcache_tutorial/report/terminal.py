"""The summary that the terminal shows."""

from __future__ import annotations

import textwrap
from typing import Any

from ..quantities.formats import percent
from ..quantities.sources import served_by

SERVED_COLUMNS = 45  # two sources with their shares fit into one line of the summary


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
