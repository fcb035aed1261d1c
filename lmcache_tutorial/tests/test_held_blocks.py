"""The blocks of an engine, followed through its events and compared with the simplest pool there is."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.servers.held_blocks import Block, HeldBlocks
from lmcache_tutorial.servers.kv_events import LMCACHE, OWN, Batch, Cleared, Removed, Stored, Unknown

SIZE = 2
prompts = st.lists(st.integers(0, 1), max_size=9).map(tuple)


def hashed(prompt, salt=None):
    """Hash every whole block of a prompt as an engine does: with all that comes before it."""
    return [hash((prompt[:end], salt)) for end in range(SIZE, len(prompt) + 1, SIZE)]


def announced(prompt, after=0, medium=OWN, salt=None):
    """Announce a prompt's whole blocks from a place on."""
    hashes = hashed(prompt, salt)
    keys = tuple((salt,) if salt and place == 0 else None for place in range(len(hashes)))
    parent = hashes[after - 1] if after else None
    tokens = prompt[after * SIZE : len(hashes) * SIZE]
    return Stored(tuple(hashes[after:]), parent, tokens, SIZE, medium, keys[after:])


def told(*events, start=0):
    held = HeldBlocks()
    for sequence, event in enumerate(events, start):
        held.take(Batch(sequence, 0.0, (event,)))
    return held


@st.composite
def lives(draw):
    """Draw the life of a pool: prompts are stored, blocks removed one by one, everything is cleared."""
    events, pool = [], Counter()
    for _ in range(draw(st.integers(0, 12))):
        act = draw(st.sampled_from(("store", "store", "store", "remove", "clear")))
        if act == "store":
            prompt = draw(prompts)
            after = draw(st.integers(0, len(prompt) // SIZE))
            events.append(announced(prompt, after))
            pool.update(events[-1].hashes)
        elif act == "remove" and pool:
            gone = draw(st.sampled_from(sorted(pool)))
            events.append(Removed((gone,)))
            pool -= Counter([gone])
        elif act == "clear":
            events.append(Cleared())
            pool.clear()
    return events, pool


@settings(deadline=None, max_examples=300)
@given(lives(), prompts)
def test_it_holds_what_the_pool_holds_and_finds_a_prompt_as_far_as_the_pool_does(life, prompt):
    events, pool = life
    held = told(*events)
    assert held.hashes() == set(pool)
    reach = 0
    while reach < len(prompt) // SIZE and hashed(prompt)[reach] in pool:
        reach += 1
    assert [block.hash for block in held.blocks(prompt)] == hashed(prompt)[:reach]
    assert held.tokens(prompt) == reach * SIZE
    assert (held.gaps, held.restarts) == ([], 0)


def test_a_block_is_told_with_its_parent_and_its_tokens():
    first, second = hashed((1, 2, 3, 4))
    assert told(announced((1, 2, 3, 4))).blocks((1, 2, 3, 4, 5)) == [
        Block(first, None, (1, 2)),
        Block(second, first, (3, 4)),
    ]


def test_a_block_that_is_held_twice_is_held_until_both_are_gone():
    prompt = (1, 2)
    twice = [announced(prompt), announced(prompt), Removed(tuple(hashed(prompt)))]
    assert told(*twice).tokens(prompt) == 2
    assert told(*twice, Removed(tuple(hashed(prompt)))).tokens(prompt) == 0
    assert told(*twice[:2], Cleared()).hashes() == set()


def test_behind_a_missing_block_nothing_is_reusable_until_it_is_back():
    prompt = (1, 2, 3, 4, 5, 6)
    without = [announced(prompt), Removed((hashed(prompt)[1],))]
    assert told(*without).tokens(prompt) == 2
    assert told(*without, announced(prompt[:4], after=1)).tokens(prompt) == 6


def test_a_salt_is_another_prompt():
    held = told(announced((1, 2, 3, 4), salt="a"))
    assert [held.tokens((1, 2, 3, 4), salt=salt) for salt in ("a", "b", None)] == [4, 0, 0]


def test_what_lmcache_holds_is_its_own_affair():
    prompt = tuple(range(8))
    chunks = Stored((71, 72), None, prompt, 4, LMCACHE)
    held = told(announced(prompt), chunks, Cleared())
    assert (held.tokens(prompt), held.tokens(prompt, LMCACHE)) == (0, 8)
    held.take(Batch(3, 0.0, (Removed((72,), LMCACHE), Removed((71,)))))
    assert held.tokens(prompt, LMCACHE) == 4


@pytest.mark.parametrize("start", [0, 40])
def test_a_gap_is_told_and_so_is_where_listening_began(start):
    held = told(Cleared(), Cleared(), start=start)
    held.take(Batch(start + 5, 0.0, ()))
    assert (held.heard_from, held.gaps, held.restarts) == (start, [(start + 2, start + 4)], 0)


def test_an_engine_that_numbers_anew_has_forgotten_everything():
    held = told(announced((1, 2)), announced((1, 2, 3, 4), medium=LMCACHE))
    held.take(Batch(0, 0.0, (announced((5, 6)),)))
    assert (held.restarts, held.gaps) == (1, [])
    assert held.hashes() == set(hashed((5, 6)))
    assert held.hashes(LMCACHE) == set()
    held.take(Batch(1, 0.0, ()))
    late = told(announced((1, 2)), Cleared(), Cleared())
    late.take(Batch(2, 0.0, ()))
    assert (late.restarts, late.gaps) == (1, [(0, 1)])


def test_an_announcement_that_leaves_blocks_out_is_held_and_part_of_no_prompt():
    held = told(Stored((1,), None, (1, 2, 3, 4), 2), Removed((99,)), Unknown("BlockMoved"))
    assert held.hashes() == {1}
    assert held.tokens((1, 2, 3, 4)) == 0
    assert held.unknown == {"BlockMoved": 1}
