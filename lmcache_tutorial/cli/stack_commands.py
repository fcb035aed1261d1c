"""``up``, ``down`` and ``status``: a stack that is kept running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..servers.process import Server
from ..settings.command_options import StatusOptions, UpOptions
from ..settings.packages import need_servers
from ..settings.run import run_config
from ..settings.topologies import TOPOLOGIES
from ..stack.drawing import draw
from ..stack.keep import open_stack, take_down
from ..stack.kept_state import StackError, kept_servers, read_state, state_file
from .parameters import with_options
from .printing import line


@with_options("up")
def up(options: UpOptions) -> None:
    """Start the servers and keep them running, so that the next pytest starts in seconds."""
    run = run_config(replace(options, keep=True))
    run = replace(run, stack=TOPOLOGIES[options.topology](run.stack))
    need_servers(run.stack.profile, "lmcache-tutorial up")
    opened = open_stack(run, line)
    line(f"stack: up at {', '.join(opened.urls)}; stop it with: lmcache-tutorial down")
    opened.close()


def down() -> None:
    """Stop the servers that were kept running."""
    if not kept_servers():
        line("stack: none is kept")
    take_down(line)


@with_options("status")
def status(options: StatusOptions) -> None:
    """Draw the servers that are kept running: each under what asks it."""
    servers, state = kept_servers(), read_state()
    if options.url:
        line(_address(servers))
        return
    if not servers or state is None:
        line("stack: none is kept")
        return

    # Where a program is asked over HTTP: LMCache listens to its engines at another port.
    urls = {program["name"]: program["url"] for program in state.programs}

    def about(name: str) -> str:
        if name not in servers:
            return "does not run any more"
        record = servers[name].record
        return f"{urls.get(name, servers[name].url)}  process {record.server}  log {record.log}"

    for each in draw(state.topology, about):
        line(each)
    line(f"state: {state_file()}")


def _address(servers: Mapping[str, Server]) -> str:
    """Return where requests to the kept stack go: its router, or its first engine.

    Raises:
        StackError: none is kept.
    """
    found = [name for kind in ("vllm_router", "vllm") for name in sorted(servers) if name.startswith(kind)]
    if not found:
        raise StackError("no stack is kept.\nTo fix: lmcache-tutorial up")
    return servers[found[0]].url
