"""Is the gate steady here? Run lessons several times in a row and print the table.

    python .ci/repeat.py 10 "lesson2 or lesson3" [pytest options]

Finished runs are kept in reports/repeat/. Cut off and called again with the same words, at the same commit
and on the same processor, it goes on where it was (not while the working tree differs from the commit). Exit
code 1 if any run failed a claim, could not decide one, or reused another number of tokens than predicted.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pandas as pd

from lmcache_tutorial.machine.checks import instruction_set_here, processor

ROOT = Path(__file__).parents[1]
RUN_LIMIT_S = 1_800


def rows(results: dict[str, Any], run: int) -> list[dict[str, Any]]:
    """Return one row a lesson: its figures in per cent, and whether every prediction came out exactly."""
    found = []
    for lesson in results["lessons"]:
        head = lesson["headline"]
        exact = all(one["predicted"] == one["measured"] for one in lesson["predictions"])
        figures = {
            name: 100 * head[name] for name in ("hit_rate", "ttft_drop", "ttft_drop_low") if name in head
        }
        outcome = {"run": run, "lesson": lesson["id"], "outcome": lesson["outcome"]}
        found.append({**outcome, **figures, "exact": exact, "seconds": lesson["duration_s"]})
    return found


def finished_runs(chosen: str, options: list[str]) -> Path:
    """Name the file of the runs of one commit, one selection and one processor."""
    shown = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    begun = str(time.time()) if "dirty" in shown.stdout else ""  # other code each time: nothing to go on with
    parts = [shown.stdout.strip(), begun, chosen, *options, processor(), instruction_set_here()]
    name = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return ROOT / "reports" / "repeat" / f"{shown.stdout.strip()}-{name}.jsonl"


def run_once(chosen: str, options: list[str], run: int) -> list[dict[str, Any]]:
    """Run the lessons; a run that wrote no results counts as one that failed."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pytest", "-q", "-k", chosen, f"--kv-report-dir={folder}", *options]
        subprocess.run(command, cwd=ROOT, timeout=RUN_LIMIT_S, check=False, stdout=subprocess.DEVNULL)
        written = Path(folder) / "results.json"
        if not written.is_file():
            return [{"run": run, "lesson": chosen, "outcome": "no results", "exact": False}]
        return rows(json.loads(written.read_text()), run)


def main() -> int:
    """Run and print."""
    count, chosen, options = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    kept = finished_runs(chosen, options)
    kept.parent.mkdir(parents=True, exist_ok=True)
    done = kept.read_text().splitlines()[:count] if kept.is_file() else []
    table: list[dict[str, Any]] = [row for line in done for row in json.loads(line)]
    if done:
        print(f"{len(done)} runs of this commit were finished earlier: {kept.relative_to(ROOT)}")
    for run in range(len(done) + 1, count + 1):
        found = run_once(chosen, options, run)
        with kept.open("a") as file:
            file.write(json.dumps(found) + "\n")
        table += found
        print(pd.DataFrame(found).to_string(index=False, header=run == 1, float_format="%.1f"), flush=True)
    frame = pd.DataFrame(table)
    good = int(((frame["outcome"] == "passed") & frame["exact"]).sum())
    print(f"{good} of {len(frame)} lesson runs passed with every prediction exact ({instruction_set_here()})")
    columns = [name for name in ("hit_rate", "ttft_drop", "ttft_drop_low") if name in frame]
    print(frame.groupby("lesson")[columns].min().add_prefix("worst ").to_string(float_format="%.1f"))
    return 0 if good == len(frame) else 1


if __name__ == "__main__":
    sys.exit(main())
