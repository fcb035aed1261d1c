"""Measured times shown to pytest-benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture


class Replay:
    """A clock for pytest-benchmark that shows times measured before: rounds of several peers took turns."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Return the clock's time [s]."""
        return self._now

    def play(self, duration_s: float) -> None:
        """Let a measured time pass."""
        self._now += duration_s


REPLAY = Replay()


def play_back(benchmark: BenchmarkFixture, values: Sequence[float]) -> None:
    """Give measured times [s] to a benchmark that has ``REPLAY.now`` for its timer, one a round."""
    left = iter(values)
    pedantic: Any = benchmark.pedantic  # untyped in pytest-benchmark
    pedantic(REPLAY.play, setup=lambda: ((next(left),), {}), rounds=len(values), iterations=1)
