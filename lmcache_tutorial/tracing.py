"""Langfuse traces: the SDK's own client and handler, with an exporter of ours that writes them to files.

Nothing is sent anywhere. A file holds one OTLP export request a line, in OTLP's JSON form.
"""

from __future__ import annotations

import json
import secrets
from base64 import b64decode
from collections.abc import Iterator, Sequence
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


class FileExporter(SpanExporter):
    """Appends each batch of spans to a file, and remembers them by trace."""

    def __init__(self, path: Path) -> None:
        """Write to ``path``; its folder must exist."""
        self.path = path
        self.spans: dict[str, list[ReadableSpan]] = {}

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write one line; called by the SDK."""
        with self.path.open("a") as file:
            file.write(json.dumps(otlp_json(spans)) + "\n")
        for span in spans:
            if span.context:
                self.spans.setdefault(f"{span.context.trace_id:032x}", []).append(span)
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
        if trace_id not in self._exporter.spans:
            raise LookupError(f"no span of trace {trace_id} in {self._exporter.path}")
        return span_records(self._exporter.spans[trace_id])

    def close(self) -> None:
        """Write what is left and end the client's threads."""
        self._client.shutdown()
        self._provider.shutdown()


def span_records(spans: Sequence[ReadableSpan]) -> tuple[SpanRecord, ...]:
    """Turn a trace's spans into records, times relative to its first span."""
    begin = min(span.start_time or 0 for span in spans)
    return tuple(_record(span, begin) for span in sorted(spans, key=lambda span: span.start_time or 0))


def _record(span: ReadableSpan, begin_ns: int) -> SpanRecord:
    attributes: dict[str, Any] = dict(span.attributes or {})
    start, end = span.start_time or 0, span.end_time or 0
    usage = json.loads(attributes.get(OBSERVATION + "usage_details", "null"))
    first = attributes.get(OBSERVATION + "completion_start_time")
    cached = usage.get("input_cache_read", 0) if usage else None
    return SpanRecord(
        span_id=f"{span.context.span_id:016x}" if span.context else "",
        parent_id=f"{span.parent.span_id:016x}" if span.parent else "",
        name=span.name,
        kind=str(attributes.get(OBSERVATION + "type", "span")),
        node=str(attributes.get(OBSERVATION + "metadata.langgraph_node", "")),
        start_s=(start - begin_ns) / 1e9,
        duration_s=(end - start) / 1e9,
        ttft_s=_seconds_until(first, start) if first else None,
        prompt_tokens=usage["input"] + cached if usage else None,
        cached_tokens=cached,
    )


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
