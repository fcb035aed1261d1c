"""The command ``puzzle``: what is answered, and how; a stack is started in tutorial_tests alone."""

import sys

import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.cli.puzzle import FOLDER
from lmcache_tutorial.tests.test_predicting import on_a_terminal
from lmcache_tutorial.tests.test_puzzles import LEFT
from lmcache_tutorial.workbench.puzzle_evidence import FILE
from lmcache_tutorial.workbench.puzzles import CHOICES, PUZZLES

COMMAND = [sys.executable, "-m", "lmcache_tutorial.cli.app", "puzzle", "answer"]


@pytest.fixture
def played(tmp_path, monkeypatch):
    """A folder in which a puzzle has been played; returns a function that plays one."""
    monkeypatch.chdir(tmp_path)
    FOLDER.mkdir(parents=True)

    def write(puzzle):
        evidence = LEFT[puzzle.fault]
        type(evidence)(**{**_fields(evidence), "puzzle": puzzle.number}).write(FOLDER)

    return write


def _fields(evidence):
    return {name: getattr(evidence, name) for name in evidence.__slots__}


@pytest.mark.parametrize("puzzle", PUZZLES, ids=[one.fault for one in PUZZLES])
def test_a_right_answer_is_explained(played, puzzle):
    played(puzzle)
    done = CliRunner().invoke(app, ["puzzle", "answer", puzzle.fault])
    assert done.exit_code == 0
    assert done.stdout.startswith(f"yes: {puzzle.fault}.")
    assert puzzle.shows in done.stdout
    assert puzzle.means in done.stdout
    assert "lmcache-tutorial down" in done.stdout


def test_a_wrong_answer_is_told_what_would_be_seen_and_does_not_give_the_fault_away(played):
    hidden, guess = PUZZLES[1], PUZZLES[4]
    played(hidden)
    done = CliRunner().invoke(app, ["puzzle", "answer", guess.fault])
    assert done.exit_code == 1
    assert f"no: it is not that {guess.fault}." in done.stdout
    assert guess.shows in done.stdout
    assert hidden.fault not in done.stdout
    assert hidden.shows not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["answer", "the moon"], "that names none of the faults"),
        (["answer"], "nobody can be asked here what it is"),
        (["9"], "there is no puzzle 9"),
        (["hard"], "'hard' is no puzzle"),
        (["3", "the clock"], "only an answer has words"),
    ],
)
def test_bad_usage_is_one_error_that_says_what_to_do(played, arguments, message):
    played(PUZZLES[0])
    done = CliRunner().invoke(app, ["puzzle", *arguments])
    assert done.exit_code == 2
    assert f"error: {message}" in done.stderr
    assert "To fix: " in done.stderr
    assert done.stdout == ""


def test_beside_a_kept_stack_no_puzzle_is_started(played, monkeypatch):
    played(PUZZLES[0])
    monkeypatch.setattr("lmcache_tutorial.cli.puzzle.kept_servers", lambda: {"vllm": object()})
    done = CliRunner().invoke(app, ["puzzle", "2"])
    assert done.exit_code == 1
    assert done.stderr.startswith("error: a stack is kept already.\nTo fix: lmcache-tutorial down")
    assert (FOLDER / FILE).exists()  # the puzzle that runs can still be answered


def test_an_answer_before_any_puzzle_says_how_to_play_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["puzzle", "answer", "the clock"])
    assert done.exit_code == 2
    assert "To fix: play one: lmcache-tutorial puzzle" in done.stderr


def test_on_a_terminal_the_choices_are_listed_and_one_is_chosen_by_its_number(played, tmp_path):
    puzzle = PUZZLES[4]
    played(puzzle)
    place = CHOICES.index(puzzle) + 1
    steps = [("a number, or words: ", "the moon\n"), ("none of the faults", ""), ("or words: ", f"{place}\n")]
    shown, code = on_a_terminal(COMMAND, tmp_path, *steps)
    assert code == 0
    assert all(one.fault in shown for one in PUZZLES)
    assert f"yes: {puzzle.fault}" in shown
    assert "\x1b" not in shown  # no colour, and nothing else that steers the terminal
