"""Measured quantities. Pure functions; fractions of 1 inside, per cent only where printed.

An interval is a percentile bootstrap: rounds are drawn with replacement, as many as there are, 10,000 times;
each time the statistic is computed anew, and the interval runs from the 2.5th to the 97.5th per cent of what
came out. It is plain Python, so that the command and the plugin need neither numpy nor scipy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from math import comb, isfinite
from random import Random
from statistics import median

from .records import Interval, TokenSources

Draw = Sequence[int]
"""The rounds of one resample, by their numbers; a round may stand in it several times, or not at all."""
RESAMPLES = 10_000
TAILS = (0.025, 0.975)  # the ends of a 95 % interval
SEED = 20_260_101
LOOKS = (8, 12, 16, 24, 32, 40)  # the rounds after which a sequential test may answer
ERROR_RATE = 0.025  # of either answer, over all looks together


def total(windows: Iterable[TokenSources]) -> TokenSources:
    """Add up windows, part by part.

    >>> total([TokenSources(1, 2, 3, 4), TokenSources(1, 0, 0, 0)])
    TokenSources(computed=2, engine=2, lmcache_l1=3, lmcache_l2=4, untold=0)
    """
    parts = [(w.computed, w.engine, w.lmcache_l1, w.lmcache_l2, w.untold) for w in windows]
    return (
        TokenSources(*(sum(column) for column in zip(*parts, strict=True)))
        if parts
        else TokenSources(0, 0, 0, 0)
    )


def hit_rate(windows: Iterable[TokenSources]) -> float:
    """Compute reused tokens over prompt tokens, summed over the stated warm calls.

    Args:
        windows: the token sources of each call (or window of parallel calls).

    Returns:
        A fraction, 0 to 1.

    Raises:
        ValueError: there is no call, or no prompt token: a rate of nothing is not 0.

    >>> hit_rate([TokenSources(computed=10, engine=90, lmcache_l1=0, lmcache_l2=0)])
    0.9
    """
    tokens = total(windows)
    if tokens.prompt == 0:
        raise ValueError("no prompt tokens were measured: a hit rate needs at least one call")
    return tokens.reused / tokens.prompt


def median_interval(values: Sequence[float]) -> Interval:
    """Compute a median with its 95 % percentile bootstrap interval (10,000 resamples, fixed seed).

    Raises:
        ValueError: fewer than three values, or one that is not finite.

    >>> median_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    Interval(value=3.0, low=1.0, high=5.0)
    """
    if len(values) < 3:
        raise ValueError(f"a median with an interval needs three values or more; got {len(values)}")
    if not all(map(isfinite, values)):
        raise ValueError("every value must be finite")
    low, high = _bootstrap(len(values), lambda draw: _median_of(values, draw))
    return Interval(float(median(values)), low, high)


def ratio_of_medians(numerator: Sequence[float], denominator: Sequence[float]) -> Interval:
    """Compare paired rounds: median over median, with a 95 % percentile bootstrap interval over rounds.

    Args:
        numerator: one value a round, above 0; at least 3 rounds.
        denominator: the value of the same round in the other arm, above 0; the same length.

    Returns:
        The ratio and its interval; 10,000 resamples of whole rounds, fixed seed.

    Raises:
        ValueError: the rounds are not paired, fewer than three, or not above 0.

    >>> ratio_of_medians([1.0, 1.1, 0.9], [2.0, 2.0, 2.0])
    Interval(value=0.5, low=0.45, high=0.55)
    """
    rounds = _check_paired(numerator, denominator)
    low, high = _bootstrap(rounds, lambda draw: _median_of(numerator, draw) / _median_of(denominator, draw))
    return Interval(median(numerator) / median(denominator), low, high)


def ratio_unpaired(numerator: Sequence[float], denominator: Sequence[float]) -> Interval:
    """Compare two runs whose rounds do not belong together: median over median, with a 95 % interval.

    Args:
        numerator: one value a round of one run, above 0; at least 3 rounds.
        denominator: likewise of another; there may be another number of rounds.

    Returns:
        The ratio and its percentile bootstrap interval; 10,000 resamples of each run by itself, fixed seed.

    Raises:
        ValueError: fewer than three rounds, or not above 0.

    >>> ratio_unpaired([2.0, 2.0, 2.0], [1.0, 1.0, 1.0, 1.0])
    Interval(value=2.0, low=2.0, high=2.0)
    """
    rounds = min(len(numerator), len(denominator))
    if rounds < 3:
        raise ValueError(f"three rounds or more of each run are needed; got {rounds}")
    if not all(isfinite(value) and value > 0 for value in (*numerator, *denominator)):
        raise ValueError("every round must hold a positive, finite measurement")
    first = [_median_of(numerator, draw) for draw in _draws(len(numerator))]
    second = [_median_of(denominator, draw) for draw in _draws(len(denominator))]
    Random(SEED).shuffle(second)  # else runs of equal length would be drawn alike, as if they were paired
    results = sorted(one / other for one, other in zip(first, second, strict=True))
    low, high = (_percentile(results, tail) for tail in TAILS)
    return Interval(median(numerator) / median(denominator), low, high)


def _bootstrap(rounds: int, statistic: Callable[[Draw], float]) -> tuple[float, float]:
    """Compute the ends of the percentile interval of a statistic over rounds."""
    results = sorted(statistic(draw) for draw in _draws(rounds))
    low, high = (_percentile(results, tail) for tail in TAILS)
    return low, high


@lru_cache(maxsize=8)
def _draws(rounds: int) -> tuple[Draw, ...]:
    """Draw the rounds of every resample; the same for every quantity of as many rounds, since the seed is."""
    drawn = Random(SEED).choices(range(rounds), k=rounds * RESAMPLES)
    return tuple(tuple(drawn[at : at + rounds]) for at in range(0, len(drawn), rounds))


def _check_paired(numerator: Sequence[float], denominator: Sequence[float]) -> int:
    """Return how many rounds there are, of which ratios can be formed."""
    rounds = len(numerator)
    if rounds != len(denominator) or rounds < 3:
        raise ValueError(f"paired rounds, three or more, are needed; got {rounds} and {len(denominator)}")
    if not all(isfinite(value) and value > 0 for value in (*numerator, *denominator)):
        raise ValueError("every round must hold a positive, finite measurement")
    return rounds


def _median_of(values: Sequence[float], draw: Draw) -> float:
    # statistics.median does the same, at three times the time: this is called 20,000 times an interval.
    drawn = sorted([values[number] for number in draw])
    middle = len(drawn) // 2
    return float(drawn[middle] if len(drawn) % 2 else (drawn[middle - 1] + drawn[middle]) / 2)


def _percentile(ordered: Sequence[float], fraction: float) -> float:
    """Interpolate linearly between the two values around a place; equal values give exactly that value.

    >>> _percentile([1.0, 2.0, 3.0], 0.25)
    1.5
    """
    place = fraction * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 2)
    return ordered[below] + (ordered[below + 1] - ordered[below]) * (place - below)


def ttft_drop(cold_s: Sequence[float], warm_s: Sequence[float]) -> Interval:
    """Compute the TTFT drop, 1 - median warm / median cold, over paired rounds, with its interval.

    Args:
        cold_s: TTFT of each round from a cold cache [s].
        warm_s: TTFT of the same rounds from the named warm cache [s].

    Returns:
        Fractions of 1; ``low`` is the end that must lie above the bar.

    Raises:
        ValueError: as :func:`ratio_of_medians`.

    >>> round(ttft_drop([2.0, 2.0, 2.0], [0.5, 0.5, 0.5]).low, 2)
    0.75
    """
    ratio = ratio_of_medians(warm_s, cold_s)
    return Interval(1 - ratio.value, 1 - ratio.high, 1 - ratio.low)


def stays_above(values: Sequence[float], bar: float) -> bool | None:
    """Test sequentially whether the median of a quantity lies above a bar: an exact sign test at set looks.

    To show that nothing changes takes more rounds the noisier a machine is. Looking after every round, and
    stopping when the answer pleases, would be wrong more often than is said; so the looks are fixed
    beforehand, and each spends an equal part of the error rate (Bonferroni). Only the signs count, so no
    outlier and no shape of the distribution matters.

    Args:
        values: one a round, in order, for example the ratio of two times.
        bar: what the median is compared with.

    Returns:
        ``True`` or ``False`` once a look decided, each wrong in at most 2.5 % of all tests; ``None`` while
        none has, or when the last look (after 40 rounds) could not.

    >>> stays_above([0.98, 1.01, 1.02, 0.97, 1.0, 0.99, 1.03], bar=0.8) is None
    True
    >>> stays_above([0.98, 1.01, 1.02, 0.97, 1.0, 0.99, 1.03, 1.0], bar=0.8)
    True
    """
    for look in LOOKS:
        if look > len(values):
            break
        above = sum(value > bar for value in values[:look])
        below = sum(value < bar for value in values[:look])
        if _chance_of_as_many(above, look) <= ERROR_RATE / len(LOOKS):
            return True
        if _chance_of_as_many(below, look) <= ERROR_RATE / len(LOOKS):
            return False
    return None


def _chance_of_as_many(heads: int, tosses: int) -> float:
    return sum(comb(tosses, count) for count in range(heads, tosses + 1)) / (1 << tosses)


def clocks_differ_by(client_s: Sequence[float], engine_s: Sequence[float]) -> Interval:
    """Compute the median of client TTFT minus the engine's own, over the same calls, with its interval [s].

    Raises:
        ValueError: the clocks did not time the same calls, or fewer than three.

    >>> round(clocks_differ_by([1.01, 1.02, 1.03], [1.0, 1.0, 1.0]).value, 9)
    0.02
    """
    if len(client_s) != len(engine_s):
        raise ValueError("both clocks must have timed the same calls")
    return median_interval([c - e for c, e in zip(client_s, engine_s, strict=True)])


def clock_tolerance_s(engine_s: Sequence[float]) -> float:
    """Compute how far two clocks may differ: the larger of 5 % of the engine's median and 10 ms [s].

    >>> clock_tolerance_s([1.0, 1.0]), clock_tolerance_s([0.05])
    (0.05, 0.01)
    """
    return max(0.05 * median(engine_s), 0.010)
