"""The application that every puzzle runs; its playing needs a stack and stands in tutorial_tests."""

from types import SimpleNamespace

import pytest

from lmcache_tutorial.workbench.puzzle_play import (
    ANSWER_TOKENS,
    PASTED_CHUNKS,
    SESSIONS,
    SYSTEM_CHUNKS,
    TOOLS,
    TURNS,
    Application,
)

CHUNK = 16


def pieces(text, **options):
    return SimpleNamespace(ids=[text[at : at + 4] for at in range(0, len(text), 4)])


def render(messages, tools):
    return pieces(" ".join(message["content"] for message in messages))


@pytest.fixture(scope="module")
def application():
    """One whose tokens have four letters."""
    return Application(
        SimpleNamespace(tokenizer=SimpleNamespace(encode=pieces), render=render), CHUNK, seed=3
    )


def test_a_session_appends_to_its_history_and_shares_the_system_prompt(application):
    first, second = application.request(0, []), application.request(0, ["yes"])
    assert (first.turn, second.turn) == (1, 2)
    assert second.messages[: len(first.messages)] == first.messages
    assert [one["role"] for one in second.messages] == ["system", "user", "assistant", "user"]
    other = application.request(1, [])
    assert other.messages[0] == first.messages[0]
    assert other.messages[1] != first.messages[1]


def test_tools_are_sorted_by_name(application):
    names = [one["function"]["name"] for one in application.request(0, []).tools]
    assert names == sorted(names)
    assert len(TOOLS) == TURNS  # so that each turn of the puzzle has another order


def test_all_texts_are_of_the_planned_length_and_differ(application):
    assert len(pieces(application.system).ids) >= SYSTEM_CHUNKS * CHUNK - 8
    texts = [text for session in application.pasted for text in session]
    assert len(texts) == len(set(texts)) == SESSIONS * TURNS
    assert {len(pieces(text).ids) for text in texts} <= {PASTED_CHUNKS * CHUNK - 1, PASTED_CHUNKS * CHUNK}


def test_two_plays_have_no_word_in_common_at_the_front(application):
    again = Application(application.renderer, CHUNK, seed=3)
    assert again.system.split()[:2] != application.system.split()[:2]


def test_the_room_is_that_of_the_longest_prompt(application):
    room = application.room(block_tokens=8, kv_bytes_per_token=100)
    ends = [
        application.request(session, [" word" * ANSWER_TOKENS] * (TURNS - 1)) for session in range(SESSIONS)
    ]
    assert room.prompt_tokens == max(len(render(one.messages, one.tools).ids) for one in ends)
    assert (room.block_tokens, room.chunk_tokens) == (8, CHUNK)
