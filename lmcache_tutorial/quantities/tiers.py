"""Who serves a prompt when no cache is large enough for all: a model of vLLM's and LMCache's memories.

It follows vLLM 0.32 and LMCache 0.5.6's multi-process server, for one engine whose requests come one after
the other, and for a model whose chunk is one object (one kind of attention, no tensor parallelism). Nothing
here measures a time. What LMCache evicts depends on when its thread wakes, which it does once a second: a
caller says when (:meth:`Tiers.tick`), or asks for all that is possible (:func:`possible`).

Not in the model: copies are instantaneous, so a chunk on its way to the second tier does not escape eviction;
a serde's buffers (``aesgcm``) take no memory; and nothing fails.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .blocks import EngineMemory, prefix_chains
from .eviction import POLICIES, Key
from .records import TokenSources

ALIGNMENT_BYTES = 4096  # --l1-align-bytes
GIB = 1 << 30
GROWTH_BYTES = 1 << 26  # lazily pinned memory comes in pieces of 64 MiB


def object_bytes(chunk_tokens: int, kv_bytes_per_token: int, *, alignment: int = ALIGNMENT_BYTES) -> int:
    """Compute what a chunk takes of LMCache's memory: its KV without a header, rounded up to the alignment.

    Args:
        chunk_tokens: tokens of a chunk (``--chunk-size``), 1 or more.
        kv_bytes_per_token: see :func:`.predict.kv_bytes_per_token` [bytes].
        alignment: ``--l1-align-bytes``, a power of two [bytes].

    Returns:
        Bytes of one object in memory. A file of the ``fs`` tier has the KV's bytes without the rounding.

    Source: LMCache 0.5.6, ``TensorMemoryAllocator.batched_allocate``.

    >>> object_bytes(64, 23_040)  # SmolLM2-135M: a multiple of 4,096 as it is
    1474560
    >>> object_bytes(1, 23_040)
    24576
    """
    return -(-chunk_tokens * kv_bytes_per_token // alignment) * alignment


def memory_bytes(size_gb: float, *, pinned: bool = False) -> int:
    """Compute the bytes that ``--l1-size-gb`` gives; its GB is a GiB.

    Args:
        size_gb: as it stands on the command line.
        pinned: on a GPU, where memory is pinned piece by piece (``--l1-use-lazy``), the default there. A
            memory above ``--l1-init-size-gb`` (20) grows to this size in the background, and until then the
            share that is in use is of what there is so far.

    Returns:
        Bytes of the whole memory once it has grown.

    Source: LMCache 0.5.6, ``parse_args_to_config``, ``LazyMemoryAllocator``.

    >>> memory_bytes(0.5), memory_bytes(0.51, pinned=True) // 2**20
    (536870912, 576)
    """
    size = int(size_gb * GIB)
    return -(-size // GROWTH_BYTES) * GROWTH_BYTES if pinned else size


@dataclass(frozen=True, slots=True)
class TierSize:
    """How large a tier is, and when and how much it gives up.

    ``capacity_bytes`` is ``None`` for a tier without an end: the plain ``fs`` adapter, or ``fs_native``
    without an ``eviction`` block. ``watermark``, ``ratio`` and ``policy`` are
    ``--eviction-trigger-watermark``, ``--eviction-ratio`` (a share of the *chunks*) and
    ``--eviction-policy``, or the fields of an adapter's ``eviction`` block.
    """

    capacity_bytes: int | None
    object_bytes: int
    watermark: float = 0.8
    ratio: float = 0.2
    policy: str = "LRU"

    def __post_init__(self) -> None:
        """Refuse what no server would start with."""
        if self.object_bytes < 1 or (self.capacity_bytes is not None and self.capacity_bytes < 1):
            raise ValueError(f"sizes must be 1 byte or more: {self}")
        if self.policy not in POLICIES:
            raise ValueError(f"the policy must be one of {', '.join(POLICIES)}: {self}")


class Tier:
    """What one tier holds, and the thread that wakes each second and makes room in it."""

    def __init__(self, size: TierSize) -> None:
        """Hold nothing yet."""
        self.size = size
        self.evicted = 0
        self._policy = POLICIES[size.policy]()
        self._held: set[Key] = set()
        self._locked: frozenset[Key] = frozenset()

    def __contains__(self, key: Key) -> bool:
        return key in self._held

    @property
    def objects(self) -> int:
        """Chunks that it holds."""
        return len(self._held)

    @property
    def usage(self) -> float:
        """The share of its bytes that is in use, 0 for a tier without an end."""
        capacity = self.size.capacity_bytes
        return self.objects * self.size.object_bytes / capacity if capacity else 0.0

    @property
    def free_objects(self) -> int | None:
        """Chunks that still find room; ``None`` for a tier without an end."""
        capacity = self.size.capacity_bytes
        return None if capacity is None else max(0, capacity // self.size.object_bytes - self.objects)

    def touch(self, keys: Sequence[Key]) -> None:
        """Note that chunks of one prompt were used."""
        self._policy.touched(keys)

    def tick(self) -> int:
        """Let the thread wake once: at the watermark or above it, it gives up chunks.

        Returns:
            Chunks that were given up: a share of all that it holds, and fewer where the rest is being read.

        Source: LMCache 0.5.6, ``L1EvictionController.eviction_loop``, ``L2EvictionController``.
        """
        if self.size.capacity_bytes is None or self.usage < self.size.watermark:
            return 0
        victims = self._policy.victims(self.size.ratio, self._locked.__contains__)
        self._discard(victims)
        self.evicted += len(victims)
        return len(victims)

    def state(self) -> tuple[object, ...]:
        """Return everything that decides what it does next."""
        return frozenset(self._held), self._locked, self._policy.order()

    def _take(self, keys: Sequence[Key]) -> None:
        self._held.update(keys)
        self._policy.reserved(keys)
        self._policy.created(keys)

    def _discard(self, keys: Sequence[Key]) -> None:
        self._held.difference_update(keys)
        self._policy.removed(keys)

    def _copy_into(self, other: Tier) -> None:
        other.evicted, other._locked = self.evicted, self._locked
        other._policy, other._held = self._policy.copy(), self._held.copy()


class CacheMemory(Tier):
    """LMCache's memory (L1). What finds no room in it is dropped, and only afterwards its thread makes room.

    >>> memory = CacheMemory(TierSize(capacity_bytes=10, object_bytes=1))
    >>> memory.store("abcdefgh"), memory.store("xyz"), memory.dropped  # all of a step's chunks, or none
    (['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'], [], 3)
    >>> memory.tick(), "h" in memory, "a" in memory  # 8 of 10 is the watermark; int(8 × 0.2) chunks go
    (1, False, True)
    >>> memory.tick()
    0
    """

    def __init__(self, size: TierSize) -> None:
        """Hold nothing yet."""
        super().__init__(size)
        self.dropped = 0
        self._temporary: frozenset[Key] = frozenset()

    def store(self, keys: Sequence[Key]) -> list[Key]:
        """Store chunks of one step of the engine, all that are not held yet or none of them.

        Returns:
            The chunks that were written.

        Source: LMCache 0.5.6, ``L1Manager.reserve_write``, ``AddressManager.batched_allocate``.
        """
        new = [key for key in keys if key not in self]
        free = self.free_objects
        if free is not None and len(new) > free:
            self.dropped += len(new)
            return []
        self._take(new)
        return new

    def look_up(self, keys: Sequence[Key], absent: Sequence[Key], *, retain: bool) -> bool:
        """Make room for what comes from the second tier, and keep a prefix from being evicted.

        Args:
            keys: the chunks of the prefix that was found, those of the second tier included.
            absent: those of them that this memory does not hold.
            retain: keep them, instead of only until the engine has them.

        Returns:
            Whether there was room; if not, nothing has changed.
        """
        free = self.free_objects
        if free is not None and len(absent) > free:
            return False
        self._take(absent)
        self._temporary = frozenset() if retain else frozenset(absent)
        self._locked = frozenset(keys)
        self.touch(keys)
        return True

    def loaded(self) -> None:
        """Note that the engine has its chunks: what was there for it alone goes."""
        self._discard(list(self._temporary))
        self._temporary = self._locked = frozenset()

    def clear(self) -> None:
        """Empty it, as ``POST /cache/clear`` does; the second tier keeps everything."""
        self._discard([key for key in self._held if key not in self._locked])

    def copy(self) -> CacheMemory:
        """Return a memory that holds the same and goes its own way."""
        other = CacheMemory(self.size)
        self._copy_into(other)
        other.dropped, other._temporary = self.dropped, self._temporary
        return other


class SecondTier(Tier):
    """What LMCache keeps behind its memory: every chunk that was written there is written here too.

    ``retain`` is ``--l2-prefetch-policy retain``, by which what comes back stays in memory. ``refuses`` is
    the ``mock`` adapter's way to deal with a full tier; ``fs_native`` goes beyond its capacity until its
    thread wakes.
    """

    def __init__(self, size: TierSize, *, retain: bool = False, refuses: bool = False) -> None:
        """Hold nothing yet."""
        super().__init__(size)
        self.retain, self.refuses = retain, refuses

    def store(self, keys: Sequence[Key]) -> None:
        """Write chunks that were written to memory."""
        if self.refuses:
            new = [key for key in keys if key not in self]
            keys = new[: self.free_objects]
        self._take(keys)

    def copy(self) -> SecondTier:
        """Return a tier that holds the same and goes its own way."""
        other = SecondTier(self.size, retain=self.retain, refuses=self.refuses)
        self._copy_into(other)
        return other


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

    It is a prediction where no thread wakes at a moment inside a request that matters; :func:`possible` tells
    whether there is one. That a thread has woken is counted: ``lmcache_mp_l1_eviction_loop_ticks_total``.

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
