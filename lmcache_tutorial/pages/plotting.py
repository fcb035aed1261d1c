"""One function a chart: columns and rows -> SVG text (matplotlib), to be put inline into a page.

Ids carry the chart's own prefix, so that two charts on a page do not collide. A series of which nothing is
stated is neutral. Only the lessons' report draws these charts: this module alone needs matplotlib and pandas,
and is imported when the first one is drawn.
"""

from __future__ import annotations

import io
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..quantities.formats import figure as printed
from ..quantities.sources import NEUTRAL, PREDICTED
from .colours import COLOURS, INK, PAPER, VARIABLES, Keys, part_keys

LABEL_CHARACTERS, LABEL_LINES = 26, 3
MARKERS, LINES = "osD^v", ("-", "-.", ":", (0, (7, 2, 1, 2, 1, 2)))  # dashed means predicted
NAMESPACES = {"": "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}
HREF = "{http://www.w3.org/1999/xlink}href"
STYLE: Any = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def rounds_chart(axes: Axes, frame: pd.DataFrame, keys: Keys) -> None:
    """Draw (arm, value) rows: every round a dot, the median a bar; the arms in order of appearance.

    A neutral arm's bar is hollow, so that it cannot be taken for a pale source.
    """
    arm, value = frame.columns
    groups = frame.groupby(arm, sort=False)[value]
    for position, (name, values) in enumerate(groups):
        key = keys.get(str(name), NEUTRAL)
        colour = COLOURS[key]
        if key == NEUTRAL:
            axes.barh(position, values.median(), facecolor="none", edgecolor=colour, height=0.6)
        else:
            axes.barh(position, values.median(), color=colour, alpha=0.45, height=0.6)
        axes.plot(values, [position] * len(values), "o", color=colour, markersize=4.5, clip_on=False)
        at = (max(values.max(), 0), position)
        text = printed(float(values.median()), digits=3)
        axes.annotate(text, at, va="center", xytext=(9, 0), textcoords="offset points")
    axes.set_yticks(range(len(groups)), [_label(name) for name, _ in groups])
    axes.invert_yaxis()
    axes.set_xlim(left=min(0, 1.1 * frame[value].min()))


def growth_chart(axes: Axes, frame: pd.DataFrame, keys: Keys) -> None:
    """Draw (x, value, series) rows: every round a dot, a line through the medians of each series.

    What was predicted is a dashed line without dots. Series that share a colour differ in their lines, and
    all differ in their markers.
    """
    x, value, series = frame.columns
    drawn: Counter[str] = Counter()
    for number, (name, group) in enumerate(frame.groupby(series, sort=False)):
        key = keys.get(str(name), NEUTRAL)
        colour, middles = COLOURS[key], group.groupby(x)[value].median()
        if key == PREDICTED:
            axes.plot(middles.index, middles, "--", color=colour, linewidth=2, label=_label(name))
            continue
        line, marker = LINES[drawn[key] % len(LINES)], MARKERS[number % len(MARKERS)]
        drawn[key] += 1
        axes.plot(group[x], group[value], marker, color=colour, alpha=0.6, markersize=5)
        axes.plot(middles.index, middles, color=colour, linestyle=line)
        axes.plot([], [], color=colour, marker=marker, linestyle=line, markersize=5, label=_label(name))
    axes.set_ylabel(value)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(_tick)
    axes.figure.legend(loc="outside upper center", ncols=3)


def parts_chart(axes: Axes, frame: pd.DataFrame, keys: Keys) -> None:
    """Draw (arm, part, part, …) rows as stacked bars: where the time went, who served the tokens."""
    arm, *parts = frame.columns
    chosen = part_keys(parts, keys)
    left = pd.Series(0.0, index=frame.index)
    for part in parts:
        bar: dict[str, Any] = {"color": COLOURS[chosen[part]], "edgecolor": PAPER, "linewidth": 0.8}
        axes.barh(frame.index, frame[part], left=left, height=0.6, **bar)
        left = left + frame[part]
    for position, total in enumerate(left):
        at, text = (total, position), printed(float(total), digits=3 if total < 1000 else 6)
        axes.annotate(text, at, va="center", xytext=(5, 0), textcoords="offset points")
    axes.set_yticks(range(len(frame)), [_label(name) for name in frame[arm]])
    axes.invert_yaxis()


def served_chart(axes: Axes, frame: pd.DataFrame, keys: Keys) -> None:
    """Draw (arm, requests, tokens by source …) rows as stacked bars of one request each.

    The arms' labels tell how many requests a mean is of where that differs.
    """
    arm, requests, *_ = frame.columns
    shown = frame.drop(columns=requests).copy()
    if frame[requests].nunique() > 1:
        # A space that is not broken keeps the number beside its word.
        counts = (f"{count:,.0f}\u00a0{'request' if count == 1 else 'requests'}" for count in frame[requests])
        shown[arm] = [f"{name} ({count})" for name, count in zip(frame[arm], counts, strict=True)]
    parts_chart(axes, shown.round(), keys)


KINDS: dict[str, Callable[[Axes, pd.DataFrame, Keys], None]] = {
    "rounds": rounds_chart,
    "growth": growth_chart,
    "parts": parts_chart,
    "served": served_chart,
}


def chart_svg(chart: Mapping[str, Any], prefix: str) -> str:
    """Draw a chart.

    Args:
        chart: a chart of the results.json contract: its ``kind`` is a key of ``KINDS``, it has at least one
            row, and its name becomes the drawing's accessible name.
        prefix: put before every id; unique on the page.

    Returns:
        An ``<svg>`` element without size, which fills its container's width.
    """
    kind, rows = chart["kind"], chart["rows"]
    with mpl.rc_context({**STYLE, "svg.hashsalt": prefix}):
        bars = len({row[0] for row in rows}) if kind != "growth" else 0
        figure = Figure(figsize=(5.8, 0.9 + 0.5 * bars if bars else 3.2), layout="constrained")
        axes = figure.add_subplot()
        axes.xaxis.set_major_formatter(_tick)
        KINDS[kind](axes, pd.DataFrame(rows, columns=chart["columns"]), chart.get("served_by", {}))
        axes.set_xlabel(chart["axis"])
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(text.getvalue(), chart["name"], prefix)


def _tick(value: float, _: float | None = None) -> str:
    return printed(round(value, 9))


def _label(name: object) -> str:
    lines = textwrap.wrap(str(name), LABEL_CHARACTERS, max_lines=LABEL_LINES, placeholder=" …")
    return "\n".join(lines)


def _inline(svg: str, name: str, prefix: str) -> str:
    for short, uri in NAMESPACES.items():
        ElementTree.register_namespace(short, uri)
    root = ElementTree.fromstring(svg)
    for metadata in root.findall("{http://www.w3.org/2000/svg}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            element.set(key, _attribute(key, value, prefix))
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", name)
    return ElementTree.tostring(root, encoding="unicode")


def _attribute(key: str, value: str, prefix: str) -> str:
    """Put the prefix before an id and before what points to one, and variables in place of colours.

    >>> _attribute("id", "line", "c1"), _attribute("clip-path", "url(#box)", "c1")
    ('c1-line', 'url(#c1-box)')
    """
    if key == "id":
        value = f"{prefix}-{value}"
    elif key == HREF and value.startswith("#"):
        value = f"#{prefix}-{value[1:]}"
    value = value.replace("url(#", f"url(#{prefix}-")
    for placeholder, variable in VARIABLES.items():
        value = value.replace(placeholder, variable)
    return value
