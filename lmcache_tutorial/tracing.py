"""Langfuse traces: the SDK's own client and handler, with an exporter of ours that writes them to files.

Nothing is sent anywhere. A file holds one OTLP export request a line, in OTLP's JSON form.
"""

from __future__ import annotations

import json
import secrets
from base64 import b64decode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from langfuse import Langfuse
from langfuse.langchain import CallbackHandler
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from .config import without_tracing_variables
from .records import SpanRecord, Turn

NOWHERE = "http://127.0.0.1:9"  # the discard port: the exporter below is the only way out of the client
OBSERVATION = "langfuse.observation."
FLUSH_LIMIT_MS = 10_000
Figures = tuple[int, SpanRecord]
"""A span's start [ns since the epoch] and its record."""


class FileExporter(SpanExporter):
    """Appends each batch of spans to a file, and remembers their figures by trace.

    The spans themselves hold whole prompts. They are in the file; kept in memory too, those of a session with
    long documents would take what the engine needs.
    """

    def __init__(self, path: Path) -> None:
        """Write to ``path``; its folder must exist."""
        self.path = path
        self.figures: dict[str, list[Figures]] = {}

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write one line; called by the SDK."""
        with self.path.open("a") as file:
            file.write(json.dumps(otlp_json(spans)) + "\n")
        for span in spans:
            if span.context:
                self.figures.setdefault(f"{span.context.trace_id:032x}", []).append(_figures(span))
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is open between two exports."""


class Traces:
    """The traces of one run: a Langfuse client with fresh keys, and what it recorded."""

    def __init__(self, folder: Path, run_id: str) -> None:
        """Write to ``folder/run_id.jsonl``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.run_id, self._count = run_id, 0
        self._exporter = FileExporter(folder / f"{run_id}.jsonl")
        self._public_key = (
            f"pk-lf-{secrets.token_hex(8)}"  # the SDK keeps one client a key, also a closed one
        )
        with without_tracing_variables():
            self._provider = TracerProvider()
            self._client = Langfuse(
                public_key=self._public_key, secret_key=f"sk-lf-{secrets.token_hex(8)}", base_url=NOWHERE,
                tracer_provider=self._provider, span_exporter=self._exporter, sample_rate=1.0,
            )  # fmt: skip

    def handler(self) -> tuple[str, CallbackHandler]:
        """Return a new trace id and the handler that writes a graph's run under it."""
        self._count += 1
        trace_id = Langfuse.create_trace_id(seed=f"{self.run_id}-{self._count}")
        with without_tracing_variables():
            return trace_id, CallbackHandler(
                public_key=self._public_key, trace_context={"trace_id": trace_id}
            )

    def of(self, turn: Turn) -> tuple[SpanRecord, ...]:
        """Return a turn's spans, in order of their start: TTFT and cached tokens node by node."""
        return self.by_id(turn.trace_id)

    def by_id(self, trace_id: str) -> tuple[SpanRecord, ...]:
        """Return the spans of a trace, in order of their start.

        Raises:
            LookupError: nothing was recorded under this id.
        """
        self._provider.force_flush(FLUSH_LIMIT_MS)  # the client's own flush waits without a limit
        if trace_id not in self._exporter.figures:
            raise LookupError(f"no span of trace {trace_id} in {self._exporter.path}")
        return in_order(self._exporter.figures[trace_id])

    def close(self) -> None:
        """Write what is left and end the client's threads."""
        try:
            self._client.shutdown()
        finally:
            self._provider.shutdown()


def in_order(figures: Sequence[Figures]) -> tuple[SpanRecord, ...]:
    """Put a trace's records in the order of their start, with times relative to the first."""
    ordered = sorted(figures, key=lambda one: one[0])
    begin = ordered[0][0]
    return tuple(replace(record, start_s=(start - begin) / 1e9) for start, record in ordered)


def _figures(span: ReadableSpan) -> Figures:
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


def otlp_json(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """Encode spans as an OTLP export request in OTLP's JSON form: ids in hex, enums as integers.

    Protobuf's own JSON form would write ids in base64, which no OTLP receiver takes.
    """
    request: dict[str, Any] = MessageToDict(encode_spans(spans), use_integers_for_enums=True)
    for span in _walk_spans(request):
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in span:
                span[name] = b64decode(span[name]).hex()
    return request


def _walk_spans(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for resource in request.get("resourceSpans", []):
        for scope in resource.get("scopeSpans", []):
            yield from scope.get("spans", [])
