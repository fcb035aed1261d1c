"""A group of prompts, asked of a deployment: what it reuses, how soon it answers, whether it says the same.

The group is asked in its order within a namespace of its own, as one user after another would; the first
request computes what the others find, and is not judged. A group of one request is asked twice. Beside each
judged request, in the same round, the same prompt is asked in a namespace that nobody has asked in: that is
its cold pair.
"""

from __future__ import annotations

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
from .deployment import Deployment, DeploymentError, Namespace

ROUNDS = 7  # of a claim of an effect, as in the lessons


@dataclass(frozen=True, slots=True)
class Pair:
    """One judged request in one round, cold and warm."""

    prompt: Prompt
    cold: Answer
    warm: Answer


@dataclass(frozen=True)
class Forerunner:
    """Which earlier request of the group a prompt shares most with; tokens as the server renders them."""

    prompt: Prompt
    shared_tokens: int
    prompt_tokens: int


@dataclass(frozen=True)
class Measured:
    """What a group's rounds have shown.

    Attributes:
        group: what was asked.
        rounds: the judged requests of each round, in the group's order.
        forerunners: of each judged request; ``None`` where the server does not tell token ids.
        predicted: reused tokens of each judged request; ``None`` where they cannot be worked out.
    """

    group: PromptGroup
    rounds: tuple[tuple[Pair, ...], ...]
    forerunners: tuple[Forerunner, ...] | None = None
    predicted: tuple[int, ...] | None = None

    @property
    def pairs(self) -> list[Pair]:
        """Every judged request of every round."""
        return [pair for one in self.rounds for pair in one]

    @property
    def tells_cached(self) -> bool:
        """Whether any answer said how many tokens were not computed."""
        return any(
            answer.cached_tokens is not None for pair in self.pairs for answer in (pair.cold, pair.warm)
        )

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
        """Tokens that requests reused which nobody can have asked before; other than 0 is a fault."""
        return sum(pair.cold.cached_tokens or 0 for pair in self.pairs)

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
    rounds: int = ROUNDS,
) -> Measured:
    """Ask a group, some rounds, each in namespaces of its own.

    Where LMCache is to serve the group, the engine's own cache is emptied before each warm request.

    Raises:
        NoAnswerError: a request had no answer.
        DeploymentError: the engine's own cache must be emptied, and is not.
    """
    check_served_by(deployment, group)
    first, *others = group.prompts
    judged = others or [first]
    found = []
    for _ in range(rounds):
        namespace = deployment.namespace()
        deployment.ask(first, namespace)
        found.append(tuple(_pair(deployment, group, one, namespace) for one in judged))
    forerunners = _forerunners(deployment, first, judged)
    return Measured(group, tuple(found), forerunners, _predicted(deployment, group, forerunners))


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


def _pair(deployment: Deployment, group: PromptGroup, prompt: Prompt, namespace: Namespace) -> Pair:
    cold = deployment.ask(prompt, deployment.namespace())
    if group.bars.served_by == "lmcache":
        deployment.forget()
    return Pair(prompt, cold, deployment.ask(prompt, namespace))


def _forerunners(
    deployment: Deployment, first: Prompt, judged: Sequence[Prompt]
) -> tuple[Forerunner, ...] | None:
    """Find for every judged request the earlier one that it shares most tokens with."""
    namespace = deployment.namespace()
    asked: list[tuple[Prompt, list[int]]] = []
    found = []
    for number, prompt in enumerate((first, *judged)):
        ids = deployment.tokens(prompt, namespace)
        if not ids:
            return None
        if number:
            shared = [(shared_prefix_tokens(other, ids), before) for before, other in asked]
            most, forerunner = max(shared, key=lambda one: one[0])
            found.append(Forerunner(forerunner, most, len(ids)))
        asked.append((prompt, ids))
    return tuple(found)


def _predicted(
    deployment: Deployment, group: PromptGroup, forerunners: Sequence[Forerunner] | None
) -> tuple[int, ...] | None:
    """Predict what each judged request reuses, where blocks are known and token ids were told."""
    block, chunk = deployment.block_tokens, deployment.chunk_tokens
    if forerunners is None or block is None:
        return None
    sizes = [(one.shared_tokens, one.prompt_tokens) for one in forerunners]
    if chunk is None:
        return tuple(engine_reusable_tokens(shared, prompt, block) for shared, prompt in sizes)
    if group.bars.served_by == "lmcache":
        return tuple(lmcache_reusable_tokens(shared, prompt, chunk) for shared, prompt in sizes)
    return tuple(reusable_tokens(shared, prompt, block=block, chunk=chunk) for shared, prompt in sizes)
