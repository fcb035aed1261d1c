"""The likeliest forerunner of a request, among many and over a long time."""

from lmcache_tutorial.diagnosis.forerunner import Forerunners, Seen
from lmcache_tutorial.diagnosis.turns import Talk

MANUAL = "The harbour moves the spare parcel without delay, and the valve opens the quiet cabinet. " * 20


def talk(*texts: str) -> Talk:
    return Talk(tuple(("user", text) for text in texts))


def remembered(*talks: Talk) -> Forerunners:
    found = Forerunners()
    for one in talks:
        found.remember(Seen(one, "\n".join(text for _, text in one.turns), []))
    return found


def test_nothing_has_no_forerunner():
    assert Forerunners().find(talk("a")) is None


def test_a_session_finds_its_own_last_request_whatever_came_between():
    own = [talk(MANUAL, "my question", "an answer"), talk(MANUAL, "my question", "an answer", "my second")]
    others = [talk(MANUAL, f"question {n}", f"answer {n}") for n in range(100)]
    found = remembered(*own, *others).find(talk(MANUAL, "my question", "an answer", "my second", "more"))
    assert found.talk == own[1]


def test_a_turn_that_is_new_resembles_the_last_request_that_has_the_turn_it_is_like():
    """The first line of the manual changes in the middle of a session."""
    before = [talk(f"Model: one\n{MANUAL}", *(f"turn {n}" for n in range(length))) for length in (1, 3)]
    found = remembered(*before).find(talk(f"Model: two\n{MANUAL}", *(f"turn {n}" for n in range(5))))
    assert found.talk == before[1]


def test_without_any_common_text_it_is_the_last_request():
    assert remembered(talk("a"), talk("b")).find(talk("c")).talk == talk("b")


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr("lmcache_tutorial.diagnosis.forerunner.REMEMBERED_CHARACTERS", 10_000)
    found = remembered(*(talk(f"{n}\n{MANUAL}", f"question {n}") for n in range(50)))
    assert sum(len(seen.text) for seen in found._kept.values()) <= 10_000
    assert len(found._last) == 2 * len(found._kept)
    assert set(found._within.values()) <= set(found._last)
    assert found.find(talk("question 3")).number == 50
