"""The prefill rates of a processor, with a stand-in for the engine: no figure here is one."""

import json
from types import SimpleNamespace

import httpx
import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.servers.process import ServerError
from lmcache_tutorial.servers.vllm import Engine
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.settings.topology import EngineConfig
from lmcache_tutorial.tests.test_prompts import RENDERER
from lmcache_tutorial.workbench import prefill_rate as module
from lmcache_tutorial.workbench.prefill_rate import LENGTHS, prefill_s


def stand_in(answer):
    """A stack whose engine answers each request as told."""
    client = httpx.Client(transport=httpx.MockTransport(answer))
    return SimpleNamespace(
        renderer=RENDERER, engine=Engine("vllm", "http://engine", client, EngineConfig(), "m")
    )


def test_every_prompt_has_its_length_and_is_cold():
    prompts = []

    def answer(request):
        body = json.loads(request.content)
        assert body["max_tokens"] == 1
        prompts.append(tuple(body["prompt"]))
        return httpx.Response(200, json={})

    stack = stand_in(answer)
    assert all(prefill_s(stack, "text " * 1000, 600) > 0 for _ in range(3))
    assert {len(prompt) for prompt in prompts} == {600}
    assert len({prompt[:16] for prompt in prompts}) == 3  # none begins as another does


def test_an_engine_that_refuses_is_an_error():
    stack = stand_in(lambda request: httpx.Response(500))
    with pytest.raises(httpx.HTTPStatusError):
        prefill_s(stack, "text " * 1000, 600)


def test_a_format_that_the_processor_lacks_is_named_and_the_other_is_measured(monkeypatch):
    def measured(dtype):
        if dtype == "bfloat16":
            raise ConfigError("--dtype=bfloat16 dies here.\nTo fix: leave it out")
        return [1000.0 * number for number, _ in enumerate(LENGTHS, 1)]

    monkeypatch.setattr(module, "rates", measured)
    done = CliRunner().invoke(app, ["prefill-rate"])
    assert done.exit_code == 0
    lines = done.stdout.splitlines()[1:]
    assert lines == [
        "tokens          600   1,200   4,800",
        "bfloat16   not run: --dtype=bfloat16 dies here.",
        "float32       1,000   2,000   3,000",
    ]


def test_an_engine_that_does_not_start_is_one_message(monkeypatch):
    def measured(dtype):
        raise ServerError("vLLM was not ready")

    monkeypatch.setattr(module, "rates", measured)
    done = CliRunner().invoke(app, ["prefill-rate"])
    assert (done.exit_code, done.stderr) == (1, "error: vLLM was not ready\n")
