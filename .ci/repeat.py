"""Is the gate steady here? Run lessons several times in a row and print the table.

    python .ci/repeat.py 10 "lesson2 or lesson3" [pytest options]

Exit code 1 if any run failed a claim or reused another number of tokens than predicted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

ROOT = Path(__file__).parents[1]
RUN_LIMIT_S = 900


def rows(results: dict[str, Any], run: int) -> list[dict[str, Any]]:
    """Return one row a lesson: its figures in per cent, and whether every prediction came out exactly."""
    found = []
    for lesson in results["lessons"]:
        head = lesson["headline"]
        exact = all(one["predicted"] == one["measured"] for one in lesson["predictions"])
        figures = {
            name: 100 * head[name] for name in ("hit_rate", "ttft_drop", "ttft_drop_low") if name in head
        }
        found.append(
            {"run": run, "lesson": lesson["id"], "outcome": lesson["outcome"], **figures, "exact": exact}
        )
    return found


def main() -> int:
    """Run and print."""
    count, chosen, options = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
    table: list[dict[str, Any]] = []
    for run in range(1, count + 1):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "pytest", "-q", "-k", chosen, f"--report-dir={folder}", *options]
            subprocess.run(command, cwd=ROOT, timeout=RUN_LIMIT_S, check=False, stdout=subprocess.DEVNULL)
            found = rows(json.loads((Path(folder) / "results.json").read_text()), run)
        table += found
        print(pd.DataFrame(found).to_string(index=False, header=run == 1, float_format="%.1f"), flush=True)
    frame = pd.DataFrame(table)
    good = int(((frame["outcome"] == "passed") & frame["exact"]).sum())
    print(f"{good} of {len(frame)} lesson runs passed with every prediction exact")
    columns = [name for name in ("hit_rate", "ttft_drop", "ttft_drop_low") if name in frame]
    print(frame.groupby("lesson")[columns].min().add_prefix("worst ").to_string(float_format="%.1f"))
    return 0 if good == len(frame) else 1


if __name__ == "__main__":
    sys.exit(main())
