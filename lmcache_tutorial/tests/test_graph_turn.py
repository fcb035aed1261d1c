"""A reader's graph on a stand-in: what it reused, by node, and what the failure says."""

import asyncio
import time

import pytest
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from typing_extensions import TypedDict

from lmcache_tutorial.gate.deployment import client_for, find_deployment
from lmcache_tutorial.gate.graph_turn import RecordedClient, ask_graph, await_graph
from lmcache_tutorial.tests.stand_in import BLOCK, serving

MANUAL = " ".join(f"word{number}" for number in range(400))


class State(TypedDict, total=False):
    question: str
    topic: str
    answer: str


def agent(url, client, manual=MANUAL, **options):
    given = {"streaming": True, "stream_usage": True, **options}
    model = ChatOpenAI(base_url=f"{url}/v1", model="small", api_key="none", http_client=client, **given)

    def node(name):
        def messages(state):
            return [SystemMessage(manual), HumanMessage(f"{state['question']} {name}")]

        def ask(state):
            return {name: model.invoke(messages(state)).content}

        async def ask_awaited(state):
            return {name: (await model.ainvoke(messages(state))).content}

        return RunnableLambda(ask, ask_awaited)

    graph = StateGraph(State)
    for name in ("topic", "answer"):
        graph.add_node(f"find {name}", node(name))
    graph.add_edge(START, "find topic")
    graph.add_edge("find topic", "find answer")
    graph.add_edge("find answer", END)
    return graph.compile()


@pytest.fixture
def asked():
    """``asked(*manuals)`` runs an agent once for each manual, on one client; the last turn is returned."""

    def run(*manuals, options=None, **behaviour):
        with serving(**behaviour) as server:
            found = find_deployment(client_for(server.url), None)
            with RecordedClient(found, found.namespace()) as client:
                turns = [
                    ask_graph(
                        client,
                        agent(server.url, client, one, **(options(n) if options else {})),
                        {"question": f"Q{n}"},
                    )
                    for n, one in enumerate(manuals)
                ]
                assert turns[-1].predicted  # asked while the server is there
                return turns[-1]

    return run


@pytest.mark.parametrize("honours_salts", [True, False])
def test_a_turn_has_its_calls_by_node_and_what_they_reused(asked, honours_salts):
    turn = asked(MANUAL, MANUAL, honours_salts=honours_salts)
    assert list(turn.nodes) == ["find topic", "find answer"]
    assert turn.state["answer"] == "Paris"
    assert [call.cached_tokens for call in turn.calls] == list(turn.predicted)
    assert turn.calls[0].cached_tokens % BLOCK == 0
    assert turn.hit_rate > 0.9
    assert turn.ttft_s > 0
    assert turn.of("find answer").tokens.prompt == turn.calls[1].prompt_tokens
    turn.assert_hit_rate(above=90)
    with pytest.raises(AssertionError, match="no call came from the node 'expert'; calls came from: find"):
        turn.of("expert")


@pytest.mark.parametrize("more", range(BLOCK))
def test_a_talk_that_goes_on_reuses_its_answers(more):
    manual = " ".join(MANUAL.split()[: 40 + more])
    with serving(answer=("Paris", "is", "large", "and", "old"), tells_own=True) as server:
        found = find_deployment(client_for(server.url), None)
        with RecordedClient(found, found.namespace()) as client:
            model = ChatOpenAI(
                base_url=f"{server.url}/v1",
                model="small",
                api_key="none",
                http_client=client,
                stream_usage=True,
            )

            def talk(messages):
                answer = model.invoke(messages)
                return [*messages, answer, HumanMessage("And why?")]

            first = ask_graph(client, talk, [HumanMessage(manual)])
            turn = ask_graph(client, talk, first.state)
            assert [call.cached_tokens for call in turn.calls] == list(turn.predicted)
            ids = client.ids(0)
            assert turn.predicted[0] == (len(ids) + 4) // BLOCK * BLOCK


def test_a_graph_that_is_awaited_is_noted_as_one_that_is_not():
    async def run(server, client):
        graph = agent(server.url, client, http_async_client=client.awaited())
        return [await await_graph(client, graph, {"question": f"Q{n}"}) for n in range(2)]

    with serving() as server:
        found = find_deployment(client_for(server.url), None)
        with RecordedClient(found, found.namespace()) as client:
            turn = asyncio.run(run(server, client))[-1]
            assert [call.cached_tokens for call in turn.calls] == list(turn.predicted)
            assert list(turn.nodes) == ["find topic", "find answer"]
            assert turn.state["answer"] == "Paris"
            assert turn.hit_rate > 0.9
            assert turn.ttft_s > 0


AT_ONCE = 12  # more than asyncio has threads of its own on a few cores


def test_awaited_calls_are_under_way_at_the_same_time():
    async def all_of(client, url):
        async with client.awaited() as awaited:
            body = {"model": "small", "messages": [{"role": "user", "content": MANUAL}], "max_tokens": 1}
            asked = [awaited.post(f"{url}/v1/chat/completions", json=body) for _ in range(AT_ONCE)]
            return {answer.status_code for answer in await asyncio.gather(*asked)}

    with serving() as server:
        found = find_deployment(client_for(server.url), None)
        with RecordedClient(found, found.namespace()) as client:
            server.together = AT_ONCE
            assert asyncio.run(all_of(client, server.url)) == {200}
            assert len(client.recorder.calls) == AT_ONCE
            assert server.most_at_once == AT_ONCE


def test_an_awaited_call_that_is_given_up_is_closed():
    async def give_up(client, url):
        async with client.awaited() as awaited:
            body = {"model": "small", "messages": [{"role": "user", "content": MANUAL}], "max_tokens": 1}
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(awaited.post(f"{url}/v1/chat/completions", json=body), 0.2)

    with serving(delay_s=1.0) as server:
        found = find_deployment(client_for(server.url), None)
        with RecordedClient(found, found.namespace()) as client:
            asyncio.run(give_up(client, server.url))
            deadline = time.monotonic() + 10
            while not (client.recorder.calls or client.recorder.errors):
                assert time.monotonic() < deadline
                time.sleep(0.05)


def test_two_graphs_at_the_same_time_cannot_be_told_apart_and_are_refused():
    async def both(client):
        async def graph(_):
            await asyncio.sleep(0.2)

        await asyncio.gather(*(await_graph(client, graph, {}) for _ in range(2)))

    with serving() as server:
        found = find_deployment(client_for(server.url), None)
        with (
            RecordedClient(found, found.namespace()) as client,
            pytest.raises(AssertionError, match="another run of a graph is under way on this client"),
        ):
            asyncio.run(both(client))


def test_the_first_turn_is_cold_but_for_what_its_own_nodes_share(asked):
    turn = asked(MANUAL)
    assert turn.calls[0].cached_tokens == 0
    assert turn.of("find answer").hit_rate > 0.9


def test_a_failure_says_where_the_worst_call_parts_and_why(asked):
    clocked = [f"It is 2026-11-27T10:00:0{second}Z. {MANUAL}" for second in (0, 1)]
    turn = asked(*clocked)
    with pytest.raises(AssertionError) as failure:
        turn.of("find topic").assert_hit_rate(above=90)
    told = str(failure.value)
    assert told.startswith("hit rate 0.0 %, the bar is 90.0 %\nmost was computed for find topic: ")
    assert "call 3 (find topic) shares its first" in told
    assert "timestamp. Move the time to the end of the prompt" in told


def test_what_is_not_told_is_no_pass(asked):
    turn = asked(MANUAL, MANUAL, tells_cached=False)
    with pytest.raises(AssertionError, match="--enable-prompt-tokens-details"):
        turn.assert_hit_rate(above=0)
    whole = asked(MANUAL, MANUAL, options=lambda turn: {"streaming": False})
    with pytest.raises(AssertionError, match="streaming=True"):
        print(whole.ttft_s)


def test_a_graph_that_uses_another_client_is_told_so():
    with serving() as server:
        found = find_deployment(client_for(server.url), None)
        with RecordedClient(found, found.namespace()) as client, pytest.raises(AssertionError) as failure:
            ask_graph(client, lambda state: state, {})
    assert "ChatOpenAI(http_client=kv_http_client" in str(failure.value)


def test_calls_of_another_salt_share_nothing_and_that_is_said(asked):
    turn = asked(MANUAL, MANUAL, options=lambda turn: {"extra_body": {"cache_salt": f"tenant {turn}"}})
    first, second = (call.cached_tokens for call in turn.calls)
    assert (first, second) == turn.predicted
    assert first == 0 < second
    with pytest.raises(AssertionError, match="another cache_salt, and KV is shared only under the same one"):
        turn.assert_hit_rate(above=90)
