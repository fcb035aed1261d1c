"""The bars of the acceptance gate: 90 % of the prompt reused, TTFT down by 70 %; their check."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import ConfigError

MIN_HIT_RATE, MIN_TTFT_DROP = 90.0, 70.0


@dataclass(frozen=True)
class Thresholds:
    """The bars of the acceptance gate, as fractions of 1; a bar is passed by going above it."""

    min_hit_rate: float = MIN_HIT_RATE / 100
    min_ttft_drop: float = MIN_TTFT_DROP / 100


def percent(option: str, value: float) -> float:
    """Check a bar given in per cent.

    Args:
        option: its plain name, for the message.
        value: what was given for it.

    >>> percent("min_hit_rate", 90)
    90.0

    Raises:
        ConfigError: below 0, 100 or more, not a number, or a fraction by mistake.
    """
    bar = float(value)
    if math.isnan(bar) or not 0 <= bar < 100:
        raise ConfigError(
            lambda spelled: f"{spelled(option)} is {bar:g}, but must be a per cent value from 0 to below 100."
        )
    if 0 < bar < 1:
        raise ConfigError(
            lambda spelled: (
                f"{spelled(option)} is {bar:g}: per cent, not a fraction. Did you mean {bar * 100:g}?"
            )
        )
    return bar
