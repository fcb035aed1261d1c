"""Who tells what served a call: counters where nobody else asks, else the answer alone."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from lmcache_tutorial.asking.cache_state import CacheStateError, check_held
from lmcache_tutorial.asking.witness import Answers, Counters, witness_of
from lmcache_tutorial.gate.decide import UndecidedError, known
from lmcache_tutorial.quantities.records import Call, LookedUp, TokenSources
from lmcache_tutorial.quantities.sources import told
from lmcache_tutorial.stack.found import FoundStack
from lmcache_tutorial.stack.stack import Stack
from lmcache_tutorial.tests.snapshots import snapshot

CALL = Call("answer", 100, 64, 0.5, None, None, None, "Paris", (), None)


@pytest.fixture
def shared():
    """A deployment that others use too."""
    return SimpleNamespace(
        engine_is_empty=False,
        rest=lambda: None,
        place=lambda body: {**body, "cache_salt": "s"},
        looked_up=lambda answer_id: None,
    )


def test_the_kind_of_stack_decides():
    assert isinstance(witness_of(FoundStack.__new__(FoundStack)), Answers)
    assert isinstance(witness_of(Stack.__new__(Stack)), Counters)


def test_an_answer_tells_how_many_tokens_and_not_by_whom(shared):
    call = Answers(shared).saw(CALL)
    assert call.tokens == TokenSources(36, 0, 0, 0, untold=64)
    assert (call.tokens.reused, call.tokens.prompt, call.engine_ttft_s) == (64, 100, None)
    assert told(call.tokens)["engine"] is None


def test_after_the_engine_was_emptied_the_next_request_and_no_other_is_lmcaches(shared):
    shared.engine_is_empty = True
    witness = Answers(shared)
    tokens = [witness.saw(CALL).tokens for _ in range(2)]
    assert tokens == [TokenSources(36, 0, 64, 0), TokenSources(36, 0, 0, 0, untold=64)]


@pytest.mark.parametrize(
    ("found", "emptied", "tokens"),
    [
        (LookedUp(0, 0, 0), False, TokenSources(36, 64, 0, 0)),
        (LookedUp(32, 32, 0), False, TokenSources(36, 64, 0, 0)),
        (LookedUp(64, 64, 0), False, TokenSources(36, 0, 0, 0, untold=64)),
        (LookedUp(64, 16, 48), True, TokenSources(36, 0, 16, 48)),
        (None, True, TokenSources(36, 0, 64, 0)),
    ],
)
def test_what_lmcache_found_tells_who_served_where_it_can(shared, found, emptied, tokens):
    shared.looked_up = lambda answer_id: found
    shared.engine_is_empty = emptied
    assert Answers(shared).saw(CALL).tokens == tokens


def test_a_claim_about_who_served_is_undecided_where_nobody_tells():
    served = [TokenSources(36, 64, 0, 0)] * 6
    assert known(served) == served
    with pytest.raises(UndecidedError, match="of 1 of 7 requests nobody tells who served"):
        known([*served, TokenSources(36, 0, 0, 0, untold=64)])


def test_calls_side_by_side_have_their_own_answers(shared):
    first = Answers(shared).saw(CALL)
    window = Answers(shared).window([first, replace(CALL, cached_tokens=0)])
    assert window == TokenSources(136, 0, 0, 0, untold=64)


def test_only_a_deployment_is_asked_in_a_namespace(shared):
    body = {"model": "m"}
    assert Answers(shared).placed(body) == {"model": "m", "cache_salt": "s"}
    assert Counters(shared).placed(body) is body


def test_a_window_is_what_the_counters_have_grown_by():
    counted = iter([snapshot(), snapshot(computed=36, engine=64, ttft_sum_s=0.4)])
    stack = SimpleNamespace(
        snapshot=lambda: next(counted),
        wait_counted=lambda since, prompts: next(counted),
        engines=(SimpleNamespace(name="vllm"),),
    )
    witness = Counters(stack)
    witness.begin()
    call = witness.saw(CALL)
    assert (call.tokens, call.engine, call.engine_ttft_s) == (TokenSources(36, 64, 0, 0), "vllm", 0.4)


@pytest.mark.parametrize(
    ("start", "holds"), [("cold", False), ("engine", True), ("lmcache", False), ("as it is", True)]
)
def test_a_stated_start_is_held_against_what_is_known(start, holds):
    untold = TokenSources(36, 0, 0, 0, untold=64)
    if holds:
        check_held(start, untold, "the call")
        return
    with pytest.raises(CacheStateError, match="untold=64"):
        check_held(start, untold, "the call")
