"""LMCache's multi-process server: its command line, its connector, its start, and what it is asked."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import httpx

from ..settings.environment import server_environment
from ..settings.topology import CacheConfig, StackConfig
from .counters import CacheCounters, cache_counters
from .ports import free_port
from .process import Launch, Server
from .program import Program, Site, arguments


class Cache(Program):
    """One LMCache server. ``port`` is where engines' connectors send their messages."""

    def __init__(self, name: str, url: str, client: httpx.Client, own: CacheConfig, port: int) -> None:
        """Wrap a server that was started, kept or found."""
        super().__init__(name, url, client)
        self._own, self.port = own, port

    @property
    def chunk_tokens(self) -> int:
        """Tokens of a chunk, as the server states them."""
        return int(self.status()["chunk_size"])

    @property
    def writing(self) -> bool:
        """Tell whether it is writing; asking makes it check its memory, so it is asked last."""
        return bool(self.status()["storage_manager"]["l1_manager"]["write_locked_count"])

    @property
    def held_objects(self) -> int:
        """Count what it holds in memory."""
        return int(self.status()["storage_manager"]["l1_manager"]["total_object_count"])

    @property
    def maps_an_engine(self) -> bool:
        """Tell whether it still maps the memory of a GPU engine, be it a dead one."""
        return bool(self.status().get("registered_gpu_ids"))

    def status(self) -> dict[str, Any]:
        """Read what it says of itself."""
        found: dict[str, Any] = self.get("/status").json()
        return found

    def answers(self) -> bool:
        """Ask its health check."""
        with suppress(httpx.TransportError):
            return self.client.get(f"{self.url}/healthcheck", timeout=2).status_code == 200
        return False

    def counters(self) -> CacheCounters:
        """Read its counters."""
        return cache_counters(self.get("/metrics").text)

    def clear(self) -> None:
        """Ask it to empty its memory; it leaves what is being read or written."""
        self.client.post(f"{self.url}/cache/clear", json={}).raise_for_status()

    def differences(self, config: StackConfig) -> Iterator[str]:
        """Compare chunk and version with the configuration."""
        stated, wanted = self.chunk_tokens, self._own.chunk_tokens
        if stated != wanted:
            yield f"LMCache's chunk has {stated} tokens, where {wanted} are configured"
        yield from self.other_version("/lmc_version", "lmcache")


def launch(site: Site, own: CacheConfig, name: str) -> Cache:
    """Start a server; it is not ready yet. Its shared memory carries the run's id and its own name.

    Raises:
        ServerError: the program could not be executed.
    """
    port, http_port = free_port(), free_port()
    shm_name = f"{site.run_id}-{name}"
    smaller = max(0.25, own.memory_gib / 2)
    cache = Cache(name, f"http://127.0.0.1:{http_port}", site.client, own, port)
    cache.server = Server.start(
        name,
        cache_command(own, port, http_port, shm_name),
        Launch(
            port,
            log=site.logs / f"{name}.log",
            env=server_environment(site.config),
            shm_name=shm_name,
            remedies=(f"let LMCache take less memory: pytest --kv-lmcache-memory-gib={smaller:g}",),
        ),
    )
    return cache


def resume(site: Site, own: CacheConfig, kept: Mapping[str, Any], server: Server) -> Cache:
    """Take over a server that was kept."""
    cache = Cache(server.record.name, kept["url"], site.client, own, server.record.port)
    cache.server = server
    return cache


def cache_command(own: CacheConfig, port: int, http_port: int, shm_name: str) -> list[str]:
    """Build the command line: message port, HTTP port, memory, chunk."""
    # An engine that copies itself, as every CPU engine does, takes the KV from a shared segment; without one
    # it travels pickled through a socket, ten times slower. Else the server copies from and to the memory of
    # a GPU engine (CUDA IPC). For that it maps this memory, and a dead engine's stays taken until its
    # registration is given up: after 30 s of silence, the least that is allowed, instead of 120.
    mapped = own.transfer == "lmcache_driven"
    options = {
        "--host": "127.0.0.1",
        "--port": port,
        "--http-host": "127.0.0.1",
        "--http-port": http_port,
        "--l1-size-gb": f"{own.memory_gib:g}",
        "--eviction-policy": "LRU",
        "--chunk-size": own.chunk_tokens,
        "--supported-transfer-mode": own.transfer,
        "--shm-name": "" if mapped else shm_name,
        "--worker-reap-timeout-seconds": 30 if mapped else None,
    }
    return [sys.executable, "-m", "lmcache.cli.main", "server", *arguments(options), *own.arguments]


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
        "kv_connector_extra_config": settings,
    }
