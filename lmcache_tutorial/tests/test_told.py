"""Requests told in plain lines."""

from functools import partial

import pytest

from lmcache_tutorial.graphs.told import SIDE_BY_SIDE, parting, told_lines
from lmcache_tutorial.quantities.predict import reusable_tokens
from lmcache_tutorial.quantities.records import Call, TokenSources
from lmcache_tutorial.tests.conftest import layout

MANUAL = [f" word{place}" for place in range(40)]
REUSE = partial(reusable_tokens, block=8, chunk=16)


def prompt(*words):
    return layout(("all", list(words))).rendered


def call(engine=0, salt="", generated=(), tokens=True):
    split = TokenSources(10, engine, 0, 0) if tokens else None
    request = {"cache_salt": salt} if salt else {}
    return Call("", 10 + engine, engine, 0.1, None, None, None, "", (), split, request, generated)


def test_each_request_is_told_beside_its_prediction_and_where_it_parts():
    prompts = [prompt(*MANUAL, " Why?"), prompt(*MANUAL, " How?")]
    head, first, second, parted = told_lines(prompts, [call(), call(40)], REUSE)
    assert head.split() == ["request", "prompt", "predicted", "reused", "by"]
    assert first.split() == ["1", "41", "0", "0", "no", "cache"]
    assert second.split(maxsplit=4) == ["2", "41", "40", "40", "engine's own cache"]
    assert parted.startswith("request 2 differs from request 1 first at token 41 of 41, behind ")
    assert parted.endswith("' Why?' -> ' How?'")


def test_requests_of_another_salt_share_nothing():
    prompts = [prompt(*MANUAL)] * 3
    _, *rows, parted = told_lines(prompts, [call(salt="a"), call(salt="b"), call(32, salt="a")], REUSE)
    assert [row.split()[2] for row in rows] == ["0", "0", "32"]
    assert parted == "request 3 is, from its first token to its last, in request 1"


def test_an_answer_that_a_prompt_repeats_counts_but_for_its_last_token():
    first, second = prompt(*MANUAL[:16]), prompt(*MANUAL[:32])
    answered = call(generated=second.ids[16:25])
    *_, row, parted = told_lines([first, second], [answered, call(24)], REUSE)
    assert row.split()[2] == "24"
    assert parted == "request 2 begins with all 16 tokens of request 1"


def test_of_requests_side_by_side_no_server_is_named():
    *_, row = told_lines([prompt(*MANUAL)], [call(tokens=False)], REUSE)
    assert row.endswith(SIDE_BY_SIDE)


def test_what_could_steer_a_terminal_is_written_out():
    parted = parting(prompt("a\x1b[2J", " b"), prompt("a\x1b[2J", " c"), (1, 2))
    assert "\x1b" not in parted


@pytest.mark.parametrize("nearest", [0, 1])
def test_it_is_compared_with_the_request_that_it_shares_the_most_with(nearest):
    earlier = [prompt(*MANUAL[:20], " x"), prompt(*MANUAL[:20], " y")]
    earlier[nearest] = prompt(*MANUAL[:30], " z")
    *_, parted = told_lines([*earlier, prompt(*MANUAL)], [call(), call(), call()], REUSE)
    assert f"request 3 differs from request {nearest + 1} first at token 31" in parted
