"""``traces send``: what runs have written is sent to a Langfuse server, or to any OTLP receiver."""

from __future__ import annotations

import time

import typer

from ..settings.command_options import TracesOptions
from ..settings.errors import ConfigError
from ..settings.packages import need_lessons
from ..settings.paths import user_path
from .parameters import with_options
from .printing import line


@with_options("send")
def send_traces(options: TracesOptions) -> None:
    """Send the traces of the last runs that no receiver has taken yet; nothing is sent twice on purpose."""
    if options.limit_s <= 0:
        raise ConfigError(lambda option: f"{option('limit_s')} must be above 0.")
    need_lessons("lmcache-tutorial traces send")
    from ..traces.sender import Receiver, send, send_scores, spools, words

    receiver = Receiver.at(options.to) if options.to else Receiver.langfuse()
    found = spools(user_path("folder", options.folder))
    with receiver.client:
        begun = time.monotonic()
        done = send(found, receiver, options.limit_s)
        left_s = options.limit_s - (time.monotonic() - begun)
        trouble = [] if options.to else send_scores(found, receiver, left_s)
    for each in (*words(done, options.to or str(receiver.client.base_url)), *trouble):
        line(each)
    if done.left or done.refused or trouble:
        raise typer.Exit(1)
