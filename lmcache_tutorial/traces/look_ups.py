"""LMCache's request spans, as they come: what it found of each prompt, which no answer tells.

An LMCache server with ``--enable-tracing --otlp-endpoint http://HOST:PORT`` exports a span called ``request``
for each request of an engine (0.5.6). It sends them by OTLP over gRPC, and so this listens for them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import Any

from ..quantities.records import LookedUp
from ..settings.errors import ConfigError

OTLP = "opentelemetry.proto.collector.trace.v1"  # untyped, and needed by those who listen alone
SPAN, REQUEST = "request", "session_id"
HITS = ("hit_tokens", "l1_hit_tokens", "l2_hit_tokens")
STOP_LIMIT_S = 1.0
ALONE = ("grpc.so_reuseport", 0)  # else two runs would share a port, and each hear half of the spans


class LookUps:
    """Listens at an address, and keeps what LMCache found of every request, by the engine's id of it."""

    def __init__(self, address: str) -> None:
        """Listen at ``HOST:PORT``.

        Raises:
            ConfigError: nothing can listen there, or gRPC is not installed.
        """
        try:
            grpc: Any = import_module("grpc")
            service: Any = import_module(f"{OTLP}.trace_service_pb2_grpc")
        except ModuleNotFoundError:
            raise ConfigError(
                lambda option: (
                    f"{option('lmcache_spans')} needs gRPC, which is not installed.\n"
                    "To fix: pip install grpcio opentelemetry-proto"
                )
            ) from None
        self._came = threading.Condition()
        self._found: dict[str, LookedUp] = {}
        self._server = grpc.server(ThreadPoolExecutor(1), options=[ALONE])
        service.add_TraceServiceServicer_to_server(self, self._server)
        bound = 0
        with suppress(RuntimeError):
            bound = self._server.add_insecure_port(address)
        if not address.endswith(f":{bound}"):  # gRPC takes 99999 for another port
            raise ConfigError(
                lambda option: (
                    f"{option('lmcache_spans')} is {address}, and nothing can listen there.\n"
                    "To fix: a free port of this machine, as HOST:PORT"
                )
            )
        self._server.start()

    def Export(self, request: Any, context: Any) -> Any:  # gRPC's name for it
        """Take some spans; called by gRPC."""
        spans = [span for one in request.resource_spans for scope in one.scope_spans for span in scope.spans]
        with self._came:
            self._found |= look_ups(spans)
            self._came.notify_all()
        messages: Any = import_module(f"{OTLP}.trace_service_pb2")
        return messages.ExportTraceServiceResponse()

    def of(self, answer_id: str, limit_s: float) -> LookedUp | None:
        """Return what LMCache found of a request.

        Args:
            answer_id: the id that the answer carries; the engine adds some letters to it for itself.
            limit_s: how long to wait for the span [s]. LMCache sends what has come together every 5 s, unless
                ``OTEL_BSP_SCHEDULE_DELAY`` in its environment says otherwise.

        Returns:
            ``None`` where no span came.
        """
        found: list[LookedUp] = []

        def came() -> bool:
            found[:] = [one for name, one in self._found.items() if answer_id and name.startswith(answer_id)]
            return bool(found)

        with self._came:
            self._came.wait_for(came, limit_s)
        return found[0] if found else None

    def close(self) -> None:
        """Listen no longer."""
        self._server.stop(STOP_LIMIT_S).wait(STOP_LIMIT_S)


def look_ups(spans: Iterable[Any]) -> Mapping[str, LookedUp]:
    """Read LMCache's request spans; other spans, and those of requests that were not looked up, are left out.

    Args:
        spans: of OTLP's protobuf.

    Returns:
        The engine's id of a request -> what was found.
    """
    found = {}
    for span in spans:
        told = {one.key: one.value for one in span.attributes}
        if span.name == SPAN and REQUEST in told and all(name in told for name in HITS):
            hit, l1, l2 = (told[name].int_value for name in HITS)
            found[told[REQUEST].string_value] = LookedUp(hit, l1, l2)
    return found
