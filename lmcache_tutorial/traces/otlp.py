"""Spans -> OTLP's JSON form."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import ReadableSpan

MASKED = "(masked)"
HARMLESS = re.compile(
    r"langfuse\.(internal\..*|environment|release|version)"
    r"|langfuse\.observation\.(type|level|model\.name|usage_details|cost_details|completion_start_time)"
    r"|langfuse\.observation\.metadata\.(langgraph_(node|step|path|triggers|checkpoint_ns)|thread_id|ls_.*)"
    r"|(session|user)\.id|langfuse\.trace\.(name|tags)"
)


def otlp_json(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """Encode spans as an OTLP export request in OTLP's JSON form: ids in hex, enums as integers.

    Protobuf's own JSON form would write ids in base64, which no OTLP receiver takes.
    """
    request: dict[str, Any] = MessageToDict(encode_spans(spans), use_integers_for_enums=True)
    for span in walk_spans(request):
        for name in ("traceId", "spanId", "parentSpanId"):
            if name in span:
                span[name] = b64decode(span[name]).hex()
    return request


def masked(request: dict[str, Any]) -> dict[str, Any]:
    """Hide in an export request whatever may hold a prompt or an answer; figures and names stay.

    What is not known to be harmless is hidden: other versions of the SDK may put texts elsewhere.
    """
    for span in walk_spans(request):
        for attribute in span.get("attributes", []):
            if not HARMLESS.fullmatch(attribute["key"]):
                attribute["value"] = {"stringValue": MASKED}
        for part in ("events", "links"):
            span.pop(part, None)
        span.get("status", {}).pop("message", None)
    return request


def walk_spans(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the spans of an export request in OTLP's JSON form."""
    for resource in request.get("resourceSpans", []):
        for scope in resource.get("scopeSpans", []):
            yield from scope.get("spans", [])
