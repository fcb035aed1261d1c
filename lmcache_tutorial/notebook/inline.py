"""Results inside a notebook: the report's own tables and charts, so that they need nothing from outside.

A chart is a picture of its own, with its colours in it. A viewer that takes styles and drawings out of a
notebook that it does not trust leaves pictures and tables, so that what was measured can be read there too.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from ..pages.charts import caption, draw, legend
from ..pages.templating import machine_words, style_sheet
from ..report.environment import environment
from ..report.page import render_lesson
from ..report.results import Chart
from ..report.terminal import summary_lines
from ..settings.errors import ConfigError
from ..settings.options import RunOptions
from ..settings.run import run_config

SVG_SPACE = "http://www.w3.org/2000/svg"
VIEW_BOX = re.compile(r'viewBox="[\d.]+ [\d.]+ ([\d.]+) ([\d.]+)"')
MOST_WIDTH = 960  # pixels; a drawing that is wider is shown smaller
SCOPE = "kv-results"


def show_results(results: Mapping[str, Any], lesson: str) -> None:
    """Show what a run found of one lesson: predictions, charts, who served, claims and the trace.

    Args:
        results: a document of the results.json contract.
        lesson: the lesson's id.

    Raises:
        ConfigError: the document does not hold that lesson.
    """
    _display(lesson_html(results, lesson), "\n".join(summary_lines(dict(results))))


def show_lesson(file: str | Path, lesson: str) -> None:
    """Show what a run found of one lesson, from the results.json that it wrote.

    Args:
        file: for example ``reports/results.json``.
        lesson: the lesson's id, such as ``"lesson2"``.

    Raises:
        ConfigError: the file cannot be read, or does not hold that lesson.
    """
    try:
        results = json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{file} holds no results: {error}.\nTo fix: pytest -k {lesson} writes reports/results.json"
        ) from None
    show_results(results, lesson)


def show_chart(chart: Chart) -> None:
    """Draw a chart as the report does, with its caption and what its colours mean.

    Args:
        chart: its data; see :class:`Chart`.

    Raises:
        SourceError: ``served_by`` names what is not drawn, or what is no source.
        ModuleNotFoundError: matplotlib and pandas are not installed.
    """
    document = chart.document()
    swatches = "".join(f'<span><i class="{key}"></i>{words}</span>' for key, words in legend(document))
    _display(
        _scoped(
            f"<figure><figcaption>{escape(chart.name)}</figcaption>{picture(document, 'chart')}"
            f'<div class="legend">{swatches}</div><p class="caption">{escape(caption(document))}</p></figure>'
        ),
        f"{chart.name}: {caption(document)}",
    )


def show_environment() -> None:
    """Show the machine and the packages that a run in this kernel would use, and the time."""
    run = run_config(RunOptions())
    about = environment(run)
    rows = {
        "Hardware": about["hardware"],
        "Fitted to it": f"{machine_words(about)}, since {run.dtype_reason}",
        "Model": f"{about['model']} ({about['weights']} weights)",
        "Python": about["python"],
        "Packages": ", ".join(f"{name} {version}" for name, version in about["packages"].items()),
        "Made": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
    }
    cells = "".join(f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in rows.items())
    _display(
        _scoped(f"<table><tbody>{cells}</tbody></table>"),
        "\n".join(f"{name}: {text}" for name, text in rows.items()),
    )


def lesson_html(results: Mapping[str, Any], lesson: str) -> str:
    """Build a lesson's part of the report, to stand in another page: its style reaches nothing around it.

    Raises:
        ConfigError: the document does not hold that lesson.
    """
    ids = [one["id"] for one in results["lessons"]]
    if lesson not in ids:
        found = ", ".join(ids) or "no lesson"
        raise ConfigError(f"these results hold {found}, and not {lesson}.\nTo fix: pytest -k {lesson}")
    return _scoped(render_lesson(results, lesson, picture))


def picture(chart: Mapping[str, Any], prefix: str) -> str:
    """Draw a chart as an ``<img>`` that holds all that it needs; see :func:`charts.draw`.

    It has the colours of both themes, and takes those of the reader's.
    """
    svg = draw(chart, prefix)
    if f'xmlns="{SVG_SPACE}"' not in svg:
        svg = svg.replace("<svg ", f'<svg xmlns="{SVG_SPACE}" ', 1)
    found = VIEW_BOX.search(svg)
    assert found, "a drawing states its size"
    width, height = (float(size) for size in found.groups())
    size = f"svg, svg.prefix {{ width:{width:g}px; height:{height:g}px; min-width:0; max-width:none }}"
    head, begin, rest = svg.partition(">")
    whole = f"{head}{begin}<style>{style_sheet()}\n{size}</style>{rest}"
    data = base64.b64encode(whole.encode()).decode()
    shown = min(round(width * 4 / 3), MOST_WIDTH)
    name = escape(chart["name"], quote=True)
    return f'<img alt="{name}" width="{shown}" src="data:image/svg+xml;base64,{data}">'


def _scoped(html: str) -> str:
    """Put a page's style around a piece of it, for that piece alone."""
    style = style_sheet().replace(":root", ":scope")
    mine = ":scope { background:var(--paper); color:var(--ink); font:15px/1.5 system-ui, sans-serif }"
    more = "section { border:0; padding:.2rem 1rem } img { max-width:100%; height:auto }"
    return (
        f'<div class="{SCOPE}"><style>@scope (.{SCOPE}) {{\n{style}\n{mine}\n{more}\n}}</style>{html}</div>'
    )


def _display(html: str, text: str) -> None:
    from IPython.display import display

    display({"text/html": html, "text/plain": text}, raw=True)
