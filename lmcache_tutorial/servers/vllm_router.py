"""The router in front of the engines, PyPI's ``vllm-router``: its command line, its start, what it counts.

It passes every path that it does not know on to an engine, also /metrics and /version: what asks it for them
moves its round robin on and counts as a request. So it is asked only what it answers itself, and its own
metrics have a port of their own.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from ..settings.environment import server_environment
from ..settings.topology import RouterConfig, StackConfig
from .ports import free_port
from .process import Launch, Server
from .program import Program, Site, arguments
from .vllm import Engine

# Its counters of requests and of decisions are absent under some policies. This one counts each request, by
# its worker and its outcome, under all of them, and also where the circuit breaker is off.
OUTCOMES = "vllm_router_cb_outcomes_total"
# At its usual level it logs what consistent_hash hashes: prompts. Its option --log-level changes nothing.
LOG_LEVELS = "info,vllm_router_rs::policies=warn"
CHECK_EVERY_S = 5


@dataclass(frozen=True, slots=True)
class RouterCounters:
    """What a router has passed on: requests by the name of the engine that got them, and how many failed.

    A request has failed whose engine could not be reached or answered with 500 or more.
    """

    requests: Mapping[str, int]
    failures: Mapping[str, int]


@dataclass(frozen=True)
class Plan:
    """How a router is started each time.

    ``workers`` are the engines' addresses by their names; ``events`` are where those of them that do so
    publish their KV events.
    """

    config: StackConfig
    own: RouterConfig
    model: str
    name: str
    port: int
    metrics_port: int
    log: Path
    workers: Mapping[str, str]
    events: Mapping[str, str] = field(default_factory=dict)

    def start(self) -> Server:
        """Start the router; it is not ready before all engines are healthy.

        Raises:
            ServerError: the program could not be executed.
        """
        environment = server_environment(self.config) | {"RUST_LOG": LOG_LEVELS}
        return Server.start(self.name, router_command(self), Launch(self.port, self.log, environment))


class Router(Program):
    """One router in front of the engines of a stack.

    It tries nothing twice and has no circuit breaker: what fails at an engine fails at the client, and is
    counted there. It looks every 5 s whether engines are healthy, passes nothing to one that was not three
    times in a row, and takes it back after it was twice.
    """

    def __init__(self, plan: Plan, client: httpx.Client) -> None:
        """Wrap a router that was started or kept, or is about to be."""
        super().__init__(plan.name, f"http://127.0.0.1:{plan.port}", client)
        self.plan = plan

    def answers(self) -> bool:
        """Tell whether it is up, and every engine of the stack is registered with it and healthy."""
        with suppress(httpx.HTTPError):
            well = self.client.get(f"{self.url}/health", timeout=2).status_code == 200
            return well and self.healthy == set(self.plan.workers)
        return False

    @property
    def healthy(self) -> set[str]:
        """The names of the engines that it takes for healthy, and passes requests to."""
        found = {one["url"] for one in self.get("/workers").json()["workers"] if one["is_healthy"]}
        return {name for name, url in self.plan.workers.items() if url in found}

    def counters(self) -> RouterCounters:
        """Read what it has passed on since it was started; an engine that got nothing has 0."""
        page = self.client.get(f"http://127.0.0.1:{self.plan.metrics_port}/metrics").raise_for_status().text
        return router_counters(page, self.plan.workers)

    def restart(self, own: RouterConfig | None = None) -> None:
        """Start it again on the same ports, perhaps with another policy; not ready yet. It has forgotten all.

        Raises:
            ServerError: it is none of ours, or could not be executed.
        """
        assert not self.process.alive(), "stop it first"
        self.plan = replace(self.plan, own=own or self.plan.own)
        self.server = self.plan.start()

    def differences(self, config: StackConfig) -> Iterator[str]:
        """Compare the engines that it has with those of the stack; it states no version of its own."""
        stated = set(self.get("/list_workers").json()["urls"])
        wanted = set(self.plan.workers.values())
        if stated != wanted:
            yield f"{self.name} has the engines {sorted(stated)}, where the stack has {sorted(wanted)}"

    def state(self) -> dict[str, Any]:
        """Add the port of its metrics."""
        return {**super().state(), "metrics_port": self.plan.metrics_port}


def launch(site: Site, own: RouterConfig, name: str) -> Router:
    """Start a router in front of the engines of a site; it is not ready yet.

    Raises:
        ServerError: the program could not be executed.
    """
    log = site.logs / f"{name}.log"
    plan = Plan(site.config, own, site.model.name, name, free_port(), free_port(), log, *_engines(site))
    router = Router(plan, site.client)
    router.server = plan.start()
    return router


def resume(site: Site, own: RouterConfig, kept: Mapping[str, Any], server: Server) -> Router:
    """Take over a router that was kept."""
    record, model = server.record, site.model.name
    ports = (record.port, kept["metrics_port"])
    router = Router(
        Plan(site.config, own, model, record.name, *ports, Path(record.log), *_engines(site)), site.client
    )
    router.server = server
    return router


def router_command(plan: Plan) -> list[str]:
    """Build the command line: ports, engines, policy, and nothing that hides a fault."""
    options = {
        "--host": "127.0.0.1",
        "--port": plan.port,
        "--prometheus-host": "127.0.0.1",
        "--prometheus-port": plan.metrics_port,
        "--policy": plan.own.policy,
        "--disable-retries": True,
        "--disable-circuit-breaker": True,
        # It waits for the engines by itself; its defaults are to look every 30 s, and then every 60 s.
        "--worker-startup-timeout-secs": int(plan.config.ready_timeout_s),
        "--worker-startup-check-interval": 1,
        "--health-check-interval-secs": CHECK_EVERY_S,
    }
    told = _event_options(plan) if plan.own.policy == "kv_aware" else []
    program = [sys.executable, "-m", "vllm_router.launch_router"]
    workers = ["--worker-urls", *plan.workers.values()]
    return [*program, *arguments(options), *told, *workers, *plan.own.arguments]


def router_counters(text: str, workers: Mapping[str, str]) -> RouterCounters:
    """Read the router's own ``/metrics`` page, Prometheus text format (vllm-router 0.1.17).

    Args:
        text: the page.
        workers: the engines' addresses by their names.
    """
    requests, failures = dict.fromkeys(workers, 0), dict.fromkeys(workers, 0)
    names = {url: name for name, url in workers.items()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == OUTCOMES and (name := names.get(sample.labels["worker"])):
                requests[name] += int(sample.value)
                failures[name] += int(sample.value) if sample.labels["outcome"] == "failure" else 0
    return RouterCounters(requests, failures)


def _event_options(plan: Plan) -> list[str]:
    """Tell kv_aware where each engine publishes its events: vLLM 0.32 has no page on which it would look."""
    blocks = {own.block_tokens for own in plan.config.engines} - {None}
    options = ["--kv-event-model", plan.model]
    options += [word for block in blocks for word in ("--kv-event-block-size", str(block))]
    for name, url in plan.workers.items():
        if (endpoint := plan.events.get(name)) is None:
            raise ValueError(f"the policy kv_aware needs the KV events of {name}: start it with kv_events")
        options += ["--kv-event-source", f"{url}={endpoint}"]
    return options


def _engines(site: Site) -> tuple[dict[str, str], dict[str, str]]:
    engines: Sequence[Engine] = [one for one in site.programs if isinstance(one, Engine)]
    events = {one.name: one.events_endpoint for one in engines if one.events_endpoint}
    return {one.name: one.url for one in engines}, events
