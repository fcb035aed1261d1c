"""The real router in front of stand-ins for engines: how it chooses, and that it hides no fault."""

import json
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from lmcache_tutorial.models.model import Model
from lmcache_tutorial.servers import valkey, vllm_router
from lmcache_tutorial.servers.process import Launch, Server, wait_until_ready
from lmcache_tutorial.servers.program import Site
from lmcache_tutorial.servers.vllm import Engine
from lmcache_tutorial.servers.vllm_router import LOG_LEVELS, Plan, RouterCounters, router_command
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.settings.topology import EngineConfig, RouterConfig, StackConfig, TierConfig
from lmcache_tutorial.stack.start import launch, resume

CPU = PROFILES["cpu"].stack
OWN = RouterConfig("vllm_router")
PROMPT = "a prompt that no log may hold"
WAIT = "import time; time.sleep(600)"


@dataclass
class StandIn:
    """A server that says it is healthy, counts what it is asked to complete, and answers with ``status``."""

    status: int = 200
    asked: int = 0
    server: ThreadingHTTPServer = field(init=False)

    def __post_init__(self):
        class Handler(BaseHTTPRequestHandler):
            def log_message(handler, *_):
                """Say nothing."""

            def do_GET(handler):
                handler.answer(200)

            def do_POST(handler):
                handler.rfile.read(int(handler.headers["content-length"]))
                self.asked += 1
                handler.answer(self.status)

            def answer(handler, status):
                handler.send_response(status)
                handler.send_header("content-type", "application/json")
                handler.send_header("content-length", "2")
                handler.end_headers()
                handler.wfile.write(b"{}")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}"

    def serve(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def end(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def workers():
    """Two stand-ins that serve."""
    both = StandIn(), StandIn()
    for one in both:
        one.serve()
    yield both
    for one in both:
        one.end()


@pytest.fixture
def site(tmp_path, workers):
    """Where a stack is made whose engines are the stand-ins."""
    config = replace(CPU, engines=CPU.engines * 2, router=OWN, ready_timeout_s=20)
    with httpx.Client(timeout=10) as client:
        made = Site(config, Model(tmp_path, "m", "digest"), tmp_path / "logs", "run", client)
        for name, worker in zip(("vllm", "vllm-2"), workers, strict=True):
            made.programs.append(Engine(name, worker.url, client, CPU.engine, "m"))
        yield made


def wait(router):
    wait_until_ready([(router.process, router.answers)], timeout_s=20, ready=lambda server, took: None)


@pytest.fixture
def start(site):
    """Start a router in front of the stand-ins, and wait for it; it is stopped when the test is over."""
    started = []

    def make(own=OWN, *, ready=True):
        router = vllm_router.launch(site, own, "vllm_router")
        started.append(router)
        if ready:
            wait(router)
        return router

    yield make
    for router in started:
        router.process.stop()


def ask(router, count, **headers):
    """Ask for completions, and return the answers' statuses."""
    body = {"model": "m", "prompt": PROMPT, "max_tokens": 1}
    url = f"{router.url}/v1/completions"
    return [router.client.post(url, json=body, headers=headers).status_code for _ in range(count)]


def test_round_robin_alternates_and_the_router_counts_as_the_engines_do(start, workers):
    router = start()
    assert router.counters() == RouterCounters({"vllm": 0, "vllm-2": 0}, {"vllm": 0, "vllm-2": 0})
    for asked in ((1, 1), (2, 2), (3, 3)):
        assert ask(router, 2) == [200, 200]
        assert tuple(worker.asked for worker in workers) == asked
    assert list(router.differences(CPU)) == []
    assert router.answers()
    assert router.counters() == RouterCounters({"vllm": 3, "vllm-2": 3}, {"vllm": 0, "vllm-2": 0})
    assert router.describe()["log"] == "vllm_router.log"


@pytest.mark.parametrize(("status", "failed"), [(500, 2), (503, 2), (400, 0)])
def test_what_an_engine_fails_is_not_tried_again(start, workers, status, failed):
    router = start()
    workers[0].status = status
    assert sorted(ask(router, 4)) == [200, 200, status, status]
    assert [worker.asked for worker in workers] == [2, 2]
    assert router.counters() == RouterCounters({"vllm": 2, "vllm-2": 2}, {"vllm": failed, "vllm-2": 0})


def test_an_engine_that_is_gone_is_an_error_at_the_client_and_a_failure_in_the_counters(start, workers):
    router = start()
    workers[1].end()
    statuses = ask(router, 24)
    # More than ten failures of one engine: the circuit breaker would have taken it out.
    assert statuses.count(500) == statuses.count(200) == 12
    assert router.counters().failures == {"vllm": 0, "vllm-2": 12}
    assert workers[0].asked == 12


def test_it_is_ready_only_when_every_engine_is(start, workers, site):
    late = StandIn()  # it takes connections and answers none, until it serves
    site.programs.append(Engine("vllm-3", late.url, site.client, CPU.engine, "m"))
    router = start(ready=False)
    time.sleep(1.5)
    assert router.process.alive()
    assert not router.answers()
    late.serve()
    wait(router)
    assert router.healthy == {"vllm", "vllm-2", "vllm-3"}
    late.end()


def test_a_session_stays_with_its_engine_and_no_prompt_is_logged(start, workers):
    router = start()
    router.process.stop()
    router.restart(RouterConfig("vllm_router", "consistent_hash"))
    wait(router)
    for session in ("one", "two"):
        before = [worker.asked for worker in workers]
        ask(router, 4, **{"X-Session-ID": session})
        assert sorted(w.asked - b for w, b in zip(workers, before, strict=True)) == [0, 4]
    ask(router, 2)  # without a session the prompt is hashed
    assert sum(router.counters().requests.values()) == 10
    log = Path(router.process.record.log).read_text()
    assert "ConsistentHash" in log
    assert PROMPT not in log


def test_a_kept_router_is_taken_over(start, site):
    router = start()
    ask(router, 3)
    kept = json.loads(json.dumps(router.state()))
    again = vllm_router.resume(site, OWN, kept, router.process)
    assert again.plan == router.plan
    assert again.answers()
    assert sum(again.counters().requests.values()) == 3


def test_a_whole_topology_is_made_of_its_entries(tmp_path, monkeypatch):
    commands = {}

    def begin(name, command, given):
        commands[name] = list(command)
        return start_process(name, [sys.executable, "-c", WAIT], Launch(given.port, tmp_path / f"{name}.log"))

    start_process = Server.start
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Server, "start", staticmethod(begin))
    monkeypatch.setattr(valkey, "binary", lambda: Path("/bin/valkey-server"))
    config = StackConfig(
        "cpu",
        "m",
        engines=tuple(EngineConfig(cache=place) for place in (0, 1)),
        caches=(replace(CPU.cache, tiers=(0,)),) * 2,
        tiers=(TierConfig("valkey"),),
        router=OWN,
    )
    stack = launch(config, Model(tmp_path, "m", "digest"), tmp_path, print)
    names = ["valkey", "lmcache", "lmcache-2", "vllm", "vllm-2", "vllm_router"]
    assert list(commands) == list(stack.describe()) == names
    urls = [engine.url for engine in stack.engines]
    assert stack.router
    assert list(stack.router.plan.workers.values()) == urls
    assert commands["vllm_router"][-3:] == ["--worker-urls", *urls]
    assert ([tier.name for tier in stack.tiers], stack.url) == (["valkey"], stack.router.url)
    password = stack.tiers[0].plan.password
    assert password not in str(commands)
    states = json.loads(json.dumps([program.state() for program in stack.programs]))
    assert password not in str(states)
    stack.tiers[0].plan.file.parent.mkdir(parents=True)
    stack.tiers[0].plan.file.write_text(valkey.settings(stack.tiers[0].plan))
    processes = {program.name: program.process for program in stack.programs}
    again = resume(config, stack.model, states, processes, print)
    assert again.router.plan.workers == stack.router.plan.workers
    assert [cache.plan for cache in again.caches] == [
        replace(cache.plan, config=config) for cache in stack.caches
    ]
    again.client.close()
    stack.close()
    assert not any(process.alive() for process in processes.values())


def test_a_policy_that_there_is_not_is_refused():
    with pytest.raises(ValueError, match="'fastest'"):
        RouterConfig("vllm_router", "fastest")  # type: ignore[arg-type]


def routed(policy, **events):
    """Plan a router before one engine that publishes its events at this address."""
    config = CPU.with_engines(block_tokens=32)
    own, workers = RouterConfig("vllm_router", policy), {"vllm": "http://127.0.0.1:3"}
    return Plan(config, own, "m", "vllm_router", 1, 2, Path("log"), workers, events)


def test_kv_aware_is_told_where_the_engines_publish_and_refuses_those_that_do_not():
    command = router_command(routed("kv_aware", vllm="tcp://127.0.0.1:5557"))
    for option, wanted in (
        ("--kv-event-source", "http://127.0.0.1:3=tcp://127.0.0.1:5557"),
        ("--kv-event-block-size", "32"),
        ("--kv-event-model", "m"),
    ):
        assert command[command.index(option) + 1] == wanted
    assert "--kv-event-source" not in router_command(routed("cache_aware", vllm="tcp://127.0.0.1:5557"))
    with pytest.raises(ValueError, match="kv_aware needs the KV events of vllm"):
        router_command(routed("kv_aware"))


def test_its_faults_are_shown_and_its_ports_are_on_loopback():
    command = router_command(routed("round_robin"))
    assert {"--disable-retries", "--disable-circuit-breaker"} <= set(command)
    hosts = [command[place + 1] for place, word in enumerate(command) if word.endswith("-host")]
    assert hosts == ["127.0.0.1", "127.0.0.1"]
    assert "policies=warn" in LOG_LEVELS
