"""Files of prompts as tests, in a repository that has nothing else of ours."""

import json

import jsonschema
import pytest

from lmcache_tutorial.report.results import schema
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
    pytester.makeini("[pytest]\n")

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
            "agent.prompts.jsonl::manual: passed, hit rate 9*",
            "agent.prompts.jsonl::clocked: failed, hit rate 0.0 %*",
            "verdict: failed",
        ]
    )
    done.stdout.no_fnmatch_line("*Traceback*")


def test_a_claim_without_an_answer_ends_with_6(gate):
    done = gate(*ALIGNED, tells_cached=False)
    assert done.ret == 6
    done.stdout.fnmatch_lines(
        ["*not run: the prompts are reused: the server does not say*", "verdict: incomplete"]
    )


def test_salts_that_are_ignored_are_told(gate):
    done = gate(*ALIGNED, honours_salts=False)
    assert done.ret == 0
    done.stdout.fnmatch_lines(["deployment: *; cold by a nonce in front, for it ignores cache_salt"])


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


def test_a_key_stands_in_no_output_and_no_file(gate, pytester, monkeypatch):
    key = "sk-not-for-anyone-else"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    near, cut = f"and {key}", f"and then {'x' * 16} {key}"  # the second is cut off within the key
    planted = [
        request(f"It is 10:0{minute} {text} {MANUAL}", "Where is it", text[:8])
        for text in (near, cut)
        for minute in (0, 1)
    ]
    done = gate(*planted, key=key)
    assert done.ret == 1
    assert "they part in system" in done.stdout.str()
    files = [path for path in (pytester.path / "reports").rglob("*") if path.is_file()]
    told = done.stdout.str() + done.stderr.str() + "".join(path.read_text() for path in files)
    assert len(files) >= 4
    assert "not-for-anyone" not in told
    assert "[OPENAI_API_KEY]" in told


def test_results_and_the_page_tell_what_was_seen(gate, pytester):
    gate(*ALIGNED, *CLOCKED)
    results = json.loads((pytester.path / "reports/results.json").read_text())
    jsonschema.validate(results, schema())
    assert results["verdict"] == "failed"
    assert results["lessons"] == []
    manual, clocked = results["groups"]
    assert (manual["outcome"], clocked["outcome"]) == ("passed", "failed")
    assert (manual["file"], manual["line"], clocked["line"]) == ("agent.prompts.jsonl", 1, 3)
    (request,) = manual["requests"]
    assert request["reused"] == [request["predicted"]] * 7
    assert [name for name, _ in request["segments"]] == ["message 0, system", "message 1, user"]
    (deployment,) = results["environment"]["deployments"]
    assert deployment["engine_version"] == "0.32.0"
    assert deployment["cold_by"] == "cache_salt"
    page = (pytester.path / "reports/index.html").read_text()
    assert "Your prompts, on your deployment" in page
    assert page.count("<section") == 4  # the groups, the words, and the environment
    junit = (pytester.path / "reports/junit.xml").read_text()
    assert 'name="hit_rate"' in junit
    tests = json.loads((pytester.path / "reports/ctrf.json").read_text())["results"]["tests"]
    assert len(tests) == 6


def test_a_ci_is_told_in_its_own_forms(gate, pytester, monkeypatch):
    summary = pytester.path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    done = gate(*ALIGNED, *CLOCKED)
    told = summary.read_text()
    assert told.startswith("before\n## KV-cache gate: failed")
    assert "hit rate 0.0 %" in told
    done.stdout.fnmatch_lines(["::error file=agent.prompts.jsonl,line=3,title=clocked%3A *"])


@pytest.mark.parametrize("option", ["url", "lmcache_url", "baseline", "model"])
def test_an_option_that_a_shell_left_empty_is_an_error_and_no_skip(pytester, gate, option):
    gate(*ALIGNED)
    spelled = f"--kv-{option.replace('_', '-')}="
    done = pytester.runpytest_subprocess(spelled, timeout=60)
    assert done.ret == 4
    done.stderr.fnmatch_lines(
        [f"*{spelled.rstrip('=')}* is empty.*", "To fix: give it a value, or leave it out"]
    )


def test_commas_are_no_address(pytester, gate):
    gate(*ALIGNED)
    done = pytester.runpytest_subprocess("--kv-url=,", timeout=60)
    assert done.ret == 4
    done.stderr.fnmatch_lines(["*--kv-url names no address.*"])


def test_a_skip_is_a_failure_where_the_ini_file_says_so(pytester, gate):
    gate(*ALIGNED)
    pytester.makeini("[pytest]\nkv_require_all = true\n")
    done = pytester.runpytest_subprocess(timeout=60)
    assert done.ret == 1
    assert done.parseoutcomes() == {"errors": 1}
    done.stdout.fnmatch_lines(["*--kv-require-all was given, and this was skipped: no deployment is named*"])


def test_two_addresses_of_one_host_are_two_tests(pytester, gate):
    gate(*ALIGNED)
    with serving() as server:
        again = server.url.replace("http://", "http://me:secretword@")
        done = pytester.runpytest_subprocess(f"--kv-url={server.url},{again},{server.url}", "-v", timeout=120)
    assert done.parseoutcomes() == {"passed": 2}
    results = json.loads((pytester.path / "reports/results.json").read_text())
    host = server.url.removeprefix("http://")
    assert [one["id"] for one in results["groups"]] == [
        f"agent.prompts.jsonl::manual[{host} {number}]" for number in (1, 2)
    ]


def test_the_key_is_not_among_the_arguments_that_a_failed_test_shows(pytester, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-not-for-anyone")
    pytester.makepyfile(
        "def test_it(kv_stack):\n    x = kv_stack.model\n    assert x == kv_stack.api_key[:0]"
    )
    with serving(key="sk-not-for-anyone") as server:
        done = pytester.runpytest_subprocess(
            f"--kv-url={server.url}", "-l", "--tb=long", "--junitxml=j.xml", timeout=60
        )
    assert done.parseoutcomes() == {"failed": 1}
    done.stdout.fnmatch_lines(["*kv_stack*=*KvStack(url=*"])
    told = done.stdout.str() + done.stderr.str() + (pytester.path / "j.xml").read_text()
    assert "not-for-anyone" not in told


def test_several_engines_are_asked_each(pytester, gate):
    gate(*ALIGNED)
    with serving() as one, serving(reuses=False) as other:
        done = pytester.runpytest_subprocess(f"--kv-url={one.url},{other.url}", "-v", timeout=120)
    assert done.parseoutcomes() == {"passed": 1, "failed": 1}
    host = other.url.removeprefix("http://")
    done.stdout.fnmatch_lines([f"*agent.prompts.jsonl::manual?{host}? FAILED*"])


def test_a_password_in_the_address_stands_in_no_output_and_no_file(pytester, gate):
    gate(*ALIGNED)
    with serving(reuses=False) as server:
        url = server.url.replace("http://", "http://me:hunter2secret@")
        done = pytester.runpytest_subprocess(f"--kv-url={url}", "-vv", timeout=120)
    assert done.ret == 1
    files = [path for path in (pytester.path / "reports").rglob("*") if path.is_file()]
    told = done.stdout.str() + done.stderr.str() + "".join(path.read_text() for path in files)
    assert len(files) >= 4
    assert "hunter2secret" not in told


def test_fixtures_for_graphs_are_there_in_any_repository(pytester, gate):
    gate(*ALIGNED)
    pytester.makepyfile(
        """
        def ask(client, url, text):
            messages = [{"role": "user", "content": text}]
            body = {"model": "small", "messages": messages, "stream": True}
            return client.post(url + "/chat/completions", json=body)

        def test_it(kv_stack, kv_http_client, kv_ask):
            text = "word " * 200
            kv_ask(lambda state: ask(kv_http_client, kv_stack.url, text + state), "one")
            turn = kv_ask(lambda state: ask(kv_http_client, kv_stack.url, text + state), "two")
            turn.assert_hit_rate(above=90)
            assert turn.tokens.reused == sum(turn.predicted)
        """
    )
    with serving() as server:
        done = pytester.runpytest_subprocess(f"--kv-url={server.url}", "-k", "test_it", timeout=60)
    assert done.parseoutcomes() == {"passed": 1, "deselected": 1}
    assert pytester.runpytest_subprocess("-k", "test_it", timeout=60).parseoutcomes()["skipped"] == 1
