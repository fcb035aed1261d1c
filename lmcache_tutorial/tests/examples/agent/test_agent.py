"""Does the agent keep its prefix on the deployment? Run with: pytest --kv-url=http://…"""

import time
from itertools import count
from pathlib import Path

import pytest
from agent import build_agent
from langchain_openai import ChatOpenAI

MANUAL = Path(__file__).with_name("manual.txt").read_text()
QUESTIONS = [{"question": "Where is a chunk stored?"}, {"question": "What does a look-up cost?"}]


@pytest.fixture
def model(kv_stack, kv_http_client):
    """The chat model of the application, with the client that notes its requests."""
    return ChatOpenAI(
        base_url=kv_stack.url,
        model=kv_stack.model,
        api_key=kv_stack.api_key,
        http_client=kv_http_client,
        streaming=True,
        stream_usage=True,
        temperature=0,
        max_tokens=8,
    )


def test_the_second_question_reuses_the_manual(model, kv_ask):
    agent = build_agent(model, MANUAL)
    first, second = (kv_ask(agent, question) for question in QUESTIONS)
    assert list(second.nodes) == ["route", "expert"]
    assert second.ttft_s < first.ttft_s
    second.assert_hit_rate(above=90)
    second.of("expert").assert_hit_rate(above=90)
    reused = [call.cached_tokens for call in second.calls]
    assert reused == list(second.predicted)


def test_a_clock_in_front_costs_every_hit(model, kv_ask):
    ticks = count(1)
    for question in QUESTIONS:
        now = time.strftime("%Y-%m-%dT%H:%M:") + f"{next(ticks):02d}Z"
        turn = kv_ask(build_agent(model, MANUAL, clock=f"It is {now}. "), question)
    with pytest.raises(AssertionError, match=r"timestamp\. Move the time to the end") as failure:
        turn.of("route").assert_hit_rate(above=90)
    assert "shares its first" in str(failure.value)
