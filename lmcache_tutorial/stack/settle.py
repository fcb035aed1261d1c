"""Wait until both servers have taken in what was asked of them: counting and storing trail answering."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..servers.counters import LOOKED_UP, STORED, CountersError, Snapshot

SETTLE_LIMIT_S = 30.0  # storing 60,000 tokens takes a second
STILL_S = 1.0


@dataclass(frozen=True)
class Settling:
    """How a stack is waited for.

    Attributes:
        read: reads the counters.
        chunk: LMCache's chunk [tokens]; ``None`` where no engine is connected to it.
        writing: tells whether LMCache is still writing; asked last, for it makes LMCache check its memory.
        logs: files that an error names.
        may_drop: LMCache's memory is meant to be too small: a store that finds no room is no error.
        parts: as how many pieces LMCache stores a chunk, one from each GPU that an engine is spread over.
    """

    read: Callable[[], Snapshot]
    chunk: int | None
    writing: Callable[[], bool]
    logs: Sequence[str] = ()
    may_drop: bool = False
    parts: int = 1

    def counted(self, since: Snapshot, prompts: Sequence[int]) -> Snapshot:
        """Wait until calls stand in the counters of all servers; return the counters then.

        An engine adds a prompt when it logs the step that finished it, LMCache when its event queue is
        drained.

        Args:
            since: the counters before the calls.
            prompts: the prompt tokens of each call, from ``usage``.

        Raises:
            CountersError: the calls were not counted within 30 s, or more was counted than was asked:
                somebody else uses this engine, and nobody could tell whose tokens are whose.
        """
        deadline = time.monotonic() + SETTLE_LIMIT_S
        chunk = self.chunk or max(prompts, default=0) + 1  # without LMCache no prompt has a whole one
        whole = [prompt for prompt in prompts if prompt >= chunk]
        while True:
            now = self.read()
            tails = now.counts_tails
            looked_up = sum(prompt if tails else prompt // chunk * chunk for prompt in whole)
            engine, lmcache = now.prompt - since.prompt, now.lookup_requested - since.lookup_requested
            if engine > sum(prompts):
                raise CountersError(
                    f"usage counts {sum(prompts)} prompt tokens, the engine's counters {engine}: somebody "
                    "else uses this engine.\n"
                    "To fix: measure on an engine of your own, or wait until it is idle."
                )
            if engine >= sum(prompts) and lmcache >= looked_up:
                return now
            if time.monotonic() > deadline:
                if looked_up and LOOKED_UP in now.absent:
                    raise _not_there(LOOKED_UP)
                raise CountersError(
                    f"usage counts {sum(prompts)} prompt tokens, the engine's counters {engine}; LMCache was "
                    f"to look up {looked_up}, its counters say {lmcache}."
                )
            time.sleep(0.01)

    def stored(self, since: Snapshot, *, parallel: bool = False) -> None:
        """Wait until LMCache has stored every whole chunk that it was asked for and did not hold.

        Where an engine's own hit is shorter than a chunk, LMCache 0.5.3 does not count it among what is
        computed, and may leave out the prompt's last chunk: where the engine had a hit of its own, one a call
        may be missing, when the number has stood still.

        Args:
            since: the counters before the calls.
            parallel: the calls overlapped: two may have stored one chunk between them, so that the number is
                not known; it must have stood still.

        Raises:
            CountersError: chunks were still missing after 30 s.
        """
        deadline = time.monotonic() + SETTLE_LIMIT_S
        seen, still_since = -1, time.monotonic()
        while self.chunk:
            now = self.read()
            expected = _missed(since, now) // self.chunk
            found = (now.stored_chunks - since.stored_chunks) // self.parts
            if found != seen:
                seen, still_since = found, time.monotonic()
            may_miss = now.ttft_count - since.ttft_count if now.engine > since.engine else 0
            still = time.monotonic() - still_since > STILL_S
            unknown = parallel or self.may_drop
            done = found >= expected or (still and (unknown or found >= expected - may_miss))
            if done and not self.writing():
                return
            if time.monotonic() > deadline:
                raise self._dropped(now, found, expected)
            time.sleep(0.02)

    def evicted(self, is_to_evict: Callable[[], bool]) -> None:
        """Wait until LMCache's eviction thread has brought its memory below the watermark.

        The thread looks once a second. After that, what LMCache holds changes only by what is asked next.

        Args:
            is_to_evict: tells whether the memory is at the watermark or above.

        Raises:
            CountersError: it still was after 30 s: nothing can be evicted, or the thread has died.
        """
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while is_to_evict():
            if time.monotonic() > deadline:
                raise CountersError(
                    f"LMCache's memory was above its watermark for {SETTLE_LIMIT_S:g} s, and nothing was "
                    f"evicted.\nTo fix: look for errors in {', '.join(self.logs)}"
                )
            time.sleep(0.05)

    def _dropped(self, now: Snapshot, found: int, expected: int) -> CountersError:
        if STORED in now.absent:
            return _not_there(STORED)
        return CountersError(
            f"LMCache stored {found} of {expected} chunks within {SETTLE_LIMIT_S:g} s. It drops what finds "
            "no free memory, even where older chunks could be evicted.\n"
            "To fix: more memory for LMCache (pytest --kv-lmcache-memory-gib), for three of your longest "
            "prompts or more; "
            f"else look for errors in {', '.join(self.logs)}"
        )


def _missed(since: Snapshot, now: Snapshot) -> int:
    """Count the tokens that were looked up and not found."""
    return now.lookup_missed - since.lookup_missed


def _not_there(counter: str) -> CountersError:
    return CountersError(
        f"LMCache's /metrics page has no {counter}, {SETTLE_LIMIT_S:g} s after a call that it was to count. "
        "Either the engine has no LMCache connector, or this version of LMCache calls it otherwise: this "
        "suite knows 0.5.3 to 0.5.6."
    )
