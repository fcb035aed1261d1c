"""At the end of a run its traces are sent to Langfuse, if that was asked for, and read back."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from ..settings.options import RunOptions
from ..settings.shown import shown

SEND_LIMIT_S, READ_LIMIT_S = 5.0, 60.0
SHOWN = 5  # traces that are missing, by name


@dataclass
class Outcome:
    """What became of the traces: lines for the summary, what fails the run, and where a trace is seen.

    ``link`` is the address of the project's traces, to which a trace's id is added; empty where not known.
    """

    lines: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    link: str = ""


def check_langfuse(options: RunOptions) -> None:
    """Check, before anything runs, that a server is named where traces are to be sent.

    Raises:
        pytest.UsageError: none is, or what sends is not installed.
    """
    if options.require_langfuse and not options.langfuse:
        raise pytest.UsageError("--kv-require-langfuse reads back what was sent.\nTo fix: --kv-langfuse too")
    if not options.langfuse:
        return
    from ..settings.errors import MissingExtraError
    from ..settings.packages import need_lessons
    from ..traces.langfuse_api import LangfuseError, project_client

    try:
        need_lessons("--kv-langfuse")
        project_client().close()
    except (LangfuseError, MissingExtraError) as error:
        raise pytest.UsageError(str(error)) from None


def send_run(options: RunOptions, spool: Path | None) -> Outcome:
    """Send the traces of a run, for at most 5 s; read them back, for at most 60 s, where that is required."""
    done = Outcome()
    if not options.langfuse or spool is None or not spool.exists():
        return done
    from ..traces.langfuse_api import traces_address
    from ..traces.sender import Receiver, send, send_scores, words

    receiver, deadline = Receiver.langfuse(), time.monotonic() + SEND_LIMIT_S
    with receiver.client as client:
        sent = send([spool], receiver, SEND_LIMIT_S)
        done.lines += map(shown, words(sent, str(client.base_url)))
        done.lines += map(shown, send_scores([spool], receiver, deadline - time.monotonic()))
        done.link = traces_address(client, deadline - time.monotonic())
        if options.require_langfuse:
            done.failures += map(shown, _unread(client, spool, done))
    return done


def _unread(client: httpx.Client, spool: Path, done: Outcome) -> list[str]:
    from ..traces.readback import differences, recorded

    wanted = recorded(spool)
    done.lines.append(f"traces: read back, {len(wanted)} of them, for at most {READ_LIMIT_S:g} s")
    missing = differences(client, wanted, READ_LIMIT_S)
    more = [f"and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
    return [f"langfuse: {words}" for words in (*missing[:SHOWN], *more)]
