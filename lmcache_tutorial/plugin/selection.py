"""Which items are lessons, benchmarks and peers; what of them is set aside, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from ..lessons.header import HeaderError, lesson_id, parse_header
from ..settings.run import RunConfig
from ..settings.spelling import PYTEST

# The marker of what runs with --kv-peers alone. Its prefix tells it from a marker of another project.
PEERS = "kv_peers"
Items = Sequence[pytest.Item]


class LessonModule(pytest.Module):
    """A lesson's module: its docstring must have the title and the six fields."""

    def collect(self) -> Any:
        """Collect the tests; a missing field is a collection error."""
        try:
            parse_header(self.obj.__doc__)
        except HeaderError as error:
            raise self.CollectError(str(error)) from None
        return super().collect()


@dataclass(frozen=True)
class Selection:
    """What of the tutorial a run selects: the lessons' claims, their benchmarks, and peers."""

    claims: Items
    benchmarks: Items
    peers: Items

    def __bool__(self) -> bool:
        """Tell whether anything was selected."""
        return bool(self.claims or self.benchmarks or self.peers)


def set_aside(config: pytest.Config, items: list[pytest.Item]) -> Selection:
    """Deselect benchmarks and peers unless they are asked for; return what is left of the tutorial."""
    peers = [item for item in items if item.get_closest_marker(PEERS)]
    lessons = [item for item in items if lesson_id(item.path) and item not in peers]
    benchmarks = [item for item in lessons if "benchmark" in getattr(item, "fixturenames", ())]
    claims = [item for item in lessons if item not in benchmarks]
    asked = Selection(
        claims,
        benchmarks if config.getoption("benchmark_only", default=False) else [],
        peers if config.getoption(PYTEST("peers")) else [],
    )
    aside = [item for item in (*benchmarks, *peers) if item not in (*asked.benchmarks, *asked.peers)]
    if aside:
        config.hook.pytest_deselected(items=aside)
        items[:] = [item for item in items if item not in aside]
    return asked


def refuse_company(config: pytest.Config, selection: Selection) -> None:
    """Refuse what would run beside the lessons or the peers and disturb them.

    Raises:
        pytest.UsageError: pytest-xdist is asked for; or peers, with lessons or a kept stack beside them.
    """
    if config.getoption("numprocesses", default=None) or hasattr(config, "workerinput"):
        raise pytest.UsageError(
            "pytest-xdist cannot run the lessons: they share one stack, and calls side by side would mix up "
            "its counters and its timings.\nTo fix: leave -n out."
        )
    if not selection.peers:
        return
    if selection.claims or selection.benchmarks:
        raise pytest.UsageError(
            "--kv-peers runs several engines of its own, and lessons beside them would disturb both.\n"
            "To fix: pytest --kv-peers -k peers"
        )
    from ..stack.kept_state import StackError, kept_servers

    try:
        kept = kept_servers()
    except StackError as error:
        raise pytest.UsageError(str(error)) from None
    if kept:
        raise pytest.UsageError(
            "--kv-peers would run beside the kept stack and disturb both.\nTo fix: lmcache-tutorial down"
        )


def refuse_a_slow_lmcache(run: RunConfig) -> None:
    """Refuse to measure LMCache on a GPU without its compiled operations, unless that was allowed.

    Raises:
        pytest.UsageError: they do not load.
    """
    if run.stack.profile != "gpu" or run.allow_slow_lmcache:
        return
    from ..stack.needs import compiled_operations

    if not (check := compiled_operations()).ok:
        raise pytest.UsageError(f"{check.name}: {check.seen}.\nTo fix: {check.remedy}")
