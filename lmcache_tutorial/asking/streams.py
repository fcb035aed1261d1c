"""A finished answer: the timed pieces of its stream -> the Call that they tell of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..quantities.records import Call
from ..servers.counters import CountersError
from .first_token import events, token_text


def parse_stream(chunks: Sequence[tuple[float, bytes]], *, node: str, sent: float) -> Call:
    """Read a streamed chat completion from its timed pieces.

    Args:
        chunks: (arrival on the client clock [s], bytes) in order; pieces may cut an event anywhere.
        node: the graph node that asked.
        sent: when the request was sent, same clock [s].

    Returns:
        The call, without a token split.

    Raises:
        CountersError: the stream has no content, or no usage (``stream_usage=True`` is needed), or the
            server does not report cached tokens (``--enable-prompt-tokens-details``).
    """
    answered = list(events(chunks))
    times: list[float] = []
    text: list[str] = []
    likely: list[dict[str, Any]] = []
    generated: list[int] = []
    usage: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    for at, event in answered:
        usage, metrics = event.get("usage") or usage, event.get("metrics") or metrics
        for choice in event.get("choices", []):
            if (piece := token_text(choice)) is not None:
                times.append(at)
                text.append(piece)
            generated += choice.get("token_ids") or []
            likely += (choice.get("logprobs") or {}).get("content") or []
    details = usage.get("prompt_tokens_details")
    if not times or details is None:
        raise CountersError(
            f"a streamed answer with content and usage was expected; "
            f"{len(times)} pieces of content came, usage {usage}."
        )
    return Call(
        node=node,
        prompt_tokens=usage["prompt_tokens"],
        cached_tokens=details.get("cached_tokens") or 0,
        ttft_s=times[0] - sent,
        engine_ttft_s=None,
        queue_s=_seconds(metrics.get("queue_time_ms")),
        prefill_s=_seconds(metrics.get("time_to_first_token_ms")),
        text="".join(text),
        logprobs=tuple(token["logprob"] for token in likely),
        tokens=None,
        generated=tuple(generated),
        lead=_lead(likely[0]) if likely else None,
    )


def _lead(token: Mapping[str, Any]) -> float | None:
    """Compute by how much the likeliest of a token's candidates leads the next one [nats].

    >>> _lead({"top_logprobs": [{"logprob": -2.0}, {"logprob": -0.5}]})
    1.5
    """
    first, *others = sorted((one["logprob"] for one in token.get("top_logprobs") or [token]), reverse=True)
    return first - others[0] if others else None


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
