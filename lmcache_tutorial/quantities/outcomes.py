"""All that LMCache's tiers may serve, where it is open when their threads wake."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .memories import Tier
from .records import TokenSources
from .tiers import Request, Tiers


@dataclass(frozen=True, slots=True)
class Outcomes:
    """All ways in which a prompt may be served, by when threads wake; the one that reuses least first."""

    splits: tuple[TokenSources, ...]

    @property
    def lowest(self) -> TokenSources:
        """The one that reuses least."""
        return self.splits[0]

    @property
    def highest(self) -> TokenSources:
        """The one that reuses most."""
        return self.splits[-1]

    @property
    def decided(self) -> bool:
        """Tell whether there is only one."""
        return len(self.splits) == 1


def possible(
    tiers: Tiers, prompts: Iterable[Sequence[int]], *, ticks: int | None = 0, limit: int = 20_000
) -> list[Outcomes]:
    """Ask prompts in turn, with LMCache's threads waking at any moments.

    A thread may wake any number of times before a request, while it loads, after any of its stores and after
    its end. Real threads wake once a second, so not all of this can happen; what does happen is among it.

    Args:
        tiers: as they are now; they are not changed.
        prompts: token ids of each.
        ticks: how often the threads wake at least behind each request: the whole seconds of the pause;
            ``None`` is a pause until they find nothing more to give up.
        limit: states that are looked at for one prompt.

    Returns:
        All that is possible for each prompt.

    Raises:
        ValueError: more than ``limit`` states are possible.

    >>> from lmcache_tutorial.quantities.memories import CacheMemory, TierSize
    >>> size = TierSize(capacity_bytes=8, object_bytes=1)
    >>> tiers = Tiers(None, CacheMemory(size), chunk_tokens=2)
    >>> prompts = [[1] * 9, [2] * 9, [1] * 9]
    >>> [(one.lowest.reused, one.highest.reused) for one in possible(tiers, prompts)]
    [(0, 0), (0, 0), (4, 8)]
    >>> [one.decided for one in possible(tiers, prompts, ticks=None)]
    [True, True, True]
    """
    states = {tiers.state(): tiers.copy()}
    outcomes = []
    for ids in prompts:
        begun = [(one, one.begin(ids)) for one in _woken(states.values())]
        splits = {request.tokens for _, request in begun}
        outcomes.append(Outcomes(tuple(sorted(splits, key=_by_reuse))))
        ended = _ended(begun, limit)
        for one in ended:
            one.pause(ticks)
        states = {one.state(): one for one in ended}
    return outcomes


def _ended(begun: list[tuple[Tiers, Request]], limit: int) -> list[Tiers]:
    """Follow requests to their ends; between any two acts threads may wake or not."""
    ended: dict[tuple[object, ...], Tiers] = {}
    seen: set[tuple[object, ...]] = set()
    pending = begun
    while pending:
        tiers, request = pending.pop()
        for one in _woken([tiers]):
            mark = (one.state(), request)
            if mark in seen:
                continue
            seen.add(mark)
            if len(seen) > limit:
                raise ValueError(
                    f"more than {limit} states are possible for one prompt; ask fewer prompts or chunks, "
                    "or pause behind each request (ticks)"
                )
            further = one.go_on(request)
            if further:
                pending.append((one, further))
            else:
                ended[one.state()] = one
    return list(ended.values())


def _woken(states: Iterable[Tiers]) -> list[Tiers]:
    """Return copies of states, and what they become when the threads wake any number of times."""
    found: dict[tuple[object, ...], Tiers] = {}
    pending = list(states)
    while pending:
        one = pending.pop()
        if one.state() in found:
            continue
        found[one.state()] = one.copy()
        for tier in ("memory", "second"):
            other = one.copy()
            woken: Tier | None = getattr(other, tier)
            if woken and woken.tick():
                pending.append(other)
    return list(found.values())


def _by_reuse(split: TokenSources) -> tuple[int, int, int]:
    return split.reused, split.engine, split.lmcache_l1
