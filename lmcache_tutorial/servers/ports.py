"""Free ports."""

from __future__ import annotations

import random
import socket

from .process import ServerError

PORTS = range(20_000, 32_000)  # below those that outgoing connections use


_given_ports: set[int] = set()


def free_port() -> int:
    """Find a TCP port that is free on 127.0.0.1; none is given twice by one process.

    A server takes its port seconds after it was started, so until then the port still looks free.
    """
    for port in random.SystemRandom().sample(PORTS, 50):
        if port in _given_ports:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        _given_ports.add(port)
        return port
    raise ServerError(
        f"50 ports between {PORTS.start} and {PORTS.stop} are all taken on 127.0.0.1.\n"
        f"To fix: stop what holds them."
    )
