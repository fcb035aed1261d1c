"""What a CI reads: nothing that a model said does anything there."""

import json

from lmcache_tutorial.report.telling import ctrf, github_annotations, markdown

HOSTILE = "<script>alert(1)</script> | `x` ::error::\n::stop-commands::x 100%"


def group(outcome="failed", message=HOSTILE, name="manual"):
    claims = [{"name": "the prompts are reused", "outcome": outcome, "message": message}]
    return {
        "id": f"agent.prompts.jsonl::{name}",
        "file": "agent.prompts.jsonl",
        "line": 3,
        "name": name,
        "outcome": outcome,
        "reason": None,
        "duration_s": 2.0,
        "claims": claims,
        "headline": {"hit_rate": 0.5, "ttft_drop": 0.4, "ttft_drop_low": 0.3, "ttft_drop_high": 0.5},
    }


def results(*groups):
    return {
        "started": "2026-11-27T10:00:00Z",
        "duration_s": 4.0,
        "verdict": "failed",
        "lessons": [],
        "groups": list(groups),
    }


def test_the_summary_has_a_row_for_each_and_what_it_says_is_text():
    told = markdown(results(group(), group("passed", "fine", "<b>|x")))
    rows = [line for line in told.splitlines() if line.startswith("| agent")]
    assert len(rows) == 2
    assert "50.0 %" in rows[0]
    assert "&lt;b&gt;\\|x" in rows[1]
    assert "<script>" not in told
    assert told.count("<pre>") == 1


def test_an_annotation_is_one_line_at_the_line_of_the_prompts_file():
    (line,) = github_annotations(results(group(name="a,b:c"), group("passed", "fine")))
    assert line.startswith("::error file=agent.prompts.jsonl,line=3,title=a%2Cb%3Ac")
    assert line.endswith("%0A::stop-commands::x 100%25")
    assert len(line.splitlines()) == 1
    (warning,) = github_annotations(results(group("undecided", "noise")))
    assert warning.startswith("::warning ")


def test_ctrf_counts_every_claim_once():
    document = ctrf(results(group(), group("passed", "fine"), group("not_run", "silent")))
    told = document["results"]
    assert document["reportFormat"] == "CTRF"
    assert told["summary"] | {"start": 0, "stop": 0} == {
        "tests": 3,
        "passed": 1,
        "failed": 1,
        "pending": 0,
        "skipped": 0,
        "other": 1,
        "start": 0,
        "stop": 0,
    }
    assert told["summary"]["stop"] - told["summary"]["start"] == 4_000
    assert {test["rawStatus"] for test in told["tests"]} == {"failed", "passed", "not_run"}
    assert told["tests"][0]["filePath"] == "agent.prompts.jsonl"
    json.dumps(document)
