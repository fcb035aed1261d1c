"""Programs that are run to their end, and do not outlive whoever waits for them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

END_LIMIT_S = 60.0  # for a run of pytest to stop its servers and write its report


def interrupted_by_signals() -> list[Callable[[], Any]]:
    """Turn SIGTERM and SIGHUP into an interrupt, which tears down what is to be torn down.

    Returns:
        What puts the handlers back that were there.
    """

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(f"signal {signal.Signals(number).name}")

    restore: list[Callable[[], Any]] = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup: whoever started us wants it ignored
            restore.append(partial(signal.signal, number, signal.signal(number, interrupt)))
    return restore


def run_child(
    command: Sequence[str], *, cwd: Path, limit_s: float, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. Where the wait ends otherwise, it is asked to end, and then made to.

    So is what it has started itself, unless that is in a session of its own, as servers are.

    Args:
        command: its words.
        cwd: the folder that it runs in.
        limit_s: how long it may take [s].
        env: its environment; ours, unless given.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=cwd, env=env, text=True, stdout=pipe, stderr=pipe, start_new_session=True
    ) as child:
        try:
            out, err = child.communicate(timeout=limit_s)
        except BaseException:
            _signal_all(child, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.communicate(timeout=END_LIMIT_S)
            _signal_all(child, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def _signal_all(child: subprocess.Popen[str], number: int) -> None:
    """Send a signal to a program and to all that it has started in its session."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)
