"""The exercises: their form, their hints, and that each fails for its reason until it is solved.

Those that need no engine are tried here, the others on a stack (`tutorial_tests/test_exercises.py`).
"""

import ast
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.lessons.exercises import (
    FOLDER,
    JUDGE,
    YOURS,
    ExerciseError,
    all_exercises,
    find_exercise,
    read_exercise,
)
from lmcache_tutorial.tests.test_structure import collected

ROOT = Path(__file__).parents[2]
EXERCISES = all_exercises(ROOT)
WITHOUT_ENGINE = [one for one in EXERCISES if not one.fixtures]
each = pytest.mark.parametrize("exercise", EXERCISES, ids=lambda one: one.number)
each_without_engine = pytest.mark.parametrize("exercise", WITHOUT_ENGINE, ids=lambda one: one.number)


def test_every_lesson_has_two():
    wanted = [f"{lesson}.{place}" for lesson in range(1, 10) for place in (1, 2)]
    assert [one.number for one in EXERCISES] == wanted


@each
def test_its_docstring_names_file_command_and_hints(exercise):
    file = str(exercise.path.relative_to(ROOT))
    named = [exercise.fields[name] for name in ("File", "Command", "Hints")]
    assert named == [file, f"pytest {file}", f"lmcache-tutorial hint {exercise.number}"]


@each_without_engine
def test_unsolved_it_fails_for_the_stated_reason(exercise):
    (check,) = exercise.checks()
    with pytest.raises(AssertionError, match=re.escape(exercise.reason)):
        check()


@each_without_engine
def test_solved_it_passes(exercise):
    (check,) = exercise.checks(solved=True)
    check()


def bare(text):
    """Return a text without its spaces and line ends."""
    return re.sub(r"\s", "", text)


def constants(code):
    """Return the numbers that a piece of code gives to names."""
    assigned = [node.value for node in ast.parse(code).body if isinstance(node, ast.Assign)]
    return {str(one.value) for one in assigned if isinstance(one, ast.Constant) and one.value is not False}


@each
def test_hints_do_not_tell_the_solution_before_the_last(exercise):
    *early, last = exercise.hints
    assert len(early) == 2
    as_it_stands = exercise.text()
    own = [one for one in exercise.solution.splitlines() if one.strip() and one not in as_it_stands]
    assert own
    assert all(bare(one) in bare(last) for one in own)
    for hint in early:
        assert [one for one in own if bare(one) in bare(hint)] == []
        assert constants(exercise.solution) & set(re.findall(r"[\d.]+\b", hint)) == set()


@each
def test_its_solution_is_as_readable_as_the_rest(exercise):
    assert max(map(len, exercise.solution.splitlines())) <= 110
    assert exercise.text(solved=True) != exercise.text()
    assert exercise.text(solved=True).partition(JUDGE)[2] == exercise.text().partition(JUDGE)[2]


def test_they_are_collected_where_they_are_named_and_only_there():
    named = collected(str(FOLDER))
    assert [re.findall(r"test_ex(\d)_(\d)_", line) for line in named] == [
        [tuple(one.number.split("."))] for one in EXERCISES
    ]
    assert len(collected(str(EXERCISES[0].path))) == 1
    assert collected(str(FOLDER), "-k", "lesson4") == []


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout of one exercise, in which the commands are called."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / FOLDER
    (folder / "solutions").mkdir(parents=True)
    original = find_exercise(ROOT, "4.2")
    (folder / original.path.name).write_text(original.text())
    hints = Path("solutions", "4.2.md")
    (folder / hints).write_text((ROOT / FOLDER / hints).read_text())
    return folder / original.path.name


def test_each_call_shows_the_next_hint_and_the_last_again(checkout):
    shown = [CliRunner().invoke(app, ["hint", "4.2"]).output for _ in range(4)]
    assert [text.splitlines()[0].partition(": ")[2] for text in shown] == [
        "hint 1 of 3",
        "hint 2 of 3",
        "hint 3 of 3",
        "hint 3 of 3",
    ]
    assert "CHUNK = 64" in shown[2]
    assert CliRunner().invoke(app, ["hint", "4.2", "1"]).output == shown[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["9.9"], "there is no exercise 9.9.\nTo fix: one of 4.2\n"),
        (["4.2", "7"], "exercise 4.2 has 3 hints.\nTo fix: lmcache-tutorial hint 4.2\n"),
    ],
)
def test_what_is_not_there_is_one_clear_error(checkout, arguments, said):
    done = CliRunner().invoke(app, ["hint", *arguments])
    assert (done.exit_code, done.stderr) == (2, f"error: {said}")


def test_outside_of_a_clone_the_command_says_where_to_call_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["hint", "4.1"])
    assert done.exit_code == 2
    assert "To fix: call it in the folder of a clone" in done.stderr


@pytest.mark.parametrize("mark", [YOURS, JUDGE, "Fails with"])
def test_an_exercise_without_the_form_is_named(checkout, mark):
    checkout.write_text(checkout.read_text().replace(mark, "\n"))
    with pytest.raises(ExerciseError, match=rf"{checkout.name} lacks .*{re.escape(mark.strip())}"):
        read_exercise(checkout)


def test_a_last_hint_without_code_is_named(checkout):
    hints = checkout.parent / "solutions" / "4.2.md"
    hints.write_text(hints.read_text().replace("```", ""))
    with pytest.raises(ExerciseError, match=r"4\.2\.md has no hints, or its last one no code"):
        read_exercise(checkout)
