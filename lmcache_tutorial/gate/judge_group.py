"""A group's rounds against its bars: three claims, each with what was seen, and why where it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..diagnosis.culprits import ADVICE, difference, kind_of, place
from ..diagnosis.logged import Logged
from ..diagnosis.turns import talk_of
from ..prompts.prompts_file import Prompt
from ..quantities.formats import percent
from ..settings.bars import Thresholds
from ..settings.secrets import redact
from .decide import UndecidedError, lies_above
from .prompt_group import Forerunner, Measured

CONTEXT_CHARACTERS = 40
OTHER_SALT = (
    "it has another cache_salt, and KV is shared only under the same one. "
    "Send one salt for all who may share."
)
Outcome = Literal["passed", "failed", "undecided", "not_run", "inconclusive"]


@dataclass(frozen=True, slots=True)
class Judged:
    """One claim about a group; ``not_run`` where the server does not tell what decides it."""

    claim: str
    outcome: Outcome
    seen: str


def judge_group(measured: Measured, bars: Thresholds, *, mask: bool = False) -> list[Judged]:
    """Judge a group: what is reused, how soon the first token comes, whether the answer is the same.

    ``mask`` leaves the texts of prompts out of what is said.
    """
    times = [_time(measured, bars)] if measured.group.bars.times else []
    return [_hits(measured, bars, mask=mask), *times, _answers(measured)]


def _hits(measured: Measured, bars: Thresholds, *, mask: bool) -> Judged:
    own = measured.group.bars
    if measured.cold_reused:
        return Judged(
            "cold is cold",
            "failed",
            f"{measured.cold_reused:,} tokens came from a cache, although nobody can have asked for them",
        )
    if not measured.tells_cached:
        return Judged(
            "the prompts are reused",
            "not_run",
            "the server does not say how many tokens were not computed "
            "(vLLM: --enable-prompt-tokens-details), so nobody knows whether anything was reused",
        )
    exact = _exact_hits(measured, mask=mask) if own.exact else None
    if exact and exact.outcome != "passed":
        return exact
    bar = bars.min_hit_rate if own.min_hit_rate is None else own.min_hit_rate / 100
    if exact and own.min_hit_rate is None:
        bar = 0.0  # what was predicted is the bar; but where nothing is reused, nothing is gained
    seen = f"hit rate {percent(measured.hit_rate)}, the bar is {percent(bar)}"
    if measured.hit_rate > bar:
        return exact or Judged("the prompts are reused", "passed", seen)
    if exact:
        seen = f"as predicted, {exact.seen}; {seen}"
    return Judged("the prompts are reused", "failed", "\n".join([seen, *_reasons(measured, mask=mask)]))


def _exact_hits(measured: Measured, *, mask: bool) -> Judged:
    claim = "every request reuses what was predicted"
    if measured.predicted is None:
        lacks = "token ids (/tokenize)" if measured.forerunners is None else "its block (/metrics)"
        return Judged(claim, "not_run", f"nothing can be predicted: the server does not tell {lacks}")
    expected = list(measured.predicted)
    wrong = [found for found in measured.reused if found != expected]
    if not wrong:
        return Judged(claim, "passed", f"{sum(expected):,} tokens in each of {len(measured.rounds)} rounds")
    return Judged(
        claim,
        "failed",
        "\n".join([f"predicted {expected}, reused {wrong[0]}", *_reasons(measured, mask=mask)]),
    )


def _time(measured: Measured, bars: Thresholds) -> Judged:
    own, claim = measured.group.bars, "the first token comes sooner"
    bar = bars.min_ttft_drop if own.min_ttft_drop is None else own.min_ttft_drop / 100
    drop = measured.ttft_drop
    seen = (
        f"TTFT drop {percent(drop.value)} ({percent(drop.low)} to {percent(drop.high)}), "
        f"the bar is {percent(bar)}"
    )
    try:
        passed = lies_above(drop, bar, scatter=measured.times["cold"])
    except UndecidedError as error:
        return Judged(claim, "undecided", str(error))
    return Judged(claim, "passed" if passed else "failed", seen)


def _answers(measured: Measured) -> Judged:
    claim, distances = "the answer is the same with reuse as without", measured.distances
    if not distances:
        return Judged(claim, "not_run", "the server tells no log-probabilities")
    tolerance = measured.group.bars.tolerance
    seen = (
        f"the first token's log-probability moved by {max(distances):.3g} at most, {tolerance:g} is allowed; "
        f"{measured.flipped} of {len(measured.pairs)} texts differ later on"
    )
    if max(distances) > tolerance:
        return Judged(claim, "failed", seen)
    if silent := len(measured.pairs) - len(distances):
        seen = f"of {silent} of {len(measured.pairs)} answers the server tells no log-probabilities; {seen}"
        return Judged(claim, "not_run", seen)
    return Judged(claim, "passed", seen)


def _reasons(measured: Measured, *, mask: bool) -> list[str]:
    """Say of the request that reuses least where it parts from its forerunner, and what to do."""
    if measured.forerunners is None:
        return []
    pairs = measured.rounds[0]
    lost = [
        one.prompt_tokens - (pair.warm.cached_tokens or 0)
        for one, pair in zip(measured.forerunners, pairs, strict=True)
    ]
    worst = lost.index(max(lost))
    return parting(pairs[worst].prompt, measured.forerunners[worst], mask=mask)


def parting(prompt: Prompt, forerunner: Forerunner, *, mask: bool = False) -> list[str]:
    """Describe where a prompt parts from an earlier one: which tokens, which message, what stands there."""
    share = forerunner.shared_tokens / forerunner.prompt_tokens
    found = [
        f"{prompt.name} shares its first {forerunner.shared_tokens:,} of "
        f"{forerunner.prompt_tokens:,} tokens ({percent(share)}) with {forerunner.prompt.name}"
    ]
    if forerunner.by_salt:
        return [*found, OTHER_SALT]
    first, second = (
        talk_of(_logged(one), str(one.body.get("prompt", "")), frozenset())
        for one in (forerunner.prompt, prompt)
    )
    at = place(first, second)
    if at is None:
        return found
    # Keys go before the texts are cut: a part of one is not recognised.
    one, other = redact(at.first), redact(at.second)
    start = difference(one, other)
    where = at.segment if at.message_index is None else f"{at.segment}, message {at.message_index}"
    before = other[max(0, start - CONTEXT_CHARACTERS) : start]
    was, now = (text[start : start + CONTEXT_CHARACTERS] for text in (one, other))
    kind = kind_of(first, second, at)
    texts = "" if mask else f": …{before!r} then {was!r} or {now!r}"
    return [*found, f"they part in {where}{texts}", f"{kind}. {ADVICE[kind]}"]


def _logged(prompt: Prompt) -> Logged:
    if not prompt.is_chat:
        return Logged(prompt=str(prompt.body["prompt"]), line=prompt.line)
    tools = tuple(prompt.body.get("tools") or ())
    return Logged(messages=tuple(prompt.body["messages"]), tools=tools, line=prompt.line)
