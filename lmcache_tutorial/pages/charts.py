"""A chart on a page: its drawing, what bar, dot and line are, and what its colours mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..quantities.sources import KEYS, NEUTRAL, PREDICTED, SOURCES
from .colours import part_keys
from .prefix_picture import prefix_caption, prefix_legend, prefix_svg

FRONT_TO_END = "from the front of the prompt to its end, by who served them"


def draw(chart: Mapping[str, Any], prefix: str) -> str:
    """Draw a chart of any kind as an ``<svg>`` element; ``prefix`` is put before its ids.

    Raises:
        ModuleNotFoundError: it is a chart of the lessons' report, and what draws those is not installed.
    """
    if chart["kind"] == "prefix":
        return prefix_svg(chart, prefix)
    try:
        from .plotting import chart_svg  # matplotlib and pandas, which the base install does without
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the chart {chart['name']!r} cannot be drawn: {error.name} is not installed.\n"
            'To fix: pip install "lmcache-tutorial[lessons]"',
            name=error.name,
        ) from None
    return chart_svg(chart, prefix)


def caption(chart: Mapping[str, Any]) -> str:
    """Say what bar, dot and line of a chart are: the lesson's words, else those of its kind.

    >>> caption({"kind": "rounds", "rows": [["cold", 2.0], ["cold", 2.1]]})
    'Bar: the median of the rounds, with its number. Dot: one round.'
    """
    return chart.get("caption") or CAPTIONS[chart["kind"]](chart)


def legend(chart: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List what the colours of a chart mean: the class of a swatch and its words; empty if none has one.

    >>> legend({"kind": "rounds", "served_by": {"first": "computed", "second": "engine"}})
    [('engine', "engine's own cache"), ('computed', 'prefilled')]
    """
    if chart["kind"] == "prefix":
        return prefix_legend(chart)
    if chart["kind"] in ("parts", "served"):
        first = 2 if chart["kind"] == "served" else 1
        keys = part_keys(chart["columns"][first:], chart.get("served_by", {}))
        return [
            (key, part)
            for place, (part, key) in enumerate(keys.items(), first)
            if any(row[place] for row in chart["rows"])
        ]
    series = {row[-1 if chart["kind"] == "growth" else 0] for row in chart.get("rows", [])}
    stated = chart.get("served_by", {})
    used = set(stated.values()) | ({NEUTRAL} if series - set(stated) else set())
    return [(key, words) for key, words in KEYS.items() if key in used] if used - {NEUTRAL} else []


def _rounds(chart: Mapping[str, Any]) -> str:
    arms = [row[0] for row in chart["rows"]]
    if len(set(arms)) == len(arms):
        return "Bar and dot: the one value of each arm, with its number."
    return "Bar: the median of the rounds, with its number. Dot: one round."


def _growth(chart: Mapping[str, Any]) -> str:
    predicted = PREDICTED in chart.get("served_by", {}).values()
    words = "Dot, of whatever shape: one round. Line: through the medians of the rounds."
    return f"{words} Dashed line without dots: predicted." if predicted else words


def _parts(chart: Mapping[str, Any]) -> str:
    if set(chart["columns"][1:]) == set(SOURCES.values()):
        return f"Bar: the prompt tokens of all calls of the arm, a sum, {FRONT_TO_END}."
    return "Bar: the parts of one arm, one behind the other; the number is their sum."


def _served(chart: Mapping[str, Any]) -> str:
    counts = sorted({row[1] for row in chart["rows"]})
    if counts == [1]:
        return f"Bar: the prompt tokens of the one request of each arm, {FRONT_TO_END}."
    stands = "" if len(counts) == 1 else ", whose number stands beside the arm's name"
    requests = f"{counts[0]:,} requests" if len(counts) == 1 else "requests"
    return f"Bar: the prompt tokens of one request, the mean of its arm's {requests}{stands}; {FRONT_TO_END}."


CAPTIONS = {
    "rounds": _rounds,
    "growth": _growth,
    "parts": _parts,
    "served": _served,
    "prefix": prefix_caption,
}
