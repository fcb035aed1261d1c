"""Lessons run several times in a row, with stand-ins for pytest: what is kept, and when it goes on."""

import json
import subprocess

import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.workbench import repeat as module
from lmcache_tutorial.workbench.repeat import LessonRun, kept_file, lesson_runs, read_kept, repeat, summary

GOOD = {
    "id": "lesson2",
    "outcome": "passed",
    "duration_s": 9.5,
    "claims": [{"name": "It hits", "outcome": "passed", "message": None}],
    "predictions": [{"predicted": [96, 96], "measured": [96, 96]}],
    "headline": {"hit_rate": 0.97, "ttft_drop": 0.9, "ttft_drop_low": 0.88},
}
BAD = GOOD | {"predictions": [{"predicted": [96, 96], "measured": [96, 64]}]}
PYTEST = """
import pathlib, sys
folder = next(a.partition("=")[2] for a in sys.argv if a.startswith("--kv-report-dir="))
with open("asked", "a") as file:
    print(*[a for a in sys.argv[1:] if not a.startswith("--kv-report-dir=")], sep="|", file=file)
results = pathlib.Path("results")
if results.exists():
    pathlib.Path(folder, "results.json").write_text(results.read_text())
sys.exit(int(pathlib.Path("code").read_text()))
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder in which ``python -m pytest`` is a stand-in that copies the file ``results``."""
    (tmp_path / "pytest.py").write_text(PYTEST)
    (tmp_path / "results").write_text(json.dumps({"lessons": [GOOD]}))
    (tmp_path / "code").write_text("0")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def committed(project, monkeypatch):
    """The same, at a commit: what git says of it does not change."""
    run = subprocess.run

    def answer(command, **options):
        if command[0] != "git":
            return run(command, **options)
        return subprocess.CompletedProcess(command, 0, "abc1234\n")

    monkeypatch.setattr(module.subprocess, "run", answer)
    return project


def asked(project):
    return (project / "asked").read_text().splitlines()


def test_a_lessons_figures_and_its_exactness_are_read_from_its_results():
    good, bad = lesson_runs({"lessons": [GOOD, BAD]}, 3)
    assert good == LessonRun(3, "lesson2", "passed", True, 9.5, 0.97, 0.9, 0.88)
    assert good.steady
    assert not bad.steady
    assert lesson_runs({"lessons": [GOOD | {"headline": {}}]}, 1)[0].hit_rate is None


def test_a_run_that_did_not_pass_says_which_claim_and_why(project):
    claims = [
        *GOOD["claims"],
        {
            "name": "It pays",
            "outcome": "undecided",
            "message": "too noisy to judge\nTo fix: close other programs",
        },
        {"name": "It is right", "outcome": "skipped", "message": None},
    ]
    (project / "results").write_text(
        json.dumps({"lessons": [GOOD | {"outcome": "undecided", "claims": claims}]})
    )
    done = CliRunner().invoke(app, ["repeat", "1", "lesson2"])
    told = "It pays (undecided): too noisy to judge; It is right (skipped): no reason told"
    assert told in " ".join(done.stdout.split())
    assert "It hits" not in done.stdout


def test_each_run_gets_the_selection_and_the_options_of_pytest(project):
    found = list(repeat(2, "lesson2 or lesson3", ["--kv-chunk-tokens=128"], project))
    assert [[one.run for one in run] for run in found] == [[1], [2]]
    assert asked(project) == ["-q|-k|lesson2 or lesson3|--kv-chunk-tokens=128"] * 2


def test_what_was_cut_off_goes_on_where_it_was(committed):
    assert len(list(repeat(2, "lesson2", [], committed))) == 2
    assert len(list(repeat(3, "lesson2", [], committed))) == 3
    assert len(asked(committed)) == 3
    assert len(list(repeat(1, "lesson2", ["-x"], committed))) == 1  # other words: nothing to go on with
    assert len(asked(committed)) == 4


def test_a_line_that_was_cut_off_is_measured_again(committed):
    list(repeat(2, "lesson2", [], committed))
    kept = kept_file(committed, ["lesson2"])
    kept.write_text(kept.read_text()[:-20])
    assert len(read_kept(kept)) == 1
    assert [run[0].run for run in repeat(2, "lesson2", [], committed)] == [1, 2]
    assert len(asked(committed)) == 3
    assert len(read_kept(kept)) == 2


def test_without_a_commit_nothing_is_gone_on_with(project):
    assert kept_file(project, ["lesson2"]) != kept_file(project, ["lesson2"])


def test_a_run_without_results_is_one_that_failed(project):
    (project / "results").unlink()
    (project / "code").write_text("2")
    ((one,),) = repeat(1, "lesson2", [], project)
    assert (one.outcome, one.steady) == ("no results", False)


def test_a_run_that_hangs_is_one_that_failed(project, monkeypatch):
    (project / "pytest.py").write_text("import time; time.sleep(60)")
    monkeypatch.setattr(module, "RUN_LIMIT_S", 0.2)
    ((one,),) = repeat(1, "lesson2", [], project)
    assert one.outcome == "not done after 0.2 s"


@pytest.mark.parametrize("code", module.NOTHING_TO_RUN)
def test_a_selection_of_nothing_is_one_message_and_not_ten_runs(project, code):
    (project / "code").write_text(str(code))
    with pytest.raises(ConfigError, match=rf"(?s)lesson99.*exit code {code}.*To fix"):
        list(repeat(10, "lesson99", [], project))
    assert len(asked(project)) == 1


def test_the_worst_figure_of_a_lesson_is_its_lowest():
    runs = [LessonRun(n, "lesson2", "passed", True, 9, 0.9 + n / 100, 0.8, None) for n in (3, 1, 2)]
    assert summary(runs, "AMX")[-1].split() == ["lesson2", "91.0", "80.0", "–"]


@pytest.mark.parametrize(("one", "code"), [(GOOD, 0), (BAD, 1), (GOOD | {"outcome": "undecided"}, 1)])
def test_the_command_says_whether_all_runs_were_steady(project, one, code):
    (project / "results").write_text(json.dumps({"lessons": [one]}))
    done = CliRunner().invoke(app, ["repeat", "2", "lesson2", "--kv-anything=3", "-x"])
    assert done.exit_code == code
    assert f"{0 if code else 2} of 2 lesson runs passed" in done.stdout
    assert asked(project) == ["-q|-k|lesson2|--kv-anything=3|-x"] * 2


def test_the_command_refuses_no_runs_at_all(project):
    assert CliRunner().invoke(app, ["repeat", "0", "lesson2"]).exit_code == 2
    assert not (project / "asked").exists()
