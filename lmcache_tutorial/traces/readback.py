"""Are the traces of a run in Langfuse, as they were recorded? Asked through its public API, until a limit."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from .langfuse_api import LangfuseError, trace
from .otlp import walk_spans

PAUSE_S = 0.5  # what was accepted becomes visible a while later
Recorded = Mapping[str, frozenset[str]]  # trace id -> the ids of its spans


def recorded(spool: Path) -> Recorded:
    """Read which traces and spans a file holds."""
    found: dict[str, set[str]] = {}
    with spool.open() as lines:
        for line in lines:
            for span in walk_spans(json.loads(line)):
                found.setdefault(str(span["traceId"]), set()).add(str(span["spanId"]))
    return {name: frozenset(spans) for name, spans in found.items()}


def differences(client: httpx.Client, wanted: Recorded, limit_s: float) -> list[str]:
    """Say of each trace what is missing in Langfuse; empty where all is there.

    Args:
        client: of the project.
        wanted: what was recorded.
        limit_s: how long it may take until all is visible [s].
    """
    deadline, open_ones = time.monotonic() + limit_s, dict(wanted)
    seen: dict[str, set[str] | None] = dict.fromkeys(wanted)
    while True:
        for name in open_ones:
            left_s = deadline - time.monotonic()
            if left_s > 0:  # a server that accepts and is silent takes the limit once, and not for each trace
                seen[name] = _seen(client, name, left_s)
        open_ones = {name: spans for name, spans in open_ones.items() if not spans <= (seen[name] or set())}
        if not open_ones or time.monotonic() + PAUSE_S > deadline:
            return list(_words(open_ones, seen))
        time.sleep(PAUSE_S)


def _seen(client: httpx.Client, name: str, limit_s: float) -> set[str] | None:
    """Return the ids of a trace's observations; ``None`` where there is no such trace."""
    try:
        found = trace(client, name, limit_s=limit_s)
    except LangfuseError:
        return None
    return {str(one.get("id")) for one in found.get("observations") or [] if isinstance(one, dict)}


def _words(missing: Recorded, seen: Mapping[str, set[str] | None]) -> Iterator[str]:
    for name, spans in missing.items():
        there = seen[name]
        if there is None:
            yield f"trace {name} is not there"
        else:
            yield f"trace {name} has {len(spans & there)} of its {len(spans)} observations"
