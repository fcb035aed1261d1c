"""results.json -> one self-contained HTML page. Every number on it comes from the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from .plotting import chart_svg

SOURCES = {
    "engine": "engine's own prefix cache",
    "lmcache_l1": "LMCache memory",
    "lmcache_l2": "LMCache second tier",
    "computed": "prefilled by the engine",
}
OUTCOME_WORDS = {
    "passed": "passed", "failed": "failed", "error": "error", "skipped": "skipped", "not_run": "not run",
    "incomplete": "incomplete",
}  # fmt: skip


def render(results: Mapping[str, Any]) -> str:
    """Build the page: no script, no network, everything that a run said escaped.

    Args:
        results: a document of the results.json contract.

    Returns:
        HTML text, well under 2 MB.
    """
    environment = Environment(
        loader=PackageLoader("lmcache_tutorial"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {
        "percent": percent, "seconds": seconds, "figure": figure, "summary": summary,
        "word": OUTCOME_WORDS.__getitem__,
    }  # fmt: skip
    environment.globals |= {
        "draw": _draw,
        "waterfall": waterfall,
        "holds": holds,
        "median": median,
        "sources": SOURCES,
    }
    return environment.get_template("report.html.jinja").render(run=results)


def write_report(results: Mapping[str, Any], path: Path) -> None:
    """Render the page and write it, atomically."""
    partial = path.with_suffix(".partial")
    partial.write_text(render(results))
    partial.rename(path)


def percent(fraction: float | None) -> str:
    """Print a fraction of 1.

    >>> percent(0.98765), percent(None)
    ('98.8 %', '–')
    """
    return "–" if fraction is None else f"{fraction * 100:.1f} %"


def seconds(value: float | None) -> str:
    """Print a time.

    >>> seconds(163.2), seconds(2.345), seconds(0.0123), seconds(None)
    ('2 min 43 s', '2.35 s', '12 ms', '–')
    """
    if value is None:
        return "–"
    if value >= 60:
        return f"{value // 60:.0f} min {value % 60:.0f} s"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def figure(value: Any, unit: str = "") -> str:
    """Print a number with its unit, thousands apart.

    >>> figure(23040, "bytes"), figure(0.5, "s")
    ('23,040 bytes', '0.5 s')
    """
    text = f"{value:,.4g}" if isinstance(value, float) and not value.is_integer() else f"{value:,.0f}"
    return f"{text} {unit}".strip()


def summary(values: Sequence[float], unit: str = "") -> str:
    """Print the values of the rounds: the one that all share, or their range.

    >>> summary([96, 96, 96], "tokens"), summary([1, 2, 3], "tokens")
    ('96 tokens', '1 to 3 tokens')
    """
    if len(set(values)) == 1:
        return figure(values[0], unit)
    return f"{figure(min(values))} to {figure(max(values), unit)}"


def holds(prediction: Mapping[str, Any]) -> bool:
    """Tell whether a prediction in whole units came out exactly, in every round."""
    return bool(prediction["predicted"] == prediction["measured"])


def waterfall(spans: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Place spans on a common axis: left edge, width and first token in per cent of the trace."""
    total = max((span["start_s"] + span["duration_s"] for span in spans), default=0) or 1
    depth: dict[str, int] = {}
    rows = []
    for span in spans:
        depth[span["span_id"]] = depth.get(span["parent_id"], -1) + 1
        ttft = span["ttft_s"]
        rows.append(
            {
                **span,
                "depth": depth[span["span_id"]],
                "left": 100 * span["start_s"] / total,
                "width": max(0.4, 100 * span["duration_s"] / total),
                "first": None if ttft is None else 100 * ttft / total,
            }
        )
    return rows


def _draw(chart: Mapping[str, Any], prefix: str) -> str:
    return chart_svg(
        chart["kind"], chart["columns"], chart["rows"], axis=chart["axis"], name=chart["name"], prefix=prefix
    )
