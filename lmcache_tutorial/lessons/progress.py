"""A line that says how far a lesson's rounds are; on a terminal only, and gone when they are done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

Item = TypeVar("Item")
ERASE = "\r\x1b[K"


class Progress:
    """Counts rounds aloud: ``for _ in progress.rounds(range(7)): …``."""

    def __init__(
        self, write: Callable[[str], None] | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Write to a terminal by ``write``; ``None`` writes nothing."""
        self._write, self._clock = write, clock

    def rounds(
        self, items: Iterable[Item], count: int, what: str = "round", *, at_most: bool = False
    ) -> Iterator[Item]:
        """Yield the items, saying before each which one it is and about how long the rest will take.

        Args:
            items: one a round.
            count: how many there are.
            what: what a round is called.
            at_most: the rounds may end earlier.
        """
        begin = self._clock()
        try:
            for done, item in enumerate(items):
                left = f", about {(self._clock() - begin) / done * (count - done):.0f} s left" if done else ""
                self._show(f"{what} {done + 1} of {'at most ' if at_most else ''}{count}{left}")
                yield item
        finally:
            self._show("")

    def _show(self, line: str) -> None:
        if self._write:
            self._write(ERASE + line)


def on_terminal(
    end_line: Callable[[], None], uncaptured: Callable[[], AbstractContextManager[None]]
) -> Callable[[str], None]:
    """Return a function that writes to the terminal past pytest's capturing, without ending the line.

    Args:
        end_line: ends the line that pytest is writing, if it is.
        uncaptured: the context in which standard output is the terminal.
    """

    def write(text: str) -> None:
        with uncaptured():
            end_line()
            print(text, end="", flush=True)

    return write
