"""Runs of one fingerprint become one, whatever their order, and nothing is lost; others are refused."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.report.environment import code_digest
from lmcache_tutorial.report.fingerprint import differences, fingerprint
from lmcache_tutorial.report.joined import join
from lmcache_tutorial.report.page import render
from lmcache_tutorial.report.results import CONVERTED, schema
from lmcache_tutorial.report.runs import NamedRun, RunError, read_run

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "reports" / "reference" / "cpu-avx512-smollm2-135m" / "results.json"
WHOLE = json.loads(REFERENCE.read_text())
LESSONS = [
    {**lesson, "charts": [], "traces": [], "tables": [], "diagnoses": []} for lesson in WHOLE["lessons"]
]
GROUP = {
    "id": "agent.prompts.jsonl::manual",
    "file": "agent.prompts.jsonl",
    "line": 1,
    "name": "manual",
    "outcome": "passed",
    "reason": None,
    "duration_s": 1.0,
    "claims": [],
    "headline": {},
    "requests": [],
    "measurements": [],
}


def run(*numbers, started="2026-11-27T10:00:00Z", rate=865.9, port=None, **environment):
    """A run of some lessons of the reference; a port is another in each run."""
    made = {**WHOLE, "lessons": [LESSONS[number - 1] for number in numbers], "started": started}
    about = {**WHOLE["environment"], "code": "abc", "prefill_tokens_s": rate, **environment}
    stack = {name: one for name, one in about["stack"].items() if ": " not in name}
    if port:
        stack["lmcache"] = {**stack["lmcache"], "port": port}
        command = [str(port) if word == "22969" else word for word in stack["lmcache"]["command"]]
        stack["lmcache"]["command"] = [word.replace("31913-28b5ac", f"{port}-77aabb") for word in command]
    return copy.deepcopy({**made, "duration_s": 60.0, "environment": {**about, "stack": stack}})


def joined(*runs):
    return join([NamedRun(f"run{number}", one) for number, one in enumerate(runs, 1)])


def test_a_joined_document_keeps_the_contract_and_says_of_which_runs_it_is():
    first = run(1, 2, 3, started="2026-11-27T10:00:00Z", rate=800.0, port=21001)
    second = run(6, started="2026-11-27T11:00:00Z", rate=810.0, port=21002)
    found = joined(second, first)
    jsonschema.validate(found, schema())
    assert [one["id"] for one in found["lessons"]] == ["lesson1", "lesson2", "lesson3", "lesson6"]
    assert found["joined"] == [
        {
            "started": "2026-11-27T10:00:00Z",
            "duration_s": 60.0,
            "ran": ["lesson1", "lesson2", "lesson3"],
            "prefill_tokens_s": 800.0,
        },
        {
            "started": "2026-11-27T11:00:00Z",
            "duration_s": 60.0,
            "ran": ["lesson6"],
            "prefill_tokens_s": 810.0,
        },
    ]
    assert (found["started"], found["duration_s"]) == ("2026-11-27T10:00:00Z", 120.0)
    assert "prefill_tokens_s" not in found["environment"]
    assert found["environment"]["stack"]["lmcache"]["port"] == 21001
    assert found["environment"]["stack"]["lmcache (2)"]["port"] == 21002
    page = render(found)
    assert "Joined from 2 runs of one fingerprint" in page
    assert "lesson1, lesson2, lesson3" in page
    assert "2026-11-27T11:00:00Z" in page
    assert "810 tokens/s" in page


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (0, 2)])
def test_what_was_joined_can_be_joined_with_one_more(pair):
    runs = [
        run(number, started=f"2026-11-27T1{number}:00:00Z", port=21000 + number, rate=rate)
        for number, rate in ((1, 800.0), (2, 800.0), (3, 810.0))
    ]
    (left,) = {0, 1, 2} - set(pair)
    found = joined(joined(*(runs[number] for number in pair)), runs[left])
    once = joined(*runs)
    told = [
        {name: about["port"] for name, about in one["environment"]["stack"].items()} for one in (found, once)
    ]
    assert set(told[0]) == set(told[1])
    assert sorted(told[0].values()) == sorted(told[1].values())
    assert found["joined"] == once["joined"]
    assert [one["id"] for one in found["lessons"]] == [one["id"] for one in once["lessons"]]
    jsonschema.validate(found, schema())


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_order_of_the_runs_does_not_matter_and_nothing_is_lost(data):
    owners = data.draw(st.lists(st.integers(0, 3), min_size=len(LESSONS), max_size=len(LESSONS)))
    parts = [[n for n, owner in enumerate(owners, 1) if owner == one] for one in sorted(set(owners))]
    if len(parts) < 2:
        return
    hours = data.draw(st.lists(st.integers(10, 12), min_size=len(parts), max_size=len(parts)))
    rates = data.draw(st.lists(st.sampled_from([800.0, 820.0, None]), min_size=4, max_size=4))
    runs = [
        run(*part, started=f"2026-11-27T{hour}:00:00Z", rate=rate, port=21000 + part[0])
        for part, hour, rate in zip(parts, hours, rates, strict=False)
    ]
    found = joined(*runs)
    assert joined(*data.draw(st.permutations(runs))) == found
    assert {one["id"]: one for one in found["lessons"]} == {
        one["id"]: one for part in runs for one in part["lessons"]
    }
    assert sorted(name for row in found["joined"] for name in row["ran"]) == [one["id"] for one in LESSONS]
    servers = [about for part in runs for about in part["environment"]["stack"].values()]
    assert all(about in found["environment"]["stack"].values() for about in servers)


def test_what_was_joined_can_be_joined_with_more():
    one, two, three = run(1), run(2, started="2026-11-27T11:00:00Z"), run(3, started="2026-11-27T12:00:00Z")
    assert joined(joined(one, two), three)["joined"] == joined(one, two, three)["joined"]
    assert joined(three, joined(one, two))["lessons"] == joined(one, two, three)["lessons"]


def test_the_verdict_is_that_of_all():
    failed = run(2)
    failed["lessons"][0]["outcome"] = "failed"
    assert joined(run(1), failed)["verdict"] == "failed"
    assert joined(run(1), run(2))["verdict"] == "passed"
    assert joined({**run(1), "interrupted": True}, run(2))["interrupted"] is True


def test_groups_of_prompts_are_joined_too():
    first, second = {**run(), "groups": [GROUP]}, {**run(), "groups": [{**GROUP, "id": "b::c"}]}
    assert [one["id"] for one in joined(first, second)["groups"]] == [GROUP["id"], "b::c"]
    with pytest.raises(RunError, match=r"run1 and run2 both hold agent\.prompts\.jsonl::manual"):
        joined(first, first)


OTHERS = {
    "code": ("code", "xyz"),
    "hardware": ("machine", "another machine"),
    "model": ("model", "another model"),
    "python": ("Python", "3.12.0"),
    "dtype": ("number format", "bfloat16"),
    "packages": ("lmcache", {**WHOLE["environment"]["packages"], "lmcache": "0.5.7"}),
    "workload": ("documents [tokens]", {**WHOLE["environment"]["workload"], "long": 4800}),
}


@pytest.mark.parametrize("key", OTHERS)
def test_runs_that_were_not_made_alike_are_one_clear_error(key):
    name, value = OTHERS[key]
    with pytest.raises(RunError) as error:
        joined(run(1), run(2, **{key: value}))
    text = str(error.value)
    assert text.startswith("run1 and run2 were not made alike:\n")
    assert f"  {name}: " in text
    assert "To fix: join runs of one commit, machine and settings" in text


def test_another_setting_of_a_server_or_another_bar_is_another_fingerprint():
    other = run(2)
    command = other["environment"]["stack"]["lmcache"]["command"]
    command[command.index("--l1-size-gb") + 1] = "4"
    apart = differences([fingerprint(run(1)), fingerprint(other)])
    assert list(apart) == ["lmcache --l1-size-gb"]
    other = {**run(2), "thresholds": {"min_hit_rate": 0.95, "min_ttft_drop": 0.7}}
    with pytest.raises(RunError, match="bar min hit rate: 90 % / 95 %"):
        joined(run(1), other)


def test_ports_names_of_a_run_and_the_prefill_rate_are_in_no_fingerprint():
    assert fingerprint(run(1, port=21001, rate=1.0)) == fingerprint(run(2, port=21002, rate=None))


def test_the_same_lesson_twice_is_refused_and_so_is_one_run_alone():
    with pytest.raises(RunError, match="run1 and run3 both hold lesson2, and only one of them can count"):
        joined(run(1, 2), run(3), run(2))
    with pytest.raises(RunError, match="joining takes two runs or more"):
        joined(run(1))


def test_an_older_schema_or_an_unknown_code_is_refused():
    old = {**run(2), "notes": [CONVERTED]}
    with pytest.raises(RunError, match="run2 has an older schema"):
        joined(run(1), old)
    unknown = run(2)
    del unknown["environment"]["code"]
    with pytest.raises(RunError, match="run2 does not tell which code made it"):
        joined(run(1), unknown)


def test_the_digest_of_the_code_follows_the_sources():
    digest = code_digest()
    assert len(digest) == 12
    code_digest.cache_clear()
    assert code_digest() == digest


BROKEN = {
    "": "Expecting value",
    "[]": "KeyError 'schema'",
    "{}": "KeyError 'schema'",
    '{"schema": 7}': "only schema 1 can be converted",
    '{"schema": 2, "lessons": NaN}': "it holds NaN",
    '{"schema": 2, "environment": {}, "lessons": []}': "must contain",
    "[" * 100_000: "recursion",
}


@pytest.mark.parametrize("text", BROKEN, ids=range(len(BROKEN)))
def test_a_file_that_is_no_run_is_one_message(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(
        RunError, match=r"results\.json is no results\.json: (.|\n)*To fix: name the folder"
    ) as error:
        read_run(tmp_path)
    assert BROKEN[text] in str(error.value)
    assert len(str(error.value)) < 1000


def test_what_a_run_lacks_is_named_with_its_place(tmp_path):
    lacking = run(1)
    del lacking["lessons"][0]["headline"]
    with pytest.raises(RunError, match=r"lessons\[0\] must contain .*'headline'"):
        read_run(written(tmp_path / "lacking", lacking))


def test_a_run_of_which_no_page_can_be_made_is_one_message(tmp_path):
    odd = run(1)
    odd["lessons"][0]["traces"] = [{"id": "a", "spans": [{}]}]
    done = command(written(tmp_path / "odd", odd))
    assert done.exit_code == 2, done.output
    assert "index.html cannot be made of what was read: UndefinedError" in done.stderr
    assert not (tmp_path / "odd" / "index.html").exists()


def command(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def written(folder, document):
    folder.mkdir()
    (folder / "results.json").write_text(json.dumps(document))
    return folder


def test_the_command_joins_runs_and_writes_their_page(tmp_path):
    first, second = written(tmp_path / "a", run(1, 2)), written(tmp_path / "b", run(3))
    target = tmp_path / "all" / "results.json"
    done = command("--merge", second, first / "results.json", "--into", target)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        f"joined: 2 runs in {target}",
        f"report: {target.with_name('index.html')}",
    ]
    assert [one["id"] for one in read_run(target)["lessons"]] == ["lesson1", "lesson2", "lesson3"]
    assert "Joined from 2 runs" in target.with_name("index.html").read_text()


def test_the_command_refuses_and_loses_nothing(tmp_path):
    first, second = written(tmp_path / "a", run(1)), written(tmp_path / "b", run(1))
    before = (first / "results.json").read_text()
    for arguments, words in (
        ([first, second], "both hold lesson1"),
        ([first], "takes two runs or more"),
        ([first, first], "both hold lesson1"),
        ([first, tmp_path / "nowhere"], "nowhere cannot be read: No such file"),
        ([first, second, "--into", first / "results.json"], "is one of the runs to join, and would be lost"),
        ([first, second, "--into", tmp_path / "page.html"], "is no name for joined results"),
    ):
        done = command("--merge", *arguments)
        assert done.exit_code == 2, done.output
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert "To fix: " in done.stderr
        assert done.stdout == ""
    assert (first / "results.json").read_text() == before
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "results.json", "results.json"]


def test_a_place_that_cannot_be_written_is_one_message(tmp_path):
    folder = written(tmp_path / "a", run(1))
    (tmp_path / "file").touch()
    done = command(folder, "--into", tmp_path / "file" / "page.html")
    assert done.exit_code == 2, done.output
    assert "cannot be written" in done.stderr


def test_one_run_gets_its_page_again(tmp_path):
    folder = written(tmp_path / "a", run(1, 2))
    done = command(folder)
    assert done.exit_code == 0, done.output
    assert done.stdout == f"report: {folder / 'index.html'}\n"
    assert "Lesson 2. Ask twice, prefill once" in (folder / "index.html").read_text()
    done = command(folder / "results.json", "--into", tmp_path / "other.html")
    assert (tmp_path / "other.html").read_text() == (folder / "index.html").read_text()
