"""The kept stack, as it is written down: its state file, and the lock that whoever uses it holds."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..servers.process import Server, ServerRecord, is_supervisor
from ..settings.environment import cache_folder
from ..settings.profiles import LessonSizes
from ..settings.topology import CacheConfig, EngineConfig, RouterConfig, StackConfig, TierConfig
from ..settings.workload import Workload

STATE_SCHEMA = 6  # of the state file; raise it whenever what stands in it changes


class StackError(RuntimeError):
    """A stack cannot be opened; the message says what to do."""


@dataclass(frozen=True)
class KeptState:
    """What the state file says: which programs are kept, and what they were started for.

    ``programs`` is what each program's ``state`` wrote down, ``servers`` their processes.
    """

    identity: str
    config: Mapping[str, Any]
    workload: Workload
    programs: tuple[Mapping[str, Any], ...]
    servers: tuple[ServerRecord, ...]

    @property
    def topology(self) -> StackConfig:
        """What was started, read back from ``config``.

        Raises:
            StackError: an entry of it is none of this version's.
        """
        parts = {"engines": EngineConfig, "caches": CacheConfig, "tiers": TierConfig}
        told: dict[str, Any] = {name: _tuples(value) for name, value in self.config.items()}
        try:
            told |= {name: tuple(kind(**one) for one in told[name]) for name, kind in parts.items()}
            told["router"] = RouterConfig(**told["router"]) if told["router"] else None
            return StackConfig(**told)
        except (KeyError, TypeError, ValueError) as error:
            raise _unreadable(str(error), {}) from None


def _tuples(value: Any) -> Any:
    """Turn the lists that JSON made of tuples back, at every depth."""
    if isinstance(value, Mapping):
        return {name: _tuples(one) for name, one in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def state_file() -> Path:
    """Where the kept stack is written down."""
    return cache_folder() / "kept" / "stack.json"


def read_state() -> KeptState | None:
    """Read the state file; ``None`` if there is none.

    Raises:
        StackError: it cannot be read, or another version of this suite wrote it.
    """
    try:
        state = json.loads(state_file().read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(str(error), {}) from None
    try:
        if state["schema"] != STATE_SCHEMA:
            raise _unreadable(f"schema {state['schema']}, where this version writes {STATE_SCHEMA}", state)
        found = [each["record"] for each in state["programs"]]
        records = [ServerRecord(**{**record, "command": tuple(record["command"])}) for record in found]
        return KeptState(
            identity=state["identity"],
            config=dict(state["config"]),
            workload=Workload(**{**state["workload"], "sizes": LessonSizes(**state["workload"]["sizes"])}),
            programs=tuple(state["programs"]),
            servers=tuple(records),
        )
    except KeyError as error:
        raise _unreadable(f"no {error} in it", state) from None
    except (TypeError, ValueError) as error:
        raise _unreadable(str(error), state) from None


def _unreadable(seen: str, state: Any) -> StackError:
    """Build the error for a state file that this version does not understand, with what still runs of it."""
    running = []
    with suppress(AttributeError, KeyError, TypeError):
        # Up to schema 3 the records stood in the file by themselves.
        records = state.get("servers") or [each["record"] for each in state["programs"]]
        running = [each["supervisor"] for each in records if is_supervisor(each["supervisor"])]
    by_hand = f"stop it by hand: kill {' '.join(map(str, running))}; rm {state_file()}"
    return StackError(
        f"the kept stack's state file was damaged, or written by another version of this suite.\n"
        f"  seen     {seen}\n"
        f"  checked  {state_file()}\n"
        f"To fix, either:\n"
        f"  - call `lmcache-tutorial down` of the version that started it\n"
        f"  - {by_hand if running else f'remove the file, if nothing of it runs any more: rm {state_file()}'}"
    )


def kept_servers() -> dict[str, Server]:
    """Return the kept servers that still run, by name; empty without a kept stack.

    Raises:
        StackError: another version of this suite wrote it down.
    """
    state = read_state()
    attached = [Server.attach(record) for record in state.servers] if state else []
    return {server.record.name: server for server in attached if server}


def lock() -> IO[str] | None:
    """Take the lock beside the state file; ``None`` if somebody holds it.

    Raises:
        StackError: the folder cannot be written.
    """
    try:
        state_file().parent.mkdir(parents=True, exist_ok=True)
        handle = lock_file().open("w")
    except OSError as error:
        raise StackError(
            f"the folder of kept stacks cannot be written: {error.strerror}.\n"
            f"  checked  {lock_file()}\n"
            f"To fix: set LMCACHE_TUTORIAL_CACHE to a folder of yours"
        ) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle


def lock_file() -> Path:
    """Where the lock lies."""
    return state_file().parent / "lock"


def who_holds_the_lock() -> str:
    """Say, in words that begin a message, who holds the lock."""
    kept = "the kept stack is in use by another run"
    return kept if kept_servers() else "another run is starting a stack that it will keep"
