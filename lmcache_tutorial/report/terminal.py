"""The summary that the terminal shows."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from ..quantities.formats import percent
from ..quantities.sources import served_by
from .own_numbers import own_summary

SERVED_COLUMNS = 45  # two sources with their shares fit into one line of the summary


def summary_lines(results: dict[str, Any]) -> list[str]:
    """Format the terminal's summary table, 100 columns wide: each lesson, each group, then the verdict."""
    lines = _lesson_lines(results["lessons"]) if results["lessons"] else []
    for one in results["environment"].get("deployments", []):
        cold = "a salt" if one["cold_by"] == "cache_salt" else "a nonce in front, for it ignores cache_salt"
        lines.append(f"deployment: {one['url']}, {one['model']}; cold by {cold}")
        lines += [f"    it does not tell {words}" for words in one["not_told"]]
    for group in results.get("groups", []):
        lines += _group_lines(group)
    return [*lines, f"verdict: {results['verdict']}"]


def _lesson_lines(lessons: Sequence[Mapping[str, Any]]) -> list[str]:
    line = "{:<8}{:<10}{:>8}  {:<" + str(SERVED_COLUMNS) + "}  {}"
    lines = [line.format("lesson", "outcome", "hit rate", "served by", "TTFT drop (95 % interval)")]
    for lesson in lessons:
        head = lesson["headline"]
        # Three sources with their shares take two lines.
        served, *more = textwrap.wrap(served_by(head.get("tokens")), SERVED_COLUMNS)
        outcome = lesson["outcome"].replace("_", " ")
        lines.append(
            line.format(lesson["id"], outcome, percent(head.get("hit_rate")), served, drop(head)).rstrip()
        )
        lines += [f"{'':<28}{words}" for words in more]
        if lesson["reason"]:
            lines.append(f"{'':<8}{lesson['reason'].splitlines()[0][:92]}")
        if own := own_summary(lesson["predictions"]):
            lines.append(f"{'':<8}{own}")
    return lines


def _group_lines(group: Mapping[str, Any]) -> list[str]:
    """Tell of a group: its figures, and the first line of every claim that did not pass."""
    head, outcome = group["headline"], group["outcome"].replace("_", " ")
    lines = [f"{group['id']}: {outcome}, hit rate {percent(head.get('hit_rate'))}, TTFT drop {drop(head)}"]
    if group["reason"]:
        lines.append(f"    {group['reason'].splitlines()[0]}")
    for claim in group["claims"]:
        if claim["outcome"] != "passed":
            words = claim["outcome"].replace("_", " ")
            lines.append(f"    {words}: {claim['name']}: {claim['message'].splitlines()[0]}")
    return lines


def drop(head: Mapping[str, Any]) -> str:
    """Print the TTFT drop of a headline with its interval."""
    if "ttft_drop" not in head:
        return "–"
    low, high = (percent(head[f"ttft_drop_{end}"]).removesuffix(" %") for end in ("low", "high"))
    return f"{percent(head['ttft_drop'])} ({low} to {high})"
