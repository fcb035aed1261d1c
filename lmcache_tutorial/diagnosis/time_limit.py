"""A limit of time for code that others wrote: a chat template may loop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TooSlowError(RuntimeError):
    """The limit was reached."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Stop what runs inside after a time of the processor [s]; without a limit where no alarm can be set.

    An alarm needs the main thread, and one that nobody else uses. The time of a clock on the wall would also
    run out on a machine that is busy with something else.

    Raises:
        TooSlowError: the time was up.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGVTALRM"):
        yield
        return
    if signal.getsignal(signal.SIGVTALRM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)


def _stop(number: int, frame: FrameType | None) -> None:
    raise TooSlowError
