"""The table's rows of the command ``lmcache-tutorial`` alone, in the form of ``options``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from .options import Option, RunOptions
from .topologies import ONE, TOPOLOGIES

REMEMBERED_BLOCKS = 1_000_000
NOTEBOOK_FILE = "lmcache_huge_data_tutorial.ipynb"
READERS = ("from-langfuse", "watch")  # the commands that read a Langfuse project


@dataclass(frozen=True)
class UpOptions(RunOptions):
    """How ``lmcache-tutorial up`` starts a stack: as a run would, or one of more parts."""

    topology: Annotated[
        str,
        Option(
            "the stack: one engine and one LMCache; with a file tier behind it; two engines on "
            "one LMCache; two with an LMCache each on one Valkey; two behind a router (lessons: the first)",
            choices=tuple(TOPOLOGIES),
            commands=("up",),
        ),
    ] = ONE


@dataclass(frozen=True)
class StatusOptions:
    """What ``lmcache-tutorial status`` prints."""

    url: Annotated[
        bool, Option("print the address of the kept stack alone, for --kv-url", commands=("status",))
    ] = False


@dataclass(frozen=True)
class DiagnoseOptions:
    """How ``lmcache-tutorial diagnose`` reads a log, what it prints, and when it fails."""

    tokenizer: Annotated[
        Path | None,
        Option(
            "a folder with tokenizer.json and a chat template",
            chosen="the tutorial's own model",
            commands=("diagnose",),
        ),
    ] = None
    block_tokens: Annotated[int, Option("the engine's block [tokens]", least=1, commands=("diagnose",))] = 32
    chunk_tokens: Annotated[
        int, Option("LMCache's chunk, a multiple of the block [tokens]", least=1, commands=("diagnose",))
    ] = 64
    remembered_blocks: Annotated[
        int, Option("blocks that a cache holds", least=1, commands=("diagnose",))
    ] = REMEMBERED_BLOCKS
    min_hit_rate: Annotated[
        float, Option("exit with 1 if the prediction is not above, per cent", commands=("diagnose",))
    ] = 0.0
    allow_unread: Annotated[
        float,
        Option("requests that may be unread before --min-hit-rate fails, per cent", commands=("diagnose",)),
    ] = 0.0
    json: Annotated[bool, Option("print JSON", commands=("diagnose",))] = False
    html: Annotated[Path | None, Option("write a page", commands=("diagnose",))] = None


@dataclass(frozen=True)
class ProjectOptions:
    """Which traces of a Langfuse project are read."""

    tag: Annotated[str | None, Option("traces with this tag", chosen="all", commands=READERS)] = None
    name: Annotated[str | None, Option("traces of this name", chosen="all", commands=READERS)] = None
    since: Annotated[
        str | None, Option("traces from this time on, ISO 8601", chosen="all", commands=READERS)
    ] = None
    until: Annotated[
        str | None, Option("traces before this time, ISO 8601", chosen="now", commands=READERS)
    ] = None
    traces: Annotated[int, Option("traces at most, the newest", least=1, commands=READERS)] = 100


@dataclass(frozen=True)
class PromptsOptions(ProjectOptions):
    """What ``lmcache-tutorial prompts from-langfuse`` takes, and where it puts it."""

    into: Annotated[
        Path, Option("the file to write; its name ends in .prompts.jsonl", commands=("from-langfuse",))
    ] = Path("langfuse.prompts.jsonl")
    group: Annotated[
        str | None,
        Option("the name of the group", chosen="the file's", commands=("from-langfuse",)),
    ] = None
    most: Annotated[int, Option("requests at most; each is asked 14 times", commands=("from-langfuse",))] = 12


@dataclass(frozen=True)
class WatchOptions(ProjectOptions):
    """What ``lmcache-tutorial watch`` reads, and into how many parts it cuts the time."""

    parts: Annotated[int, Option("parts of the time, of as many requests each", commands=("watch",))] = 6
    tokenizer: Annotated[
        Path | None,
        Option(
            "a folder with tokenizer.json and a chat template",
            chosen="the tutorial's own model",
            commands=("watch",),
        ),
    ] = None
    block_tokens: Annotated[int, Option("the engine's block [tokens]", least=1, commands=("watch",))] = 32
    chunk_tokens: Annotated[
        int, Option("LMCache's chunk, a multiple of the block [tokens]", least=1, commands=("watch",))
    ] = 64


@dataclass(frozen=True)
class TracesOptions:
    """What ``lmcache-tutorial traces send`` sends, and where."""

    folder: Annotated[Path, Option("the folder of the traces", commands=("send",))] = Path("reports/traces")
    to: Annotated[
        str | None,
        Option(
            "the address of a receiver of OTLP over HTTP, with its path",
            chosen="the Langfuse that LANGFUSE_BASE_URL and its keys name",
            commands=("send",),
        ),
    ] = None
    limit_s: Annotated[float, Option("how long sending may take in all [s]", commands=("send",))] = 60.0


@dataclass(frozen=True)
class NotebookOptions:
    """Where ``lmcache-tutorial notebook`` puts the notebook, and how long a cell of it may take."""

    into: Annotated[
        Path, Option("the file to write; its page is written beside it", commands=("notebook",))
    ] = Path(NOTEBOOK_FILE)
    cell_limit_s: Annotated[
        float,
        Option("how long one cell may take [s]; a chapter's claims are one", least=1, commands=("notebook",)),
    ] = 1200.0
    empty: Annotated[bool, Option("write it without running it", commands=("notebook",))] = False


@dataclass(frozen=True)
class BaselineOptions:
    """How ``lmcache-tutorial baseline`` keeps what a run has found."""

    into: Annotated[Path, Option("the file to write, for your repository", commands=("baseline",))] = Path(
        "kv-baseline.json"
    )
    reason: Annotated[
        str,
        Option(
            "why this is what later runs are compared with; it stands in the file", commands=("baseline",)
        ),
    ] = ""


@dataclass(frozen=True)
class HeadlinesOptions:
    """Where ``lmcache-tutorial headlines`` puts them, and ``versions`` its table."""

    into: Annotated[
        Path | None,
        Option("a README to put them into, between its markers", commands=("headlines", "versions")),
    ] = None


@dataclass(frozen=True)
class ReportOptions:
    """What ``lmcache-tutorial report`` makes of runs, and where it puts it."""

    into: Annotated[
        Path | None,
        Option(
            "the file to write",
            chosen="the run's own page; of several reports/runs.html, joined reports/joined/results.json",
            commands=("report",),
        ),
    ] = None
    merge: Annotated[
        bool,
        Option(
            "join runs of one fingerprint into one results.json, with its page beside it",
            commands=("report",),
        ),
    ] = False
