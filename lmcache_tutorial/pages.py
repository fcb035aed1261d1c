"""What every page shares: the template environment, and how numbers are printed. Light: no matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

# The pages of the sets of peers, each in a file of that name.
TITLES = {
    "peers": "LMCache and its peers, side by side",
    "tuning": "What makes LMCache's first token faster: predicted, changed, measured",
}
SMALLEST = 9  # decimal places that are printed at most
RANDOM_WEIGHTS = "random weights: times and hits are real, answers are noise"


def page_environment() -> Environment:
    """Return an environment that escapes everything and fails on what is missing."""
    environment = Environment(
        loader=PackageLoader("lmcache_tutorial"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.globals["random_weights"] = RANDOM_WEIGHTS
    environment.filters |= {"percent": percent, "seconds": seconds, "figure": figure}
    environment.filters |= {"summary": summary, "sequence": sequence}
    return environment


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


def machine_words(environment: Mapping[str, Any]) -> str:
    """Say what the run's work was fitted to; empty where the document does not tell.

    >>> machine_words({"instruction_set": "AMX", "cores": 2, "dtype": "bfloat16", "prefill_tokens_s": 2130.4})
    'AMX, 2 cores, bfloat16, prefill 2,130 tokens/s'
    """
    cores, rate = environment.get("cores"), environment.get("prefill_tokens_s")
    words = [
        environment.get("instruction_set"),
        cores and figure(cores, "cores" if cores > 1 else "core"),
        environment.get("dtype"),
        rate and f"prefill {rate:,.0f} tokens/s",
    ]
    return ", ".join(word for word in words if word)


def workload_words(environment: Mapping[str, Any]) -> str:
    """Say how long the documents are and why; empty where the document does not tell.

    >>> sizes = {"class": "small", "short": 1200, "medium": 2400, "long": 4800, "reason": "it is slow"}
    >>> workload_words({"workload": sizes})
    'documents of 1,200, 2,400 and 4,800 tokens, because it is slow'
    """
    workload = environment.get("workload")
    if not workload:
        return ""
    short, medium, long = (figure(workload[size]) for size in ("short", "medium", "long"))
    return f"documents of {short}, {medium} and {long} tokens, because {workload['reason']}"
