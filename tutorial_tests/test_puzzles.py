"""Every puzzle is played on a real stack, and what a reader can see tells it from the other seven.

Two of them run always, the others with `pytest -m puzzles` alone. Puzzles with the same stack share it: their
faults are the application's, or were put into the tier.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lmcache_tutorial.graphs.beside import Beside, Opener
from lmcache_tutorial.servers.process import ServerError
from lmcache_tutorial.settings.run import RunConfig
from lmcache_tutorial.stack.kept_state import StackError
from lmcache_tutorial.stack.stack import Stack
from lmcache_tutorial.traces.record import Traces
from lmcache_tutorial.workbench.puzzle_evidence import Evidence
from lmcache_tutorial.workbench.puzzle_play import REQUESTS, SESSIONS, TURNS, Application, play
from lmcache_tutorial.workbench.puzzles import PUZZLES, Puzzle

pytestmark = pytest.mark.puzzles
ALWAYS = ("a clock stands in the system prompt", "the tier is stale")  # both on the stack as it is meant
BY_STACK = sorted(PUZZLES, key=lambda one: one.stack.__name__)  # those that share one follow each other
CASES = [
    pytest.param(
        one.stack, one, marks=[] if one.fault in ALWAYS else pytest.mark.kv_all_puzzles, id=one.fault
    )
    for one in BY_STACK
]


@pytest.fixture(scope="module")
def lab(
    run: RunConfig, own_stack: None, stack: Stack, traces: Traces, request: pytest.FixtureRequest
) -> Iterator[Beside]:
    """A stack that a puzzle is played on, beside the session's; it ends when another one is needed."""
    room = Application(stack.renderer, stack.chunk_tokens).room(stack.block_tokens, stack.kv_bytes_per_token)
    opener = Opener(stack, traces, run.report_dir / "logs" / "puzzles")
    try:
        yield opener(request.param(stack.config, room))
    except (ServerError, StackError) as error:  # its message says all; a traceback would hide it
        pytest.fail(str(error), pytrace=False)
    finally:
        opener.close()


@pytest.mark.parametrize(("lab", "puzzle"), CASES, indirect=["lab"], scope="module")
def test_a_puzzle_is_told_from_the_others_by_what_can_be_seen(
    lab: Beside, puzzle: Puzzle, stack: Stack, tmp_path: Path
) -> None:
    found = play(puzzle, lab.ask, Application(stack.renderer, stack.chunk_tokens), tmp_path)
    assert [one.fault for one in PUZZLES if one.told_by(found)] == [puzzle.fault], found
    assert found.same_answer is not puzzle.stale
    assert len((tmp_path / REQUESTS).read_text().splitlines()) == len(found.seen) == SESSIONS * TURNS
    assert {one.engine for one in found.seen} == {0}
    assert Evidence.read(tmp_path) == found
