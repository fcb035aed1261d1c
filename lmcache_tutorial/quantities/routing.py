"""Which engine gets a request, and what it then finds, for documents that are asked in turn."""

from __future__ import annotations

from collections.abc import Sequence


def engines_in_turn(policy: str, first: Sequence[str], names: Sequence[str], passes: int) -> list[str]:
    """Predict the engine of every request of several passes over the same documents, one at a time.

    Args:
        policy: ``round_robin`` goes from engine to engine, whatever is asked. ``consistent_hash`` and
            ``cache_aware`` keep a session, or a text, where it was first.
        first: the engines of the first pass, one for each document; where round robin begins, and where a
            hash leads, is not predicted.
        names: the engines, in the router's order.
        passes: 1 or more.

    Source: vllm-router 0.1.17. ``cache_aware`` looks at the load only where requests overlap.

    >>> engines_in_turn("round_robin", ["b", "a", "b"], ["a", "b"], 2)
    ['b', 'a', 'b', 'a', 'b', 'a']
    >>> engines_in_turn("cache_aware", ["b", "a", "a"], ["a", "b"], 2)
    ['b', 'a', 'a', 'b', 'a', 'a']
    """
    if policy != "round_robin":
        return list(first) * passes
    start = names.index(first[0])
    return [names[(start + number) % len(names)] for number in range(len(first) * passes)]


def reused_in_turn(engines: Sequence[str], own: Sequence[int], shared: Sequence[int]) -> list[int]:
    """Predict what each request reuses [tokens]: of its engine's own, of what is shared, or nothing.

    Args:
        engines: the engine of every request.
        own: for each document, what its engine reuses when it has answered about it before [tokens].
        shared: for each document, what an engine reuses that another one has computed [tokens]; 0 where
            nothing is shared.

    >>> reused_in_turn(["a", "b", "a", "b", "a", "b"], own=[64] * 3, shared=[0] * 3)
    [0, 0, 0, 0, 0, 0]
    >>> reused_in_turn(["a", "b", "a", "b", "a", "b", "a"], own=[64] * 3, shared=[32] * 3)
    [0, 0, 0, 32, 32, 32, 64]
    """
    reused, documents = [], len(own)
    for number, engine in enumerate(engines):
        document = number % documents
        earlier = engines[document:number:documents]
        found = shared[document] if earlier else 0
        reused.append(max(found, own[document]) if engine in earlier else found)
    return reused
