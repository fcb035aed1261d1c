"""What every test of the lessons' folder needs, and that a deployment refuses the rest."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from lmcache_tutorial.models.model import Model
from lmcache_tutorial.servers.counters import Snapshot
from lmcache_tutorial.servers.process import ServerError
from lmcache_tutorial.servers.vllm import Engine
from lmcache_tutorial.settings.topology import EngineConfig, StackConfig
from lmcache_tutorial.stack.found import NEEDS, FoundStack
from lmcache_tutorial.stack.restart import restart_engine
from lmcache_tutorial.tests.stand_in import serving

ROOT = Path(__file__).parents[2]
TELL = f"""
import json

def pytest_collection_finish(session):
    all_needs, found = {set(NEEDS)}, {{}}
    for item in session.items:
        found[item.nodeid.partition("::")[2]] = sorted(all_needs & set(item.fixturenames))
    print("needs", json.dumps(found))
"""
AGENT = ["generated_ids", "rendering"]
LAB = ["own_stack"]
# Every claim of the lessons -> what it needs beyond asking an engine that tells what was cached.
CLAIMS = {
    "lesson1_a_cold_prompt_reuses_nothing": [],
    "lesson1_a_cold_prompt_is_prefilled_to_the_last_token": [],
    "lesson1_ttft_grows_with_the_prompt": [],
    "lesson1_the_prefill_is_what_you_wait_for": ["engine_times", "rendering"],
    "lesson1_client_and_engine_agree_on_ttft": ["counters"],
    "lesson1_the_trace_tells_the_same_ttft": [],
    "lesson2_two_prompts_part_in_the_question": ["chunks", "rendering"],
    "lesson2_a_second_ask_reuses_every_whole_block": [],
    "lesson2_the_hit_rate_is_above_the_bar": [],
    "lesson2_the_time_to_first_token_drops_by_more_than_the_bar": [],
    "lesson2_the_engines_own_prefix_cache_served_them_all": ["whose_tokens"],
    "lesson3_lmcache_serves_the_predicted_tokens": ["emptying", "restarts"],
    "lesson3_lmcache_alone_is_above_the_hit_rate_bar": ["emptying", "restarts"],
    "lesson3_ttft_from_lmcache_drops_by_more_than_the_bar": ["emptying", "restarts"],
    "lesson3_without_lmcache_the_same_restart_costs_a_full_prefill": ["emptying", "restarts"],
    "lesson3_with_lmcache_the_restart_costs_less_by_more_than_the_bar": ["emptying", "restarts"],
    "lesson3_lmcache_gives_the_answer_of_the_engines_own_reuse": ["emptying"],
    "lesson3_lmcache_moves_the_cold_answer_no_further_than_the_engines_own_reuse": ["emptying"],
    "lesson4_reuse_ends_where_the_clock_stands": ["rendering"],
    "lesson4_the_static_hit_rate_goes_from_nothing_to_above_the_bar": ["rendering"],
    "lesson4_with_the_clock_at_the_end_ttft_drops_by_more_than_the_bar": ["rendering"],
    "lesson4_with_the_clock_in_front_ttft_does_not_drop": ["rendering"],
    "lesson4_only_whole_blocks_and_chunks_are_reused": ["emptying", "rendering"],
    "lesson4_lmcache_never_gives_back_static_text_shorter_than_a_chunk": ["emptying", "rendering"],
    "lesson4_another_order_of_tools_or_keys_breaks_the_prefix": ["rendering"],
    "lesson5_every_request_reuses_what_was_predicted": AGENT,
    "lesson5_an_append_only_agent_is_above_the_hit_rate_bar": AGENT,
    "lesson5_each_node_tells_its_ttft_and_its_hits_in_the_trace": AGENT,
    "lesson5_every_other_policy_reuses_less_and_prefills_more": AGENT,
    "lesson5_the_diagnosis_names_where_the_prefix_breaks": ["chunks", *AGENT],
    "lesson5_experts_side_by_side_share_one_prefill": AGENT,
    "lesson9_the_traces_alone_tell_what_every_request_reused": ["chunks", *AGENT],
    "lesson9_a_regression_is_found_in_the_traces_and_named": ["chunks", *AGENT],
    "lesson9_the_gate_passes_on_the_agent_as_it_was": ["chunks", "emptying", *AGENT],
    "lesson9_the_gate_is_seen_to_fail": ["chunks", "emptying", "generated_ids", "own_stack", "rendering"],
    "lesson9_mended_the_gate_turns_green_again": ["chunks", "emptying", *AGENT],
}
ALWAYS_LACKING = {"own_stack", "restarts", "counters"}


@pytest.fixture(scope="module")
def needs(tmp_path_factory):
    """Each collected test of the lessons' folder -> what it needs."""
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "tell_needs.py").write_text(TELL)
    command = [sys.executable, "-m", "pytest", "tutorial_tests", "--collect-only", "-q", "-s"]
    path = os.pathsep.join([str(folder), str(ROOT)])
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "-p", "tell_needs", "--kv-faults"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("needs ")]
    return json.loads(line.removeprefix("needs "))


def test_every_claim_of_the_lessons_says_what_it_needs(needs):
    found = {}
    for name, wanted in needs.items():
        claim = name.partition("[")[0].removeprefix("test_")
        if claim.startswith("lesson") and not claim.startswith(("lesson6", "lesson7", "lesson8")):
            found[claim] = wanted
    assert {name: sorted(wanted) for name, wanted in CLAIMS.items()} == found


def test_what_has_servers_of_its_own_says_so(needs):
    others = {name: wanted for name, wanted in needs.items() if name.partition("[")[0][5:] not in CLAIMS}
    assert len(others) > 50  # lessons 6 to 8, the faults, the answers, the gate's states
    assert [name for name, wanted in others.items() if not ALWAYS_LACKING & set(wanted)] == []


@pytest.fixture
def found():
    with serving(token_s=0, context=2000) as server, httpx.Client(base_url=server.url) as client:
        engine = EngineConfig(block_tokens=4, cache=None, context_tokens=2000)
        config = StackConfig("deployment", "small", "unknown", (engine,), ())
        programs = (Engine("vllm", server.url, client, engine, "small"),)
        yield FoundStack(config, Model(Path(), "small", ""), programs, print, client), server


@pytest.mark.parametrize(
    "act",
    [
        lambda stack: stack.empty_engine_cache(),
        lambda stack: stack.empty_lmcache(),
        lambda stack: stack.empty_tiers(),
        lambda stack: stack.snapshot(),
        lambda stack: stack.settle(Snapshot(()), [1]),
        lambda stack: stack.wait_counted(Snapshot(()), [1]),
        lambda stack: stack.engine.process,
        lambda stack: restart_engine(stack),
        lambda stack: stack.chunk_tokens,
        lambda stack: stack.kv_bytes_per_token,
    ],
)
def test_what_a_deployment_must_not_be_told_or_does_not_tell_is_refused(found, act):
    stack, server = found
    with pytest.raises(ServerError, match=r"a deployment that was found|found running"):
        act(stack)
    assert (server.resets, server.asked) == (0, [])


def test_it_stays_as_it_is_when_the_run_lets_go_of_it(found):
    stack, _ = found
    stack.close()
    assert stack.client.get("/v1/models").status_code == 200


def test_without_a_tokenizer_the_server_counts(found):
    stack, server = found
    assert stack.count_tokens("one two three") == 3
    assert stack.detokenizer_s([1]) is stack.road_s([]) is None
    assert server.asked == []


def test_what_is_reused_is_predicted_without_an_lmcache_too(found):
    assert found[0].reuse(100, 100) == 96
