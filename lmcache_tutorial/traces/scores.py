"""What a run says of each of its traces, as scores of Langfuse: its hit rate, and its lesson's TTFT drop.

They lie in a file beside the traces, one event of Langfuse's ingestion a line, and are sent after them. An
event has a stable id, so that one that is sent again replaces itself.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from ..quantities.records import SpanRecord
from .ledger import Line

ENDING = "-scores.jsonl"
INGESTION_PATH = "/api/public/ingestion"
HIT_RATE, TTFT_DROP = "kv_hit_rate", "ttft_drop"


def beside(spool: Path) -> Path:
    """Name the file of scores of a file of traces.

    >>> beside(Path("traces/run.jsonl")).name
    'run-scores.jsonl'
    """
    return spool.with_name(spool.stem + ENDING)


def events(
    traces: Mapping[str, Sequence[SpanRecord]], lessons: Mapping[str, str], drops: Mapping[str, float]
) -> Iterator[dict[str, Any]]:
    """Yield the scores of each trace, as events of Langfuse's ingestion.

    Args:
        traces: the spans of each trace, by its id.
        lessons: the lesson of each trace that belongs to one.
        drops: the TTFT drop of each lesson that has one, 0 to 1.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for trace_id, spans in traces.items():
        told = [span for span in spans if span.prompt_tokens and span.cached_tokens is not None]
        found: dict[str, float] = {}
        if told:
            prompt = sum(span.prompt_tokens or 0 for span in told)
            found[HIT_RATE] = sum(span.cached_tokens or 0 for span in told) / prompt
        if (drop := drops.get(lessons.get(trace_id, ""))) is not None:
            found[TTFT_DROP] = drop
        for name, value in found.items():
            own = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{trace_id} {name}"))
            body = {"id": own, "traceId": trace_id, "name": name, "value": value, "dataType": "NUMERIC"}
            yield {"id": own, "timestamp": now, "type": "score-create", "body": body}


def encoded(lines: Sequence[Line]) -> bytes:
    """Build the body of one request to Langfuse's ingestion."""
    return json.dumps({"batch": [line.document for line in lines]}).encode()


def refused(answer: httpx.Response) -> str:
    """Say what of a request that was taken was not; empty where all was."""
    try:
        errors = answer.json().get("errors") or []
    except (ValueError, AttributeError):
        return ""
    return f"{len(errors)} scores refused: {json.dumps(errors[0])[:200]}" if errors else ""
