"""What the unit tests share: pytester, and a results document with every outcome in it."""

from __future__ import annotations

import os
import zlib
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from lmcache_tutorial.lessons.header import LessonHeader
from lmcache_tutorial.prompts.layout import Layout
from lmcache_tutorial.prompts.rendering import Rendered
from lmcache_tutorial.quantities.records import Interval, SpanRecord, TokenSources
from lmcache_tutorial.report.environment import environment
from lmcache_tutorial.report.results import Chart, RunRecord
from lmcache_tutorial.settings.bars import Thresholds
from lmcache_tutorial.settings.options import RunOptions
from lmcache_tutorial.settings.run import RunConfig, run_config

pytest_plugins = ["pytester"]
collect_ignore = ["examples"]  # other people's repositories; `test_the_gate` runs them
# Other packages' plugins that no inner run needs: importing them takes longer than the rest of pytest.
WITHOUT = "-p no:langsmith_plugin -p no:hypothesispytest -p no:anyio -p no:valkey"
OUTCOMES = ("passed", "failed", "error", "undecided", "skipped", "not_run")
BAD_CODE = "document.title='owned'"
HOSTILE = f'<script>{BAD_CODE}</script><img src=x onerror="{BAD_CODE}"> & $"quotes"$'


def layout(*segments: tuple[str, list[str]]) -> Layout:
    """Lay out (segment, its tokens' texts); a token's id follows from its text."""
    texts = [text for _, tokens in segments for text in tokens]
    ends = list(accumulate(map(len, texts)))
    offsets = tuple(zip([0, *ends], ends, strict=False))
    ids = tuple(zlib.crc32(text.encode()) for text in texts)
    owners = tuple(name for name, tokens in segments for _ in tokens)
    return Layout((), Rendered("".join(texts), ids, offsets), owners)


@pytest.fixture(autouse=True)
def inner_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pytest that a test starts is nobody's worker, though these tests may run side by side, and light."""
    for name in [name for name in os.environ if name.startswith("PYTEST_XDIST")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PYTEST_ADDOPTS", WITHOUT)


@pytest.fixture
def pytester(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """Pytest's own, which takes the options of the outer run away."""
    monkeypatch.setenv("PYTEST_ADDOPTS", WITHOUT)
    return pytester


@pytest.fixture
def cpu_run(tmp_path: Path) -> RunConfig:
    """A configuration for the CPU whose report goes to a temporary folder."""
    return run_config(RunOptions(stack="cpu", report_dir=tmp_path))


@pytest.fixture
def document(cpu_run: RunConfig) -> dict[str, Any]:
    """A results document: one chapter for each outcome, with a hostile text wherever a text can stand."""
    record = RunRecord(Thresholds(), environment=environment(cpu_run), interrupted=True)
    record.environment["stack"] = {"vllm": {"command": ["python", HOSTILE], "port": 1, "log": "x"}}
    sizes = {"class": "two", "short": 1200, "medium": 2400, "long": 4800, "reason": HOSTILE}
    record.environment |= {"instruction_set": "AMX", "cores": 2, "dtype": "bfloat16", "workload": sizes}
    record.environment["prefill_tokens_s"] = 2130.4
    fields = {"Question": f"Why {HOSTILE}?", "You will see": "it."}
    for number, outcome in enumerate(OUTCOMES, 1):
        name = f"lesson{number}"
        record.select(name, LessonHeader(f"Chapter {number}. {HOSTILE}", fields), name, "A claim holds")
        claim = record.claim(name)
        assert claim
        claim.outcome, claim.message = outcome, None if outcome == "passed" else HOSTILE
        lesson = record.lessons[name]
        lesson.compare("Reused tokens", predicted=[96, 96], measured=[96, 96 - number + 1])
        lesson.compare("In order", predicted=[512, 512, 576], measured=[512, 512, 576], sequence=True)
        lesson.measure("Large and small", arm="cold", values=[1234567.8, 0.0000123])
        drop = Interval(0.9, 0.85, 0.95)
        lesson.headline(hit_rate=0.97, ttft_drop=drop, tokens=TokenSources(3, 60, 37, 0))
        rows = [(HOSTILE, 1.0), (HOSTILE, 1.2), ("warm", 0.2)]
        lesson.chart(Chart("Neutral", "rounds", ["arm", "TTFT [s]"], rows, axis="TTFT [s]"))
        warm_by = {"cold": "computed", "warm": "engine"}
        lesson.rounds("TTFT", {"cold": [1.0, 1.2], "warm": [0.2, 0.1]}, served_by=warm_by)
        growth = [(100, 0.1, "cold"), (200, 0.3, "cold"), (200, 0.1, "warm")]
        columns = ["tokens", "TTFT [s]", "arm"]
        lesson.table(f"Needs {HOSTILE}", [HOSTILE, "the tier [GiB]"], [[2, 1234.56], [4, 0.25]])
        lesson.chart(Chart("Growth", "growth", columns, growth, axis="tokens", served_by=warm_by))
        manual = [f" word{place}" for place in range(100)]
        prompts = [
            layout(("manual", manual), ("question", [*begin, " end", HOSTILE]))
            for begin in ([" Why"], [" What", " else"])
        ]
        lesson.prefix("Parting", *prompts, block=16, chunk=32)
        lesson.served("Served", {"cold": [TokenSources(9, 0, 0, 0)], "warm": [TokenSources(1, 4, 3, 1)]})
        spans = [
            SpanRecord("a", "root", HOSTILE, "chain", "", 0.0, 2.0, None, None, None),
            SpanRecord("b", "a", "ChatOpenAI", "generation", "answer", 0.1, 1.5, 0.4, 100, 64),
        ]
        lesson.trace(HOSTILE, "0" * 32, spans)
    return record.results()
