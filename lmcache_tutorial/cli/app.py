"""The command ``lmcache-tutorial``: keep a stack running, and look after this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..diagnosis.diagnose import REMEMBERED_BLOCKS
from ..diagnosis.result import diagnosis_text
from ..models.model import CHAT_TEMPLATE, ModelError
from ..models.prepare import prepare
from ..models.shapes import SHAPES
from ..models.small import small_model_folder
from ..prompts.documents import CorpusError
from ..prompts.rendering import Renderer, RenderingError
from ..report.headlines import HeadlinesError, headlines, into
from ..servers.process import ServerError
from ..settings.bars import percent
from ..settings.errors import ConfigError, MissingExtraError
from ..settings.number_format import DTYPES
from ..settings.packages import SERVERS, missing_servers, need_servers
from ..settings.paths import user_path
from ..settings.profiles import DEFAULT_MODEL, GPU_MODEL
from ..settings.run import run_config
from ..stack.keep import StackError, kept_servers, open_stack, state_file, take_down
from ..stack.needs import examine
from .diagnose import check_page_path, diagnose_errors, gate_failure, printable, read_log, write_page
from .workbench import add_workbench

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console(highlight=False, soft_wrap=True)
errors = Console(highlight=False, soft_wrap=True, stderr=True)
USAGE = (ConfigError, HeadlinesError, RenderingError)  # of the command's errors; the rest is what failed

StackOption = Annotated[str, typer.Option(help="auto (a GPU if CUDA works, else the CPU), cpu or gpu")]
ModelOption = Annotated[
    str | None, typer.Option(help=f"a model folder, a hub name, {DEFAULT_MODEL} or {GPU_MODEL}")
]
DtypeOption = Annotated[str, typer.Option(help=f"number format: {', '.join(DTYPES)}")]
ChunkOption = Annotated[
    int | None, typer.Option(help="LMCache's chunk, a multiple of the engine's block [tokens]")
]
MemoryOption = Annotated[float | None, typer.Option(help="memory of the engine's KV cache [GiB]")]
LMCacheMemoryOption = Annotated[float | None, typer.Option(help="LMCache's memory [GiB]")]
GpuShareOption = Annotated[float | None, typer.Option(help="share of the GPU's memory for the engine (0.9)")]


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Say what we know how to explain, on standard error and without a traceback.

    The exit code is 2 for usage and 1 for what failed.
    """
    try:
        yield
    except (*USAGE, CorpusError, MissingExtraError, ModelError, ServerError, StackError) as error:
        errors.print(f"error: {error}", style="red", markup=False)
        raise typer.Exit(2 if isinstance(error, USAGE) else 1) from None


@app.command()
def up(
    stack: StackOption = "auto",
    model: ModelOption = None,
    dtype: DtypeOption = "auto",
    chunk_tokens: ChunkOption = None,
    engine_memory_gib: MemoryOption = None,
    lmcache_memory_gib: LMCacheMemoryOption = None,
    gpu_memory_share: GpuShareOption = None,
) -> None:
    """Start the servers and keep them running, so that the next pytest starts in seconds."""
    with _clear_errors():
        run = run_config(
            stack=stack,
            model=model,
            dtype=dtype,
            chunk_tokens=chunk_tokens,
            engine_memory_gib=engine_memory_gib,
            lmcache_memory_gib=lmcache_memory_gib,
            gpu_memory_share=gpu_memory_share,
            keep_stack=True,
        )
        need_servers(run.stack.profile, "lmcache-tutorial up")
        opened = open_stack(run, lambda line: console.print(line, markup=False))
        console.print(f"stack: up at {opened.engine.url}; stop it with: lmcache-tutorial down", markup=False)
        opened.close()


@app.command()
def down() -> None:
    """Stop the servers that were kept running."""
    with _clear_errors():
        if not kept_servers():
            console.print("stack: none is kept")
        take_down(lambda line: console.print(line, markup=False))


@app.command()
def status() -> None:
    """Show the servers that are kept running."""
    with _clear_errors():
        servers = kept_servers()
    for server in servers.values():
        console.print(
            f"{server.record.name:<8} {server.url}  process {server.record.server}  log {server.record.log}",
            markup=False,
        )
    console.print(f"state: {state_file()}" if servers else "stack: none is kept", markup=False)


@app.command()
def doctor(stack: StackOption = "auto", model: ModelOption = None) -> None:
    """Check this machine, the packages, ports, memory, disk and the model; say what to do."""
    with _clear_errors():
        config = run_config(stack=stack, model=model).stack
        if len(missing_servers()) == len(SERVERS):  # a base install: six bad packages would say less
            need_servers(config.profile, "lmcache-tutorial doctor")
        checks = examine(config)
    for check in checks:
        console.print(f"{'ok ' if check.ok else 'BAD'} {check.name:<17} {check.seen}", markup=False)
        if not check.ok:
            console.print(f"    to fix: {check.remedy}", markup=False)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@app.command("prepare")
def prepare_model(model: ModelOption = None) -> None:
    """Make the model ready, as the first run would do."""
    with _clear_errors():
        config = run_config(stack="auto", model=model, report_dir=Path()).stack
        if config.model in (DEFAULT_MODEL, *SHAPES):  # these are made with what servers bring; others are not
            need_servers(config.profile, "lmcache-tutorial prepare")
        ready = prepare(config.model, console.print)
        console.print(f"model: {ready.folder}", markup=False)


@app.command("headlines")
def show_headlines(
    files: Annotated[list[Path], typer.Argument(help="results.json of each run")],
    into_file: Annotated[
        Path | None, typer.Option("--into", help="a README to put them into, between its markers")
    ] = None,
) -> None:
    """Print the headlines of runs as Markdown, or put them into a README."""
    with _clear_errors():
        files = [user_path("FILES", file) for file in files]
        readme = user_path("--into", into_file or "README.md")
        text = headlines(files, readme)
        if into_file:
            into(readme, text)
        else:
            console.print(text, markup=False)


@app.command("diagnose")
def diagnose_log(
    file: Annotated[
        Path, typer.Argument(help="requests, one a line: OpenAI chat, a vLLM log, a Langfuse export")
    ],
    tokenizer: Annotated[
        Path | None, typer.Option(help="a folder with tokenizer.json and a chat template")
    ] = None,
    block_tokens: Annotated[int, typer.Option(min=1, help="the engine's block")] = 32,
    chunk_tokens: Annotated[int, typer.Option(min=1, help="LMCache's chunk, a multiple of the block")] = 64,
    remembered_blocks: Annotated[
        int, typer.Option(min=1, help="blocks that a cache holds")
    ] = REMEMBERED_BLOCKS,
    min_hit_rate: Annotated[
        float, typer.Option(help="exit with 1 if the prediction is not above, per cent")
    ] = 0.0,
    allow_unread: Annotated[
        float, typer.Option(help="requests that may be unread before --min-hit-rate fails, per cent")
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON")] = False,
    html: Annotated[Path | None, typer.Option(help="write a page")] = None,
) -> None:
    """Predict what a log of requests reuses, and name what stands in the way. Offline; nothing is asked."""
    with diagnose_errors():
        bar = percent("--min-hit-rate", min_hit_rate) / 100
        allowed = allow_unread and percent("--allow-unread", allow_unread) / 100
        if chunk_tokens % block_tokens:
            raise ConfigError(f"--chunk-tokens is {chunk_tokens}, but must be a multiple of {block_tokens}.")
        check_page_path(html, file)
        renderer = _renderer(tokenizer)
        found = read_log(file, renderer, block_tokens, chunk_tokens, remembered_blocks)
        if html:
            write_page(html, found, file)
        print(json.dumps(found.document()) if as_json else printable(diagnosis_text(found)))
    if min_hit_rate and (reason := gate_failure(found, bar, allowed)):
        print(printable(f"failed: {reason}"), file=sys.stderr)
        raise typer.Exit(1)


def _renderer(tokenizer: Path | None) -> Renderer:
    if tokenizer:
        return Renderer.from_folder(tokenizer)
    if not small_model_folder().is_dir():
        raise ConfigError(
            "no tokenizer: the tutorial's own model is not prepared here.\n"
            "To fix: lmcache-tutorial prepare, or --tokenizer FOLDER"
        )
    return Renderer.from_folder(small_model_folder(), CHAT_TEMPLATE)


add_workbench(app, _clear_errors)

if __name__ == "__main__":
    app()
