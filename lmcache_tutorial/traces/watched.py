"""Traces -> hit rate and TTFT by node and over time, and where the hit rate fell. No SDK is needed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from statistics import median
from typing import Any

OBSERVATION = "langfuse.observation."
FALL = 0.1  # of the hit rate, from one part of the time to a later one; less is the mixture of questions
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Generation:
    """One request to a model, as a trace tells of it; what it does not tell is ``None``.

    ``document`` is the part of the trace that holds it, as a diagnosis reads it, and ``trace_id`` its name.
    """

    at_s: float
    node: str
    prompt_tokens: int | None
    cached_tokens: int | None
    ttft_s: float | None
    document: Document = field(repr=False, default_factory=dict)
    trace_id: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """Some generations together: a node's, or those of a part of the time."""

    name: str
    generations: tuple[Generation, ...]

    @property
    def hit_rate(self) -> float | None:
        """Reused tokens over prompt tokens, of those that tell both."""
        told = [one for one in self.generations if one.prompt_tokens and one.cached_tokens is not None]
        prompt = sum(one.prompt_tokens or 0 for one in told)
        return sum(one.cached_tokens or 0 for one in told) / prompt if prompt else None

    @property
    def ttft_s(self) -> float | None:
        """The median TTFT [s]."""
        told = [one.ttft_s for one in self.generations if one.ttft_s is not None]
        return median(told) if told else None


def generations(documents: Iterable[Document]) -> list[Generation]:
    """Read the generations of OTLP export requests, or of whole traces of Langfuse's API; in their order."""
    found = [one for document in documents for one in _of(document)]
    return sorted(found, key=lambda one: one.at_s)


def whole_or_lines(text: str) -> list[Document]:
    """Read a file of traces: a document, a list of them, or one a line.

    Raises:
        ValueError: it is none.

    >>> whole_or_lines('[{"a": 1}, {"b": 2}]')
    [{'a': 1}, {'b': 2}]
    """
    try:
        found = [json.loads(text)]
    except ValueError:
        found = [json.loads(line) for line in text.split("\n") if line.strip()]
    flat = [one for each in found for one in (each if isinstance(each, list) else [each])]
    if not all(isinstance(one, dict) for one in flat):
        raise ValueError("it is no object")
    return flat


def by_node(found: Sequence[Generation]) -> list[Window]:
    """Put generations together that came from one node."""
    names = dict.fromkeys(one.node for one in found)
    return [Window(name, tuple(one for one in found if one.node == name)) for name in names]


def over_time(found: Sequence[Generation], parts: int) -> list[Window]:
    """Cut generations, in their order, into parts of as many requests each."""
    size = max(1, -(-len(found) // parts))
    cut = [tuple(found[at : at + size]) for at in range(0, len(found), size)]
    return [Window(_clock(some[0].at_s), some) for some in cut]


def fallen(windows: Sequence[Window]) -> Window | None:
    """Return the first part of the time whose hit rate lies well below that of an earlier one.

    >>> good = Generation(0.0, "a", 100, 96, 0.1)
    >>> bad = Generation(1.0, "a", 100, 0, 0.9)
    >>> fallen([Window("1", (good,)), Window("2", (good,)), Window("3", (bad,))]).name
    '3'
    >>> fallen([Window("1", (bad,)), Window("2", (good,))]) is None
    True
    """
    best = 0.0
    for window in windows:
        if (rate := window.hit_rate) is None:
            continue
        if rate < best - FALL:
            return window
        best = max(best, rate)
    return None


def _of(document: Document) -> Iterator[Generation]:
    for resource in document.get("resourceSpans") or []:
        for scope in resource.get("scopeSpans") or []:
            yield from filter(None, map(_of_span, scope.get("spans") or []))
    for one in document.get("observations") or document.get("data") or [document]:
        if isinstance(one, dict) and str(one.get("type", "")).upper() == "GENERATION" and "startTime" in one:
            yield _of_observation(one)


def _of_span(span: Document) -> Generation | None:
    told = {one["key"]: next(iter(one["value"].values()), None) for one in span.get("attributes") or []}
    if told.get(OBSERVATION + "type") != "generation":
        return None
    begin_s = int(span["startTimeUnixNano"]) / 1e9
    first = told.get(OBSERVATION + "completion_start_time")
    prompt, cached = _usage(json.loads(told.get(OBSERVATION + "usage_details") or "null"))
    return Generation(
        begin_s,
        str(told.get(OBSERVATION + "metadata.langgraph_node") or ""),
        prompt,
        cached,
        _seconds(json.loads(first)) - begin_s if first else None,
        {"resourceSpans": [{"scopeSpans": [{"spans": [dict(span)]}]}]},
        str(span.get("traceId") or ""),
    )


def _of_observation(one: Document) -> Generation:
    begin_s, first = _seconds(str(one["startTime"])), one.get("completionStartTime")
    prompt, cached = _usage(one.get("usageDetails"))
    metadata = one.get("metadata")
    node = metadata.get("langgraph_node", "") if isinstance(metadata, dict) else ""
    ttft_s = _seconds(str(first)) - begin_s if first else None
    trace_id = str(one.get("traceId") or "")
    return Generation(begin_s, str(node), prompt, cached, ttft_s, one, trace_id)


def _usage(told: Any) -> tuple[int | None, int | None]:
    """Read prompt tokens and those that were not computed, which Langfuse keeps apart."""
    if not isinstance(told, dict) or "input" not in told:
        return None, None
    if "input_cache_read" not in told:
        return int(told["input"]), None
    cached = int(told["input_cache_read"])
    return int(told["input"]) + cached, cached


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp()


def _clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s).strftime("%Y-%m-%d %H:%M:%S")
