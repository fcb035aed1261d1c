"""``watch``: hit rate and TTFT by node and over time, from traces; and the diagnosis of what fell."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..diagnosis.diagnose import diagnose
from ..diagnosis.logs import open_log
from ..diagnosis.result import diagnosis_text
from ..quantities.formats import percent, seconds
from ..settings.command_options import WatchOptions
from ..settings.errors import ConfigError
from ..traces.langfuse_api import Wanted, project_client, traces
from ..traces.watched import Window, by_node, fallen, generations, over_time, whole_or_lines
from .diagnose import own_renderer
from .parameters import with_options
from .printing import line, printable

Spans = Annotated[
    Path | None, typer.Argument(help="traces of a run, or a Langfuse export; none: the Langfuse project")
]


@with_options("watch")
def watch_traces(options: WatchOptions, file: Spans = None) -> None:
    """Tell hit rate and TTFT by node and over time, and what broke the prefix where the hit rate fell."""
    if options.parts < 2:
        raise ConfigError(lambda option: f"{option('parts')} must be 2 or more.")
    found = generations(_documents(file, options))
    if not found:
        raise ConfigError("these traces hold no generation.\nTo fix: another file, tag, name or time")
    _table("node", by_node(found))
    parts = over_time(found, options.parts)
    _table("from", parts)
    if (window := fallen(parts)) is None:
        line("the hit rate did not fall")
        return
    line(f"the hit rate fell at {window.name}; of the requests from there on:")
    lines = [json.dumps(one.document) for one in found if one.at_s >= window.generations[0].at_s]
    renderer = own_renderer(options.tokenizer)
    told = diagnose(lines, renderer, block_tokens=options.block_tokens, chunk_tokens=options.chunk_tokens)
    line(printable(diagnosis_text(told)))
    raise typer.Exit(1)


def _table(head: str, windows: Sequence[Window]) -> None:
    line(f"{head:<24}{'requests':>10}{'hit rate':>12}{'TTFT, median':>16}")
    for window in windows:
        name = printable(window.name or "(outside any node)")[:23]
        cells = f"{len(window.generations):>10}{percent(window.hit_rate):>12}{seconds(window.ttft_s):>16}"
        line(f"{name:<24}{cells}")


def _documents(file: Path | None, options: WatchOptions) -> Iterator[Mapping[str, Any]]:
    """Yield the documents of a file, or of the project."""
    if file is None:
        wanted = Wanted(options.tag, options.name, options.since, options.until)
        with project_client() as client:
            yield from traces(client, wanted, options.traces)
        return
    try:
        with open_log(file) as lines:
            yield from whole_or_lines("".join(lines))
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise ConfigError(f"{file} holds no traces: {error}.\nTo fix: a file of reports/traces") from None
