"""Faults made on purpose: a program of a stack is killed or paused, for a ``with`` block."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import psutil

from ..servers.program import Program
from .restart import start_again
from .stack import Stack

STOP_LIMIT_S = 1.0
Fault = Callable[[Stack, Program], AbstractContextManager[None]]
"""What happens to a program while the block runs; at its end the program is back."""


@contextmanager
def killed(stack: Stack, program: Program) -> Iterator[None]:
    """Kill a program without a warning (SIGKILL); at the end start it again, as it was.

    Raises:
        ServerError: it is none of ours, or did not come back.
    """
    with suppress(ProcessLookupError):
        os.kill(program.process.record.server, signal.SIGKILL)
    program.process.stop()  # its supervisor ends what it has left behind
    try:
        yield
    finally:
        start_again(stack, program)


@contextmanager
def paused(stack: Stack, program: Program) -> Iterator[None]:
    """Pause a program with everything that descends from it (SIGSTOP); at the end let it go on.

    A paused program keeps its connections: who talks to it sees no error, and no answer.

    Raises:
        ServerError: it is none of ours.
    """
    server = psutil.Process(program.process.record.server)
    halted = [server, *server.children(recursive=True)]
    try:
        for process in halted:
            process.suspend()
        deadline = time.monotonic() + STOP_LIMIT_S  # a signal is on its way until the kernel delivers it
        while any(one.status() != psutil.STATUS_STOPPED for one in halted) and time.monotonic() < deadline:
            time.sleep(0.01)
        yield
    finally:
        for process in halted:
            with suppress(psutil.NoSuchProcess):
                process.resume()
