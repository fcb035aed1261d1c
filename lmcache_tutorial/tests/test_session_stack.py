"""Lessons on a deployment, as its reader runs them: on a stand-in that keeps prefixes."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lmcache_tutorial.quantities.records import TokenSources
from lmcache_tutorial.quantities.sources import told
from lmcache_tutorial.report.compared import render_compared
from lmcache_tutorial.report.headlines import headlines
from lmcache_tutorial.report.page import write_report
from lmcache_tutorial.report.runs import NamedRun, read_run
from lmcache_tutorial.tests.stand_in import serving
from lmcache_tutorial.tests.test_attach import WORD

pytestmark = pytest.mark.xdist_group("session stack")  # one worker: its lessons run once
ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "reports" / "reference" / "cpu-avx512-smollm2-135m"
COUNTED = ("reuses every whole block", "hit rate is above")


def run(server, folder, chosen, *options, **variables):
    """Run chosen lessons on a server; return pytest's outcome and the document that it wrote."""
    command = [sys.executable, "-m", "pytest", "tutorial_tests", "-k", chosen, "-rs"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", f"--kv-url={server.url}", f"--kv-report-dir={folder}", *options],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LMCACHE_TUTORIAL_CACHE": str(folder), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done, json.loads((folder / "results.json").read_text())


def outcomes(document):
    return {claim["name"]: claim["outcome"] for one in document["lessons"] for claim in one["claims"]}


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Lessons 2, 3 and 7 on a stand-in, beside which an LMCache is named that must not be emptied."""
    folder = tmp_path_factory.mktemp("run")
    with serving(word=WORD, context=2000, token_s=0.0001, looks_up=True, key="a key of its own") as server:
        named = ("lesson2 or lesson3 or lesson7", f"--kv-lmcache-url={server.url}")
        done, document = run(server, folder, *named, OPENAI_API_KEY="a key of its own")
        return server, done, document, folder


def test_what_was_predicted_is_reused_and_the_rest_is_skipped_with_its_reason(asked):
    _, done, document, _ = asked
    found = outcomes(document)
    assert [found[name] for name in found if any(words in name for words in COUNTED)] == ["passed"] * 2, (
        done.stdout
    )
    assert found["Two prompts part in the question"] == "skipped"
    assert found["The engine's own prefix cache served them all"] == "skipped"
    assert {one["outcome"] for one in document["lessons"]} <= {"skipped", "failed", "undecided"}
    for reason in ("it needs to empty", "it needs servers of its own", "it needs the model's tokenizer"):
        assert reason in done.stdout
    assert "To fix: --kv-allow-reset" in done.stdout


def test_nothing_is_emptied_and_every_copy_is_asked_under_a_salt_of_its_own(asked):
    server, _, _, _ = asked
    assert server.resets == 0
    lessons = [body for body in server.asked if body.get("stream") and "What decides" in json.dumps(body)]
    assert len({body["cache_salt"] for body in lessons}) == len(lessons) == 7
    assert all(body["cache_salt"] for body in lessons)


def test_the_report_says_what_was_asked_and_does_not_say_what_nobody_knows(asked):
    server, _, document, folder = asked
    environment = document["environment"]
    assert (environment["profile"], environment["stack"]) == ("deployment", {})
    assert [one["url"] for one in environment["deployments"]] == [server.url]
    assert environment["workload"]["long"] == 1200
    (head,) = [one["headline"] for one in document["lessons"] if one["id"] == "lesson2"]
    assert head["hit_rate"] > 0.9
    assert all("a key of its own" not in path.read_text() for path in folder.rglob("*") if path.is_file())


def test_its_pages_are_made_where_nobody_knows_whose_the_tokens_were(asked, tmp_path):
    _, done, document, _ = asked
    assert "Traceback" not in done.stdout + done.stderr
    unknown = copy.deepcopy(document)
    (lesson,) = [one for one in unknown["lessons"] if one["id"] == "lesson2"]
    lesson["headline"]["tokens"] = told(TokenSources(7, 0, 0, 0, untold=512))
    (tmp_path / "results.json").write_text(json.dumps(unknown))
    write_report(unknown, tmp_path / "index.html")
    assert "not told by whom" in (tmp_path / "index.html").read_text()
    runs = [NamedRun(str(path), read_run(path)) for path in (tmp_path, REFERENCE)]
    assert "not told by whom" in render_compared(runs)
    text = headlines([tmp_path / "results.json"], tmp_path / "README.md")
    assert "not told by whom" in text
    assert "vllm 0.32.0; " in text


def test_a_deployment_without_room_for_a_lesson_skips_them_all_and_that_counts_where_all_is_required(
    tmp_path,
):
    with serving(word=WORD, context=100, token_s=0) as server:
        done, document = run(server, tmp_path, "lesson2", "--kv-require-all")
    assert done.returncode == 1
    assert (
        "--kv-require-all was given, and this was skipped: its context of 100 tokens has no room"
        in done.stdout
    )
    assert set(outcomes(document).values()) == {"error"}


def test_after_the_engine_was_emptied_what_is_reused_is_lmcaches(tmp_path):
    with serving(word=WORD, context=2000, token_s=0, looks_up=True, may_reset=True) as server:
        named = (f"--kv-lmcache-url={server.url}", "--kv-allow-reset")
        _, document = run(server, tmp_path, "lesson3 and gives_the_answer", *named)
    (claim,) = document["lessons"][0]["claims"]
    assert (claim["outcome"], server.resets) == ("passed", 7), claim["message"]
