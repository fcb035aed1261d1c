"""Load or compute: the length from which it takes less time to load KV than to prefill it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from statistics import median


@dataclass(frozen=True, slots=True)
class Line:
    """A time that grows with the prompt: what every request takes [s], and what each token adds [s].

    >>> Line(0.01, 0.001).seconds(500)
    0.51
    """

    fixed_s: float
    token_s: float

    @classmethod
    def through(cls, rounds: Mapping[int, Sequence[float]]) -> Line:
        """Draw a line through the medians at the shortest and the longest of some lengths.

        Args:
            rounds: the tokens of a prompt -> what it took, one a round [s].

        Raises:
            ValueError: fewer than two lengths.

        >>> line = Line.through({100: [0.2, 0.2, 0.3], 300: [0.4, 0.5, 0.4]})
        >>> round(line.fixed_s, 9), round(line.token_s, 9)
        (0.1, 0.001)
        """
        if len(rounds) < 2:
            raise ValueError(f"a line needs two lengths; got {len(rounds)}")
        short, long = min(rounds), max(rounds)
        slope = (median(rounds[long]) - median(rounds[short])) / (long - short)
        return cls(median(rounds[short]) - slope * short, slope)

    def seconds(self, tokens: float) -> float:
        """Return the time at a length [s]."""
        return self.fixed_s + self.token_s * tokens


def break_even_tokens(compute: Line, load: Line) -> float:
    """Compute from which length on loading takes less time than computing [tokens].

    Returns:
        0 where it always does, ``inf`` where it never does.

    >>> break_even_tokens(Line(0.01, 0.001), Line(0.04, 0.0001))  # 30 ms more, 0.9 ms less a token
    33.333333333333336
    >>> break_even_tokens(Line(0.01, 0.001), Line(0.01, 0.002))
    inf
    """
    if load.token_s >= compute.token_s:
        return inf if load.fixed_s >= compute.fixed_s else 0.0
    return max(0.0, (load.fixed_s - compute.fixed_s) / (compute.token_s - load.token_s))


def near_break_even(tokens: float, even: float, factor: float) -> bool:
    """Tell whether a length is so near a break-even that both ways take about as long.

    Args:
        tokens: the length [tokens], above 0.
        even: the break-even, as ``break_even_tokens`` returns it: 0 and ``inf`` are near to nothing.
        factor: how many times as long, or as short, is still near; above 1.

    >>> [near_break_even(100, even, 1.5) for even in (0.0, 60.0, 70.0, 100.0, 140.0, 160.0, inf)]
    [False, False, True, True, True, False, False]
    """
    return even / factor < tokens < even * factor


def break_even_bytes_s(kv_bytes_per_token: int, token_s: float) -> float:
    """Compute how fast a tier must bring KV, so that a token is loaded as fast as it is computed [bytes/s].

    Args:
        kv_bytes_per_token: of the model in its number format [bytes].
        token_s: the prefill of one token [s], above 0.

    >>> break_even_bytes_s(kv_bytes_per_token=23_040, token_s=0.0005)  # SmolLM2-135M in bfloat16
    46080000.0
    """
    return kv_bytes_per_token / token_s
