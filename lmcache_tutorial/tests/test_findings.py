"""The scripts that stand beside what we found in other projects: they run, and say what they need."""

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "reports" / "findings"


def told_by(script, *arguments):
    command = [sys.executable, script, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_a_script_says_how_it_is_used_and_its_page_names_it(script):
    told = told_by(script, "--help")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("usage:")
    assert any(script.name in page.read_text() for page in FOLDER.glob("*.md"))


def test_a_model_that_is_not_there_is_refused_before_a_server_starts(tmp_path):
    told = told_by(FOLDER / "own_hit_waits.py", tmp_path / "none", "--work", tmp_path / "work")
    assert told.returncode == 2
    assert "config.json" in told.stderr
    assert not (tmp_path / "work").exists()
