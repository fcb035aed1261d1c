"""LMCache's multi-process server: its command line, its connector, its start, and what it is asked."""

from __future__ import annotations

import json
import mmap
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx

from ..machine.checks import SHM
from ..settings.environment import server_environment
from ..settings.topology import CacheConfig, StackConfig
from .counters import CacheCounters, cache_counters
from .ports import free_port
from .process import Launch, Server
from .program import Program, Site, Tier, arguments

POOL = "lmcache_l1_pool_"  # what LMCache puts in front of the name of its shared memory
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, since Linux 5.14; Python 3.11 has no name for it
USED_FIRST_BYTES = 512 * 2**20  # a large memory is not taken whole: most of it may never be used


@dataclass(frozen=True)
class CachePlan:
    """How one cache server of a stack is started, each time that it is.

    ``adapters`` is what a cache is told about each tier of the stack; it is told of those that it names.
    ``environment`` holds the variables that it needs for them: secrets, which no command line shows.
    """

    config: StackConfig
    name: str
    port: int
    http_port: int
    log: Path
    shm_name: str
    adapters: tuple[Mapping[str, Any], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    def start(self, own: CacheConfig) -> Server:
        """Start the server; it is not ready yet.

        Raises:
            ServerError: the program could not be executed.
        """
        smaller = max(0.25, own.memory_gib / 2)
        launch = Launch(
            self.port,
            log=self.log,
            env=server_environment(self.config) | dict(self.environment),
            shm_name=self.shm_name,
            remedies=(f"let LMCache take less memory: pytest --kv-lmcache-memory-gib={smaller:g}",),
        )
        return Server.start(self.name, cache_command(self, own), launch)


class Cache(Program):
    """One LMCache server. ``port`` is where engines' connectors send their messages.

    ``plan`` is how it is started again, ``None`` where it was found running.
    """

    plan: CachePlan | None = None

    def __init__(self, name: str, url: str, client: httpx.Client, own: CacheConfig, port: int) -> None:
        """Wrap a server that was started, kept or found."""
        super().__init__(name, url, client)
        self._own, self.port = own, port

    @property
    def chunk_tokens(self) -> int:
        """Tokens of a chunk, as the server states them."""
        return self.stated_once("chunk", lambda: int(self.status()["chunk_size"]))

    @property
    def writing(self) -> bool:
        """Tell whether it is writing, to its memory or to a tier behind it.

        Asking makes it check its memory, so it is asked last.
        """
        storage = self.status()["storage_manager"]
        to_tiers = storage.get("store_controllers", {}).values()  # one for each kind of memory that it has
        behind = sum(one["pending_keys_count"] + one["in_flight_task_count"] for one in to_tiers)
        return bool(storage["l1_manager"]["write_locked_count"] or behind)

    @property
    def is_to_evict(self) -> bool:
        """Tell whether its eviction threads, which look once a second, will find memory or a tier full."""
        storage = self.status()["storage_manager"]
        memory = storage["l1_eviction_controller"]
        full = storage["l1_manager"]["memory_usage_ratio"] >= memory["trigger_watermark"]
        tiers = storage["l2_eviction_controller"]["adapters"]
        return bool(full and memory["eviction_policy"] != "noop") or any(
            tier["current_usage"] >= tier["trigger_watermark"] for tier in tiers
        )

    @property
    def has_tiers(self) -> bool:
        """Tell whether tiers stand behind its memory."""
        return bool(self.status().get("storage_manager", {}).get("num_l2_adapters"))

    @property
    def memory_used_bytes(self) -> int:
        """What it holds in memory [bytes]."""
        return int(self.status()["storage_manager"]["l1_manager"]["memory_used_bytes"])

    @property
    def held_objects(self) -> int:
        """Count what it holds in memory."""
        return int(self.status()["storage_manager"]["l1_manager"]["total_object_count"])

    @property
    def mapped_engines(self) -> int:
        """Count the GPUs of engines whose memory it maps, be they dead: an engine has one or more."""
        return len(self.status().get("registered_gpu_ids") or ())

    def restart(self, own: CacheConfig | None = None) -> None:
        """Start it again on the same ports, perhaps with another configuration; not ready yet.

        Its memory is empty then. Engines come back by themselves, with their next heartbeat.

        Raises:
            ServerError: it is none of ours, or could not be executed.
        """
        assert not self.process.alive(), "stop it first"
        assert self.plan
        self._own = own or self._own
        self.server = self.plan.start(self._own)

    def status(self) -> dict[str, Any]:
        """Read what it says of itself."""
        found: dict[str, Any] = self.get("/status").json()
        return found

    def answers(self) -> bool:
        """Ask its health check, and whether its memory is there.

        On a GPU memory is pinned piece by piece in the background, 10 GiB in 2 s, and as long as that takes
        a load takes several times as long (8 chunks from a tier, on an H200: 0.5 s instead of 0.15). Shared
        memory is given at its first use: at 0.1 GB/s on a virtual machine whose host has to find it, so that
        each of the first documents would take half a second more.
        """
        with suppress(httpx.TransportError):
            healthy = self.client.get(f"{self.url}/healthcheck", timeout=2).status_code == 200
            return healthy and self._has_memory()
        return False

    def _has_memory(self) -> bool:
        memory = self.status()["storage_manager"]["l1_manager"]
        if self.plan:
            _take(SHM / f"{POOL}{self.plan.shm_name}")
        configured = memory.get("memory_configured_bytes", 0)  # not told before LMCache 0.5.5
        return bool(memory["memory_total_bytes"] >= configured)

    def counters(self) -> CacheCounters:
        """Read its counters."""
        return cache_counters(self.get("/metrics").text)

    def clear(self) -> None:
        """Ask it to empty its memory; it leaves what is being read or written."""
        self.client.post(f"{self.url}/cache/clear", json={}).raise_for_status()

    def state(self) -> dict[str, Any]:
        """Add the name of its shared memory."""
        return {**super().state(), "shm_name": self.plan.shm_name if self.plan else None}

    def differences(self, config: StackConfig) -> Iterator[str]:
        """Compare chunk and version with the configuration."""
        stated, wanted = self.chunk_tokens, self._own.chunk_tokens
        if stated != wanted:
            yield f"LMCache's chunk has {stated} tokens, where {wanted} are configured"
        yield from self.other_version("/lmc_version", "lmcache")


def _take(memory: Path) -> None:
    """Let the system touch each page of the part of a shared memory that is used first.

    What is in it stays, also what an engine writes meanwhile, which a write of ours could undo. To reserve
    pages (``posix_fallocate``) is not enough: they are filled, and found by a virtual machine's host, when
    they are first touched. An older kernel refuses, and one that has no room left gives what it has.
    """
    with suppress(OSError), memory.open("r+b") as file:
        size = min(USED_FIRST_BYTES, os.fstat(file.fileno()).st_size)
        with mmap.mmap(file.fileno(), size) as pages:
            pages.madvise(POPULATE_WRITE)


def launch(site: Site, own: CacheConfig, name: str) -> Cache:
    """Start a server; it is not ready yet. Its shared memory carries the run's id and its own name.

    Raises:
        ServerError: the program could not be executed.
    """
    log, shm_name = site.logs / f"{name}.log", f"{site.run_id}-{name}"
    plan = _behind(CachePlan(site.config, name, free_port(), free_port(), log, shm_name), site)
    cache = _planned(plan, site.client, own)
    cache.server = plan.start(own)
    return cache


def resume(site: Site, own: CacheConfig, kept: Mapping[str, Any], server: Server) -> Cache:
    """Take over a server that was kept."""
    record = server.record
    http_port, log = int(kept["url"].rpartition(":")[2]), Path(record.log)
    plan = CachePlan(site.config, record.name, record.port, http_port, log, kept["shm_name"])
    cache = _planned(_behind(plan, site), site.client, own)
    cache.server = server
    return cache


def _planned(plan: CachePlan, client: httpx.Client, own: CacheConfig) -> Cache:
    cache = Cache(plan.name, f"http://127.0.0.1:{plan.http_port}", client, own, plan.port)
    cache.plan = plan
    return cache


def _behind(plan: CachePlan, site: Site) -> CachePlan:
    """Add what is told about the tiers of the stack."""
    tiers = [one for one in site.programs if isinstance(one, Tier)]
    variables = {name: value for tier in tiers for name, value in tier.environment().items()}
    return replace(plan, adapters=tuple(tier.adapter() for tier in tiers), environment=variables)


def cache_command(plan: CachePlan, own: CacheConfig) -> list[str]:
    """Build the command line: message port, HTTP port, memory, chunk, eviction, the tiers behind it."""
    # An engine that copies itself, as every CPU engine does, takes the KV from a shared segment; without one
    # it travels pickled through a socket, ten times slower. Else the server copies from and to the memory of
    # a GPU engine (CUDA IPC). For that it maps this memory, and a dead engine's stays taken until its
    # registration is given up: after 30 s of silence, the least that is allowed, instead of 120.
    mapped = own.transfer == "lmcache_driven"
    # LMCache 0.5.6's log of events knows the tokens only of what the server copies itself, and leaves out all
    # that engines copy. Without the log each engine announces its own stores.
    unlogged = not mapped and any(engine.kv_events for engine in plan.config.engines)
    options = {
        "--host": "127.0.0.1",
        "--port": plan.port,
        "--http-host": "127.0.0.1",
        "--http-port": plan.http_port,
        "--l1-size-gb": f"{own.memory_gib:.9g}",
        "--eviction-policy": own.eviction,
        "--chunk-size": own.chunk_tokens,
        "--supported-transfer-mode": own.transfer,
        "--shm-name": "" if mapped or not own.shared_memory else plan.shm_name,
        "--worker-reap-timeout-seconds": 30 if mapped else None,
        "--l2-prefetch-policy": "retain" if own.retain else None,
        "--kv-event-log-size": "0" if unlogged else None,
    }
    behind = [word for place in own.tiers for word in ("--l2-adapter", json.dumps(plan.adapters[place]))]
    return [sys.executable, "-m", "lmcache.cli.main", "server", *arguments(options), *behind, *own.arguments]


def connector(own: CacheConfig, port: int) -> dict[str, Any]:
    """Build what vLLM is told about its connector to such a server on a message port."""
    settings = {
        "lmcache.mp.host": "tcp://127.0.0.1",
        "lmcache.mp.port": port,
        "lmcache.mp.mq_timeout": own.timeout_s,
        "lmcache.mp.heartbeat_interval": own.heartbeat_s,
        "lmcache.mp.mp_transfer_mode": own.transfer,
    }
    return {
        "kv_connector": "LMCacheMPConnector",
        "kv_role": "kv_both",
        "kv_load_failure_policy": own.failed_load,
        "kv_connector_extra_config": settings,
    }
