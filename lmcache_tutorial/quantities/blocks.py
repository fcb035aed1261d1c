"""What an engine's own prefix cache still holds when it has too few blocks for all that it was asked."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from .predict import engine_reusable_tokens


def prefix_chains(ids: Sequence[int], unit: int, salt: str = "") -> list[int]:
    """Name each whole unit of a prompt by the hash of all tokens up to its end.

    Args:
        ids: token ids of a prompt.
        unit: tokens of a block or of a chunk, 1 or more.
        salt: prompts of different salts share no name.

    Returns:
        One name for each whole unit, in the order of the prompt.

    >>> first, second = prefix_chains([1, 2, 3, 4, 5], 2), prefix_chains([1, 2, 9, 4], 2)
    >>> len(first), first[0] == second[0], first[1] == second[1]
    (2, True, False)
    """
    chain, chains = hash(salt), []
    for begin in range(0, len(ids) - unit + 1, unit):
        chain = hash((chain, *ids[begin : begin + unit]))
        chains.append(chain)
    return chains


class BlockMemory:
    """The blocks that a cache would hold, by the hash of all tokens up to their end.

    What is forgotten follows vLLM 0.32 (``v1/core/block_pool.py``), for requests that come one after the
    other: a request takes its blocks from those that were freed first, and frees its own when it ends, the
    last first. So the tail of a prompt goes before its head, and the requests go by their age. Blocks without
    a name are taken before any other, so they are only counted.

    >>> memory = BlockMemory(block=2, limit=4)
    >>> memory.visit([1, 2, 3, 4, 5]), memory.visit([1, 2, 3, 4, 6]), memory.forgotten
    (0, 4, 0)
    >>> memory.visit([7, 7, 7, 7, 7]), memory.forgotten  # three blocks: the tail of the first prompt goes
    (0, 1)
    >>> memory.visit([1, 2, 3, 4, 5])
    2
    """

    def __init__(self, block: int, limit: int) -> None:
        """Remember at most ``limit`` blocks of ``block`` tokens."""
        self._block, self._limit = block, limit
        self._queue: OrderedDict[int, int | None] = OrderedDict()  # number -> name, in the order of taking
        self._numbers: dict[int, list[int]] = {}  # name -> the blocks that have it, the oldest first
        self._next = 0
        self.forgotten = 0

    def visit(self, ids: Sequence[int], salt: str = "", *, answer_tokens: int = 1) -> int:
        """Count the tokens of the longest known prefix in whole blocks, and remember all blocks.

        Args:
            ids: of the prompt.
            salt: prompts of different salts share nothing.
            answer_tokens: tokens that are generated, 1 or more; all but the last take a place as well.

        Returns:
            Tokens of the known prefix: the whole prompt where all of it is known, though vLLM then computes
            the last block again (:func:`.predict.engine_reusable_tokens`), in a block of its own.
        """
        chains = prefix_chains(ids, self._block, salt)
        known = 0
        while known < len(chains) and chains[known] in self._numbers:
            known += 1
        used = min(known, max(0, len(ids) - 1) // self._block)
        taken = [self._numbers[chain][0] for chain in chains[:used]]
        for number in taken:  # in use: not to be taken by this request
            del self._queue[number]
        tokens = len(ids) + answer_tokens - 1
        # Whole blocks of the answer have names too, but no later prompt of ours is found by them.
        names: list[int | None] = [*chains, *[None] * (tokens // self._block - len(chains))]
        self._forget_down_to(self._limit - len(names) - (tokens % self._block > 0))
        taken += [self._number(name) for name in names[used:]]
        for number, name in reversed(list(zip(taken, names, strict=True))):
            self._queue[number] = name
        self._forget_down_to(self._limit)  # a prompt that no such cache could serve
        return known * self._block

    def copy(self) -> BlockMemory:
        """Return a memory that holds the same and goes its own way."""
        other = BlockMemory(self._block, self._limit)
        other._queue = self._queue.copy()
        other._numbers = {name: numbers.copy() for name, numbers in self._numbers.items()}
        other._next, other.forgotten = self._next, self.forgotten
        return other

    def _number(self, name: int | None) -> int:
        self._next += 1
        if name is not None:
            self._numbers.setdefault(name, []).append(self._next)
        return self._next

    def _forget_down_to(self, blocks: int) -> None:
        while len(self._queue) > max(0, blocks):
            number, name = self._queue.popitem(last=False)
            self.forgotten += 1
            if name is None:
                continue
            self._numbers[name].remove(number)
            if not self._numbers[name]:
                del self._numbers[name]


class EngineMemory:
    """vLLM's own prefix cache with a stated number of KV blocks.

    One of them is never used: it stands for blocks that are skipped (vLLM 0.32, ``BlockPool.null_block``).

    >>> engine = EngineMemory(blocks=5, block_tokens=2)
    >>> engine.ask([1, 2, 3, 4, 5]), engine.ask([1, 2, 3, 4])  # one token must be computed
    (0, 2)
    """

    def __init__(self, blocks: int, block_tokens: int) -> None:
        """Hold ``blocks`` KV blocks, 2 or more, of ``block_tokens`` tokens.

        Raises:
            ValueError: a count is out of range.
        """
        if blocks < 2 or block_tokens < 1:
            raise ValueError(f"need 2 blocks or more, of 1 token or more; got {blocks} of {block_tokens}")
        self.block_tokens = block_tokens
        self._memory = BlockMemory(block_tokens, blocks - 1)

    def ask(self, ids: Sequence[int], salt: str = "", *, answer_tokens: int = 1) -> int:
        """Count the tokens of a prompt that are reused, and hold its blocks from now on.

        Args:
            ids: of the prompt, 1 or more.
            salt: prompts of different salts share nothing.
            answer_tokens: tokens that are generated, 1 or more.
        """
        known = self._memory.visit(ids, salt, answer_tokens=answer_tokens)
        return engine_reusable_tokens(known, len(ids), self.block_tokens)

    def copy(self) -> EngineMemory:
        """Return an engine that holds the same and goes its own way."""
        other = EngineMemory(2, self.block_tokens)
        other._memory = self._memory.copy()
        return other
