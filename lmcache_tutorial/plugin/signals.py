"""SIGTERM and SIGHUP as an orderly interrupt."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest


def orderly_signals(config: pytest.Config) -> None:
    """Turn SIGTERM and SIGHUP into the interrupt that lets pytest tear everything down."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt(f"signal {signal.Signals(number).name}")

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:  # nohup: whoever started us wants it ignored
            continue
        restore: Callable[[], Any] = partial(signal.signal, number, signal.signal(number, interrupt))
        config.add_cleanup(restore)
