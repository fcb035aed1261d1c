"""Reading a streamed answer from timed pieces."""

import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.asking.cache_state import CacheStateError, check_held
from lmcache_tutorial.asking.streams import parse_stream
from lmcache_tutorial.quantities.records import TokenSources
from lmcache_tutorial.servers.counters import CountersError

USAGE = {"prompt_tokens": 100, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 64}}


def event(**fields) -> bytes:
    return b"data: " + json.dumps({"id": "chatcmpl-1", "choices": [], **fields}).encode() + b"\n\n"


def content(text: str, logprob: float) -> bytes:
    return event(choices=[{"delta": {"content": text}, "logprobs": {"content": [{"logprob": logprob}]}}])


EVENTS = [
    event(choices=[{"delta": {"role": "assistant", "content": ""}}]),
    content("Pa", -0.5),
    content("ris – 巴黎", -0.25),
    event(usage=USAGE, metrics={"queue_time_ms": 5.0, "time_to_first_token_ms": 250.0}),
    b"data: [DONE]\n\n",
]


def test_ttft_is_the_first_content_and_not_the_role():
    call = parse_stream(list(zip([1.0, 1.5, 2.0, 2.1, 2.2], EVENTS, strict=True)), node="answer", sent=0.5)
    assert call.ttft_s == 1.0
    assert (call.text, call.logprobs) == ("Paris – 巴黎", (-0.5, -0.25))
    assert (call.prompt_tokens, call.cached_tokens) == (100, 64)
    assert (call.queue_s, call.prefill_s) == (0.005, 0.25)
    assert call.tokens is None


@settings(deadline=None)
@given(st.lists(st.integers(0, len(b"".join(EVENTS))), max_size=30))
def test_pieces_may_cut_an_event_anywhere(cuts):
    stream = b"".join(EVENTS)
    edges = [0, *sorted(cuts), len(stream)]
    pieces = [(float(at), stream[a:b]) for at, (a, b) in enumerate(pairwise(edges))]
    call = parse_stream(pieces, node="answer", sent=0.0)
    assert call.text == "Paris – 巴黎"
    assert call.cached_tokens == 64
    end_of_first_content = len(b"".join(EVENTS[:2]))
    assert call.ttft_s == next(at for at, edge in enumerate(edges[1:]) if edge >= end_of_first_content)


@pytest.mark.parametrize("left_out", [[1, 2], [3]], ids=["no content", "no usage"])
def test_an_answer_without_content_or_usage_is_an_error_and_not_zero(left_out):
    pieces = [(1.0, piece) for place, piece in enumerate(EVENTS) if place not in left_out]
    with pytest.raises(CountersError, match="with content and usage was expected"):
        parse_stream(pieces, node="answer", sent=0.0)


@pytest.mark.parametrize(
    ("start", "tokens", "held"),
    [
        ("cold", TokenSources(10, 0, 0, 0), True),
        ("cold", TokenSources(10, 0, 1, 0), False),
        ("engine", TokenSources(10, 32, 0, 0), True),
        ("engine", TokenSources(10, 0, 64, 0), False),
        ("lmcache", TokenSources(10, 0, 0, 64), True),
        ("lmcache", TokenSources(10, 32, 64, 0), False),
        ("lmcache", TokenSources(10, 0, 0, 0), False),
        ("as it is", TokenSources(10, 32, 64, 0), True),
    ],
)
def test_a_stated_start_is_proven_by_the_call(start, tokens, held):
    if held:
        check_held(start, tokens, "the call")
    else:
        with pytest.raises(CacheStateError, match=f"the call was to start from '{start}'"):
            check_held(start, tokens, "the call")


def test_answers_are_compared_bit_by_bit_and_never_without_their_probabilities():
    call = parse_stream([(1.0, piece) for piece in EVENTS], node="answer", sent=0.0)
    assert call.same_answer(call)
    assert not call.same_answer(replace(call, logprobs=(-0.5, -0.25000001)))
    assert not call.same_answer(replace(call, text="Paris"))
    with pytest.raises(ValueError, match="one of them has none"):
        call.same_answer(replace(call, logprobs=()))
