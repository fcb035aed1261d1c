"""A measured figure held against its bar, by its whole interval."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median, quantiles

from ..quantities.records import Interval, TokenSources
from ..quantities.statistics import clocks_differ_by


class UndecidedError(Exception):
    """A claim about times that its rounds cannot decide; the message says how much they scatter."""


def lies_above(found: Interval, bar: float, *, scatter: Sequence[float]) -> bool:
    """Hold a measured figure against a bar, by its whole interval.

    Args:
        found: the figure.
        bar: what it must lie above, in the figure's unit.
        scatter: rounds whose spread is told where they cannot decide, for example the cold ones [s].

    Returns:
        Whether the interval lies above the bar (``True``), or at or below it (``False``).

    Raises:
        UndecidedError: the bar lies within the interval.

    >>> lies_above(Interval(0.9, 0.85, 0.95), 0.7, scatter=[1.0, 1.1])
    True
    """
    if found.low > bar:
        return True
    if found.high <= bar:
        return False
    raise UndecidedError(
        f"{found.value:.3f} (95 % interval {found.low:.3f} to {found.high:.3f}) cannot be told from the bar "
        f"of {bar:g}. {_noise(scatter)}"
    )


def lies_within(found: Interval, tolerance: float, *, scatter: Sequence[float]) -> bool:
    """Hold a difference against a tolerance on both sides of 0; arguments and errors as :func:`lies_above`.

    >>> lies_within(Interval(0.002, 0.001, 0.004), 0.01, scatter=[1.0, 1.1])
    True
    """
    if -tolerance <= found.low and found.high <= tolerance:
        return True
    if found.low > tolerance or found.high < -tolerance:
        return False
    raise UndecidedError(
        f"a difference of {found.value:.4f} (95 % interval {found.low:.4f} to {found.high:.4f}) cannot be "
        f"told from the tolerance of {tolerance:.4f}. {_noise(scatter)}"
    )


def clocks_agree(
    one_s: Sequence[float],
    other_s: Sequence[float],
    waited_s: Sequence[float | None],
    tolerance_s: float,
    *,
    scatter: Sequence[float],
) -> bool:
    """Hold two clocks of the same calls against a tolerance; waiting may explain that one is late.

    Where the tolerance lies within the interval of the difference, the clocks agree if what was waited takes
    the interval back to it: then the rounds are no evidence of more.

    Args:
        one_s: the clock that shows more where threads wait for a processor [s].
        other_s: the other clock, call by call [s].
        waited_s: how long threads on the way between them waited in each call [s]; ``None`` where that was
            not measured, and explains nothing.
        tolerance_s: how far the clocks may differ [s].
        scatter: see :func:`lies_above`.

    Raises:
        UndecidedError: the tolerance lies within the interval, and waiting does not explain it; or ``one_s``
            is later by more, and less what was waited it is not, or cannot be told to be.

    >>> clocks_agree([1.0, 1.0, 1.0], [0.9, 0.9, 0.9], [0.01, 0.02, None], 0.05, scatter=[1.0, 1.1])
    False
    """
    differ = clocks_differ_by(one_s, other_s)
    waited = [wait or 0.0 for wait in waited_s]
    unhindered = clocks_differ_by([one - wait for one, wait in zip(one_s, waited, strict=True)], other_s)
    if -tolerance_s <= differ.low <= tolerance_s < differ.high and unhindered.high <= tolerance_s:
        return True
    if lies_within(differ, tolerance_s, scatter=scatter):
        return True
    if differ.low > tolerance_s >= unhindered.low:
        raise UndecidedError(
            f"a difference of {differ.value:.4f} s (95 % interval {differ.low:.4f} to {differ.high:.4f}) is "
            f"more than the tolerance of {tolerance_s:.4f} s, but the machine was busy: threads between the "
            f"clocks stood ready to run without a processor for {median(waited):.4f} s a call (median; at "
            f"most {max(waited):.4f} s), and less that the interval begins at {unhindered.low:.4f} s. "
            f"{_noise(scatter)}"
        )
    return False


def known(served: Sequence[TokenSources]) -> Sequence[TokenSources]:
    """Return who served some requests; where nobody tells of one who did, a claim about that is undecided.

    Raises:
        UndecidedError: of some nobody tells.
    """
    if untold := sum(tokens.untold > 0 for tokens in served):
        raise UndecidedError(
            f"of {untold} of {len(served)} requests nobody tells who served: LMCache had found as many "
            "tokens as were reused, and the engine may have held any part of them. Prompts of another length "
            "decide it."
        )
    return served


def decided(answer: bool | None, *, scatter: Sequence[float]) -> bool:
    """Return the answer of a sequential test; without one the claim is undecided.

    Raises:
        UndecidedError: the test ended without an answer.
    """
    if answer is None:
        raise UndecidedError(f"the test ended at its last round without an answer. {_noise(scatter)}")
    return answer


def _noise(scatter: Sequence[float]) -> str:
    low, _, high = quantiles(scatter, n=4)
    share = (high - low) / median(scatter)
    return (
        f"Half of the {len(scatter)} rounds of the same request lie {share:.0%} apart: end what else runs on "
        "this machine, and run it again."
    )
