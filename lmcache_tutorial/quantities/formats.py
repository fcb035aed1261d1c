"""How numbers are printed: per cent, times, units, values of rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

SMALLEST = 9  # decimal places that are printed at most


def percent(fraction: float | None) -> str:
    """Print a fraction of 1.

    >>> percent(0.98765), percent(None)
    ('98.8 %', '–')
    """
    return "–" if fraction is None else f"{fraction * 100:.1f} %"


def seconds(value: float | None) -> str:
    """Print a time.

    >>> seconds(163.2), seconds(239.8), seconds(59.996), seconds(2.345), seconds(0.0123), seconds(None)
    ('2 min 43 s', '4 min 0 s', '1 min 0 s', '2.35 s', '12 ms', '–')
    """
    if value is None:
        return "–"
    if round(value, 2) >= 60:
        return "{} min {} s".format(*divmod(round(value), 60))
    return f"{value:.2f} s" if value >= 1 else f"{value * 1000:.0f} ms"


def figure(value: Any, unit: str = "", *, digits: int = 4) -> str:
    """Print a number with its unit, thousands apart, a fraction to some digits and never as a power of ten.

    >>> figure(23040, "bytes"), figure(0.5, "s"), figure(1234.56, digits=3), figure(0.0000123456)
    ('23,040 bytes', '0.5 s', '1,235', '0.00001235')
    """
    if isinstance(value, float) and not value.is_integer():
        places = min(max(0, digits - 1 - math.floor(math.log10(abs(value)))), SMALLEST)
        text = f"{value:,.{places}f}"
        text = text.rstrip("0").rstrip(".") if places else text
    else:
        text = f"{value:,.0f}"
    return f"{text} {unit}".strip()


def summary(values: Sequence[float], unit: str = "") -> str:
    """Print the values of the rounds: the one that all share, or their range.

    >>> summary([96, 96, 96], "tokens"), summary([1, 2, 3], "tokens")
    ('96 tokens', '1 to 3 tokens')
    """
    if len(set(values)) == 1:
        return figure(values[0], unit)
    return f"{figure(min(values))} to {figure(max(values), unit)}"


def sequence(values: Sequence[float], unit: str = "") -> str:
    """Print values in their order, every one of them.

    >>> sequence([512, 512, 576], "tokens")
    '512, 512, 576 tokens'
    """
    return f"{', '.join(figure(value) for value in values)} {unit}".strip()
