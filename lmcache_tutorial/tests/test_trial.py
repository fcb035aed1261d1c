"""Faults made on purpose: a program is gone while the block runs, and is back whatever happens in it."""

import sys
from types import SimpleNamespace

import psutil
import pytest

from lmcache_tutorial.asking.known import KnownAnswers, NotSureError
from lmcache_tutorial.asking.replies import Reply
from lmcache_tutorial.asking.trial import Trial
from lmcache_tutorial.quantities.records import Call
from lmcache_tutorial.servers.process import Launch, Server
from lmcache_tutorial.stack import faults

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


def call(text="Paris", logprob=-0.5, lead=5.0):
    return Call("", 10, 0, 0.1, None, None, None, text, (logprob,), None, lead=lead)


@pytest.fixture
def sleeper(tmp_path):
    server = Server.start("sleeper", SLEEP, Launch(9, tmp_path / "log"))
    yield SimpleNamespace(process=server)
    server.stop()


def fails_inside(fault, look):
    with fault:
        look()
        raise RuntimeError


def test_a_paused_program_stands_still_and_goes_on(sleeper):
    process, seen = psutil.Process(sleeper.process.record.server), []
    with pytest.raises(RuntimeError):
        fails_inside(faults.paused(None, sleeper), lambda: seen.append(process.status()))
    assert seen == [psutil.STATUS_STOPPED]
    assert process.status() != psutil.STATUS_STOPPED


def test_a_killed_program_is_gone_and_started_again_whatever_happens(sleeper, monkeypatch):
    again, seen = [], []
    monkeypatch.setattr(faults, "start_again", lambda stack, program: again.append(program))
    with pytest.raises(RuntimeError):
        fails_inside(faults.killed(None, sleeper), lambda: seen.append(sleeper.process.alive()))
    assert (seen, again) == ([False], [sleeper])


def test_a_trial_counts_right_answers_errors_and_wrong_ones():
    whole, lost = Reply(call(), "", 1.0), Reply(None, "HTTP 500", 2.0)
    trial = Trial((whole, lost), (), (whole, whole), recovered_s=3.0, wrong=1)
    assert (trial.right, trial.errors, trial.wrong) == (2, ["HTTP 500"], 1)
    assert trial.took_s == {"in flight": [1.0, 2.0], "afterwards": [1.0, 1.0], "to recover": [3.0]}


def test_only_prompts_of_which_the_model_is_sure_judge_others(monkeypatch):
    leads = {"sure": 5.0, "in doubt": 0.01, "sure too": 2.0}
    monkeypatch.setattr(
        "lmcache_tutorial.asking.known.ask_bare",
        lambda url, model, question: Reply(call(lead=leads[question.messages]), "", 0.1),
    )
    stack = SimpleNamespace(url="", model=SimpleNamespace(name="m"), config=SimpleNamespace(dtype="float32"))
    known = KnownAnswers.of(stack, list(leads), wanted=2)
    assert [prompt for prompt, _ in known.right] == ["sure", "sure too"]
    with pytest.raises(NotSureError, match="sure of 2 of 3 answers, and 3 are needed"):
        KnownAnswers.of(stack, list(leads), wanted=3)
    question = known.questions(1)[0]
    assert not known.is_wrong(question, Reply(call(logprob=-0.5005), "", 0.1))
    assert known.is_wrong(question, Reply(call(logprob=-0.6), "", 0.1))
    assert not known.is_wrong(question, Reply(None, "lost", 0.1))


@pytest.mark.parametrize(
    ("took_s", "context", "tokens"),
    [(4.8, 8192, 48), (0.194, 8192, 500), (0.194, 310, 300)],
    ids=["slow enough", "fast", "no room for more"],
)
def test_answers_that_are_under_way_when_something_fails_are_as_long_as_the_speed_asks(
    took_s, context, tokens, monkeypatch
):
    asked = []
    answer = Reply(call(), "", took_s)  # its first token came after 0.1 s, and 47 more followed
    monkeypatch.setattr(
        "lmcache_tutorial.asking.known.ask_bare",
        lambda url, model, question: asked.append(question.answer_tokens) or answer,
    )
    stack = SimpleNamespace(
        url="",
        model=SimpleNamespace(name="m"),
        config=SimpleNamespace(engines=[SimpleNamespace(context_tokens=context)]),
        snapshot=lambda: None,
        settle=lambda before, prompts: None,
    )
    known = KnownAnswers(stack, [("prompt", call())], 0.1)
    assert (known.flight_tokens, known.flight_tokens) == (tokens, tokens)
    assert asked == [48]
