"""Load or compute: the break-even is where two lines meet."""

from math import inf

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lmcache_tutorial.quantities.break_even import (
    Line,
    break_even_bytes_s,
    break_even_tokens,
    near_break_even,
)

FIXED, TOKEN = st.floats(0, 1), st.floats(1e-6, 1e-2)
LINES = st.builds(Line, FIXED, TOKEN)


@given(LINES, LINES)
def test_beyond_the_break_even_loading_takes_less_time_and_below_it_more(compute, load):
    length = break_even_tokens(compute, load)
    assume(length != inf and abs(compute.token_s - load.token_s) > 1e-7 and load.token_s < compute.token_s)
    beyond = length + 1000
    assert load.seconds(beyond) < compute.seconds(beyond)
    if length > 1:
        assert load.seconds(length / 2) > compute.seconds(length / 2)


@given(LINES, FIXED)
def test_a_load_that_is_never_faster_has_no_break_even(compute, more):
    slower = Line(compute.fixed_s + more, compute.token_s * 2)
    assert break_even_tokens(compute, slower) == inf


@given(st.integers(1, 10**6), st.builds(break_even_tokens, LINES, LINES), st.floats(1.1, 10))
def test_a_length_is_near_a_break_even_by_its_ratio_to_it_and_near_to_none_where_there_is_none(
    tokens, even, factor
):
    some = 0 < even < inf
    assert near_break_even(tokens, even, factor) == (some and even / factor < tokens < even * factor)
    assert not near_break_even(tokens, 0.0, factor)
    assert not near_break_even(tokens, inf, factor)
    assert near_break_even(tokens, float(tokens), factor)


@given(st.integers(1, 10**6), TOKEN)
def test_a_tier_of_the_needed_rate_brings_a_token_as_fast_as_it_is_computed(kv_bytes, token_s):
    assert kv_bytes / break_even_bytes_s(kv_bytes, token_s) == pytest.approx(token_s)


def test_a_line_goes_through_the_medians_of_the_shortest_and_the_longest():
    line = Line.through({100: [0.2, 0.2, 9.0], 200: [5.0, 5.0, 5.0], 300: [0.4, 0.4, 0.4]})
    assert line.seconds(300) == pytest.approx(0.4)
    with pytest.raises(ValueError, match="two lengths"):
        Line.through({100: [1.0]})
