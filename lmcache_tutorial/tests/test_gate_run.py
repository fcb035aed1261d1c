"""The gate as its reader runs it: a pytest of its own against a stand-in, and what noise leaves open."""

import pytest

from lmcache_tutorial.gate.baseline import BaselineError
from lmcache_tutorial.gate.decide import UndecidedError
from lmcache_tutorial.tests.stand_in import serving
from lmcache_tutorial.workbench.gate_run import GateRun, gate_prompts

LINES = [
    {"messages": [{"role": "system", "content": "word " * 400}, {"role": "user", "content": question}]}
    for question in ("Where?", "When?")
]


def test_it_passes_and_is_a_baseline_for_the_next_and_the_outer_run_is_left_alone(tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    monkeypatch.setenv("PYTEST_ADDOPTS", "--no-such-option")
    lines = [*LINES, {"group": "agent", "kv": {"times": False}}]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with serving() as server:
        done = gate_prompts(tmp_path / "one", lines, f"--kv-url={server.url}")
        assert done.exit_code == 0, done.output
        assert done.decided().group("agent")["outcome"] == "passed"
        against = done.keep(tmp_path / "kv.json")
        server.reuses = False
        worse = gate_prompts(tmp_path / "two", lines, f"--kv-url={server.url}", against)
    assert worse.exit_code == 1
    assert "the prompts are what they were, so the deployment is not" in worse.said("agent")
    assert not summary.exists()
    with pytest.raises(BaselineError):
        worse.keep(tmp_path / "worse.json")
    with pytest.raises(AssertionError, match="no result for 'other'"):
        worse.group("other")


@pytest.mark.parametrize(
    ("outcomes", "verdict", "is_open"),
    [
        (["passed", "undecided"], "incomplete", True),
        (["passed", "inconclusive"], "inconclusive", True),
        (["failed", "undecided"], "failed", False),
        (["passed", "not_run"], "incomplete", False),
    ],
)
def test_what_noise_left_open_is_no_failure(outcomes, verdict, is_open):
    claims = [{"name": one, "outcome": one, "message": "seen"} for one in outcomes]
    run = GateRun(6, "", {"groups": [{"name": "agent", "claims": claims}], "verdict": verdict})
    if is_open:
        with pytest.raises(UndecidedError, match=f"{outcomes[1]}: seen"):
            run.decided()
    else:
        assert run.decided() is run
