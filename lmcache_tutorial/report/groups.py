"""What a group's rounds have shown -> its figures in results.json."""

from __future__ import annotations

from typing import Any

from ..gate.prompt_group import Measured
from ..prompts.prompts_file import segments


def figures(measured: Measured) -> dict[str, Any]:
    """Build the figures of a group: the headline, each request, and the times.

    What the server did not tell, or what cannot be worked out from what it told, is ``None``.
    """
    headline: dict[str, float] = {"hit_rate": measured.hit_rate} if measured.tells_cached else {}
    if measured.group.bars.times:
        drop = measured.ttft_drop
        headline |= {"ttft_drop": drop.value, "ttft_drop_low": drop.low, "ttft_drop_high": drop.high}
    measurements = [
        {"name": "TTFT", "unit": "s", "arm": arm, "values": values} for arm, values in measured.times.items()
    ]
    requests = [_request(measured, place) for place in range(len(measured.rounds[0]))]
    return {"headline": headline, "requests": requests, "measurements": measurements}


def _request(measured: Measured, place: int) -> dict[str, Any]:
    """Tell of one judged request: its tokens, and what it reused in each round."""
    pairs = [one[place] for one in measured.rounds]
    prompt, forerunner = pairs[0].prompt, measured.forerunners and measured.forerunners[place]
    return {
        "line": prompt.line,
        "prompt_tokens": pairs[0].warm.prompt_tokens,
        "shared_tokens": forerunner.shared_tokens if forerunner else None,
        "forerunner": forerunner.prompt.line if forerunner else None,
        "predicted": measured.predicted[place] if measured.predicted else None,
        "reused": [pair.warm.cached_tokens for pair in pairs],
        "segments": [list(one) for one in segments(prompt)],
        "forerunner_segments": [list(one) for one in segments(forerunner.prompt)] if forerunner else [],
    }
