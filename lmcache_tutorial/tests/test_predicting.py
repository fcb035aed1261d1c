"""``--kv-predict``: a question is really asked on a terminal, and nowhere else."""

import codecs
import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest

from lmcache_tutorial.lessons.predictions import AnswerError, number, read
from lmcache_tutorial.lessons.questions import questions_of
from lmcache_tutorial.plugin.predicting import Terminal, interview, somebody
from lmcache_tutorial.report.results import schema
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.tests.test_plugin import HEADER
from lmcache_tutorial.tests.test_process import default_signals

ROOT = Path(__file__).parents[2]
LIMIT_S = 120
REUSED, FROM_LMCACHE = (question.name for question in questions_of("lesson2"))
COLD, _ = (question.name for question in questions_of("lesson1"))
CONFTEST = """
from types import SimpleNamespace
import pytest
from lmcache_tutorial.settings.profiles import LessonSizes

pytest_plugins = ["fixtures.report", "fixtures.predictions"]

@pytest.fixture(scope="session")
def stack():
    workload = SimpleNamespace(sizes=LessonSizes(900, 1_800, 3_600))
    return SimpleNamespace(workload=workload, block_tokens=32, chunk_tokens=64, kv_bytes_per_token=46_080)
"""
CLAIM = """
@pytest.fixture(scope="module")
def measured():
    print("what is captured")
    return [96]

def test_lesson{0}_it_reuses(measured, report):
    report.compare("{1}", predicted=[96], measured=measured)
"""
# A process whose standard input is its controlling terminal, so that Ctrl-C interrupts it.
CONTROLLED = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def suite(pytester, monkeypatch):
    """A suite of two chapters whose stack is none; returns pytest's arguments."""
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(pytester.path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    for name in ("CI", "BUILD_NUMBER"):
        monkeypatch.delenv(name, raising=False)
    pytester.makeini("[pytest]\n")
    pytester.makeconftest(CONFTEST)
    folder = pytester.mkdir("tutorial_tests")
    for place, name in ((1, COLD), (2, REUSED)):
        text = HEADER.format(place) + CLAIM.format(place, name)
        (folder / f"test_lesson{place}_something.py").write_text(text)
    return ("--kv-stack=cpu", "--kv-predict")


def on_a_terminal(command, folder, *steps):
    """Run a command on a terminal of its own; at each step wait for a text, and type what belongs to it.

    Returns what the terminal showed, and the exit code.
    """
    ours, theirs = pty.openpty()
    controlled = [sys.executable, "-c", CONTROLLED, *command]
    process = subprocess.Popen(
        controlled,
        cwd=folder,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=default_signals,
    )
    os.close(theirs)
    decode = codecs.getincrementaldecoder("utf-8")().decode
    shown, seen, left = "", 0, list(steps)
    end = time.monotonic() + LIMIT_S
    try:
        while select.select([ours], [], [], max(0, end - time.monotonic()))[0]:
            shown += decode(os.read(ours, 65_536))
            while left and left[0][0] in shown[seen:]:
                awaited, typed = left.pop(0)
                seen = shown.index(awaited, seen) + len(awaited)
                os.write(ours, typed.encode())
    except OSError:  # Linux's way to say that nobody holds the other end any more
        pass
    finally:
        os.close(ours)
        if time.monotonic() > end:
            process.kill()
        process.wait(timeout=LIMIT_S)
    assert not left, f"it never showed {left[0][0]!r}:\n{shown}"
    return shown, process.returncode


def asked(pytester, *steps, options=("-k", "lesson2")):
    """Run the suite on a terminal."""
    command = [sys.executable, "-m", "pytest", "--kv-stack=cpu", "--kv-predict", *options]
    return on_a_terminal(command, pytester.path, *steps)


def answers(pytester):
    return read(pytester.path / "reports" / "predictions.toml")


def yours(pytester, lesson="lesson2"):
    """Return the reader's numbers of results.json, by the name of their prediction."""
    document = json.loads((pytester.path / "reports" / "results.json").read_text())
    jsonschema.validate(document, schema())
    (found,) = [one for one in document["lessons"] if one["id"] == lesson]
    return {one["name"]: one["yours"] for one in found["predictions"] if "yours" in one}


def test_on_a_terminal_a_question_is_asked_answered_and_shown(pytester, suite):
    shown, code = asked(pytester, ("tokens: ", "96\n"), ("tokens: ", "0\n"))
    assert code == 0
    assert "Here: documents of 900 (short), 1,800 (medium) and 3,600 tokens (long)" in shown
    words = " ".join(shown.split())  # however its lines are broken
    assert all(f"{question.asks} {question.how}" in words for question in questions_of("lesson2"))
    assert "what is captured" not in shown
    assert "your numbers: 1 of 1 as measured" in shown
    assert answers(pytester)["lesson2"] == {REUSED: 96, FROM_LMCACHE: 0}
    assert yours(pytester) == {REUSED: {"value": 96, "of": "each"}}
    page = (pytester.path / "reports" / "index.html").read_text()
    assert ">Yours</th>" in page
    assert "96 tokens, as measured</td>" in page


def test_an_answer_that_is_there_is_not_asked_for_unless_the_reader_says_so(pytester, suite):
    asked(pytester, ("tokens: ", "64\n"), ("tokens: ", "\n"))
    assert answers(pytester)["lesson2"] == {REUSED: 64}
    shown, _ = asked(pytester, ("1 of 1", ""), ("tokens: ", "0\n"))  # only the one that was left open
    assert "How many of these tokens come from LMCache?" in shown
    shown, code = asked(pytester)
    assert (code, "tokens: " in shown) == (0, False)
    again = ("-k", "lesson2", "--kv-predict-again")
    asked(pytester, ("tokens [64]: ", "\n"), ("tokens [0]: ", "32\n"), options=again)
    assert answers(pytester)["lesson2"] == {REUSED: 64, FROM_LMCACHE: 32}
    assert yours(pytester) == {REUSED: {"value": 64, "of": "each"}}


def test_a_bad_number_is_asked_for_again(pytester, suite):
    steps = [("tokens: ", "many\n"), ("'many' is no number", ""), ("tokens: ", "-3\n"), ("is negative", "")]
    steps += [("tokens: ", "12 ms\n"), ("is in ms", ""), ("tokens: ", "96 tokens\n"), ("tokens: ", "0\n")]
    _, code = asked(pytester, *steps)
    assert code == 0
    assert answers(pytester)["lesson2"] == {REUSED: 96, FROM_LMCACHE: 0}


def test_an_interrupt_while_asking_ends_the_run_and_costs_no_answer(pytester, suite):
    shown, code = asked(pytester, ("tokens: ", "96\n"), ("tokens: ", "\x03"))
    assert code == 2
    assert "Traceback" not in shown
    assert answers(pytester)["lesson2"] == {REUSED: 96}
    assert json.loads((pytester.path / "reports" / "results.json").read_text())["interrupted"]


def test_at_the_end_of_the_input_the_run_goes_on_and_nothing_more_is_asked(pytester, suite):
    every = ("-k", "lesson1 or lesson2")
    shown, code = asked(pytester, ("tokens: ", "0\n"), ("tokens: ", "\x04"), options=every)
    assert code == 0
    assert "No more numbers are asked for in this run." in shown
    assert "Two questions about one long manual" not in shown
    assert answers(pytester) == {"lesson1": {COLD: 0}} | {f"lesson{n}": {} for n in range(2, 10)}
    assert yours(pytester, "lesson1") == {COLD: {"value": 0, "of": "each"}}
    assert yours(pytester) == {REUSED: None}


def test_without_the_option_nothing_is_asked_and_nothing_is_kept(pytester, suite):
    command = [sys.executable, "-m", "pytest", "--kv-stack=cpu", "-k", "lesson2"]
    shown, code = on_a_terminal(command, pytester.path)
    assert code == 0
    assert "tokens: " not in shown
    assert not (pytester.path / "reports" / "predictions.toml").exists()
    assert yours(pytester) == {}


def test_in_a_ci_nobody_is_asked_though_it_has_a_terminal(pytester, suite, monkeypatch):
    monkeypatch.setenv("CI", "true")
    shown, code = asked(pytester)
    assert (code, "tokens: " in shown) == (0, False)


@pytest.mark.parametrize("command", ["{} > shown.txt", "{} < /dev/null", "set -m; {} & wait $!"])
def test_where_nobody_reads_or_types_nobody_is_asked(pytester, suite, command):
    inner = f"{sys.executable} -m pytest --kv-stack=cpu --kv-predict -k lesson2"
    shown, code = on_a_terminal(["/bin/sh", "-c", command.format(inner)], pytester.path)
    assert code == 0
    assert "tokens: " not in shown
    assert yours(pytester) == {REUSED: None}


def test_a_worker_of_xdist_asks_nobody():
    manager = SimpleNamespace(get_plugin=lambda name: SimpleNamespace(isatty=lambda: True))
    with somebody(SimpleNamespace(workerinput={}, pluginmanager=manager)) as terminal:
        assert terminal is None


def test_where_nobody_can_answer_the_answers_of_the_file_are_used(pytester, suite):
    done = pytester.runpytest_subprocess(*suite, "-k", "lesson2", timeout=LIMIT_S)
    assert done.ret == 0
    path = pytester.path / "reports" / "predictions.toml"
    done.stdout.fnmatch_lines([f"your numbers: 0 of * in {path}; the others are asked for where *"])
    assert yours(pytester) == {REUSED: None}
    path.write_text(f'[lesson2]\n"{REUSED}" = 64\n')
    done = pytester.runpytest_subprocess(*suite, "-k", "lesson2", timeout=LIMIT_S)
    done.stdout.fnmatch_lines(["your numbers: 1 of *", "*your numbers: 0 of 1 as measured"])
    assert yours(pytester) == {REUSED: {"value": 64, "of": "each"}}
    assert path.read_text() == f'[lesson2]\n"{REUSED}" = 64\n'  # nothing was asked, so nothing is written


def test_a_bad_number_in_the_file_is_one_error_before_anything_starts(pytester, suite):
    pytester.mkdir("reports").joinpath("predictions.toml").write_text(f'[lesson2]\n"{REUSED}" = -3\n')
    done = pytester.runpytest_subprocess(*suite, timeout=LIMIT_S)
    assert done.ret == 4
    done.stderr.fnmatch_lines(["*predictions.toml, line 2: '-3' is negative*", "To fix: *delete the line"])
    assert "Traceback" not in done.stderr.str() + done.stdout.str()
    assert not (pytester.path / "reports" / "results.json").exists()


def test_a_file_that_is_damaged_during_the_run_is_one_message_and_is_left_alone(pytester, suite):
    damage = """
    from pathlib import Path
    Path("reports/predictions.toml").write_text("[lesson2")
"""
    pytester.makeconftest(CONFTEST.replace("def stack():\n", f"def stack():{damage}"))
    done = pytester.runpytest_subprocess(*suite, "-k", "lesson2", timeout=LIMIT_S)
    assert done.ret == 1
    done.stdout.fnmatch_lines(["*--kv-predict: *predictions.toml is no TOML: *line 1*"])
    assert "Traceback" not in done.stdout.str()
    assert (pytester.path / "reports" / "predictions.toml").read_text() == "[lesson2"


def test_the_time_that_a_reader_takes_is_not_the_lessons(pytester, suite):
    slow = (
        CONFTEST.replace("SimpleNamespace\n", "SimpleNamespace\nimport time\n", 1)
        + """
from lmcache_tutorial.plugin import predicting
plain = predicting._read
predicting._read = lambda: (time.sleep(0.5), plain())[1]
"""
    )
    pytester.makeconftest(slow)
    asked(pytester, ("tokens: ", "96\n"), ("tokens: ", "0\n"))
    document = json.loads((pytester.path / "reports" / "results.json").read_text())
    assert document["lessons"][0]["duration_s"] < 0.5
    assert document["duration_s"] > 1


def test_the_example_of_an_answer_is_none():
    """It was 1,216 once, which is the answer of lesson 2 on a processor of moderate speed."""
    question = questions_of("lesson2")[0]
    with pytest.raises(AnswerError) as refused:
        number("many", question)
    example = int(str(refused.value).rsplit(" ", 1)[1].replace(",", ""))
    stacks = [profile.stack for profile in PROFILES.values()]
    sizes = {s.engine.block_tokens for s in stacks} | {s.cache.chunk_tokens for s in stacks}
    assert all(example % size for size in sizes if size)  # what is reused is whole blocks


def test_enter_keeps_what_was_there_and_leaves_open_what_was_not():
    typed, said = iter(["", "12 ms", "1,216", ""]), []
    terminal = Terminal(said.append, lambda: next(typed))
    first, second, third = questions_of("lesson3")
    found = list(interview(terminal, [first, second, third], {first.name: 5}))
    assert found == [(second, 1216)]
    assert [text for text in said if text.endswith(": ")] == [
        "        tokens [5]: ",
        "        tokens: ",
        "        tokens: ",
        "        rounds: ",
    ]
