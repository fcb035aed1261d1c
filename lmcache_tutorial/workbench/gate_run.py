"""The gate as its reader runs it: a pytest of its own, in a folder of its own, which knows an address."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..gate.baseline import Baseline
from ..gate.decide import UndecidedError
from ..machine.children import run_child
from ..prompts.prompts_file import SUFFIX

RUN_LIMIT_S = 300.0
# What a run of a few requests does not need; LangSmith's plugin alone takes longer to import than pytest.
LIGHT = ("-p", "no:cacheprovider", "-p", "no:langsmith_plugin", "-p", "no:hypothesispytest")
# What the outer run was told, and its CI; the inner one would tell the same CI of its own results.
OUTER = ("PYTEST_", "GITHUB_")


@dataclass(frozen=True)
class GateRun:
    """What a run ended with.

    Attributes:
        exit_code: 0 passed, 1 failed, 6 something has no answer, 7 two answers that disagree.
        output: what it printed.
        results: its results.json; empty where it wrote none.
    """

    exit_code: int
    output: str
    results: Mapping[str, Any] = field(repr=False)

    def group(self, name: str) -> Mapping[str, Any]:
        """Return what results.json tells of a group.

        Raises:
            AssertionError: it tells nothing of it.
        """
        found = [one for one in self.results.get("groups", []) if one["name"] == name]
        assert found, f"the gate has no result for {name!r}:\n{self.output}"
        group: Mapping[str, Any] = found[0]
        return group

    def decided(self) -> GateRun:
        """Return the run itself, unless noise has left open how it ends.

        Raises:
            UndecidedError: no claim failed, and one about times has no answer.
        """
        claims = [claim for group in self.results.get("groups", []) for claim in group["claims"]]
        open_ones = [claim for claim in claims if claim["outcome"] in ("undecided", "inconclusive")]
        if open_ones and self.results["verdict"] != "failed":
            raise UndecidedError("; ".join(f"{claim['name']}: {claim['message']}" for claim in open_ones))
        return self

    def keep(self, path: Path) -> str:
        """Keep what the gate found as a baseline; return the option that holds another run against it.

        Raises:
            BaselineError: it did not pass.
            UndecidedError: noise has left open whether it did.
        """
        path.write_text(Baseline.of(self.decided().results, "as it was").text())
        return f"--kv-baseline={path}"

    def said(self, name: str) -> str:
        """Return what was seen of each claim about a group."""
        return "\n".join(f"{one['outcome']}: {one['message']}" for one in self.group(name)["claims"])


def gate_prompts(folder: Path, lines: Iterable[Mapping[str, Any]], *arguments: str) -> GateRun:
    """Write a file of prompts, ``agent.prompts.jsonl``, into a folder, and run pytest there.

    Args:
        folder: an empty one.
        lines: requests, and the bars of their groups.
        arguments: options of pytest, ``--kv-url`` first of all.

    Raises:
        subprocess.TimeoutExpired: it took more than five minutes.
    """
    (folder / f"agent{SUFFIX}").write_text("\n".join(map(json.dumps, lines)))
    return run_gate(folder, *arguments)


def run_gate(folder: Path, *arguments: str) -> GateRun:
    """Run pytest in a folder that holds files of prompts, or tests of graphs.

    Args:
        folder: where its reports go too.
        arguments: options of pytest, ``--kv-url`` first of all.

    Raises:
        subprocess.TimeoutExpired: it took more than five minutes.
    """
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", *LIGHT, "-q"]
    env = {name: value for name, value in os.environ.items() if not name.startswith(OUTER)}
    done = run_child([*command, *arguments], cwd=folder, limit_s=RUN_LIMIT_S, env=env)
    written = folder / "reports" / "results.json"
    results = json.loads(written.read_text()) if written.is_file() else {}
    return GateRun(done.returncode, done.stdout + done.stderr, results)


Gate = Callable[..., GateRun]
"""(stack, lines of a file of prompts, further options of pytest) -> what the gate says."""
