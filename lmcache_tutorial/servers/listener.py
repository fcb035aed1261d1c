"""Listens to the KV events of engines, in a thread of its own, for a ``with`` block."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from .held_blocks import Block, HeldBlocks
from .kv_events import OWN, BlockHash, KVEventsError, decode

if TYPE_CHECKING:
    import zmq

CONNECT_LIMIT_S = 10.0
SUBSCRIBE_S = 0.1  # a subscription follows its connection, and nothing answers it
POLL_S = 0.05
JOIN_LIMIT_S = 5.0
QUIET_S = 0.2
SETTLE_LIMIT_S = 10.0


class Publisher(Protocol):
    """What is listened to: an engine, by its name and where it publishes its events."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def events_endpoint(self) -> str | None:
        """Its ZMQ address; ``None`` where it publishes nothing."""


class Heard:
    """What was heard of each engine so far. It may be asked while events come in."""

    def __init__(self, names: Iterable[str]) -> None:
        """Know of no block."""
        self._held = {name: HeldBlocks() for name in names}
        self._lock = threading.Lock()
        self._last = time.monotonic()
        self._error: KVEventsError | None = None

    def take(self, name: str, frames: Sequence[bytes]) -> None:
        """Apply a message of an engine; one that cannot be read is told by :meth:`settle`."""
        with self._lock:
            self._last = time.monotonic()
            try:
                self._held[name].take(decode(frames))
            except KVEventsError as error:
                self._error = self._error or error

    def settle(self, quiet_s: float = QUIET_S, limit_s: float = SETTLE_LIMIT_S) -> None:
        """Wait until no engine has published anything for a while; then check that nothing was missed.

        Args:
            quiet_s: how long nothing must have come [s]. An engine publishes in the step in which it acts.
            limit_s: how long to wait at most [s].

        Raises:
            KVEventsError: events go on and on, a message could not be read, or some were missed.
        """
        deadline = time.monotonic() + limit_s
        while (quiet := time.monotonic() - max(self._last, deadline - limit_s)) < quiet_s:
            if time.monotonic() > deadline:
                raise KVEventsError(
                    f"KV events still came in after {limit_s:g} s.\n"
                    "To fix: wait until the requests are answered, and then settle"
                )
            time.sleep(min(POLL_S, quiet_s - quiet))
        with self._lock:
            self._check()

    def tokens(self, prompt: Sequence[int], medium: str = OWN, salt: str | None = None) -> dict[str, int]:
        """Count the tokens of a prompt that each engine holds; see :meth:`HeldBlocks.tokens`."""
        with self._lock:
            return {name: held.tokens(prompt, medium, salt) for name, held in self._held.items()}

    def blocks(
        self, prompt: Sequence[int], medium: str = OWN, salt: str | None = None
    ) -> dict[str, list[Block]]:
        """Find the blocks of a prompt that each engine holds; see :meth:`HeldBlocks.blocks`."""
        with self._lock:
            return {name: held.blocks(prompt, medium, salt) for name, held in self._held.items()}

    def hashes(self, medium: str = OWN) -> dict[str, frozenset[BlockHash]]:
        """Return the hash of every block that each engine holds on a medium."""
        with self._lock:
            return {name: held.hashes(medium) for name, held in self._held.items()}

    @property
    def restarts(self) -> dict[str, int]:
        """How often each engine began to number its messages anew."""
        with self._lock:
            return {name: held.restarts for name, held in self._held.items()}

    @property
    def unknown(self) -> dict[str, dict[str, int]]:
        """Events of kinds that are not known, counted by engine and kind."""
        with self._lock:
            return {name: dict(held.unknown) for name, held in self._held.items()}

    def _check(self) -> None:
        if self._error:
            raise self._error
        for name, held in self._held.items():
            for first, last in held.gaps:
                raise KVEventsError(
                    f"{name}'s KV events {first} to {last} were missed: what it holds is not known.\n"
                    "To fix: empty its prefix cache, and listen anew"
                )


@contextmanager
def listen(engines: Iterable[Publisher], limit_s: float = CONNECT_LIMIT_S) -> Iterator[Heard]:
    """Listen to engines for a ``with`` block, from the moment when all of them are connected.

    What an engine held before is not known: begin with an empty cache, or with a prompt of its own. An engine
    may be restarted meanwhile; what it held is forgotten with its first message.

    Args:
        engines: started with ``kv_events``.
        limit_s: how long to wait for the connections [s].

    Yields:
        What is heard.

    Raises:
        KVEventsError: an engine publishes nothing, or is not there.
    """
    import zmq  # comes with the engine; the base install does without

    endpoints = _endpoints(engines)
    context = zmq.Context()
    try:
        sockets = _connect(context, endpoints, limit_s)
        heard, stop = Heard(endpoints), threading.Event()
        thread = threading.Thread(target=_receive, args=(sockets, heard, stop), name="kv-events", daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            stop.set()
            thread.join(JOIN_LIMIT_S)
    finally:
        context.destroy(linger=0)


def _endpoints(engines: Iterable[Publisher]) -> dict[str, str]:
    found = {}
    for engine in engines:
        if engine.events_endpoint is None:
            raise KVEventsError(
                f"{engine.name} publishes no KV events.\n"
                "To fix: start it with EngineConfig(kv_events=True), or stack.with_engines(kv_events=True)"
            )
        found[engine.name] = engine.events_endpoint
    return found


def _connect(
    context: zmq.Context[zmq.Socket[bytes]], endpoints: Mapping[str, str], limit_s: float
) -> dict[str, zmq.Socket[bytes]]:
    """Connect a socket to each engine, and wait until all are connected."""
    import zmq

    sockets, monitors = {}, {}
    for name, endpoint in endpoints.items():
        sockets[name] = context.socket(zmq.SUB)
        sockets[name].set_hwm(0)  # else what is not read in time is dropped
        monitors[name] = sockets[name].get_monitor_socket(zmq.Event.HANDSHAKE_SUCCEEDED)
        sockets[name].subscribe(b"")
        sockets[name].connect(endpoint)
    deadline = time.monotonic() + limit_s
    for name, monitor in monitors.items():
        if not monitor.poll(_milliseconds(deadline - time.monotonic())):
            raise KVEventsError(
                f"{name} was not heard within {limit_s:g} s: nobody publishes KV events there.\n"
                f"  checked  {endpoints[name]}\n"
                "To fix: look into the engine's log, where it says whether its publisher has started"
            )
        sockets[name].disable_monitor()
        monitor.close(linger=0)
    time.sleep(SUBSCRIBE_S)
    return sockets


def _receive(sockets: Mapping[str, zmq.Socket[bytes]], heard: Heard, stop: threading.Event) -> None:
    """Take messages until told to stop."""
    import zmq

    poller, names = zmq.Poller(), {socket: name for name, socket in sockets.items()}
    for socket in names:
        poller.register(socket, zmq.POLLIN)
    while not stop.is_set():
        for socket, _ in poller.poll(_milliseconds(POLL_S)):
            heard.take(names[socket], socket.recv_multipart())


def _milliseconds(seconds: float) -> int:
    return int(1000 * max(0.0, seconds))
