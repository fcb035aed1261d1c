"""Rates, ratios and their intervals."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.quantities.records import TokenSources
from lmcache_tutorial.quantities.statistics import clocks_differ_by, hit_rate, ratio_of_medians, ttft_drop

times = st.floats(0.001, 100, allow_nan=False)
rounds = st.lists(st.tuples(times, times), min_size=3, max_size=9)


@settings(deadline=None, max_examples=20)
@given(rounds)
def test_the_interval_holds_the_drop_and_lies_within_the_extremes(pairs):
    cold, warm = zip(*pairs, strict=True)
    drop = ttft_drop(cold, warm)
    assert drop.low <= drop.value <= drop.high
    assert 1 - max(warm) / min(cold) - 1e-9 <= drop.low
    assert drop.high <= 1 - min(warm) / max(cold) + 1e-9


def test_the_interval_is_the_same_every_time():
    cold, warm = [2.0, 2.1, 1.9, 2.4, 2.2, 2.0, 2.1], [0.2, 0.3, 0.21, 0.2, 0.25, 0.2, 0.22]
    assert ttft_drop(cold, warm) == ttft_drop(cold, warm)


def test_one_slow_warm_round_of_seven_does_not_move_the_median_but_widens_the_interval():
    cold = [2.0, 2.1, 1.9, 2.2, 2.0, 2.05, 1.95]
    calm = ttft_drop(cold, [0.2, 0.21, 0.19, 0.2, 0.2, 0.22, 0.2])
    noisy = ttft_drop(cold, [0.2, 0.21, 0.19, 0.2, 0.2, 1.9, 1.9])
    assert noisy.low < calm.low
    assert abs(noisy.value - calm.value) < 0.01


@pytest.mark.parametrize(
    ("top", "bottom"),
    [([1, 1], [1, 1]), ([1, 1, 1], [1, 1]), ([1, 0, 1], [1, 1, 1]), ([1, math.nan, 1], [1, 1, 1])],
)
def test_what_was_not_measured_is_an_error_and_not_a_number(top, bottom):
    with pytest.raises(ValueError, match="round"):
        ratio_of_medians(top, bottom)


def test_a_hit_rate_of_nothing_is_an_error():
    with pytest.raises(ValueError, match="at least one call"):
        hit_rate([])


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 9)] * 4), min_size=1).filter(lambda w: any(map(any, w))))
def test_a_hit_rate_is_a_fraction(windows):
    assert 0 <= hit_rate(TokenSources(*window) for window in windows) <= 1


def test_clocks_must_have_timed_the_same_calls():
    with pytest.raises(ValueError, match="same calls"):
        clocks_differ_by([1.0], [1.0, 2.0])
