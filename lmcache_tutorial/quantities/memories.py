"""What LMCache's memory and its second tier hold, how much fits, and the threads that make room in them.

It follows LMCache 0.5.6's multi-process server, for a model whose chunk is one object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .eviction import POLICIES, Key

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
