"""``up``, ``down`` and ``status``: a stack that is kept running."""

from __future__ import annotations

from dataclasses import replace

from ..settings.options import RunOptions
from ..settings.packages import need_servers
from ..settings.run import run_config
from ..stack.keep import open_stack, take_down
from ..stack.kept_state import kept_servers, state_file
from .parameters import with_options
from .printing import line


@with_options("up")
def up(options: RunOptions) -> None:
    """Start the servers and keep them running, so that the next pytest starts in seconds."""
    run = run_config(replace(options, keep=True))
    need_servers(run.stack.profile, "lmcache-tutorial up")
    opened = open_stack(run, line)
    line(f"stack: up at {opened.url}; stop it with: lmcache-tutorial down")
    opened.close()


def down() -> None:
    """Stop the servers that were kept running."""
    if not kept_servers():
        line("stack: none is kept")
    take_down(line)


def status() -> None:
    """Show the servers that are kept running."""
    servers = kept_servers()
    for server in servers.values():
        record = server.record
        line(f"{record.name:<8} {server.url}  process {record.server}  log {record.log}")
    line(f"state: {state_file()}" if servers else "stack: none is kept")
