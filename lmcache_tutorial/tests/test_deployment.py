"""A deployment is found as it is: its model, whether it tells what was cached, whether it honours salts."""

from contextlib import ExitStack
from dataclasses import replace
from itertools import count

import httpx
import pytest

from lmcache_tutorial.gate import deployment as module
from lmcache_tutorial.gate.deployment import DeploymentError, client_for, find_deployment, lmcache_at
from lmcache_tutorial.gate.prompt_group import _heads, ask_group
from lmcache_tutorial.prompts.prompts_file import GroupBars, Prompt, PromptGroup
from lmcache_tutorial.quantities.predict import shared_prefix_tokens
from lmcache_tutorial.servers.lmcache import Cache
from lmcache_tutorial.tests.stand_in import serving

PROMPT = Prompt({"messages": [{"role": "user", "content": "a long text " * 20}]}, 1)


@pytest.fixture
def found():
    """``found(model, **behaviour)`` serves, and gives the deployment and the server."""
    opened = []

    def find(model=None, **behaviour):
        server = opened.append(serving(token_s=0, **behaviour)) or opened[-1].__enter__()
        return find_deployment(client_for(server.url), model), server

    yield find
    for one in opened:
        one.__exit__(None, None, None)


def test_what_it_tells_is_found_out(found):
    deployment, _ = found()
    assert (deployment.model, deployment.block_tokens) == ("small", 4)
    assert deployment.honours_salts
    assert deployment.tells_cached
    assert found("large")[0].model == "large"
    assert not found(tells_cached=False)[0].tells_cached


@pytest.mark.parametrize("honours_salts", [True, False])
def test_a_new_namespace_is_cold_and_the_same_one_is_not(found, honours_salts):
    deployment, _ = found(honours_salts=honours_salts)
    assert deployment.honours_salts is honours_salts
    one, other = deployment.namespace(), deployment.namespace()
    cached = [deployment.ask(PROMPT, within).cached_tokens for within in (one, one, other)]
    assert cached[0] == cached[2] == 0
    assert cached[1] > 50


@pytest.mark.parametrize("honours_salts", [True, False])
def test_a_completion_has_a_namespace_too(found, honours_salts):
    deployment, _ = found(honours_salts=honours_salts)
    prompt, one = Prompt({"prompt": "once upon a time " * 9}, 1), deployment.namespace()
    answers = [deployment.ask(prompt, within) for within in (one, one, deployment.namespace())]
    assert [bool(answer.cached_tokens) for answer in answers] == [False, True, False]
    assert answers[0].distance(answers[1]) == 0


def test_salts_count_only_where_they_were_seen_to(found):
    assert not found(tells_cached=False, honours_salts=False)[0].honours_salts
    assert not found(tells_cached=False)[0].honours_salts
    assert not found(reuses=False)[0].honours_salts


@pytest.mark.parametrize("honours_salts", [True, False])
@pytest.mark.parametrize("engines", [2, 3, 4])
def test_salts_are_found_out_behind_a_router_that_takes_turns(engines, honours_salts):
    with ExitStack() as opened:
        servers = [
            opened.enter_context(serving(token_s=0, honours_salts=honours_salts)) for _ in range(engines)
        ]
        clients, turns = [client_for(server.url) for server in servers], count()

        class RoundRobin(httpx.BaseTransport):
            def handle_request(self, request):
                to = clients[next(turns) % engines if request.url.path.endswith("completions") else 0]
                answer = to.request(request.method, request.url.path, content=request.content)
                return httpx.Response(answer.status_code, stream=httpx.ByteStream(answer.content))

        router = httpx.Client(base_url="http://router", transport=RoundRobin())
        assert find_deployment(router, None).honours_salts is honours_salts


def test_the_key_of_the_engine_is_not_lmcaches(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "the key")
    with serving(looks_up=True) as server:
        for engine, sent in (("http://another:8000", ""), ("http://127.0.0.1:1", "Bearer the key")):
            assert lmcache_at(server.url, client_for(engine)).chunk_tokens
            assert server.keys[-1] == sent


def test_nonces_share_no_more_than_is_counted(found):
    deployment, _ = found(honours_salts=False, word=r"\w")
    pairs = [(deployment.namespace(), deployment.namespace()) for _ in range(20)]
    (head,) = _heads(deployment, [PROMPT])
    shared = [
        shared_prefix_tokens(deployment.tokens(PROMPT, one), deployment.tokens(PROMPT, other))
        for one, other in pairs
    ]
    assert max(shared) <= head


def test_parts_of_a_message_are_kept_behind_a_nonce(found):
    deployment, server = found(honours_salts=False)
    parts = [{"type": "text", "text": "Where?"}]
    deployment.ask(Prompt({"messages": [{"role": "user", "content": parts}]}, 1), deployment.namespace())
    assert server.asked[-1]["messages"][0]["content"][1:] == parts


def test_tokens_are_those_of_the_server(found):
    deployment, server = found()
    assert deployment.tokens(PROMPT, deployment.namespace()) == server.ids(PROMPT.body)
    assert found(tells_ids=False)[0].tokens(PROMPT, deployment.namespace()) is None


def test_a_key_comes_from_the_environment(found, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "the key")
    assert set(found(key="the key")[1].keys) == {"Bearer the key"}
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    with pytest.raises(
        DeploymentError, match=r"asks for a key \(HTTP 401\).\nTo fix: put it into the variable"
    ):
        found(key="the key")


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://[::1"])
def test_what_is_no_address_is_told(url):
    with pytest.raises(DeploymentError, match="no address of a server"):
        client_for(url)


def test_nobody_there_and_another_model_are_told(found):
    with pytest.raises(DeploymentError, match=r"nothing answers at http://127\.0\.0\.1:9: ConnectError"):
        find_deployment(client_for("http://127.0.0.1:9"), None)
    with pytest.raises(DeploymentError, match="serves small, large, and not huge"):
        found("huge")


def test_an_lmcache_that_is_not_there_or_not_asked_is_told(monkeypatch):
    monkeypatch.setattr(module, "COUNTED_LIMIT_S", 0.3)
    with serving(token_s=0) as server:
        client = client_for(server.url)
        with pytest.raises(
            DeploymentError, match=r"no LMCache answers at http://127\.0\.0\.1:9: ConnectError"
        ):
            find_deployment(client, None, lmcache_at("http://127.0.0.1:9", client))
        with pytest.raises(
            DeploymentError, match=r"does not ask the LMCache at .* was sent, and it counted 0"
        ):
            find_deployment(client, None, lmcache_at(server.url, client_for(server.url)))


def test_an_lmcache_that_sends_its_counters_elsewhere_is_known_by_what_it_stores(monkeypatch):
    monkeypatch.setattr(module, "COUNTED_LIMIT_S", 0.3)
    with serving(token_s=0, looks_up=True, counts_elsewhere=True) as server:
        assert find_deployment(
            client_for(server.url), None, lmcache_at(server.url, client_for(server.url))
        ).chunk_tokens
    with (
        serving(token_s=0, counts_elsewhere=True) as server,
        pytest.raises(DeploymentError, match=r"does not ask the LMCache at .* stored nothing \(it sends"),
    ):
        find_deployment(client_for(server.url), None, lmcache_at(server.url, client_for(server.url)))


@pytest.mark.parametrize("context", [None, 16_384])
def test_an_lmcache_with_large_chunks_is_probed_with_more_than_a_chunk(context, monkeypatch):
    monkeypatch.setattr(module, "COUNTED_LIMIT_S", 0.3)
    with serving(token_s=0, looks_up=True, chunk=1_024, word=r"\d\d|\s", context=context) as server:
        assert (
            find_deployment(
                client_for(server.url), None, lmcache_at(server.url, client_for(server.url))
            ).chunk_tokens
            == 1_024
        )
        assert min(len(server.ids(one)) for one in server.asked[:3]) > 1_024
    with (
        serving(token_s=0, chunk=1_024, word=r"\d\d|\s", context=context) as server,
        pytest.raises(DeploymentError, match="does not ask the LMCache at"),
    ):
        find_deployment(client_for(server.url), None, lmcache_at(server.url, client_for(server.url)))


def test_where_no_prompt_has_a_chunk_nobody_can_tell_who_is_asked(monkeypatch):
    monkeypatch.setattr(module, "COUNTED_LIMIT_S", 0.3)
    with serving(token_s=0, chunk=4_096, word=r"\d", context=2_048) as server:
        assert (
            find_deployment(
                client_for(server.url), None, lmcache_at(server.url, client_for(server.url))
            ).chunk_tokens
            == 4_096
        )
        assert max(len(server.ids(one)) for one in server.asked[:3]) < 2_048


def test_an_lmcache_that_tells_neither_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(module, "COUNTED_LIMIT_S", 0.3)
    monkeypatch.setattr(Cache, "status", lambda self: {"chunk_size": 8})
    with (
        serving(token_s=0, looks_up=True, counts_elsewhere=True) as server,
        pytest.raises(DeploymentError, match="does not ask the LMCache at"),
    ):
        find_deployment(client_for(server.url), None, lmcache_at(server.url, client_for(server.url)))


def test_a_group_for_lmcache_needs_one_and_leave_to_empty_the_engines_cache(found):
    deployment, _ = found()
    group = PromptGroup("g", (PROMPT,), GroupBars(served_by="lmcache"))
    with pytest.raises(DeploymentError, match="and none was named"):
        ask_group(deployment, group)
    with pytest.raises(DeploymentError, match="To fix: --kv-allow-reset"):
        ask_group(replace(deployment, chunk_tokens=8), group)
    with pytest.raises(DeploymentError, match="the engine does not empty its own cache"):
        ask_group(replace(deployment, chunk_tokens=8, may_reset=True), group)


def test_a_password_in_an_address_is_sent_and_not_shown():
    with serving(token_s=0) as server:
        address = server.url.replace("://", "://me:hunter22@")
        find_deployment(client_for(address), None)
        assert set(server.keys) == {"Basic bWU6aHVudGVyMjI="}
    for find in (
        lambda one: find_deployment(client_for(one), None),
        lambda one: lmcache_at(one, client_for(one)).chunk_tokens,
    ):
        with pytest.raises((DeploymentError, httpx.ConnectError)) as caught:
            find("http://me:hunter22@127.0.0.1:9")
        assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_an_address_may_end_as_people_write_it(path):
    with serving(token_s=0) as server:
        assert find_deployment(client_for(server.url + path), None).model == "small"
