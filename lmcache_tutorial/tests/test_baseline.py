"""What later runs are compared with: hits to the token, times by an interval and a margin."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_tutorial.gate.baseline import Baseline, BaselineError, Margin, fingerprint
from lmcache_tutorial.gate.deployment import client_for, find_deployment
from lmcache_tutorial.gate.judge_baseline import judge_baseline
from lmcache_tutorial.gate.prompt_group import ask_group
from lmcache_tutorial.prompts.prompts_file import Prompt, PromptGroup
from lmcache_tutorial.report.groups import figures
from lmcache_tutorial.report.results import Claim, GroupReport
from lmcache_tutorial.tests.stand_in import serving

SEGMENTS = [["tools", "aa"], ["message 0, system", "bb"], ["message 1, user", "cc"]]
DEPLOYMENT = {
    "model": "m",
    "template": "t",
    "block_tokens": 16,
    "chunk_tokens": 64,
    "engine_version": "0.32.0",
    "lmcache_url": None,
}
WARM = [0.100, 0.102, 0.098, 0.101, 0.099, 0.103, 0.100]


def group(reused=640, warm=WARM, segments=SEGMENTS, outcome="passed"):
    request = {"line": 2, "reused": [reused] * 7, "segments": segments, "forerunner_segments": SEGMENTS}
    return {
        "id": "a.prompts.jsonl::manual",
        "outcome": outcome,
        "reason": None,
        "claims": [{"name": "the prompts are reused", "outcome": outcome, "message": ""}],
        "requests": [request],
        "measurements": [{"name": "TTFT", "unit": "s", "arm": "warm", "values": list(warm)}],
    }


def environment(**other):
    return {"hardware": "a machine", "deployments": [{**DEPLOYMENT, **other}]}


def baseline(**how):
    return Baseline.of({"environment": environment(), "groups": [group(**how)]}, "the first")


def judged(now, *, again=None, env=None, margin=None, then=None):
    found = judge_baseline(
        then or baseline(),
        now,
        fingerprint(env or environment()),
        margin or Margin(),
        lambda: again or now,
    )
    return [one.outcome for one in found], "\n".join(one.seen for one in found)


def times(factor):
    return [value * factor for value in WARM]


def test_the_same_again_passes():
    outcomes, seen = judged(group())
    assert outcomes == ["passed", "passed"]
    assert "1.00 (" in seen


@given(st.integers(1, 640))
def test_a_token_fewer_in_any_request_fails(fewer):
    outcomes, seen = judged(group(640 - fewer))
    assert outcomes[0] == "failed"
    assert f"reuses {640 - fewer:,} tokens, and reused 640" in seen


def test_more_is_no_failure():
    assert judged(group(704))[0] == ["passed", "passed"]


@pytest.mark.parametrize(
    ("place", "named"), [(0, "tools"), (1, "message 0, system"), (2, "message 1, user"), (None, "deployment")]
)
def test_the_first_part_that_is_other_is_named(place, named):
    changed = [[name, "zz" if at == place else digest] for at, (name, digest) in enumerate(SEGMENTS)]
    assert named in judged(group(576, segments=changed))[1]


def test_a_part_that_is_gone_is_named():
    assert "message 1, user is gone" in judged(group(576, segments=SEGMENTS[:2]))[1]


@pytest.mark.parametrize(
    ("factor", "outcome"),
    [(1.0, "passed"), (1.15, "passed"), (1.3, "passed"), (1.6, "failed"), (0.5, "passed")],
)
def test_times_fail_beyond_both_margins(factor, outcome):
    assert judged(group(warm=times(factor)))[0][1] == outcome  # of 100 ms 30 % are 30 ms: below the margin


def test_a_longer_time_needs_only_its_ratio():
    long = [10 * value for value in WARM]
    then = baseline(warm=long)
    assert judged(group(warm=[1.3 * value for value in long]), then=then)[0][1] == "failed"
    assert judged(group(warm=[1.15 * value for value in long]), then=then)[0][1] == "passed"
    assert (
        judged(group(warm=[1.3 * value for value in long]), then=then, margin=Margin(1.5))[0][1] == "passed"
    )


def test_two_answers_that_disagree_decide_nothing():
    outcomes, seen = judged(group(warm=times(2)), again=group())
    assert outcomes == ["passed", "inconclusive"]
    assert "asked once more: warm TTFT 100 ms" in seen


def test_times_are_compared_under_an_equal_fingerprint_alone():
    outcomes, seen = judged(group(warm=times(3)), env=environment(engine_version="0.33.0"))
    assert outcomes == ["passed"]
    assert "times were not compared: engine version was 0.32.0, and is 0.33.0" in seen


@pytest.mark.parametrize("field", ["model", "template", "block_tokens", "chunk_tokens"])
def test_hits_of_another_model_or_chunk_are_not_compared(field):
    outcomes, seen = judged(group(0), env=environment(**{field: 7}))
    assert outcomes == ["not_run"]
    assert "lmcache-tutorial baseline" in seen


def sized(tokens, **how):
    found = group(**how)
    found["requests"][0]["prompt_tokens"] = tokens
    return found


def test_a_template_that_writes_the_date_is_the_same_template():
    then = Baseline.of({"environment": environment(), "groups": [sized(700)]}, "yesterday")
    tomorrow = environment(template="u")
    assert judged(sized(700), env=tomorrow, then=then)[0] == ["passed", "passed"]
    assert judged(sized(700, reused=576), env=tomorrow, then=then)[0][0] == "failed"
    assert judged(sized(701), env=tomorrow, then=then)[0] == ["not_run"]
    assert judged(sized(700), env=environment(template="u", model="n"), then=then)[0] == ["not_run"]


def test_each_group_is_held_against_its_own_deployment():
    deployments = [
        {**DEPLOYMENT, "url": "http://one"},
        {**DEPLOYMENT, "url": "http://two", "block_tokens": 32},
    ]
    groups = [group() | {"id": url, "url": f"http://{url}"} for url in ("one", "two")]
    then = Baseline.of(
        {"environment": {"hardware": "m", "deployments": deployments}, "groups": groups}, "why"
    )
    for one, deployment in zip(groups, deployments, strict=True):
        env = {"hardware": "m", "deployments": [deployment]}
        assert judged(one, env=env, then=then)[0] == ["passed", "passed"]
    assert judged(groups[0], env={"hardware": "m", "deployments": [deployments[1]]}, then=then)[0] == [
        "not_run"
    ]


def test_a_baseline_without_times_says_so_where_times_are_judged():
    outcomes, seen = judged(group(), then=baseline(warm=WARM[:2]))
    assert outcomes == ["passed", "not_run"]
    assert "the baseline is of 2 rounds, in which no times were judged" in seen


def test_what_is_not_told_or_not_known_is_no_pass():
    silent = group()
    silent["requests"][0]["reused"] = [None] * 7
    assert judged(silent)[0] == ["not_run"]
    assert judged(group(), then=Baseline.of({"environment": environment(), "groups": [silent]}, "why"))[
        0
    ] == ["not_run"]
    assert judged(group() | {"id": "another"})[0] == ["not_run"]


def test_a_baseline_is_read_as_it_was_written(tmp_path):
    made = baseline()
    path = tmp_path / "kv.json"
    path.write_text(made.text())
    assert Baseline.read(path) == made
    assert json.loads(made.text())["reason"] == "the first"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 9}', '{"schema": 1}', "\x00"])
def test_what_is_none_is_said_so(tmp_path, text):
    path = tmp_path / "kv.json"
    path.write_text(text)
    with pytest.raises(BaselineError, match="To fix"):
        Baseline.read(path)
    with pytest.raises(BaselineError, match="cannot be read"):
        Baseline.read(tmp_path / "absent.json")


def test_what_fails_is_no_baseline_and_one_needs_a_reason():
    with pytest.raises(BaselineError, match="mend what fails first"):
        baseline(outcome="failed")
    with pytest.raises(BaselineError, match="needs a reason"):
        Baseline.of({"environment": environment(), "groups": [group()]}, " ")
    with pytest.raises(BaselineError, match="no group"):
        Baseline.of({"environment": environment(), "groups": []}, "why")


def test_a_ratio_grows_with_its_numerator():
    ratios = [judged(group(warm=times(one)))[1] for one in (1.0, 1.2, 1.4)]
    found = [float(seen.split(": ")[1].split(" (")[0]) for seen in ratios]
    assert all(one < other for one, other in pairwise(found))


WORDS = [f"word{number}" for number in range(400)]
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("look_up", "store")]


def prompts(*, clock=False, tools=TOOLS, words=400):
    """Two requests of an application: tools, a manual, a question."""
    made = []
    for number, question in enumerate(("Where is it", "What does it cost")):
        now = f"It is 2026-11-27T10:00:0{number}Z. " if clock else ""
        order = tools[::-1] if number and tools is not TOOLS else tools
        system = {"role": "system", "content": now + " ".join(WORDS[:words])}
        body = {"messages": [system, {"role": "user", "content": question}], "tools": order}
        made.append(Prompt(body, number + 1))
    return tuple(made)


def asked(requests, **behaviour):
    """A group's part of results.json, and the environment, from a stand-in that behaves so."""
    with serving(delay_s=behaviour.pop("delay_s", 0.2), **behaviour) as server:
        found = find_deployment(client_for(server.url), None)
        measured = ask_group(found, PromptGroup("manual", requests), rounds=3)
        told = GroupReport("a.prompts.jsonl", 1, "manual", figures=figures(measured), outcome="passed")
        told.claims = [Claim("the prompts are reused", "passed", "")]
        return told.document("a.prompts.jsonl::manual"), {"hardware": "m", "deployments": [found.document()]}


@pytest.fixture(scope="module")
def kept():
    """The baseline of a deployment that is well."""
    group, env = asked(prompts())
    return Baseline.of({"environment": env, "groups": [group]}, "the first")


@pytest.mark.parametrize(
    ("planted", "behaviour", "outcomes", "says"),
    [
        ({}, {}, ["passed", "passed"], "all 1 reuse at least what they did"),
        ({"words": 396}, {}, ["failed", "passed"], "message 0, system is not what it was"),
        ({"clock": True}, {}, ["failed", "failed"], "message 0, system is not what it was"),
        ({"tools": list(TOOLS)}, {}, ["failed", "failed"], "tools is not what it was"),
        ({}, {"delay_s": 0.27}, ["passed", "failed"], "asked once more"),
        ({}, {"delay_s": 0.23}, ["passed", "passed"], "1.2 times and 50 ms more are allowed"),
        ({}, {"tells_cached": False}, ["not_run"], "does not tell how many"),
    ],
    ids=[
        "nothing",
        "4 tokens fewer",
        "a clock",
        "order of tools",
        "TTFT +30 %",
        "TTFT +15 %",
        "no cached tokens",
    ],
)
def test_planted_regressions_are_caught_or_said_to_be_below_the_margin(
    kept, planted, behaviour, outcomes, says
):
    group, env = asked(prompts(**planted), **behaviour)
    found = judge_baseline(
        kept, group, fingerprint(env), Margin(), lambda: asked(prompts(**planted), **behaviour)[0]
    )
    assert [one.outcome for one in found] == outcomes
    assert says in "\n".join(one.seen for one in found)
