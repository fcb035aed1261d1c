"""Several runs side by side, as one page: headlines, hits, times as ratios with intervals, what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import median
from typing import Any

from ..pages.templating import machine_words, page_environment, workload_words
from ..quantities.formats import figure, summary
from ..quantities.records import Interval
from ..quantities.sources import SOURCES, served_by
from ..quantities.statistics import ratio_unpaired
from .fingerprint import WORK, Results, differences, fingerprint
from .page import OUTCOME_WORDS, holds
from .runs import NamedRun
from .terminal import drop

Part = Mapping[str, Any]
"""A lesson or a group of one run, as results.json has it."""
FEWEST = 3  # rounds that a ratio's interval needs


@dataclass(frozen=True, slots=True)
class Time:
    """The median of an arm's times in one run [s], and how many times the first run's it is."""

    median_s: float
    ratio: Interval | None


@dataclass(frozen=True, slots=True)
class Count:
    """What was counted of a prediction in all rounds of one run, in words.

    ``missed`` says what was predicted where that is something else, and is empty where it came out exactly.
    """

    measured: str
    missed: str = ""


@dataclass(frozen=True, slots=True)
class Chapter:
    """A lesson or a group of prompts: its part in each run, what was predicted, and the times of its arms.

    Attributes:
        title: its title.
        parts: one a run; ``None`` where the run does not hold it.
        counts: what was predicted -> one a run.
        times: quantity and arm -> one a run.
        same_work: of each run, whether its times are times of the same work as the first one's.
    """

    title: str
    parts: Sequence[Part | None]
    same_work: Sequence[bool]
    counts: Mapping[str, Sequence[Count | None]] = field(default_factory=dict)
    times: Mapping[tuple[str, str], Sequence[Time | None]] = field(default_factory=dict)


def chapters(runs: Sequence[Results]) -> Iterator[Chapter]:
    """Put the lessons and the groups of runs side by side, in the order of their ids."""
    held = [{one["id"]: one for one in (*run["lessons"], *run.get("groups", []))} for run in runs]
    prints = [fingerprint(run) for run in runs]
    same = [all(one.get(name) == prints[0].get(name) for name in WORK) for one in prints]
    for key in sorted({key for one in held for key in one}):
        parts = [one.get(key) for one in held]
        known = next(part for part in parts if part)
        prompts = [known_prompts(part) for part in parts]
        alike = [one and prompt in (None, prompts[0]) for one, prompt in zip(same, prompts, strict=True)]
        title = known.get("title") or f"{known['name']}, {known['file']}"
        yield Chapter(title, parts, alike, counts(parts), times(parts, alike))


def known_prompts(part: Part | None) -> list[Any] | None:
    """Return what identifies the prompts of a group; a lesson has none, since its run tells its documents."""
    return [one.get("segments") for one in part["requests"]] if part and "requests" in part else None


def counts(parts: Sequence[Part | None]) -> dict[str, list[Count | None]]:
    """Put what was predicted of a lesson, or of the requests of a group, side by side."""
    found = [dict(_counts(part)) if part else {} for part in parts]
    return {name: [one.get(name) for one in found] for name in dict.fromkeys(n for one in found for n in one)}


def _counts(part: Part) -> Iterator[tuple[str, Count]]:
    for one in part.get("predictions", []):
        missed = "" if holds(one) else summary(one["predicted"], one["unit"])
        yield one["name"], Count(summary(one["measured"], one["unit"]), missed)
    for one in part.get("requests", []):
        told = [count for count in one["reused"] if count is not None]
        measured = summary(told, "tokens") if told else "not told"
        exact = one["predicted"] is None or set(told) <= {one["predicted"]}
        yield (
            f"Reused, line {one['line']}",
            Count(measured, "" if exact else figure(one["predicted"], "tokens")),
        )


def times(
    parts: Sequence[Part | None], same_work: Sequence[bool]
) -> dict[tuple[str, str], list[Time | None]]:
    """Take the times of every arm; a run that did the same work as the first has a ratio to it."""
    found = [
        {(one["name"], one["arm"]): one["values"] for one in part["measurements"] if one["unit"] == "s"}
        if part
        else {}
        for part in parts
    ]
    rows: dict[tuple[str, str], list[Time | None]] = {}
    for key in dict.fromkeys(key for one in found for key in one):
        first = found[0].get(key, [])
        rows[key] = [
            _time(one.get(key, []), first if number and same else [])
            for number, (one, same) in enumerate(zip(found, same_work, strict=True))
        ]
    return rows


def _time(values: Sequence[float], first: Sequence[float]) -> Time | None:
    if not values:
        return None
    fit = min(len(values), len(first)) >= FEWEST and all(
        isfinite(one) and one > 0 for one in (*values, *first)
    )
    return Time(median(values), ratio_unpaired(values, first) if fit else None)


def render_compared(runs: Sequence[NamedRun]) -> str:
    """Build the page: no script, no network, everything that a run said escaped.

    Args:
        runs: at least two; times are compared with those of the first.
    """
    page = page_environment()
    page.globals |= {"machine_words": machine_words, "workload_words": workload_words}
    page.globals |= {"sources": SOURCES, "served_by": served_by, "drop": drop}
    page.filters["word"] = OUTCOME_WORDS.__getitem__
    documents = [one.results for one in runs]
    prints = [fingerprint(one) for one in documents]
    apart = differences(prints)
    return page.get_template("runs.html.jinja").render(
        title=f"{len(runs)} runs, side by side",
        runs=runs,
        apart=apart,
        alike=len({name for one in prints for name in one}) - len(apart),
        chapters=list(chapters(documents)),
    )
