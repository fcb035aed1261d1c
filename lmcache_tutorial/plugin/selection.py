"""Which items are lessons, benchmarks, faults and peers; what of them is set aside, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from ..lessons.exercises import exercise_number
from ..lessons.header import HeaderError, lesson_id, parse_header
from ..settings.run import RunConfig
from ..settings.spelling import PYTEST
from .required import in_lessons

# What runs on request alone. The prefix tells these markers from those of another project.
PEERS, WHOLE_MATRIX, ALL_PUZZLES = "kv_peers", "kv_whole_matrix", "kv_all_puzzles"
# Another project may have these markers too; ours count in the lessons' folder alone.
FAULTS, PUZZLES, NOTEBOOK = "faults", "puzzles", "notebook"
MARKERS = {
    PEERS: "measures LMCache and its peers; runs with --kv-peers alone",
    FAULTS: "breaks servers on purpose",
    WHOLE_MATRIX: "one of the many faults of the whole matrix; runs with --kv-faults alone",
    PUZZLES: "plays a puzzle on a stack, and looks for its evidence",
    ALL_PUZZLES: "a puzzle that runs with -m puzzles alone",
    NOTEBOOK: "makes and runs the whole notebook; runs with -m notebook alone",
}
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
    """What of the tutorial a run selects: the lessons' claims, their benchmarks, peers, and other tests."""

    claims: Items
    benchmarks: Items
    peers: Items
    others: Items

    def __bool__(self) -> bool:
        """Tell whether anything was selected."""
        return bool(self.claims or self.benchmarks or self.peers or self.others)


def set_aside(config: pytest.Config, items: list[pytest.Item]) -> Selection:
    """Deselect what runs on request alone and is not asked for; return what is left of the tutorial."""
    peers = [item for item in items if item.get_closest_marker(PEERS)]
    lessons = [item for item in items if lesson_id(item.path) and item not in peers]
    benchmarks = [item for item in lessons if "benchmark" in getattr(item, "fixturenames", ())]
    matrix = [item for item in items if item.get_closest_marker(WHOLE_MATRIX)]
    puzzles = [item for item in items if item.get_closest_marker(ALL_PUZZLES)]
    notebook = [item for item in items if item.get_closest_marker(NOTEBOOK) and in_lessons(item)]
    on_request = (
        (benchmarks, config.getoption("benchmark_only", default=False)),
        (peers, config.getoption(PYTEST("peers"))),
        (matrix, config.getoption(PYTEST("faults"))),
        (puzzles, PUZZLES in config.getoption("markexpr", default="")),
        (notebook, NOTEBOOK in config.getoption("markexpr", default="")),
    )
    unasked = {item for some, is_asked in on_request if not is_asked for item in some}
    if aside := [item for item in items if item in unasked]:
        config.hook.pytest_deselected(items=aside)
        items[:] = [item for item in items if item not in unasked]
    return Selection(
        claims=[item for item in lessons if item not in unasked and item not in benchmarks],
        benchmarks=[item for item in benchmarks if item not in unasked],
        peers=[item for item in peers if item not in unasked],
        others=[item for item in items if is_other(item) and item not in peers],
    )


def is_other(item: pytest.Item) -> bool:
    """Tell whether an item works with our servers, and is no lesson's: faults, the gate, exercises."""
    ours = in_lessons(item) and not lesson_id(item.path)
    ours = ours or exercise_number(item.path) is not None
    return ours and ("stack" in getattr(item, "fixturenames", ()) or bool(item.get_closest_marker(FAULTS)))


def refuse_company(selection: Selection, url: str | None = None) -> None:
    """Refuse what would run beside the peers and disturb them.

    Raises:
        pytest.UsageError: peers, with anything else or a kept stack beside, or with a deployment named.
    """
    if not selection.peers:
        return
    if url:
        raise pytest.UsageError(
            "--kv-peers starts engines of its own, and a deployment is asked alone.\n"
            "To fix: leave --kv-url out, or --kv-peers"
        )
    if selection.claims or selection.benchmarks or selection.others:
        raise pytest.UsageError(
            "--kv-peers runs several engines, and lessons or faults beside them would disturb both.\n"
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
    if run.url or run.stack.profile != "gpu" or run.allow_slow_lmcache:
        return
    from ..stack.needs import compiled_operations

    if not (check := compiled_operations()).ok:
        raise pytest.UsageError(f"{check.name}: {check.seen}.\nTo fix: {check.remedy}")
