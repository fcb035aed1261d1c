"""A finished answer: the timed pieces of its stream -> all that they tell, and a Call of our engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..quantities.records import Call
from ..servers.counters import CountersError
from .first_token import DONE, events, token_text

MARK_PIECES = 8  # the end mark is among the last of a stream's pieces, however it is cut


@dataclass(frozen=True, slots=True)
class Streamed:
    """All that the events of a stream tell.

    Attributes:
        times: when each piece of the answer came, client clock [s].
        text: the answer.
        likely: for each token its ``token``, ``logprob`` and ``top_logprobs``, as a chat tells them.
        generated: the answer's token ids.
        usage: the server's count of tokens; empty where it does not tell.
        metrics: vLLM's own times of the request; empty likewise.
        error: what came in the answer's place, or within it; empty where nothing did.
        id: the server's name for the answer.
        whole: whether anything tells that the answer ended, and was not cut off: a reason for its end, the
            count of tokens, or the stream's own end mark.
    """

    times: tuple[float, ...]
    text: str
    likely: tuple[Mapping[str, Any], ...]
    generated: tuple[int, ...]
    usage: Mapping[str, Any]
    metrics: Mapping[str, Any]
    error: str
    id: str = ""
    whole: bool = True

    @property
    def cached_tokens(self) -> int | None:
        """How many prompt tokens were not computed; ``None`` where the server does not tell."""
        details = self.usage.get("prompt_tokens_details")
        return details.get("cached_tokens") if isinstance(details, Mapping) else None


def read_stream(chunks: Sequence[tuple[float, bytes]]) -> Streamed:
    """Read a streamed chat or completion from its timed pieces.

    Args:
        chunks: (arrival on the client clock [s], bytes) in order; pieces may cut an event anywhere.

    Raises:
        ValueError: an event is no JSON.
    """
    times: list[float] = []
    text: list[str] = []
    likely: list[Mapping[str, Any]] = []
    generated: list[int] = []
    usage: Mapping[str, Any] = {}
    metrics: Mapping[str, Any] = {}
    error, name = "", ""
    whole = DONE in b"".join(piece for _, piece in chunks[-MARK_PIECES:])
    for at, event in events(chunks):
        usage, metrics = event.get("usage") or usage, event.get("metrics") or metrics
        error, name = error or _told_error(event.get("error")), name or str(event.get("id") or "")
        for choice in event.get("choices") or ():
            if (piece := token_text(choice)) is not None:
                times.append(at)
                text.append(piece)
            whole = whole or choice.get("finish_reason") is not None
            generated += choice.get("token_ids") or []
            likely += _likely(choice.get("logprobs") or {})
    told = (tuple(times), "".join(text), tuple(likely), tuple(generated))
    return Streamed(*told, usage, metrics, error, name, whole or bool(usage))


def parse_stream(chunks: Sequence[tuple[float, bytes]], *, node: str, sent: float) -> Call:
    """Read the answer of an engine of ours, which tells everything.

    Args:
        chunks: as :func:`read_stream`.
        node: the graph node that asked.
        sent: when the request was sent, same clock [s].

    Returns:
        The call, without a token split.

    Raises:
        CountersError: the stream has no content, or no usage (``stream_usage=True`` is needed), or the
            server does not report cached tokens (``--enable-prompt-tokens-details``).
    """
    found = read_stream(chunks)
    if not found.times or found.usage.get("prompt_tokens_details") is None:
        raise CountersError(
            f"a streamed answer with content and usage was expected; "
            f"{len(found.times)} pieces of content came, usage {found.usage}."
        )
    return Call(
        node=node,
        prompt_tokens=found.usage["prompt_tokens"],
        cached_tokens=found.cached_tokens or 0,
        ttft_s=found.times[0] - sent,
        engine_ttft_s=None,
        queue_s=_seconds(found.metrics.get("queue_time_ms")),
        prefill_s=_seconds(found.metrics.get("time_to_first_token_ms")),
        text=found.text,
        logprobs=tuple(token["logprob"] for token in found.likely),
        tokens=None,
        generated=found.generated,
        lead=_lead(found.likely[0]) if found.likely else None,
        id=found.id,
    )


def _likely(told: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """Return the log-probabilities of a choice in a chat's form; a completion's are three lists."""
    if content := told.get("content"):
        return list(content)
    values = told.get("token_logprobs") or ()
    tops = told.get("top_logprobs") or [None] * len(values)
    return [
        {
            "token": token,
            "logprob": value,
            "top_logprobs": [{"token": name, "logprob": one} for name, one in (top or {}).items()],
        }
        for token, value, top in zip(told.get("tokens") or (), values, tops, strict=False)
        if value is not None
    ]


def _told_error(told: Any) -> str:
    return str(told.get("message", told) if isinstance(told, Mapping) else told or "")


def _lead(token: Mapping[str, Any]) -> float | None:
    """Compute by how much the likeliest of a token's candidates leads the next one [nats].

    >>> _lead({"top_logprobs": [{"logprob": -2.0}, {"logprob": -0.5}]})
    1.5
    """
    first, *others = sorted((one["logprob"] for one in token.get("top_logprobs") or [token]), reverse=True)
    return first - others[0] if others else None


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
