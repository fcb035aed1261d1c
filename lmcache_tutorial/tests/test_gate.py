"""Held against a bar: above, below, or not to be told."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_tutorial.gate.decide import UndecidedError, clocks_agree, decided, lies_above, lies_within
from lmcache_tutorial.gate.verdict import verdict
from lmcache_tutorial.quantities.records import Interval
from lmcache_tutorial.quantities.statistics import ERROR_RATE, LOOKS, stays_above

COLD = [2.0, 2.1, 1.8, 2.6, 2.0, 2.2, 1.9]


def test_an_interval_decides_only_if_the_bar_lies_outside():
    assert lies_above(Interval(0.8, 0.75, 0.9), 0.7, scatter=COLD)
    assert not lies_above(Interval(0.5, 0.4, 0.7), 0.7, scatter=COLD)
    with pytest.raises(UndecidedError, match=r"0\.720 .*0\.610 to 0\.800.* bar of 0\.7\. Half of"):
        lies_above(Interval(0.72, 0.61, 0.8), 0.7, scatter=COLD)


def test_a_difference_is_held_against_both_sides():
    assert lies_within(Interval(0.0, -0.01, 0.01), 0.01, scatter=COLD)
    assert not lies_within(Interval(0.03, 0.02, 0.04), 0.01, scatter=COLD)
    assert not lies_within(Interval(-0.03, -0.04, -0.02), 0.01, scatter=COLD)
    with pytest.raises(UndecidedError, match="cannot be told from the tolerance"):
        lies_within(Interval(0.01, 0.0, 0.02), 0.01, scatter=COLD)


SENT = [1.0, 1.1, 0.9, 1.0, 1.2, 1.0, 1.1] * 3


def later(by_s):
    return [one + by_s for one in SENT]


@pytest.mark.parametrize("waited_s", [None, 0.0, 0.5])
def test_clocks_within_the_tolerance_agree_however_long_they_waited(waited_s):
    assert clocks_agree(later(0.005), SENT, [waited_s] * 21, 0.01, scatter=COLD)


@pytest.mark.parametrize("waited_s", [None, 0.0, 0.005, 0.019])
def test_clocks_that_waiting_does_not_part_disagree(waited_s):
    assert not clocks_agree(later(0.03), SENT, [waited_s] * 21, 0.01, scatter=COLD)


def test_clocks_that_waiting_may_part_are_undecided():
    told = r"0\.0300 s .*for 0\.0250 s a call .*begins at 0\.0050 s\. Half of"
    with pytest.raises(UndecidedError, match=told):
        clocks_agree(later(0.03), SENT, [0.025] * 21, 0.01, scatter=COLD)


OPEN = [0.002 * place for place in range(21)]  # its median's interval reaches beyond 0.02, and begins below


@pytest.mark.parametrize("waited_s", [None, 0.0, 0.001])
def test_a_difference_that_may_be_one_is_undecided_where_little_was_waited(waited_s):
    late = [sent + by for sent, by in zip(SENT, OPEN, strict=True)]
    with pytest.raises(UndecidedError, match=r"cannot be told from the tolerance of 0\.0200"):
        clocks_agree(late, SENT, [waited_s] * 21, 0.02, scatter=COLD)


def test_a_difference_that_may_be_one_is_none_where_the_wait_explains_it():
    late = [sent + by for sent, by in zip(SENT, OPEN, strict=True)]
    assert clocks_agree(late, SENT, [0.03] * 21, 0.02, scatter=COLD)


def test_a_long_wait_in_a_few_calls_does_not_explain_the_others():
    assert not clocks_agree(later(0.03), SENT, [0.0] * 18 + [5.0] * 3, 0.01, scatter=COLD)


def test_waiting_does_not_make_a_clock_early():
    assert not clocks_agree(later(-0.03), SENT, [0.5] * 21, 0.01, scatter=COLD)


bounds = st.tuples(*[st.floats(-2, 2)] * 3).map(sorted)


@given(bounds, st.floats(-1, 1))
def test_a_figure_is_above_below_or_undecided_and_never_two_of_them(three, bar):
    low, value, high = three
    try:
        found = lies_above(Interval(value, low, high), bar, scatter=COLD)
    except UndecidedError:
        assert low <= bar < high
    else:
        assert found == (low > bar)


def test_a_sequential_test_without_an_answer_is_undecided():
    assert decided(True, scatter=COLD)
    assert not decided(False, scatter=COLD)
    with pytest.raises(UndecidedError, match="ended at its last round"):
        decided(None, scatter=COLD)


def answer(draw):
    values = []
    for _ in range(LOOKS[-1]):
        values.append(draw())
        if (found := stays_above(values, bar=0.8)) is not None:
            return found, len(values)
    return None, len(values)


def noisy(center, scatter, chance):
    """A machine whose ratios scatter, and that every tenth time is busy with something else."""
    return lambda: center * chance.lognormvariate(0, scatter) * (1 if chance.random() > 0.1 else 1.5)


@pytest.mark.parametrize("scatter", [0.02, 0.1, 0.3])
def test_the_sequential_test_is_wrong_as_seldom_as_it_says(scatter):
    chance = random.Random(1)
    tests = 4_000
    # The hardest case for it: the median lies exactly on the bar, and either answer is an error.
    coin = [answer(lambda: 0.8 * chance.lognormvariate(0, scatter))[0] for _ in range(tests)]
    for wrong in (True, False):
        assert coin.count(wrong) / tests < ERROR_RATE + 3 * (ERROR_RATE / tests) ** 0.5


def test_a_quiet_machine_is_answered_at_the_first_look_and_a_noisy_one_before_the_last():
    chance = random.Random(2)
    assert answer(noisy(1.0, 0.02, chance)) == (True, LOOKS[0])
    found = [answer(noisy(1.0, 0.2, chance)) for _ in range(500)]
    assert sum(held is True for held, _ in found) >= 0.98 * len(found)
    assert not any(held is False for held, _ in found)


def test_a_drop_that_is_there_is_found():
    chance = random.Random(3)
    found = [answer(noisy(0.5, 0.1, chance))[0] for _ in range(200)]
    assert found.count(False) >= 0.95 * len(found)


def test_the_looks_are_fixed_beforehand():
    assert stays_above([1.0] * 7, bar=0.8) is None
    assert stays_above([1.0] * 8, bar=0.8) is True
    assert stays_above([1.0] * 8 + [0.5] * 32, bar=0.8) is True  # what was answered stays answered
    assert LOOKS[-1] <= 40


def test_an_undecided_claim_leaves_the_verdict_incomplete_unless_another_failed():
    assert verdict({"lesson1": ["passed", "undecided"]}) == "incomplete"
    assert verdict({"lesson1": ["undecided"], "lesson2": ["failed"]}) == "failed"
