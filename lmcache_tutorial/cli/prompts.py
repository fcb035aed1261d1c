"""``prompts``: files of prompts, made of what an application has really sent."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from ..diagnosis.logs import Log, open_log
from ..diagnosis.prompts_of import choose, left_out
from ..prompts.prompts_file import SUFFIX
from ..settings.command_options import PromptsOptions
from ..settings.errors import ConfigError
from ..settings.paths import user_path, write_user_file
from ..traces.langfuse_api import Wanted, project_client, traces
from .parameters import with_options
from .printing import line

Export = Annotated[
    Path | None,
    typer.Argument(help="a Langfuse export, OTLP spans, or any log that diagnose reads; none: the project"),
]


@with_options("from-langfuse")
def from_langfuse(options: PromptsOptions, file: Export = None) -> None:
    """Make a file of prompts from the traces of a Langfuse project, or from an export of it."""
    target = user_path("into", options.into)
    if not target.name.endswith(SUFFIX):
        raise ConfigError(f"{target} is not collected by pytest.\nTo fix: a name that ends in {SUFFIX}")
    if options.most < 1:
        raise ConfigError(lambda option: f"{option('most')} must be 1 or more.")
    group = options.group or target.name.removesuffix(SUFFIX)
    with _lines(file, options) as lines:
        log = Log(lines)
        chosen = choose(log, group, options.most)
    if not chosen.lines:
        raise ConfigError(
            f"no request was found: {'; '.join(log.reasons) or 'there are no generations'}.\n"
            "To fix: another tag, name or time; or an export that holds the inputs of generations"
        )
    write_user_file(target, "\n".join(chosen.lines) + "\n")
    line(f"prompts: {len(chosen.lines)} in {target}, as the group {group}; they hold whole prompts")
    for words in left_out(chosen):
        line(f"left out: {words}")
    if log.unread:
        line(f"not read: {log.unread} ({'; '.join(log.reasons)})")


@contextmanager
def _lines(file: Path | None, options: PromptsOptions) -> Iterator[Iterable[str]]:
    """Open what the requests come from."""
    if file is None:
        wanted = Wanted(options.tag, options.name, options.since, options.until)
        with project_client() as client:
            # The newest traces are asked for, and then read in the order of their times.
            yield [json.dumps(one) for one in traces(client, wanted, options.traces)]
        return
    try:
        with open_log(file) as lines:
            yield lines
    except (OSError, EOFError, zlib.error) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise ConfigError(f"{file} cannot be read: {reason}.\nTo fix: name an export") from None
