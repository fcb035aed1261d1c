"""The one table of options.

pytest's options, the ini file's, those of the command ``lmcache-tutorial`` and the table in README.md are all
made from the rows below. A row is a field of a dataclass, so the values that were given are typed: its name,
type and default are the option's, and the rest stands in its annotation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_type_hints

from .bars import MIN_HIT_RATE, MIN_TTFT_DROP
from .errors import ConfigError
from .number_format import DTYPES
from .profiles import DEFAULT_MODEL, GPU_MODEL

LMCACHE_SHARE = 0.6  # of a GPU machine's memory: lesson 3 keeps seven prompts of 60,000 tokens, 51 GiB


@dataclass(frozen=True)
class Option:
    """One row.

    ``choices`` are the values that it may have; ``alone`` is its value where it is given without one.
    ``least`` is the smallest number that may be given. ``chosen`` says in words what is taken where the
    default is ``None``. ``commands`` of ``lmcache-tutorial`` have it; ``ini`` tells whether the ini file may
    give it. ``name``, ``kind`` and ``default`` are the field's own.
    """

    help: str
    choices: tuple[str, ...] = ()
    alone: str | None = None
    least: int | None = None
    chosen: str = ""
    commands: tuple[str, ...] = ()
    ini: bool = True
    name: str = ""
    kind: type = str
    default: Any = None

    @property
    def value_words(self) -> str:
        """What stands for its value in a help text; empty for one that is given without a value."""
        if self.kind is bool:
            return ""
        named = [choice for choice in self.choices if choice != self.alone]
        return "|".join(named) or {int: "N", float: "X", Path: "PATH"}.get(self.kind, "NAME")

    @property
    def default_words(self) -> str:
        """What is taken where it is not given."""
        if self.default is None or self.default is False:
            return self.chosen or "off"
        return f"{self.default:g}" if self.kind is float else str(self.default)

    @property
    def help_text(self) -> str:
        """What it means, and its default."""
        return f"{self.help} (default: {self.default_words})"


@dataclass(frozen=True)
class RunOptions:
    """What a run is asked to do: pytest's options, and those of the commands that start or check a stack."""

    stack: Annotated[
        str,
        Option(
            "which servers to start; auto takes a GPU if CUDA works, else the CPU",
            choices=("auto", "cpu", "gpu"),
            commands=("up", "doctor"),
        ),
    ] = "auto"
    model: Annotated[
        str | None,
        Option(
            f"{DEFAULT_MODEL} (a small real model), {GPU_MODEL} (random weights), a folder, or a hub name",
            chosen=f"{DEFAULT_MODEL}; on a GPU {GPU_MODEL}",
            commands=("up", "doctor", "prepare"),
        ),
    ] = None
    dtype: Annotated[
        str,
        Option(
            "number format; auto takes bfloat16 where the processor has instructions for it, else float32",
            choices=DTYPES,
            commands=("up",),
        ),
    ] = "auto"
    chunk_tokens: Annotated[
        int | None,
        Option(
            "LMCache's chunk, a multiple of the engine's block [tokens]",
            chosen="64, with AVX2 alone 32; on a GPU 256",
            commands=("up",),
        ),
    ] = None
    engine_memory_gib: Annotated[
        float | None,
        Option(
            "memory of the engine's KV cache [GiB]",
            chosen="1; on a GPU what the engine's share leaves beside the weights",
            commands=("up",),
        ),
    ] = None
    lmcache_memory_gib: Annotated[
        float | None,
        Option(
            "memory of LMCache [GiB]",
            chosen=f"2; on a GPU machine {100 * LMCACHE_SHARE:g} % of its memory",
            commands=("up",),
        ),
    ] = None
    gpu_memory_share: Annotated[
        float | None,
        Option(
            "share of the GPU's memory that the engine takes, 0.1 to 0.98", chosen="0.9", commands=("up",)
        ),
    ] = None
    tensor_parallel: Annotated[
        int | None,
        Option(
            "over how many GPUs each engine is spread (tensor parallel)",
            least=1,
            chosen="1",
            commands=("up", "doctor"),
        ),
    ] = None
    min_hit_rate: Annotated[
        float, Option("the bar that a hit rate must exceed, per cent: 0, or 1 to below 100")
    ] = MIN_HIT_RATE
    min_ttft_drop: Annotated[
        float, Option("the bar that a drop of the TTFT must exceed, per cent: 0, or 1 to below 100")
    ] = MIN_TTFT_DROP
    report_dir: Annotated[Path, Option("folder of the report")] = Path("reports")
    keep: Annotated[bool, Option("leave the servers running for the next run")] = False
    allow_slow_lmcache: Annotated[
        bool, Option("measure on a GPU although LMCache's compiled operations are missing")
    ] = False
    peers: Annotated[
        str | None,
        Option(
            "measure LMCache and its peers side by side; tuning measures the steps of the tuning table",
            choices=("peers", "tuning"),
            alone="peers",
            ini=False,  # it is a wish for one run, and its file would hold for every run
        ),
    ] = None
    faults: Annotated[bool, Option("run the whole matrix of faults", ini=False)] = False
    predict: Annotated[
        bool,
        Option(
            "ask on a terminal for your own numbers before a lesson measures; predictions.toml keeps them"
        ),
    ] = False
    predict_again: Annotated[
        bool, Option("as --kv-predict, also for numbers that are there: enter keeps one", ini=False)
    ] = False
    url: Annotated[
        str | None,
        Option(
            "a running deployment, an engine or a router, or several with commas between: it is asked the "
            "groups of *.prompts.jsonl; the first also the lessons that can be held there",
            chosen="none",
        ),
    ] = None
    lmcache_url: Annotated[
        str | None,
        Option("the HTTP side of the LMCache that the deployment is said to use", chosen="none"),
    ] = None
    lmcache_spans: Annotated[
        str | None,
        Option(
            "HOST:PORT at which lessons listen for the request spans that a deployment's LMCache exports",
            chosen="none",
        ),
    ] = None
    allow_reset: Annotated[
        bool, Option("the deployment's engine may be told to empty its own cache, to ask LMCache alone")
    ] = False
    tokenizer: Annotated[
        Path | None,
        Option(
            "a folder with tokenizer.json and the chat template of the deployment's model, for lessons",
            chosen="the folder that the deployment names, if it is here",
        ),
    ] = None
    baseline: Annotated[
        Path | None,
        Option("a file that `lmcache-tutorial baseline` wrote: groups are compared with it", chosen="none"),
    ] = None
    max_ttft_ratio: Annotated[
        float, Option("how many times the baseline's warm TTFT is allowed; 1 or more")
    ] = 1.2
    max_ttft_growth_ms: Annotated[
        float, Option("growth of the warm TTFT over the baseline's that is allowed in any case [ms]")
    ] = 50.0
    langfuse: Annotated[
        bool, Option("send the run's traces to the Langfuse that LANGFUSE_BASE_URL and its keys name")
    ] = False
    require_langfuse: Annotated[
        bool, Option("what was sent is read back, for at most 60 s; what is missing there fails the run")
    ] = False
    mask: Annotated[bool, Option("no prompts and answers in traces, nor in what groups say")] = False
    require_all: Annotated[bool, Option("what is skipped counts as failed")] = False


def table(options: type) -> tuple[Option, ...]:
    """Return the rows of a dataclass like those above.

    >>> [row.name for row in table(RunOptions)][:2]
    ['stack', 'model']
    """
    hints = get_type_hints(options, include_extras=True)
    rows = []
    for field in fields(options):
        written, row = get_args(hints[field.name])
        (kind,) = [one for one in get_args(written) or (written,) if one is not NoneType]
        rows.append(replace(row, name=field.name, kind=kind, default=field.default))
    return tuple(rows)


RUN_OPTIONS = table(RunOptions)


def check_choices(options: RunOptions) -> None:
    """Check every option that has choices or a least value, also those of a dataclass that has more of them.

    Raises:
        ConfigError: a value is none of them, or below it.
    """
    for row in table(type(options)):
        value = getattr(options, row.name)
        if row.least is not None and value is not None and value < row.least:
            raise _too_small(row, value)
        if row.choices and value not in (None, *row.choices):
            raise _no_choice(row, value)


def _too_small(row: Option, value: float) -> ConfigError:
    return ConfigError(lambda option: f"{option(row.name)} is {value:g}, but must be {row.least} or more.")


def _no_choice(row: Option, value: str) -> ConfigError:
    choices = ", ".join(row.choices)
    return ConfigError(lambda option: f"{option(row.name)} is {value!r}, but must be one of {choices}.")
