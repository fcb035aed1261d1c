"""A recorded span -> its figures: TTFT, prompt and cached tokens, node."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan

from ..quantities.records import SpanRecord

OBSERVATION = "langfuse.observation."


Figures = tuple[int, SpanRecord]
"""A span's start [ns since the epoch] and its record."""


def in_order(figures: Sequence[Figures]) -> tuple[SpanRecord, ...]:
    """Put a trace's records in the order of their start, with times relative to the first."""
    ordered = sorted(figures, key=lambda one: one[0])
    begin = ordered[0][0]
    return tuple(replace(record, start_s=(start - begin) / 1e9) for start, record in ordered)


def figures_of(span: ReadableSpan) -> Figures:
    """Return a span's start, and its record without it: a trace's first span is not known yet."""
    attributes: dict[str, Any] = dict(span.attributes or {})
    start, end = span.start_time or 0, span.end_time or 0
    usage = json.loads(attributes.get(OBSERVATION + "usage_details", "null"))
    first = attributes.get(OBSERVATION + "completion_start_time")
    cached = usage.get("input_cache_read", 0) if usage else None
    record = SpanRecord(
        span_id=f"{span.context.span_id:016x}" if span.context else "",
        parent_id=f"{span.parent.span_id:016x}" if span.parent else "",
        name=span.name,
        kind=str(attributes.get(OBSERVATION + "type", "span")),
        node=str(attributes.get(OBSERVATION + "metadata.langgraph_node", "")),
        start_s=0.0,  # known when the whole trace is
        duration_s=(end - start) / 1e9,
        ttft_s=_seconds_until(first, start) if first else None,
        prompt_tokens=usage["input"] + cached if usage else None,
        cached_tokens=cached,
    )
    return start, record


def _seconds_until(quoted_time: str, start_ns: int) -> float:
    """Subtract a span's start from an ISO time that Langfuse quotes as JSON."""
    moment = datetime.fromisoformat(json.loads(quoted_time).replace("Z", "+00:00"))
    return moment.timestamp() - start_ns / 1e9
