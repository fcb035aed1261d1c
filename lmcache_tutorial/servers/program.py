"""What every server program of a stack has in common.

A module of this room is one program. It has a class that is a :class:`Program`, and two functions by which a
stack is made: ``launch(site, own, name)`` starts one, and ``resume(site, own, kept, server)`` takes over one
that was kept. ``own`` is the program's entry in the topology.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx

from ..models.model import Model
from ..settings.topology import StackConfig
from .process import Server, ServerError, shown


@dataclass
class Site:
    """Where a stack is being made, and what of it runs already: tiers first, then caches, engines, a router.

    ``run_id`` is in the name of every shared memory of the run. ``programs`` grows while the stack is made.
    """

    config: StackConfig
    model: Model
    logs: Path
    run_id: str
    client: httpx.Client
    programs: list[Program] = field(default_factory=list)


class Program(ABC):
    """One server program: started here, kept from an earlier run, or found running at an address.

    Attributes:
        name: what messages and the report call it, ``vllm``; a further one of its kind is ``vllm-2``.
        url: the base address of its HTTP side.
        client: what it is asked with.
        server: its process; ``None`` if it was found at an address, and is none of ours.
    """

    server: Server | None = None

    def __init__(self, name: str, url: str, client: httpx.Client) -> None:
        """Wrap a program that runs, or is about to."""
        self.name, self.url, self.client = name, url, client
        self._stated: dict[str, tuple[Server, int]] = {}

    def stated_once(self, what: str, ask: Callable[[], int]) -> int:
        """Ask for what cannot change while a process of ours runs: once after each start.

        It is known after the process has ended too: on a GPU it makes room for a lesson's own.
        """
        if self.server is None:
            return ask()
        of, value = self._stated.get(what, (None, 0))
        if of is not self.server:
            value = ask()
            self._stated[what] = self.server, value
        return value

    @property
    def process(self) -> Server:
        """Its process.

        Raises:
            ServerError: it was found running, so that its process is not ours to stop.
        """
        if self.server is None:
            raise ServerError(
                f"{self.name} at {self.url} was found running: it is not this suite's to stop or restart.\n"
                "To fix: leave out what restarts servers, or run it on a stack of the suite's own"
            )
        return self.server

    @abstractmethod
    def answers(self) -> bool:
        """Tell whether it does its work; called again and again until it does."""

    @abstractmethod
    def differences(self, config: StackConfig) -> Iterator[str]:
        """Yield a sentence for everything that it states otherwise than the configuration says."""

    def state(self) -> dict[str, Any]:
        """Return what is written down of it when it is kept."""
        return {"name": self.name, "url": self.url, "record": self.process.state()}

    def describe(self) -> dict[str, Any]:
        """Return its command, port and log, for the report."""
        record = self.process.record
        return {"command": shown(record.command), "port": record.port, "log": Path(record.log).name}

    def get(self, path: str) -> httpx.Response:
        """Get a page of it.

        Raises:
            httpx.HTTPError: it did not answer, or not well.
        """
        return self.client.get(f"{self.url}{path}").raise_for_status()

    def other_version(self, path: str, package: str) -> Iterator[str]:
        """Yield a sentence if it states another version than the installed package's.

        One that states none is not blamed, and a build (``0.32.0+cpu``) is no other version.
        """
        answer = self.client.get(f"{self.url}{path}")
        if answer.status_code != 200:
            return
        body = answer.json()
        stated = str(body.get("version") if isinstance(body, Mapping) else body)
        installed = metadata.version(package)
        if stated.partition("+")[0] != installed.partition("+")[0]:
            yield f"{package} {installed} is installed, but {self.url}{path} states {stated}"


class Tier(Program):
    """A tier behind the caches."""

    @abstractmethod
    def adapter(self) -> dict[str, Any]:
        """Build what LMCache is told about it: the value of its ``--l2-adapter``."""

    @property
    @abstractmethod
    def used_bytes(self) -> int:
        """What it holds [bytes]."""

    def clear(self) -> None:
        """Remove everything that it holds.

        Raises:
            ServerError: it cannot be emptied while LMCache uses it.
        """
        raise ServerError(f"{self.name} cannot be emptied while LMCache uses it.")

    def environment(self) -> dict[str, str]:
        """Return the variables that LMCache needs for it; a secret goes here, for a command line is shown."""
        return {}

    def differences(self, config: StackConfig) -> Iterator[str]:
        """State nothing that could differ."""
        yield from ()


def arguments(options: Mapping[str, object]) -> list[str]:
    """Write options as words of a command line; ``None`` and ``False`` are left out, ``True`` is a flag.

    >>> arguments({"--port": 8001, "--enforce-eager": True, "--block-size": None})
    ['--port', '8001', '--enforce-eager']
    """
    words = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        words += [name] if value is True else [name, str(value)]
    return words
