"""Properties of the closed forms."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.quantities.predict import (
    engine_reusable_tokens,
    lmcache_reusable_tokens,
    shared_prefix_tokens,
)

tokens = st.lists(st.integers(0, 3), max_size=60)
units = st.integers(1, 300)


@st.composite
def shared_and_prompt(draw):
    prompt = draw(st.integers(1, 20_000))
    return draw(st.integers(0, prompt)), prompt


@settings(deadline=None)
@given(tokens, tokens, tokens)
def test_the_shared_prefix_is_the_longest_common_one(head, one, other):
    first, second = head + one, head + other
    length = shared_prefix_tokens(first, second)
    assert first[:length] == second[:length]
    assert length >= len(head)
    assert length == min(len(first), len(second)) or first[length] != second[length]
    assert length == shared_prefix_tokens(second, first)


@settings(deadline=None)
@given(shared_and_prompt(), units)
def test_the_engine_reuses_whole_blocks_and_never_the_whole_prompt(counts, block):
    shared, prompt = counts
    reused = engine_reusable_tokens(shared, prompt, block)
    assert reused % block == 0
    assert reused <= shared
    assert reused < prompt
    assert min(shared, prompt - 1) - reused < block


@settings(deadline=None)
@given(shared_and_prompt(), units)
def test_lmcache_reuses_whole_chunks_or_all_but_one_token(counts, chunk):
    shared, prompt = counts
    reused = lmcache_reusable_tokens(shared, prompt, chunk)
    assert reused % chunk == 0 or reused == prompt - 1
    assert reused <= shared
    assert reused < prompt


@settings(deadline=None)
@given(shared_and_prompt(), units, st.sampled_from([engine_reusable_tokens, lmcache_reusable_tokens]))
def test_a_longer_shared_prefix_never_reuses_less(counts, unit, form):
    shared, prompt = counts
    assert form(max(0, shared - 1), prompt, unit) <= form(shared, prompt, unit)


@settings(deadline=None)
@given(shared_and_prompt(), st.integers(1, 64), st.integers(1, 8))
def test_chunks_of_several_blocks_lose_at_most_a_chunk_more(counts, block, blocks):
    shared, prompt = counts
    chunk = block * blocks
    lost = engine_reusable_tokens(shared, prompt, block) - lmcache_reusable_tokens(shared, prompt, chunk)
    assert -block < lost < chunk


@pytest.mark.parametrize(("shared", "prompt", "unit"), [(-1, 10, 4), (11, 10, 4), (0, 0, 4), (1, 10, 0)])
@pytest.mark.parametrize("form", [engine_reusable_tokens, lmcache_reusable_tokens])
def test_counts_out_of_range_are_refused(form, shared, prompt, unit):
    with pytest.raises(ValueError, match="need 0 <= shared <= prompt"):
        form(shared, prompt, unit)
