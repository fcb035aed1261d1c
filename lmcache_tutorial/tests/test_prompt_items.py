"""Files of prompts as tests, in a repository that has nothing else of ours."""

import json

import pytest

from lmcache_tutorial.tests.stand_in import serving

MANUAL = " ".join(f"word{number}" for number in range(400))


def request(system, user, group="manual"):
    messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
    return {"group": group, "messages": messages}


ALIGNED = [request(MANUAL, "Where is it"), request(MANUAL, "What does it cost")]
CLOCKED = [
    request(f"It is 2026-11-27T10:00:0{second}Z. {MANUAL}", "Where is it", "clocked") for second in (0, 1)
]


@pytest.fixture
def gate(pytester, monkeypatch):
    """``gate(*requests, arguments=…, **behaviour)`` runs pytest on a file of prompts, with a deployment."""
    monkeypatch.delenv("CI", raising=False)
    pytester.makeini("[pytest]\naddopts = -p no:hypothesispytest\n")

    def run(*requests, arguments=(), **behaviour):
        lines = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in requests)
        (pytester.path / "agent.prompts.jsonl").write_text(lines)
        with serving(**behaviour) as server:
            return pytester.runpytest_subprocess(f"--kv-url={server.url}", *arguments, timeout=120)

    return run


def test_every_group_is_a_test(gate):
    done = gate(*ALIGNED, *CLOCKED)
    assert done.ret == 1
    assert done.parseoutcomes() == {"passed": 1, "failed": 1}
    done.stdout.fnmatch_lines(
        [
            "failed: the prompts are reused: hit rate 0*",
            "they part in system, message 0: *",
            "*agent.prompts.jsonl::manual passed: the prompts are reused: hit rate 9*",
        ]
    )
    done.stdout.no_fnmatch_line("*Traceback*")


def test_a_claim_without_an_answer_ends_with_6(gate):
    done = gate(*ALIGNED, tells_cached=False)
    assert done.ret == 6
    done.stdout.fnmatch_lines(["*incomplete: the prompts are reused: the server does not say*"])


def test_salts_that_are_ignored_are_told(gate):
    done = gate(*ALIGNED, honours_salts=False)
    assert done.ret == 0
    done.stdout.fnmatch_lines(["cold was made by a nonce in front: the server ignores cache_salt"])


def test_without_a_deployment_groups_are_skipped(gate, pytester):
    gate(*ALIGNED)
    done = pytester.runpytest_subprocess("-rs", timeout=60)
    assert done.ret == 0
    assert done.parseoutcomes() == {"skipped": 1}
    done.stdout.fnmatch_lines(["*no deployment is named: pytest --kv-url=*"])


def test_a_line_that_is_none_is_one_message(gate):
    done = gate(*ALIGNED, "{")
    assert done.ret == 2
    done.stdout.fnmatch_lines(["*agent.prompts.jsonl:3: no JSON*", "To fix: one request a line*"])


def test_a_deployment_that_is_not_there_is_said_to_every_group(gate, pytester):
    gate(*ALIGNED, *CLOCKED)
    done = pytester.runpytest_subprocess("--kv-url=http://127.0.0.1:9", timeout=60)
    assert done.ret == 1
    assert done.parseoutcomes() == {"failed": 2}
    done.stdout.fnmatch_lines(["*nothing answers at http://127.0.0.1:9: ConnectError*"])
    done.stdout.no_fnmatch_line("*Traceback*")


def test_bars_are_those_of_the_run_where_the_group_has_none(gate):
    assert gate(*ALIGNED, arguments=["--kv-min-hit-rate=99.9"]).ret == 1
    assert (
        gate(
            {**ALIGNED[0], "kv": {"min_hit_rate": 10}}, *ALIGNED[1:], arguments=["--kv-min-hit-rate=99.9"]
        ).ret
        == 0
    )
    refused = gate(*ALIGNED, arguments=["--kv-min-hit-rate=0.9"])
    assert refused.ret == 4


def test_a_key_stands_in_no_output(gate, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-anyone-else")
    done = gate(*CLOCKED, key="sk-not-for-anyone-else")
    assert done.ret == 1
    assert "not-for-anyone" not in done.stdout.str() + done.stderr.str()
