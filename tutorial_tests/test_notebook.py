"""The notebook: made from the lessons, executed, and opened. Two chapters with the lessons, all on request.

The two chapters ask the stack of this session, which is lent to their kernel; all of them keep one of their
own.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from lmcache_tutorial.machine.children import run_child
from lmcache_tutorial.servers.ports import free_port
from lmcache_tutorial.stack.keep import lend
from lmcache_tutorial.stack.kept_state import kept_servers
from lmcache_tutorial.stack.stack import Stack
from lmcache_tutorial.tests.notebooks import absolute_paths, errors

if TYPE_CHECKING:
    from nbformat import NotebookNode
    from selenium.webdriver import Chrome

ROOT = Path(__file__).parents[1]
CHAPTERS = ("lesson1", "lesson2")  # they restart nothing: the stack is lent
ALL = tuple(f"lesson{number}" for number in range(1, 10))
LIMIT_S, WHOLE_LIMIT_S = 900.0, 7_200.0
MOST_BYTES = 5_000_000
LAB_LIMIT_S = 90.0
# Lab shows cells that are out of sight as well, and asks nobody for news of a later version.
LAB_SETTINGS = {"windowingMode": "none"}
LAB = (
    "--no-browser",
    "--ip=127.0.0.1",
    "--allow-root",
    "--ServerApp.log_level=WARN",
    "--LabApp.news_url=",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)

UNDRAWN = "return [...document.images].filter(one => !one.naturalWidth).map(one => one.alt)"
LESSON_TITLES = """
return [...document.querySelectorAll('.jp-Notebook h1')].map(one => one.textContent)
  .filter(text => text.startsWith('Lesson')).map(text => text.split('.')[0]);
"""


@dataclass
class Made:
    """An executed notebook, its page, and what the chapters' runs have found."""

    path: Path

    @cached_property
    def notebook(self) -> NotebookNode:
        """What was written; it is valid."""
        import nbformat

        read: NotebookNode = nbformat.read(self.path, as_version=4)
        nbformat.validate(read)
        return read

    @property
    def page(self) -> Path:
        return self.path.with_suffix(".html")

    def outcomes(self) -> dict[str, str]:
        """The outcome of each lesson, as its chapter's run wrote it."""
        chapters = dict.fromkeys(cell.metadata["chapter"] for cell in self.notebook.cells)
        files = [ROOT / "reports" / "notebook" / name / "results.json" for name in chapters if name in ALL]
        lessons = [one for file in files for one in json.loads(file.read_text())["lessons"]]
        return {lesson["id"]: lesson["outcome"] for lesson in lessons}


def make(path: Path, *lessons: str, limit_s: float) -> Made:
    """Run the command as a reader does; without the extra `notebook` a test is skipped, in a CI it fails."""
    if not os.environ.get("CI"):
        pytest.importorskip("nbformat")
    command = [sys.executable, "-m", "lmcache_tutorial.cli.app", "notebook", *lessons, f"--into={path}"]
    done = run_child(command, cwd=ROOT, limit_s=limit_s)
    assert done.returncode == 0, done.stdout + done.stderr
    return Made(path)


@pytest.fixture(scope="module")
def two_chapters(own_stack: None, stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The notebook of two chapters, executed on this session's stack."""
    with lend(stack):
        return make(tmp_path_factory.mktemp("notebook") / "two.ipynb", *CHAPTERS, limit_s=LIMIT_S)


@pytest.fixture
def lab(two_chapters: Made, tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab of this test's own, with the notebook's folder open in it."""
    settings = tmp_path / "settings" / "@jupyterlab" / "notebook-extension" / "tracker.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps(LAB_SETTINGS))
    folders = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    folders |= {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "profile"}
    env = os.environ | {name: str(tmp_path / folder) for name, folder in folders.items()}
    token, port = secrets.token_hex(16), free_port()
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        *LAB,
        f"--port={port}",
        f"--IdentityProvider.token={token}",
    ]
    command.append(f"--ServerApp.root_dir={two_chapters.path.parent}")
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=tmp_path)
        try:
            wait_for(f"http://127.0.0.1:{port}/api/status?token={token}", tmp_path / "lab.log")
            yield f"http://127.0.0.1:{port}/lab/tree/{two_chapters.path.name}?token={token}"
        finally:
            server.terminate()
            server.wait(LAB_LIMIT_S)


def wait_for(address: str, log: Path) -> None:
    deadline = time.monotonic() + LAB_LIMIT_S
    while time.monotonic() < deadline:
        try:
            httpx.get(address, trust_env=False).raise_for_status()
            return
        except httpx.HTTPError:
            time.sleep(0.5)
    pytest.fail(f"JupyterLab did not answer within {LAB_LIMIT_S:g} s:\n{log.read_text()}", pytrace=False)


def test_two_chapters_run_in_a_notebook(two_chapters: Made) -> None:
    assert errors(two_chapters.notebook) == []
    assert two_chapters.outcomes() == dict.fromkeys(CHAPTERS, "passed")
    assert absolute_paths(two_chapters.notebook) == []


def test_the_stack_that_was_lent_is_as_it_was(two_chapters: Made, stack: Stack) -> None:
    assert bool(kept_servers()) == stack.kept
    assert all(program.answers() for program in stack.programs)


def test_its_page_opens_without_error_or_request(two_chapters: Made, browser: Chrome) -> None:
    from lmcache_tutorial.tests.browsing import requests_of

    address = two_chapters.page.as_uri()
    browser.get(address)
    assert two_chapters.page.stat().st_size < MOST_BYTES
    assert [entry["message"] for entry in browser.get_log("browser")] == []
    assert requests_of(browser, address) == {address}
    assert browser.execute_script(UNDRAWN) == []
    assert browser.execute_script("return document.images.length") > len(CHAPTERS)


def test_jupyterlab_opens_it(lab: str, two_chapters: Made, browser: Chrome) -> None:
    browser.get(lab)
    cells = len(two_chapters.notebook.cells)
    assert until(browser, "return document.querySelectorAll('.jp-Notebook .jp-Cell').length", cells) == cells
    titles = [f"Lesson {lesson.removeprefix('lesson')}" for lesson in CHAPTERS]
    assert until(browser, LESSON_TITLES, titles) == titles
    assert until(browser, UNDRAWN, []) == []
    assert browser.execute_script("return document.images.length") > len(CHAPTERS)
    assert browser.execute_script("return document.querySelectorAll('.jp-Dialog').length") == 0


def until(browser: Chrome, script: str, wanted: object) -> object:
    """Ask the page until it answers as wanted, or time is up; return its last answer."""
    deadline = time.monotonic() + LAB_LIMIT_S
    while (answer := browser.execute_script(script)) != wanted and time.monotonic() < deadline:
        time.sleep(0.5)
    found: object = answer
    return found


@pytest.mark.notebook
def test_the_whole_notebook_runs() -> None:
    kept_before = set(kept_servers())
    whole = make(ROOT / "reports" / "notebook" / "whole.ipynb", limit_s=WHOLE_LIMIT_S)
    assert errors(whole.notebook) == []
    assert whole.outcomes() == dict.fromkeys(ALL, "passed")
    assert absolute_paths(whole.notebook) == []
    assert whole.page.stat().st_size < MOST_BYTES
    assert set(kept_servers()) == kept_before
