"""A group of prompts against a server that behaves well, and against one that does not."""

import time
from dataclasses import replace

import pytest

from lmcache_tutorial.asking import answers
from lmcache_tutorial.asking.answers import NoAnswerError, ask_streamed
from lmcache_tutorial.gate.deployment import DeploymentError, client_for, find_deployment
from lmcache_tutorial.gate.judge_group import judge_group
from lmcache_tutorial.gate.prompt_group import Asked, ask_group, forerunner
from lmcache_tutorial.prompts.prompts_file import GroupBars, Prompt, PromptGroup
from lmcache_tutorial.report.groups import figures
from lmcache_tutorial.settings.bars import Thresholds
from lmcache_tutorial.tests.stand_in import BLOCK, serving

MANUAL = " ".join(f"word{number}" for number in range(400))
BARS = Thresholds()
NO_BARS = GroupBars()


def chat(system, user, line=1):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return Prompt({"messages": messages}, line)


ALIGNED = (chat(MANUAL, "Where is it", 1), chat(MANUAL, "What does it cost", 2))
MISALIGNED = (
    chat(f"It is 2026-11-27T10:00:00Z. {MANUAL}", "Where is it", 1),
    chat(f"It is 2026-11-27T10:00:01Z. {MANUAL}", "What does it cost", 2),
)


def judged(prompts=ALIGNED, bars=NO_BARS, rounds=7, **behaviour):
    with serving(**behaviour) as server:
        deployment = find_deployment(client_for(server.url), None)
        measured = ask_group(deployment, PromptGroup("manual", prompts, bars), rounds)
    return measured, judge_group(measured, BARS)


def outcomes(found):
    return [one.outcome for one in found]


@pytest.mark.parametrize("honours_salts", [True, False])
@pytest.mark.parametrize("prompts", [ALIGNED, ALIGNED[:1]], ids=["two", "one, asked twice"])
def test_a_group_that_is_reused_passes(prompts, honours_salts):
    measured, found = judged(prompts, honours_salts=honours_salts)
    assert outcomes(found) == ["passed"] * 3
    assert measured.reused == [list(measured.predicted)] * 7
    assert measured.predicted[0] % BLOCK == 0
    assert len(measured.pairs) == 7


def test_a_clock_in_front_fails_and_is_named():
    _, found = judged(MISALIGNED)
    assert outcomes(found) == ["failed", "failed", "passed"]
    assert "line 2 shares its first" in found[0].seen
    assert "they part in system, message 0" in found[0].seen
    assert "timestamp. Move the time to the end of the prompt" in found[0].seen


def salted(*salts):
    lines = [chat(MANUAL, f"Where is {number}", number) for number in range(1, len(salts) + 1)]
    pairs = zip(lines, salts, strict=True)
    return tuple(
        replace(one, body={**one.body, **({"cache_salt": salt} if salt else {})}) for one, salt in pairs
    )


def test_prompts_of_another_salt_share_nothing_and_that_is_said():
    measured, found = judged(salted("ours", "theirs"), rounds=3)
    assert measured.predicted == (0,)
    assert measured.reused == [[0]] * 3
    assert "line 2 shares its first 0 of" in found[0].seen
    assert found[0].seen.endswith("Send one salt for all who may share.")
    measured, found = judged(salted("ours", "theirs", "ours", ""), GroupBars(exact=True), rounds=3)
    assert found[0].outcome == "passed", found[0].seen
    assert [bool(tokens) for tokens in measured.predicted] == [False, True, False]


def test_a_server_that_ignores_salts_ignores_those_of_the_prompts_too():
    measured, found = judged(salted("ours", "theirs"), rounds=3, honours_salts=False)
    assert found[0].outcome == "passed"
    assert measured.predicted[0] > 0


def test_a_group_whose_times_are_not_judged_is_asked_in_two_rounds():
    measured, found = judged(bars=GroupBars(times=False), rounds=None)
    assert len(measured.rounds) == 2
    assert [one.claim for one in found] == [
        "the prompts are reused",
        "the answer is the same with reuse as without",
    ]
    assert "ttft_drop" not in figures(measured)["headline"]


def test_the_first_token_of_an_agent_that_would_call_a_tool_is_seen():
    tools = {"tools": [{"type": "function", "function": {"name": "look_up"}}]}
    measured, found = judged(tuple(replace(one, body=one.body | tools) for one in ALIGNED), rounds=3)
    assert found[0].outcome == found[2].outcome == "passed"
    assert measured.reused == [list(measured.predicted)] * 3


def test_a_masked_failure_shows_no_text():
    measured, _ = judged(MISALIGNED, rounds=3)
    told = judge_group(measured, BARS, mask=True)[0].seen
    assert "they part in system, message 0\n" in told
    assert "word1" not in told
    assert "10:00" not in told
    assert "timestamp" in told


def test_reuse_is_held_against_the_prediction_to_the_token():
    _, found = judged(ALIGNED, GroupBars(exact=True), reuses=False)
    assert found[0].outcome == "failed"
    assert found[0].seen.startswith("predicted [")
    assert "reused [0]" in found[0].seen


@pytest.mark.parametrize("bars", [{}, {"min_hit_rate": 95}])
def test_where_nothing_is_reused_a_prediction_of_nothing_is_no_excuse(bars):
    measured, found = judged(MISALIGNED, GroupBars(exact=True, times=False, **bars), rounds=2)
    assert measured.reused == [list(measured.predicted)] * 2 == [[0]] * 2
    assert found[0].outcome == "failed"
    assert found[0].seen.startswith("as predicted, 0 tokens in each of 2 rounds; hit rate 0.0 %, the bar is")
    assert "timestamp. Move the time" in found[0].seen


def test_what_was_predicted_must_meet_the_groups_own_bar_too():
    half = (chat(MANUAL, "Where is it", 1), chat(" ".join(MANUAL.split()[:200]) + " other" * 200, "What", 2))
    _, found = judged(half, GroupBars(exact=True, times=False), rounds=2)
    assert found[0].outcome == "passed"
    _, found = judged(half, GroupBars(exact=True, times=False, min_hit_rate=95), rounds=2)
    assert found[0].outcome == "failed"
    assert "the bar is 95.0 %" in found[0].seen


@pytest.mark.parametrize("form", ["completion", "chat"])
def test_the_answer_of_an_earlier_request_is_reused_and_counted(form):
    answer = ("Paris", "is", "large", "and", "old")
    for length in range(40, 40 + BLOCK):
        text = " ".join(MANUAL.split()[:length])
        if form == "completion":
            bodies = [{"prompt": text}, {"prompt": f"{text} {' '.join(answer)} as you know, I think"}]
        else:
            talk = [{"role": "user", "content": text}, {"role": "assistant", "content": " ".join(answer)}]
            bodies = [{"messages": talk[:1]}, {"messages": [*talk, {"role": "user", "content": "Why so?"}]}]
        prompts = tuple(Prompt(body, line) for line, body in enumerate(bodies, 1))
        bars = GroupBars(exact=True, times=False)
        measured, found = judged(prompts, bars, rounds=2, answer=answer)
        assert found[0].outcome == "passed", found[0].seen
        (one,) = measured.forerunners
        assert one.with_answer == one.shared_tokens + len(answer) - 1


def test_lmcache_has_no_answers_so_it_may_share_most_with_another_request():
    ids = list(range(100))
    asked = [
        Asked(ALIGNED[0], ids[:60], [*ids[60:64], 7]),  # its answer goes on as the prompt does
        Asked(ALIGNED[1], [*ids[:62], 999]),
    ]
    with serving() as server:
        deployment = find_deployment(client_for(server.url), None)
    one = forerunner(deployment, asked, ALIGNED[0], ids)
    assert (one.prompt, one.shared_tokens, one.with_answer) == (ALIGNED[0], 62, 64)


def test_an_answer_without_a_count_of_tokens_makes_the_hit_rate_unknown():
    _, found = judged(rounds=3, tells_usage=lambda number: number != 7)
    assert found[0].outcome == "not_run"
    assert "does not say how many tokens" in found[0].seen


def test_an_answer_that_broke_off_is_none():
    with pytest.raises(NoAnswerError, match="the answer broke off"):
        judged(rounds=2, ends=lambda number: number < 8, tells_usage=lambda number: number < 8)


def test_a_server_that_sends_comments_alone_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(answers, "LONGEST", 0.2)
    with serving(comments_s=20) as server:
        client, began = client_for(server.url), time.monotonic()
        with pytest.raises(NoAnswerError, match="it did not end within 1 s"):
            ask_streamed(client, ALIGNED[0].path, ALIGNED[0].body, limit_s=5)
        assert time.monotonic() - began < 10


def test_an_answer_that_is_told_of_some_requests_only_is_not_the_same():
    measured, _ = judged(rounds=3)
    pair = measured.rounds[2][0]
    silent = replace(pair, warm=replace(pair.warm, likely={}))
    found = judge_group(replace(measured, rounds=(*measured.rounds[:2], (silent,))), BARS)
    assert outcomes(found) == ["passed", "passed", "not_run"]
    assert found[2].seen.startswith("of 1 of 3 answers the server tells no log-probabilities")


def test_what_the_server_does_not_tell_is_neither_passed_nor_failed():
    _, found = judged(rounds=3, tells_cached=False)
    assert outcomes(found) == ["not_run", "passed", "passed"]
    assert "--enable-prompt-tokens-details" in found[0].seen
    _, found = judged(bars=GroupBars(exact=True), rounds=3, tells_ids=False)
    assert found[0].outcome == "not_run"
    assert "does not tell token ids" in found[0].seen


def test_no_cached_token_at_all_fails():
    _, found = judged(rounds=3, reuses=False)
    assert outcomes(found)[:2] == ["failed", "failed"]
    assert "hit rate 0 %" in found[0].seen or "hit rate 0.0 %" in found[0].seen


def test_another_models_kv_gives_another_answer():
    measured, found = judged(rounds=3, wrong=True)
    assert outcomes(found) == ["passed", "passed", "failed"]
    assert measured.flipped == 3
    assert "moved by 4.4 at most, 0.5 is allowed" in found[2].seen
    assert outcomes(judged(rounds=3, bars=GroupBars(tolerance=5), wrong=True)[1])[2] == "passed"


def test_hits_of_lmcache_alone_need_its_address_and_leave_to_empty_the_engine():
    group = PromptGroup("manual", ALIGNED, GroupBars(served_by="lmcache"))
    with serving() as server:
        found = find_deployment(client_for(server.url), None)
        with pytest.raises(DeploymentError, match="--kv-lmcache-url"):
            ask_group(found, group)
        with pytest.raises(DeploymentError, match="--kv-allow-reset"):
            ask_group(replace(found, chunk_tokens=8), group)
