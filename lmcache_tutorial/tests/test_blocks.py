"""Blocks are forgotten in vLLM's order."""

from collections import deque
from itertools import takewhile

from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.quantities.blocks import BlockMemory

BLOCK = 4


class Pool:
    """vLLM's block pool, written down as it is: a queue of the free blocks, some of which have a hash."""

    def __init__(self, blocks: int) -> None:
        self.queue = deque(range(blocks))
        self.hashes: dict[int, tuple] = {}
        self.age: dict[int, int] = {}
        self.clock = 0

    def hit(self, prefixes: list[tuple]) -> list[int]:
        # Of several blocks with one hash it takes the first that got it.
        held = {self.hashes[n]: n for n in sorted(self.hashes, key=self.age.__getitem__, reverse=True)}
        return [held[prefix] for prefix in takewhile(held.__contains__, prefixes)]

    def ask(self, ids: list[int]) -> int:
        full = [tuple(ids[: end + BLOCK]) for end in range(0, len(ids) - BLOCK + 1, BLOCK)]
        hit = self.hit(full[: (len(ids) - 1) // BLOCK])
        for block in hit:  # touched
            self.queue.remove(block)
        taken = [self.queue.popleft() for _ in range(-(-len(ids) // BLOCK) - len(hit))]
        for block in taken:
            self.hashes.pop(block, None)
        blocks = [*hit, *taken]
        for block, prefix in zip(blocks, full, strict=False):
            if block in taken:
                self.age[block] = self.clock = self.clock + 1
            self.hashes[block] = prefix
        for block in reversed(blocks):  # freed, the tail first
            if block in self.hashes:
                self.queue.append(block)
            else:
                self.queue.appendleft(block)
        return len(hit) * BLOCK


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=30), max_size=25),
    st.integers(8, 14),
)
def test_a_bounded_memory_knows_what_vllms_pool_would_know(prompts, blocks):
    memory, pool = BlockMemory(BLOCK, blocks), Pool(blocks)
    for prompt in prompts:
        known = memory.visit(prompt)
        assert min(known, (len(prompt) - 1) // BLOCK * BLOCK) == pool.ask(prompt)


def test_the_tail_of_a_prompt_goes_before_its_head():
    memory = BlockMemory(BLOCK, limit=6)
    old, new = list(range(16)), list(range(100, 112))
    memory.visit(old)
    memory.visit(new)  # takes three blocks, of which one was in use
    assert memory.forgotten == 1
    assert memory.visit(old) == 12


def test_a_prompt_larger_than_the_memory_keeps_its_head():
    memory = BlockMemory(BLOCK, limit=2)
    memory.visit(list(range(40)))
    assert memory.visit(list(range(40))) == 8


def test_salts_share_nothing():
    memory = BlockMemory(BLOCK, limit=100)
    assert [memory.visit([1] * 8, salt) for salt in ("", "a", "a", "")] == [0, 0, 8, 8]
