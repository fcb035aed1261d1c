"""Exercise 7.1. Route these sessions.

A router stands in front of several engines that share nothing. Sessions are asked in turn, each about a
document of its own, and then again. The router goes from engine to engine, and where the numbers fall badly
no session ever meets an engine that knows its document.

The judge is the lesson's prediction of what each request reuses.

File        tutorial_tests/exercises/ex7_1_route_these_sessions.py
Change      `engine_of`: the engine for a request. More than 90 % of every pass but the first must be reused,
            and each engine has to get some of the sessions.
Command     pytest tutorial_tests/exercises/ex7_1_route_these_sessions.py
Fails with  of what is asked again is reused
Hints       lmcache-tutorial hint 7.1
"""

from lmcache_tutorial.quantities.formats import percent
from lmcache_tutorial.quantities.predict import reusable_tokens
from lmcache_tutorial.quantities.routing import reused_in_turn

PROMPT, PASSES, BAR = 1_230, 3, 0.9
OWN = reusable_tokens(PROMPT, PROMPT, block=32, chunk=64)  # of a document that the engine has read before
FLEETS = ((5, 2), (7, 3), (4, 3))  # sessions, engines

# %% yours


def engine_of(request: int, session: int, engines: int) -> int:
    return request % engines


# %% the judge


def test_ex7_1_a_session_meets_the_engine_that_knows_it() -> None:
    for sessions, engines in FLEETS:
        requests = [(request, request % sessions) for request in range(sessions * PASSES)]
        routed = [engine_of(request, session, engines) for request, session in requests]
        fleet = f"{sessions} sessions, {engines} engines"
        assert set(routed) <= set(range(engines)), f"{fleet}: no such engine among {sorted(set(routed))}"
        reused = reused_in_turn(list(map(str, routed)), own=[OWN] * sessions, shared=[0] * sessions)
        rate = sum(reused[sessions:]) / (PROMPT * sessions * (PASSES - 1))
        print(f"{fleet}: {percent(rate)} of what is asked again is reused; routed to {routed}")
        assert rate > BAR, f"{fleet}: {percent(rate)} of what is asked again is reused"
        assert len(set(routed)) == engines, f"{fleet}: one engine does nothing"
