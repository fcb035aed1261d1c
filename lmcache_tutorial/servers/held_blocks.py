"""What one engine holds, as its KV events tell it: events -> blocks, and how much of a prompt they are. Pure.

A block is found by its tokens and the block before it, as both were announced: its hash cannot be computed
outside of the engine that made it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .kv_events import OWN, Batch, BlockHash, Cleared, Event, ExtraKeys, Removed, Stored, Unknown


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a prompt; LMCache's are its chunks.

    ``parent`` is the hash of the block before it, ``None`` at a prompt's start. ``extra_keys`` is what else
    its hash was made from. ``tokens`` is empty where its announcement did not tell them block by block.
    """

    hash: BlockHash
    parent: BlockHash | None
    tokens: tuple[int, ...]
    extra_keys: ExtraKeys = None


class HeldBlocks:
    """The blocks of one engine, by medium: its own prefix cache, and what its connector tells of LMCache.

    Two requests that compute the same tokens side by side make two blocks of one hash. Each is announced and
    removed by itself, so blocks are counted, and a hash is held until its last block is gone. Several groups
    of KV layers (hybrid models) are not told apart.

    Attributes:
        heard_from: the first sequence number that was heard, ``None`` before; above 0, blocks that the engine
            held already are not known.
        gaps: first and last sequence number of every run of messages that was missed since.
        restarts: how often the numbers began anew, which a new process of the engine does.
        unknown: events of kinds that are not known, counted by kind.
    """

    def __init__(self) -> None:
        """Know of no block."""
        self.heard_from: int | None = None
        self.gaps: list[tuple[int, int]] = []
        self.restarts = 0
        self.unknown: Counter[str] = Counter()
        self._expected = 0
        self._forget()

    def take(self, batch: Batch) -> None:
        """Apply the events of a message, in their order."""
        if self.heard_from is None:
            self.heard_from = self._expected = batch.sequence
        if batch.sequence < self._expected:
            self.restarts += 1
            self._forget()
            self._expected = 0
        if batch.sequence > self._expected:
            self.gaps.append((self._expected, batch.sequence - 1))
        self._expected = batch.sequence + 1
        for event in batch.events:
            self._apply(event)

    def hashes(self, medium: str = OWN) -> frozenset[BlockHash]:
        """Return the hash of every block that is held on a medium."""
        return frozenset(hash_ for where, hash_ in self._count if where == medium)

    def blocks(self, prompt: Sequence[int], medium: str = OWN, salt: str | None = None) -> list[Block]:
        """Find the blocks of a prompt that are held, from its start up to the first that is missing.

        Args:
            prompt: its token ids, as the server renders it.
            medium: ``OWN`` or ``LMCACHE``.
            salt: the ``cache_salt`` of the request. LMCache's events do not tell it: what it holds under any
                salt is found without one.

        Returns:
            The blocks in their order in the prompt.
        """
        wanted, found, at = tuple(prompt), list[Block](), 0
        keys: ExtraKeys = (salt,) if salt else None
        while block := self._next(medium, found[-1].hash if found else None, wanted[at:], keys):
            found.append(block)
            at += len(block.tokens)
            keys = None  # a salt is in the hash of the first block alone, and so in all that follow it
        return found

    def tokens(self, prompt: Sequence[int], medium: str = OWN, salt: str | None = None) -> int:
        """Count the tokens of a prompt that are held, in whole blocks from its start; see :meth:`blocks`.

        The engine reuses these, but never the whole prompt: the block of its last token is computed again.
        """
        return sum(len(block.tokens) for block in self.blocks(prompt, medium, salt))

    def _next(
        self, medium: str, parent: BlockHash | None, rest: tuple[int, ...], keys: ExtraKeys
    ) -> Block | None:
        for block in self._after.get((medium, parent), {}).values():
            if block.extra_keys == keys and block.tokens and rest[: len(block.tokens)] == block.tokens:
                return block
        return None

    def _apply(self, event: Event) -> None:
        match event:
            case Stored():
                for block in _blocks(event):
                    self._count[event.medium, block.hash] += 1
                    self._after.setdefault((event.medium, block.parent), {})[block.hash] = block
                    self._parent[event.medium, block.hash] = block.parent
            case Removed():
                for hash_ in event.hashes:
                    self._remove(event.medium, hash_)
            case Cleared():
                for hash_ in self.hashes(OWN):
                    self._count[OWN, hash_] = 1
                    self._remove(OWN, hash_)
            case Unknown():
                self.unknown[event.kind] += 1

    def _remove(self, medium: str, hash_: BlockHash) -> None:
        """Remove one block of a hash; one that was never heard of is let pass."""
        if (medium, hash_) not in self._count:
            return
        self._count[medium, hash_] -= 1
        if not self._count[medium, hash_]:
            del self._count[medium, hash_]
            parent = self._parent.pop((medium, hash_))
            del self._after[medium, parent][hash_]

    def _forget(self) -> None:
        self._count: Counter[tuple[str, BlockHash]] = Counter()
        self._parent: dict[tuple[str, BlockHash], BlockHash | None] = {}
        self._after: dict[tuple[str, BlockHash | None], dict[BlockHash, Block]] = {}


def _blocks(stored: Stored) -> list[Block]:
    """Cut an announcement into its blocks.

    Where an engine leaves blocks out (a sliding window), tokens and hashes do not go together: then a block
    is held, but is part of no prompt.
    """
    size, whole = stored.block_tokens, len(stored.hashes) * stored.block_tokens == len(stored.tokens)
    found: list[Block] = []
    for place, hash_ in enumerate(stored.hashes):
        parent = found[-1].hash if found else stored.parent
        tokens = stored.tokens[place * size : (place + 1) * size] if whole else ()
        keys = stored.extra_keys[place] if place < len(stored.extra_keys) else None
        found.append(Block(hash_, parent, tokens, keys or None))
    return found
