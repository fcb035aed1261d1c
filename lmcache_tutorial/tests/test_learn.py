"""``learn``: the list, and an exercise that is run at each save, in a process as its reader has it."""

import json
import multiprocessing
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lmcache_tutorial.cli.app import app
from lmcache_tutorial.lessons.exercises import FOLDER, find_exercise
from lmcache_tutorial.lessons.learned import Learned, note_learned, read_learned
from lmcache_tutorial.tests.test_process import default_signals
from lmcache_tutorial.workbench import learn
from lmcache_tutorial.workbench.learn import listing, runs, saves

ROOT = Path(__file__).parents[2]
LIMIT_S = 120


@pytest.fixture
def exercise(tmp_path):
    """Exercise 4.2, which needs no engine, in a checkout of its own."""
    folder = tmp_path / FOLDER
    (folder / "solutions").mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    original = find_exercise(ROOT, "4.2")
    (folder / original.path.name).write_text(original.text())
    hints = Path("solutions", "4.2.md")
    (folder / hints).write_text((ROOT / FOLDER / hints).read_text())
    return find_exercise(tmp_path, "4.2")


class Terminal:
    """A command that runs, and what it has printed so far."""

    def __init__(self, root, *arguments):
        command = [sys.executable, "-m", "lmcache_tutorial.cli.app", *arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command,
            cwd=root,
            env=env,
            text=True,
            stdout=pipe,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=default_signals,
        )
        self._lines = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line)

    def until(self, text):
        """Return what it prints up to a line with a text."""
        seen = []
        deadline = time.monotonic() + LIMIT_S
        while not seen or text not in seen[-1]:
            seen.append(self._lines.get(timeout=max(0.0, deadline - time.monotonic())))
        return "".join(seen)

    def interrupt(self):
        """Press Ctrl-C: every process of the terminal gets it."""
        os.killpg(self.process.pid, signal.SIGINT)


@pytest.fixture
def terminal(exercise):
    """``lmcache-tutorial learn 4.2`` in that checkout."""
    running = Terminal(exercise.path.parents[2], "learn", "4.2")
    yield running
    if running.process.poll() is None:
        os.killpg(running.process.pid, signal.SIGKILL)
    running.process.wait(LIMIT_S)
    running.process.stdout.close()


def test_each_save_is_followed_by_its_result_and_an_interrupt_ends_it(exercise, terminal):
    first = terminal.until("Ctrl-C ends it")
    assert first.startswith("Exercise 4.2. The chunk at which these short system prompts pay\nFile ")
    assert f"AssertionError: {'with chunks of 256 ' + exercise.reason}" in first
    assert "1 failed" in first
    exercise.path.write_text(exercise.text(solved=True))
    solved = terminal.until("Ctrl-C ends it")
    assert "1 passed" in solved
    assert read_learned(exercise.path.parents[2]) == {"4.2": Learned(solved=True)}
    exercise.path.write_text("def broken(:\n")
    assert "SyntaxError" in terminal.until("Ctrl-C ends it")
    assert "\x1b" not in first + solved
    terminal.interrupt()
    assert "a kept stack goes on running" in terminal.until("ended;")
    assert terminal.process.wait(LIMIT_S) == 0


def test_a_run_that_hangs_is_ended_and_the_watch_goes_on(exercise, monkeypatch):
    monkeypatch.setattr(learn, "RUN_LIMIT_S", 0.0)
    took = runs(exercise, [])
    assert next(took) is None
    assert multiprocessing.active_children() == []
    monkeypatch.setattr(learn, "RUN_LIMIT_S", 60.0)
    exercise.path.write_text(exercise.text(solved=True))
    assert next(took) > 0
    took.close()


def test_the_list_tells_what_is_done(exercise):
    root = exercise.path.parents[2]
    lesson = next((ROOT / "tutorial_tests").glob("test_lesson4_*.py"))
    (root / "tutorial_tests" / lesson.name).write_text(lesson.read_text())
    title, own = (
        "Lesson 4. Static first, dynamic last",
        "  4.2 The chunk at which these short system prompts pay",
    )
    assert list(listing(root)) == [f"{'-':<12}{title}", f"{'-':<12}{own}"]
    note_learned(root, "4.2", hints=2)
    (root / "reports" / "results.json").write_text(
        json.dumps({"lessons": [{"id": "lesson4", "outcome": "passed"}]})
    )
    assert list(listing(root)) == [f"{'passed':<12}{title}", f"{'2 hints':<12}{own}"]
    note_learned(root, "4.2", solved=True)
    assert list(listing(root))[1] == f"{'solved':<12}{own}"


def test_a_save_during_a_run_is_not_lost(tmp_path):
    path = tmp_path / "ex4_1_mine.py"
    path.write_text("1")
    saved = saves(path)
    next(saved)
    path.write_text("22")  # nobody watches at this moment
    assert next(saved) == path.stat().st_mtime_ns / 1e9
    path.unlink()
    path.write_text("333")  # as editors do that write a new file
    assert next(saved) == path.stat().st_mtime_ns / 1e9
    saved.close()


def test_without_what_watches_files_the_command_names_the_extra(exercise, monkeypatch):
    monkeypatch.chdir(exercise.path.parents[2])
    monkeypatch.setattr("lmcache_tutorial.settings.packages.util.find_spec", lambda name: None)
    done = CliRunner().invoke(app, ["learn", "4.2"])
    assert done.exit_code == 1
    assert 'To fix: pip install "lmcache-tutorial[lessons]"' in done.stderr


def test_a_number_that_is_none_is_one_clear_error(exercise, monkeypatch):
    monkeypatch.chdir(exercise.path.parents[2])
    done = CliRunner().invoke(app, ["learn", "9.9"])
    assert (done.exit_code, done.stderr) == (
        2,
        "error: there is no exercise 9.9.\nTo fix: one of 4.2\n",
    )
