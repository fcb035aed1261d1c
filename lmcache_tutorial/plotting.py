"""One function a chart: columns and rows -> SVG text (matplotlib), to be put inline into a page.

Colours are placeholders that the page's style sheet resolves, so that a chart follows the theme; ids carry
the chart's own prefix, so that two charts on a page do not collide.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Rows = Sequence[Sequence[Any]]
LABEL_CHARACTERS = 40
INK = "#0a0b0c"
# Placeholder -> CSS variable. A series keeps its colour on every chart.
SERIES = ("#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04")
COLOURS = {"prefilled": 0, "engine's own cache": 1, "LMCache memory": 2, "LMCache second tier": 3}
VARIABLES = {INK: "var(--ink)"} | {colour: f"var(--series-{n})" for n, colour in enumerate(SERIES, 1)}
NAMESPACES = {"": "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}
HREF = "{http://www.w3.org/1999/xlink}href"
STYLE: Any = {
    "svg.fonttype": "none", "text.parse_math": False,
    "font.family": "sans-serif", "font.size": 10, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "text.color": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False,
}  # fmt: skip


def rounds_chart(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw (arm, value) rows: every round a dot, the median a bar; the arms in order of appearance."""
    arm, value = frame.columns
    groups = frame.groupby(arm, sort=False)[value]
    for position, (_, values) in enumerate(groups):
        colour = SERIES[position % len(SERIES)]
        axes.barh(position, values.median(), color=colour, alpha=0.35, height=0.6)
        axes.plot(values, [position] * len(values), "o", color=colour, markersize=5, clip_on=False)
        at = (values.max(), position)
        axes.annotate(f"{values.median():.3g}", at, va="center", xytext=(9, 0), textcoords="offset points")
    axes.set_yticks(range(len(groups)), [_label(name) for name, _ in groups])
    axes.invert_yaxis()
    axes.set_xlim(left=min(0, 1.1 * frame[value].min()))


def growth_chart(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw (x, value, series) rows: every round a dot, a line through the medians of each series."""
    x, value, series = frame.columns
    for number, (name, group) in enumerate(frame.groupby(series, sort=False)):
        colour = SERIES[(number + 1) % len(SERIES)]
        axes.plot(group[x], group[value], "o", color=colour, alpha=0.5, markersize=5)
        middles = group.groupby(x)[value].median()
        axes.plot(middles.index, middles, "-", color=colour, label=_label(name))
    axes.set_ylabel(value)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.legend()


def parts_chart(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw (arm, part, part, …) rows as stacked bars: who served the tokens, where the time went."""
    arm, *parts = frame.columns
    left = pd.Series(0.0, index=frame.index)
    for number, part in enumerate(parts):
        colour = SERIES[COLOURS.get(part, number % len(SERIES))]
        axes.barh(frame.index, frame[part], left=left, color=colour, height=0.6, label=part)
        left = left + frame[part]
    axes.set_yticks(range(len(frame)), [_label(name) for name in frame[arm]])
    axes.invert_yaxis()
    axes.figure.legend(loc="outside upper center", ncols=len(parts))


KINDS: dict[str, Callable[[Axes, pd.DataFrame], None]] = {
    "rounds": rounds_chart,
    "growth": growth_chart,
    "parts": parts_chart,
}


def chart_svg(kind: str, columns: Sequence[str], rows: Rows, *, axis: str, name: str, prefix: str) -> str:
    """Draw a chart.

    Args:
        kind: a key of ``KINDS``.
        columns: what each place of a row holds, with its unit.
        rows: the data, at least one row.
        axis: what the horizontal axis shows, with its unit.
        name: its accessible name.
        prefix: put before every id; unique on the page.

    Returns:
        An ``<svg>`` element without size, which fills its container's width.
    """
    with mpl.rc_context({**STYLE, "svg.hashsalt": prefix}):
        bars = len({row[0] for row in rows}) if kind != "growth" else 0
        figure = Figure(figsize=(7.2, 1.3 + 0.45 * bars if bars else 3.2), layout="constrained")
        axes = figure.add_subplot()
        KINDS[kind](axes, pd.DataFrame(rows, columns=list(columns)))
        axes.set_xlabel(axis)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(text.getvalue(), name, prefix)


def _label(name: object) -> str:
    text = str(name)
    return text if len(text) <= LABEL_CHARACTERS else text[: LABEL_CHARACTERS - 1] + "…"


def _inline(svg: str, name: str, prefix: str) -> str:
    for short, uri in NAMESPACES.items():
        ElementTree.register_namespace(short, uri)
    root = ElementTree.fromstring(svg)
    for metadata in root.findall("{http://www.w3.org/2000/svg}metadata"):
        root.remove(metadata)
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                value = f"{prefix}-{value}"
            elif key == HREF and value.startswith("#"):
                value = f"#{prefix}-{value[1:]}"
            value = value.replace("url(#", f"url(#{prefix}-")
            for placeholder, variable in VARIABLES.items():
                value = value.replace(placeholder, variable)
            element.set(key, value)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", name)
    return ElementTree.tostring(root, encoding="unicode")
