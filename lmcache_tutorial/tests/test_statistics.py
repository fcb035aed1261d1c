"""Rates, ratios and their intervals."""

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, bootstrap

from lmcache_tutorial.quantities.records import Interval, TokenSources
from lmcache_tutorial.quantities.statistics import (
    _chance_of_as_many,
    _draws,
    clocks_differ_by,
    hit_rate,
    median_interval,
    ratio_of_medians,
    ttft_drop,
)

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


# Rounds whose two arms go up and down together, as they do on a machine with noisy neighbours: the pairs
# tell much more than the arms by themselves.
NOISE = np.random.default_rng(7).lognormal(0, 0.3, 40)
COLD_S = list(NOISE)
WARM_S = list(0.2 * NOISE * np.random.default_rng(8).lognormal(0, 0.05, 40))
# The standard error of a 2.5th per cent of 10,000 resamples is 0.16 per cent: four of these, in two samples.
CLOSE = 0.0064 * 2**0.5


def scipy_distribution(*samples, paired=True):
    """Return scipy's resampled statistics: the median, or the ratio of the medians of two samples."""

    def statistic(*drawn, axis):
        medians = [np.median(each, axis=axis) for each in drawn]
        return medians[0] / medians[1] if len(drawn) == 2 else medians[0]

    result = bootstrap(samples, statistic, paired=paired, n_resamples=10_000, method="percentile", rng=5)
    return np.sort(result.bootstrap_distribution)


def ends_agree(interval, distribution):
    """Tell whether 2.5 % of a distribution lie below an interval and 2.5 % above it, but for chance.

    Medians take few different values, so a share may jump over 2.5 % at one of them.
    """
    size = len(distribution)
    below, above = interval.low * (1 - 1e-12), interval.high * (1 + 1e-12)
    beyond = [np.sum(distribution < below), np.sum(distribution > above)]
    reached = [
        np.sum(distribution <= interval.low * (1 + 1e-12)),
        np.sum(distribution >= interval.high * (1 - 1e-12)),
    ]
    return max(beyond) / size <= 0.025 + CLOSE and min(reached) / size >= 0.025 - CLOSE


@pytest.mark.parametrize("rounds", [3, 4, 7, 8, 12, 40])
def test_the_interval_of_a_ratio_is_that_of_scipy(rounds):
    warm, cold = WARM_S[:rounds], COLD_S[:rounds]
    ours = ratio_of_medians(warm, cold)
    assert ours.value == np.median(warm) / np.median(cold)
    assert ends_agree(ours, scipy_distribution(warm, cold))


@pytest.mark.parametrize("rounds", [3, 4, 7, 8, 12, 40])
def test_the_interval_of_a_median_is_that_of_scipy(rounds):
    ours = median_interval(WARM_S[:rounds])
    assert ours.value == np.median(WARM_S[:rounds])
    assert ends_agree(ours, scipy_distribution(WARM_S[:rounds]))


def test_the_comparison_with_scipy_would_show_another_method():
    distribution = scipy_distribution(WARM_S, COLD_S)
    ours = ratio_of_medians(WARM_S, COLD_S)
    unpaired = scipy_distribution(WARM_S, COLD_S, paired=False)
    as_unpaired, as_90_per_cent = (
        Interval(ours.value, *np.percentile(d, ends))
        for d, ends in [(unpaired, [2.5, 97.5]), (distribution, [5, 95])]
    )
    basic = Interval(ours.value, 2 * ours.value - ours.high, 2 * ours.value - ours.low)
    assert [ends_agree(other, distribution) for other in (ours, as_unpaired, as_90_per_cent, basic)] == [
        True,
        False,
        False,
        False,
    ]


def test_the_sign_test_is_exact():
    for tosses in range(1, 41):
        ours = [_chance_of_as_many(heads, tosses) for heads in range(tosses + 1)]
        assert ours == pytest.approx(list(binom.sf(np.arange(-1, tosses), tosses, 0.5)), rel=1e-9)


def test_an_interval_of_seven_rounds_takes_well_below_a_second():
    _draws.cache_clear()
    started = time.process_time()
    ratio_of_medians(WARM_S[:7], COLD_S[:7])
    assert time.process_time() - started < 0.5


def test_what_is_not_finite_has_no_interval():
    with pytest.raises(ValueError, match="finite"):
        median_interval([1.0, 2.0, math.nan])
