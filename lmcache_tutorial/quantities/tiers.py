"""Who serves a prompt when no cache is large enough for all: a model of vLLM's and LMCache's memories.

It follows vLLM 0.32 and LMCache 0.5.6's multi-process server, for one engine whose requests come one after
the other, and for a model whose chunk is one object (one kind of attention, no tensor parallelism). Nothing
here measures a time. What LMCache evicts depends on when its thread wakes, which it does once a second: a
caller says when (:meth:`Tiers.tick`), or asks for all that is possible (:func:`.outcomes.possible`).

Not in the model: copies are instantaneous, so a chunk on its way to the second tier does not escape eviction;
a serde's buffers (``aesgcm``) take no memory; and nothing fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .blocks import EngineMemory, prefix_chains
from .eviction import Key
from .memories import CacheMemory, SecondTier
from .records import TokenSources


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was looked up: its chunks, who serves its tokens, and what it has still to do.

    ``stores`` has the chunks of each of the engine's steps that completes any.
    """

    keys: tuple[Key, ...]
    tokens: TokenSources
    stores: tuple[tuple[Key, ...], ...]
    loaded: bool = False


class Tiers:
    """An engine, LMCache's memory and perhaps a second tier, asked one prompt after the other.

    Three documents of four chunks are asked in turn, with pauses. The memory has room for all of them, but a
    thread that finds it full gives up a fifth, and again: the document that was not asked for longest goes,
    which is the one that is asked next. With files behind the memory, this one comes from there, and does not
    push out the others, for it stays in memory no longer than the engine needs.

    >>> from lmcache_tutorial.quantities.memories import TierSize
    >>> documents = [[n] * 9 for n in (1, 2, 3)]
    >>> size = TierSize(capacity_bytes=12, object_bytes=1)
    >>> alone = Tiers(None, CacheMemory(size), chunk_tokens=2)
    >>> [split.lmcache_l1 for split in predict(alone, documents * 2)]
    [0, 0, 0, 0, 0, 0]
    >>> files = SecondTier(TierSize(capacity_bytes=None, object_bytes=1))
    >>> both = Tiers(None, CacheMemory(size), files, chunk_tokens=2)
    >>> [(split.lmcache_l1, split.lmcache_l2) for split in predict(both, documents * 2)][3:]
    [(0, 8), (8, 0), (8, 0)]
    """

    def __init__(
        self,
        engine: EngineMemory | None,
        memory: CacheMemory,
        second: SecondTier | None = None,
        *,
        chunk_tokens: int,
        step_tokens: int = 2048,
    ) -> None:
        """Put memories behind each other.

        Args:
            engine: the engine's own cache; ``None`` for one without (``--no-enable-prefix-caching``).
            memory: LMCache's.
            second: the tier behind it, if any.
            chunk_tokens: tokens of a chunk, 1 or more.
            step_tokens: tokens that the engine computes in one step at most (``--max-num-batched-tokens``):
                what a step completes is stored together.
        """
        self.engine, self.memory, self.second = engine, memory, second
        self.chunk_tokens, self.step_tokens = chunk_tokens, step_tokens
        self.failed_prefetches = 0

    def serve(self, ids: Sequence[int], salt: str = "") -> TokenSources:
        """Ask one prompt, while LMCache's thread sleeps.

        Args:
            ids: token ids of the prompt, 1 or more.
            salt: a ``cache_salt``; prompts of different salts share nothing.

        Returns:
            Who serves its tokens, by LMCache's counters.
        """
        request: Request | None = self.begin(ids, salt)
        assert request is not None
        tokens = request.tokens
        while request:
            request = self.go_on(request)
        return tokens

    def begin(self, ids: Sequence[int], salt: str = "") -> Request:
        """Look a prompt up, and bring what is found behind the memory into it.

        The look-up stops at the first chunk that is nowhere. It takes no notice of what the engine holds.
        Where memory has no room for *all* that the second tier has of it, none of that is brought.

        Source: LMCache 0.5.6, ``PrefetchController._transition_to_load_phase``, ``_finish_request``.
        """
        keys = prefix_chains(ids, self.chunk_tokens, salt)
        found, in_memory = self._found(keys)
        absent = [key for key in keys[:found] if key not in self.memory]
        retain = self.second is not None and self.second.retain
        if not self.memory.look_up(keys[:found], absent, retain=retain):
            self.failed_prefetches += len(absent)
            found, absent = in_memory, []
            self.memory.look_up(keys[:found], [], retain=retain)
        if self.second:
            self.second.touch(absent)
        engine = self.engine.ask(ids, salt) if self.engine else 0
        hit = found * self.chunk_tokens
        tokens = self._split(len(ids), engine, hit, in_memory * self.chunk_tokens)
        return Request(tuple(keys), tokens, self._stores(keys, len(ids), max(engine, hit), found))

    def go_on(self, request: Request) -> Request | None:
        """Take the request's next act: load, store what a step has completed, or end.

        When it ends, all its chunks count as used, those that it has just stored included.

        Returns:
            What is left to do; ``None`` when the request has ended.
        """
        if not request.loaded:
            self.memory.loaded()
            return replace(request, loaded=True)
        if request.stores:
            written = self.memory.store(request.stores[0])
            if self.second and written:
                self.second.store(written)
            return replace(request, stores=request.stores[1:])
        self.memory.touch(request.keys)
        return None

    def tick(self) -> int:
        """Let the threads of both tiers wake once; return the chunks that memory gave up."""
        if self.second:
            self.second.tick()
        return self.memory.tick()

    def pause(self, ticks: int | None = None) -> None:
        """Let the threads wake so many times, or (``None``) until they find nothing more to give up."""
        if ticks is not None:
            for _ in range(ticks):
                self.tick()
            return
        for tier in (self.memory, self.second):
            while tier and tier.tick():
                pass

    def copy(self) -> Tiers:
        """Return tiers that hold the same and go their own way."""
        other = Tiers(
            self.engine.copy() if self.engine else None,
            self.memory.copy(),
            self.second.copy() if self.second else None,
            chunk_tokens=self.chunk_tokens,
            step_tokens=self.step_tokens,
        )
        other.failed_prefetches = self.failed_prefetches
        return other

    def state(self) -> tuple[object, ...]:
        """Return what decides the next answers; the engine goes its own way, whatever LMCache holds."""
        return self.memory.state(), self.second.state() if self.second else ()

    def _found(self, keys: Sequence[Key]) -> tuple[int, int]:
        absent = [(place, key) for place, key in enumerate(keys) if key not in self.memory]
        nowhere = [place for place, key in absent if self.second is None or key not in self.second]
        in_memory = absent[0][0] if absent else len(keys)
        return (nowhere[0] if nowhere else len(keys)), in_memory

    def _split(self, prompt: int, engine: int, hit: int, hit_in_memory: int) -> TokenSources:
        # The last token of a prompt is computed even if all of it was found.
        supplied = max(0, min(hit, prompt - 1) - engine)
        from_second = min(supplied, hit - hit_in_memory)
        return TokenSources(
            computed=prompt - engine - supplied,
            engine=engine,
            lmcache_l1=supplied - from_second,
            lmcache_l2=from_second,
        )

    def _stores(
        self, keys: Sequence[Key], prompt: int, ready: int, stored: int
    ) -> tuple[tuple[Key, ...], ...]:
        stores = []
        while stored < len(keys):
            ready = min(prompt, ready + self.step_tokens)
            chunks = ready // self.chunk_tokens
            if chunks > stored:
                stores.append(tuple(keys[stored:chunks]))
                stored = chunks
        return tuple(stores)


def predict(
    tiers: Tiers, prompts: Iterable[Sequence[int]], *, ticks: int | None = None
) -> list[TokenSources]:
    """Ask prompts in turn, with a pause behind each in which LMCache's thread wakes.

    It is a prediction where no thread wakes at a moment inside a request that matters;
    :func:`.outcomes.possible` tells whether there is one. That the memory's thread has woken is counted:
    ``lmcache_mp_l1_eviction_loop_ticks_total``.

    Args:
        tiers: as they are now; they are changed.
        prompts: token ids of each.
        ticks: how often the threads wake behind each request, 0 or more; ``None`` is until they find
            nothing more to give up.

    Returns:
        Who serves the tokens of each prompt.
    """
    splits = []
    for ids in prompts:
        splits.append(tiers.serve(ids))
        tiers.pause(ticks)
    return splits
