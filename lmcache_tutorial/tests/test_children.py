"""Programs that are run to their end, and what becomes of them when the wait ends before."""

import signal
import subprocess
import sys
import time

import pytest

from lmcache_tutorial.machine.children import run_child

WAITING = """
import signal, sys
from pathlib import Path
from lmcache_tutorial.machine.children import interrupted_by_signals, run_child
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where these tests run under nohup
interrupted_by_signals()
try:
    run_child([sys.executable, "-c", sys.argv[1], sys.argv[2]], cwd=Path(), limit_s=60)
except KeyboardInterrupt as error:
    print(error)
"""
CHILD = """
import sys, time
from pathlib import Path
Path(sys.argv[1]).with_suffix(".begun").touch()
try:
    time.sleep(60)
finally:
    Path(sys.argv[1]).touch()
"""
ORDERLY = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"


def wait_for(path):
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_child_is_asked_to_end_when_its_parent_is(number, tmp_path):
    ended = tmp_path / "child.ended"
    child = CHILD.replace("try:", f"{ORDERLY}try:", 1)
    command = [sys.executable, "-c", WAITING, child, str(ended)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        wait_for(tmp_path / "child.begun")
        time.sleep(0.2)
        parent.send_signal(number)
        told, _ = parent.communicate(timeout=20)
    assert told == f"signal {number.name}\n"
    assert ended.exists()


def test_a_child_that_takes_too_long_is_ended(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        run_child([sys.executable, "-c", "import time; time.sleep(60)"], cwd=tmp_path, limit_s=0.5)


def test_what_a_child_has_started_ends_with_it(tmp_path):
    """As pip, which python -m venv starts: it went on writing into a folder that was being deleted."""
    grandchild = "import sys, time; open('begun', 'w'); time.sleep(3); open('written', 'w')"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    with pytest.raises(subprocess.TimeoutExpired):
        run_child([sys.executable, "-c", child], cwd=tmp_path, limit_s=1.5)
    assert (tmp_path / "begun").exists()
    time.sleep(2)
    assert not (tmp_path / "written").exists()


def test_what_a_child_says_and_how_it_ends_are_returned(tmp_path):
    done = run_child(
        [sys.executable, "-c", "import os, sys; print(os.getcwd()); sys.exit(3)"], cwd=tmp_path, limit_s=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{tmp_path}\n", "")
