"""The table of puzzles: eight faults, each told from the others by evidence alone."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_tutorial.quantities.room import Room
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.workbench.puzzle_evidence import Evidence, Seen
from lmcache_tutorial.workbench.puzzles import (
    CHOICES,
    PUZZLES,
    WIDER,
    Request,
    as_meant,
    choices_text,
    puzzle_of,
    said,
)

ROOM = Room(prompt_tokens=1_600, block_tokens=32, chunk_tokens=64, kv_bytes_per_token=46_080)
PLAIN = PROFILES["cpu"].stack
TOOLS = tuple({"function": {"name": name}} for name in ("find", "read", "search"))
HISTORY = ("manual", "first", "answer", "second", "answer", "third")
ROLES = ("system", "user", "assistant", "user", "assistant", "user")
REQUEST = Request(3, tuple({"role": r, "content": c} for r, c in zip(ROLES, HISTORY, strict=True)), TOOLS)
AS_MEANT = Evidence(
    puzzle=0,
    seen=(
        Seen(1, 1, 800, 800, 0, 0, 0),
        Seen(1, 2, 1_100, 332, 0, 768, 0),
        Seen(1, 3, 1_400, 312, 0, 1_088, 0),
    ),
    looked_up=3_200,
    stored_chunks=21,
    chunk_tokens=64,
    meant_chunk_tokens=64,
    salts=1,
    culprits=(),
    same_answer=True,
)
FIRST, SECOND, THIRD = AS_MEANT.seen
# What each fault leaves, as the rules of vLLM and LMCache say; the real ones are played in tutorial_tests.
LEFT = {
    "a clock stands in the system prompt": replace(AS_MEANT, culprits=(("timestamp", "system"),)),
    "each request has another salt": replace(AS_MEANT, salts=3),
    "LMCache has another chunk": replace(AS_MEANT, chunk_tokens=512),
    "the engine has no connector": replace(AS_MEANT, looked_up=0, stored_chunks=0),
    "the history is trimmed": replace(AS_MEANT, culprits=(("history_trimmed", "history"),)),
    "the memory is too small": replace(AS_MEANT, seen=(FIRST, SECOND, replace(THIRD, memory=448, files=640))),
    "the order of the tools changes": replace(AS_MEANT, culprits=(("tool_order", "tools"),)),
    "the tier is stale": replace(AS_MEANT, seen=(replace(FIRST, files=768, computed=32), SECOND, THIRD)),
}


def test_there_are_eight_and_each_is_told_from_the_others():
    assert [one.number for one in PUZZLES] == list(range(1, 9))
    assert {one.fault for one in PUZZLES} == set(LEFT)
    for fault, evidence in LEFT.items():
        assert [one.fault for one in PUZZLES if one.told_by(evidence)] == [fault]
    assert not any(one.told_by(AS_MEANT) for one in PUZZLES)


def test_each_differs_in_one_thing_from_what_is_meant():
    second = replace(REQUEST, turn=2)
    for one in PUZZLES:
        changes = (
            one.stack(PLAIN, ROOM) != as_meant(PLAIN, ROOM),
            one.application(second) != second,
            one.stale,
        )
        assert sum(changes) == 1, one.fault
        assert {type(entry) for entry in one.stack(PLAIN, ROOM).tiers} == {
            type(as_meant(PLAIN, ROOM).tiers[0])
        }


def test_the_applications_faults_leave_all_else_of_a_request_alone():
    by_fault = {one.fault: one.application(REQUEST) for one in PUZZLES}
    clock = by_fault["a clock stands in the system prompt"]
    assert clock.messages[0]["content"].endswith("manual")
    assert clock.messages[1:] == REQUEST.messages[1:]
    assert by_fault["the history is trimmed"].messages == (REQUEST.messages[0], *REQUEST.messages[3:])
    orders = {tuple(_order(turn)) for turn in (1, 2, 3)}
    assert len(orders) == 3
    assert {frozenset(order) for order in orders} == {frozenset(("find", "read", "search"))}
    salted = puzzle_of(7).application
    assert salted(REQUEST).salt != salted(REQUEST).salt


def _order(turn: int) -> list[str]:
    tools = puzzle_of(4).application(replace(REQUEST, turn=turn)).tools
    return [tool["function"]["name"] for tool in tools]


def test_the_stacks_faults_are_what_they_are_called():
    by_fault = {one.fault: one.stack(PLAIN, ROOM) for one in PUZZLES}
    meant = as_meant(PLAIN, ROOM)
    assert by_fault["LMCache has another chunk"].cache.chunk_tokens == WIDER * meant.cache.chunk_tokens
    assert by_fault["the engine has no connector"].engine.cache is None
    assert by_fault["the memory is too small"].cache.memory_gib < meant.cache.memory_gib / 4


@pytest.mark.parametrize("puzzle", PUZZLES, ids=[one.fault for one in PUZZLES])
def test_a_fault_is_understood_by_its_number_and_by_its_name(puzzle):
    place = CHOICES.index(puzzle) + 1
    assert said(f" {place}\n") is said(puzzle.fault.upper()) is puzzle
    assert f"{place}  {puzzle.fault}" in choices_text()
    for word in puzzle.words:
        assert said(f"I say that it is the {word}!") is puzzle


def test_numbers_of_puzzles_are_not_the_places_of_choices():
    assert [one.number for one in CHOICES] != sorted(one.number for one in CHOICES)


@pytest.mark.parametrize(
    ("words", "heard"),
    [
        ("the moon", "none of the faults"),
        ("", "none"),
        ("9", "none"),
        ("a clock, or the tools", "clock.* and .*tools"),
    ],
)
def test_what_names_no_fault_or_two_is_one_error_that_lists_them(words, heard):
    with pytest.raises(ConfigError, match=f"that names .*{heard}") as error:
        said(words)
    assert choices_text() in str(error.value)
    assert "To fix: " in str(error.value)


@given(st.text())
def test_whatever_is_said_is_a_fault_or_one_error(text):
    try:
        assert said(text) in PUZZLES
    except ConfigError:
        return


@pytest.mark.parametrize("number", [0, 9, -1])
def test_a_number_that_no_puzzle_has_is_refused(number):
    with pytest.raises(ConfigError, match="from 1 to 8"):
        puzzle_of(number)


def test_what_it_shows_and_what_it_means_are_sentences_that_do_not_run_into_each_other():
    for one in PUZZLES:
        for text in (one.shows, one.means):
            assert text.endswith(".")
            assert "  " not in text
            assert text[0].isupper()
