"""A reader's own number beside what was measured: how far off it is, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..quantities.formats import figure

Prediction = Mapping[str, Any]


def distance(prediction: Prediction) -> float | None:
    """Tell how far the reader's number lies from what was measured.

    Args:
        prediction: one of results.json, in the unit of its values.

    Returns:
        Below 0 where it is too small, above 0 where it is too large, 0 where it was measured so; ``None``
        where there is no number, or no value that it is about.

    >>> distance({"measured": [96, 128], "yours": {"value": 64, "of": "each"}})
    -32
    >>> distance({"measured": [96, 128], "yours": {"value": 224, "of": "all"}})
    0
    """
    own = prediction.get("yours")
    if not own or not (values := _about(prediction["measured"], own["of"])):
        return None
    value: float = own["value"]
    return min(0, value - min(values)) or max(0, value - max(values))


def own_words(prediction: Prediction) -> str:
    """Say what the reader's number was, which value it is about, and how far off it is; empty without one.

    >>> yours = {"value": 64, "of": 2}
    >>> own_words({"unit": "tokens", "measured": [0, 96], "yours": yours})
    'request 2: 64 tokens, 32 too few'
    """
    own = prediction.get("yours")
    if not own:
        return ""
    about = {"each": "", "all": "all together: "}.get(own["of"], f"request {own['of']}: ")
    words, apart = f"{about}{figure(own['value'], prediction['unit'])}", distance(prediction)
    if apart is None:
        return words
    return f"{words}, {_apart(apart)}"


def own_summary(predictions: Sequence[Prediction]) -> str:
    """Say how many of a lesson's numbers were measured so; empty where none was given.

    >>> yours = {"value": 0, "of": "each"}
    >>> own_summary([{"measured": [0], "yours": yours}, {"measured": [1], "yours": None}])
    'your numbers: 1 of 1 as measured'
    """
    apart = [distance(one) for one in predictions if one.get("yours")]
    known = [one for one in apart if one is not None]
    return f"your numbers: {known.count(0)} of {len(known)} as measured" if known else ""


def _about(values: Sequence[float], of: str | int) -> Sequence[float]:
    """Take out of a prediction's values those that the reader's number is about."""
    if of == "each":
        return values
    return [sum(values)] if of == "all" else values[int(of) - 1 : int(of)]


def _apart(apart: float) -> str:
    if not apart:
        return "as measured"
    return f"{figure(abs(apart))} too {'few' if apart < 0 else 'many'}"
