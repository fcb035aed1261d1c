"""A group of prompts, asked of a deployment: what it reuses, how soon it answers, whether it says the same.

The group is asked in its order within a namespace of its own, as one user after another would; the first
request computes what the others find, and is not judged. A group of one request is asked twice. Beside each
judged request, in the same round, the same prompt is asked in a namespace that nobody has asked in: that is
its cold pair.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from ..asking.answers import Answer
from ..prompts.prompts_file import Prompt, PromptGroup
from ..quantities.predict import (
    engine_reusable_tokens,
    lmcache_reusable_tokens,
    reusable_tokens,
    shared_prefix_tokens,
)
from ..quantities.records import Interval
from ..quantities.statistics import ttft_drop
from .deployment import Deployment, DeploymentError
from .namespace import Namespace

ROUNDS = 7  # of a claim of an effect, as in the lessons
HIT_ROUNDS = 2  # where times are not judged: one with cold first, one with warm first
SETTLE_S = 0.2  # what an engine has computed is stored behind it a moment after its answer


@dataclass(frozen=True, slots=True)
class Pair:
    """One judged request in one round, cold and warm."""

    prompt: Prompt
    cold: Answer
    warm: Answer


@dataclass(frozen=True)
class Forerunner:
    """Which earlier request of the group a prompt shares most with; tokens as the server renders them.

    ``with_answer`` counts the earlier request's answer in, whose KV the engine has too, and LMCache has not
    (its ``save_decode_cache`` is off, unless it is asked for). ``by_salt`` tells that they would share more,
    and another ``cache_salt`` keeps them apart.
    """

    prompt: Prompt
    shared_tokens: int
    prompt_tokens: int
    with_answer: int
    by_salt: bool = False


@dataclass(frozen=True)
class Asked:
    """A request that was asked: its token ids, and those of its answer, if the server tells them."""

    prompt: Prompt
    ids: Sequence[int]
    generated: Sequence[int] = ()

    def shared(self, ids: Sequence[int]) -> int:
        """Count the tokens that a prompt shares with this one [tokens]."""
        return shared_prefix_tokens(self.ids, ids)

    def shared_with_answer(self, ids: Sequence[int]) -> int:
        """Count the same, the answer counted in, but for its last token, which was never computed."""
        return shared_prefix_tokens((*self.ids, *self.generated[:-1]), ids)


@dataclass(frozen=True)
class Measured:
    """What a group's rounds have shown.

    Attributes:
        group: what was asked.
        rounds: the judged requests of each round, in the group's order.
        forerunners: of each judged request; ``None`` where the server does not tell token ids.
        predicted: reused tokens of each judged request; ``None`` where they cannot be worked out.
        heads: tokens that stand in front of the nonce in each judged request, which the template writes
            and every request shares; 0 where a salt makes cold, ``None`` where the server does not tell.
    """

    group: PromptGroup
    rounds: tuple[tuple[Pair, ...], ...]
    forerunners: tuple[Forerunner, ...] | None = None
    predicted: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None

    @property
    def pairs(self) -> list[Pair]:
        """Every judged request of every round."""
        return [pair for one in self.rounds for pair in one]

    @property
    def tells_cached(self) -> bool:
        """Whether the answers say how many tokens were not computed.

        Every one must tell how long its prompt was; some versions of vLLM then leave out the cached tokens
        where there are none.
        """
        answers = [answer for pair in self.pairs for answer in (pair.cold, pair.warm)]
        some = any(answer.cached_tokens is not None for answer in answers)
        return some and all(answer.prompt_tokens for answer in answers)

    @property
    def reused(self) -> list[list[int]]:
        """The tokens that each judged request reused, by round; what was not told counts as none."""
        return [[pair.warm.cached_tokens or 0 for pair in one] for one in self.rounds]

    @property
    def hit_rate(self) -> float:
        """Reused tokens over prompt tokens, of all judged requests."""
        prompts = sum(pair.warm.prompt_tokens or 0 for pair in self.pairs)
        return sum(map(sum, self.reused)) / prompts if prompts else 0.0

    @property
    def cold_reused(self) -> int:
        """Tokens reused by requests that nobody can have asked before; other than 0 is a fault."""
        if self.heads is None:
            return 0
        return sum(
            max(0, (pair.cold.cached_tokens or 0) - head)
            for one in self.rounds
            for pair, head in zip(one, self.heads, strict=True)
        )

    @property
    def times(self) -> dict[str, list[float]]:
        """The TTFT of all judged requests of a round together, one a round [s]."""
        return {
            "cold": [sum(pair.cold.ttft_s for pair in one) for one in self.rounds],
            "warm": [sum(pair.warm.ttft_s for pair in one) for one in self.rounds],
        }

    @property
    def ttft_drop(self) -> Interval:
        """The drop of the TTFT, paired by round."""
        return ttft_drop(self.times["cold"], self.times["warm"])

    @property
    def distances(self) -> list[float]:
        """How far the first token's log-probability moved by reuse, of each pair that tells [nats]."""
        found = [pair.cold.distance(pair.warm) for pair in self.pairs]
        return [one for one in found if one is not None]

    @property
    def flipped(self) -> int:
        """How many answers have another text than their cold pair."""
        return sum(pair.cold.text != pair.warm.text for pair in self.pairs)


def ask_group(
    deployment: Deployment,
    group: PromptGroup,
    rounds: int | None = None,
) -> Measured:
    """Ask a group, some rounds, each in namespaces of its own; unless told, as many as its claims take.

    Where LMCache is to serve the group, the engine's own cache is emptied before each warm request.

    Raises:
        NoAnswerError: a request had no answer.
        DeploymentError: the engine's own cache must be emptied, and is not.
    """
    check_served_by(deployment, group)
    first, *others = group.prompts
    judged = others or [first]
    found, answers = [], []
    for number in range(rounds or (ROUNDS if group.bars.times else HIT_ROUNDS)):
        namespace = deployment.namespace()
        answers.append(deployment.ask(first, namespace))
        time.sleep(SETTLE_S)
        found.append(tuple(_pair(deployment, group, one, namespace, number) for one in judged))
    generated = [answers[0].generated, *(pair.warm.generated for pair in found[0])]
    forerunners = _forerunners(deployment, [first, *judged], generated)
    predicted = _predicted(deployment, group, forerunners)
    return Measured(group, tuple(found), forerunners, predicted, _heads(deployment, judged))


def check_served_by(deployment: Deployment, group: PromptGroup) -> None:
    """Check that LMCache's hits can be told from the engine's own, where a group wants LMCache's.

    Raises:
        DeploymentError: they cannot.
    """
    if group.bars.served_by != "lmcache":
        return
    if deployment.chunk_tokens is None:
        raise DeploymentError(
            f"the group {group.name} is to be served by LMCache, and none was named.\n"
            "To fix: --kv-lmcache-url=http://…, the address of its HTTP side"
        )
    if not deployment.may_reset:
        raise DeploymentError(
            f"the group {group.name} is to be served by LMCache, and the engine's own cache would serve it "
            "first.\n"
            "To fix: --kv-allow-reset, if the engine's own cache may be emptied"
        )


def _pair(
    deployment: Deployment, group: PromptGroup, prompt: Prompt, namespace: Namespace, number: int
) -> Pair:
    """Ask a request cold and warm, each first in its turn.

    Were cold always first, one of two engines behind a router would get the group's first request and every
    warm one.
    """
    if number % 2:
        warm = _ask_warm(deployment, group, prompt, namespace)
        return Pair(prompt, deployment.ask(prompt, deployment.namespace()), warm)
    cold = deployment.ask(prompt, deployment.namespace())
    return Pair(prompt, cold, _ask_warm(deployment, group, prompt, namespace))


def _ask_warm(deployment: Deployment, group: PromptGroup, prompt: Prompt, namespace: Namespace) -> Answer:
    if group.bars.served_by == "lmcache":
        deployment.forget()
    return deployment.ask(prompt, namespace)


def _forerunners(
    deployment: Deployment, prompts: Sequence[Prompt], generated: Sequence[Sequence[int]]
) -> tuple[Forerunner, ...] | None:
    """Find for every request but the first the earlier one that it shares most tokens with."""
    namespace = deployment.namespace()
    asked: list[Asked] = []
    found = []
    for prompt, answer in zip(prompts, generated, strict=True):
        ids = deployment.tokens(prompt, namespace)
        if not ids:
            return None
        if asked:
            found.append(forerunner(deployment, asked, prompt, ids))
        asked.append(Asked(prompt, ids, answer))
    return tuple(found)


def forerunner(
    deployment: Deployment, asked: Sequence[Asked], prompt: Prompt, ids: Sequence[int]
) -> Forerunner:
    """Find the earlier prompt that a prompt shares most tokens with; those of another salt share nothing.

    Args:
        deployment: which may ignore salts.
        asked: what was asked before, one or more.
        prompt: the one that is asked now.
        ids: its token ids.
    """

    def apart(before: Asked) -> bool:
        return deployment.honours_salts and before.prompt.salt != prompt.salt

    def shares(before: Asked) -> tuple[int, int]:
        tokens = before.shared_with_answer(ids)
        return 0 if apart(before) else tokens, tokens

    most = max(asked, key=shares)  # where salts part all, the one that would share most
    if apart(most):
        return Forerunner(most.prompt, 0, len(ids), 0, by_salt=most.shared(ids) > 0)
    shared = max(one.shared(ids) for one in asked if not apart(one))  # perhaps with another one, for LMCache
    return Forerunner(most.prompt, shared, len(ids), most.shared_with_answer(ids))


def _heads(deployment: Deployment, judged: Sequence[Prompt]) -> tuple[int, ...] | None:
    """Count what each request shares with itself in another namespace."""
    if deployment.honours_salts:
        return (0,) * len(judged)
    # They differ in their last character alone, so no two namespaces share more than these.
    one = deployment.namespace()
    other = Namespace(nonce=one.nonce[:-1] + ("1" if one.nonce.endswith("0") else "0"))
    ids = [(deployment.tokens(prompt, one), deployment.tokens(prompt, other)) for prompt in judged]
    if not all(first and second for first, second in ids):
        return None
    return tuple(shared_prefix_tokens(first or [], second or []) for first, second in ids)


def _predicted(
    deployment: Deployment, group: PromptGroup, forerunners: Sequence[Forerunner] | None
) -> tuple[int, ...] | None:
    """Predict what each judged request reuses, where blocks are known and token ids were told."""
    if forerunners is None:
        return None
    by_lmcache = group.bars.served_by == "lmcache"
    found = [reusable(deployment, one, by_lmcache=by_lmcache) for one in forerunners]
    known = [one for one in found if one is not None]
    return tuple(known) if len(known) == len(found) else None


def reusable(deployment: Deployment, one: Forerunner, *, by_lmcache: bool = False) -> int | None:
    """Predict what a request reuses [tokens]; ``None`` where the deployment does not tell its block.

    Args:
        deployment: whose block and chunk decide.
        one: what the prompt shares with an earlier one.
        by_lmcache: the engine's own cache is emptied before.
    """
    block, chunk = deployment.block_tokens, deployment.chunk_tokens
    shared, prompt = one.with_answer, one.prompt_tokens
    if chunk is not None and by_lmcache:
        return lmcache_reusable_tokens(one.shared_tokens, prompt, chunk)
    if block is None:
        return None
    if chunk is None:
        return engine_reusable_tokens(shared, prompt, block)
    return reusable_tokens(shared, prompt, block=block, chunk=chunk)
