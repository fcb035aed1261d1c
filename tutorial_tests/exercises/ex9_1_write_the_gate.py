"""Exercise 9.1. Write the gate for this graph.

An agent's graph has three nodes: it routes a question, asks an expert, answers. A gate looks at the traces of
a conversation and decides whether a release goes out. This one takes the hit rate over all requests. So it
refuses what is well, because the first turn is always cold; and it lets a release go out whose router has
lost its prefix, because the router's prompts are short.

File        tutorial_tests/exercises/ex9_1_write_the_gate.py
Change      `goes_out`: every node must be above 90 %, over all turns but the first. A node whose traces do
            not tell what was reused has not passed.
Command     pytest tutorial_tests/exercises/ex9_1_write_the_gate.py
Fails with  the gate refuses a release that is well
Hints       lmcache-tutorial hint 9.1
"""

from collections.abc import Mapping, Sequence

from lmcache_tutorial.traces.watched import Generation, Window, by_node

BAR = 0.9
PROMPTS = {"route": 400, "expert": 4_000, "answer": 4_200}  # tokens of each node's prompts
TURNS = 4

# %% yours


def goes_out(requests: Sequence[Generation]) -> bool:
    rate = Window("all", tuple(requests)).hit_rate
    return rate is not None and rate > BAR


# %% the judge


def release(shares: Mapping[str, float | None], *, turns: int = TURNS) -> list[Generation]:
    """The requests of a conversation: of each node's prompts a share is reused; `None` is not told."""
    requests: list[Generation] = []
    for turn in range(turns):
        for node, prompt in PROMPTS.items():
            share = 0.0 if turn == 0 else shares[node]
            cached = None if share is None else int(share * prompt)
            at_s = float(len(requests))
            requests.append(Generation(at_s, node, prompt, cached, None, trace_id=f"turn {turn}"))
    return requests


WELL = {"route": 0.96, "expert": 0.98, "answer": 0.99}
RELEASES = {
    "as it was": (release(WELL), True),
    "a long conversation": (release(WELL, turns=40), True),
    "the router has lost its prefix": (release({**WELL, "route": 0.0}, turns=40), False),
    "the expert fell to the bar": (release({**WELL, "expert": BAR}, turns=40), False),
    "answers tell nothing of it": (release({**WELL, "answer": None}), False),
    "one turn, which is cold": (release(WELL, turns=1), False),
}


def test_ex9_1_the_gate_tells_the_releases_apart() -> None:
    for name, (requests, is_well) in RELEASES.items():
        rates = {window.name: window.hit_rate for window in by_node(requests)}
        print(f"{name}: hit rates with the first turn {rates}")
        passed = goes_out(requests)
        assert passed or not is_well, f"{name}: the gate refuses a release that is well"
        assert is_well or not passed, f"{name}: the gate lets a broken release go out"
