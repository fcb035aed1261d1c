"""Langfuse traces: the SDK's own client and handler, with an exporter of ours that writes them to files.

Nothing is sent anywhere. A file holds one OTLP export request a line, in OTLP's JSON form.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langfuse import Langfuse
from langfuse.langchain import CallbackHandler
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from ..machine.files import write_atomically
from ..quantities.records import SpanRecord, Turn
from ..settings.environment import without_tracing_variables
from .otlp import masked, otlp_json
from .scores import beside, events
from .spans import Figures, figures_of, in_order

NOWHERE = "http://127.0.0.1:9"  # the discard port: the exporter below is the only way out of the client
FLUSH_LIMIT_MS = 10_000


class FileExporter(SpanExporter):
    """Appends each batch of spans to a file, and remembers their figures by trace.

    The spans themselves hold whole prompts. They are in the file; kept in memory too, those of a session with
    long documents would take what the engine needs.
    """

    def __init__(self, path: Path, *, mask: bool = False) -> None:
        """Write to ``path``; its folder must exist. ``mask`` leaves prompts and answers out."""
        self.path, self._mask = path, mask
        self.figures: dict[str, list[Figures]] = {}

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write one line; called by the SDK."""
        document = otlp_json(spans)
        with self.path.open("a") as file:
            file.write(json.dumps(masked(document) if self._mask else document) + "\n")
        for span in spans:
            if span.context:
                self.figures.setdefault(f"{span.context.trace_id:032x}", []).append(figures_of(span))
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing is open between two exports."""


class Traces:
    """The traces of one run: a Langfuse client with fresh keys, and what it recorded."""

    def __init__(
        self, folder: Path, run_id: str, *, mask: bool = False, lesson_now: Callable[[], str] = str
    ) -> None:
        """Write to ``folder/run_id.jsonl``.

        Args:
            folder: is made.
            run_id: names the file, and is the session of all traces.
            mask: leaves prompts and answers out.
            lesson_now: tells whose traces are written now; empty where it is no lesson's.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self.run_id, self._count = run_id, 0
        self._lesson_now, self._lessons = lesson_now, dict[str, str]()
        self._exporter = FileExporter(folder / f"{run_id}.jsonl", mask=mask)
        self._public_key = (
            f"pk-lf-{secrets.token_hex(8)}"  # the SDK keeps one client a key, also a closed one
        )
        with without_tracing_variables():
            self._provider = TracerProvider()
            self._client = Langfuse(
                public_key=self._public_key,
                secret_key=f"sk-lf-{secrets.token_hex(8)}",
                base_url=NOWHERE,
                tracer_provider=self._provider,
                span_exporter=self._exporter,
                sample_rate=1.0,
            )

    @property
    def path(self) -> Path:
        """The file that it writes."""
        return self._exporter.path

    def handler(self) -> tuple[str, CallbackHandler]:
        """Return a new trace id and the handler that writes a graph's run under it."""
        self._count += 1
        trace_id = Langfuse.create_trace_id(seed=f"{self.run_id}-{self._count}")
        self._lessons[trace_id] = self._lesson_now()
        with without_tracing_variables():
            return trace_id, CallbackHandler(
                public_key=self._public_key, trace_context={"trace_id": trace_id}
            )

    @property
    def metadata(self) -> dict[str, Any]:
        """What a graph's run carries into its trace: this run as the session, and the lesson as a tag."""
        lesson = self._lesson_now()
        return {"langfuse_session_id": self.run_id, "langfuse_tags": [lesson] if lesson else []}

    def write_scores(self, drops: Mapping[str, float]) -> None:
        """Write the scores of all traces beside them; ``drops`` has the lessons' TTFT drops, 0 to 1."""
        self._provider.force_flush(FLUSH_LIMIT_MS)
        traces = {name: in_order(figures) for name, figures in self._exporter.figures.items()}
        lines = [json.dumps(event) + "\n" for event in events(traces, self._lessons, drops)]
        write_atomically(beside(self.path), "".join(lines))

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
