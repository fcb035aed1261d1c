"""``puzzle``: a stack with one hidden fault; the reader looks at it, and says what it is."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..models.prepare import prepare
from ..prompts.rendering import Renderer
from ..settings.errors import ConfigError
from ..settings.options import RunOptions
from ..settings.packages import need_lessons, need_servers
from ..settings.paths import write_user_file
from ..settings.profiles import DEFAULT_MODEL
from ..settings.run import run_config
from ..stack.keep import open_stack
from ..stack.kept_state import StackError, kept_servers
from ..workbench.puzzle_evidence import FILE, Evidence, evidence_table
from ..workbench.puzzle_play import REQUESTS, SESSIONS, TURNS, Application, play
from ..workbench.puzzles import PUZZLES, Puzzle, choices_text, puzzle_of, said
from .printing import error, line, printable

if TYPE_CHECKING:
    from ..stack.stack import Stack

FOLDER = Path("reports") / "puzzle"
RANDOM, ANSWER = "random", "answer"
MEANT = f"""\
An application asks an engine with LMCache in {SESSIONS} sessions of {TURNS} turns. It is meant to be so:
- one system prompt for all, with a manual in it; the same tools, sorted by name; a history to which is only
  appended; no salt
- LMCache is connected to the engine; it has memory for everything, chunks of {{chunk}} tokens, and files
  behind its memory
- the engine's own cache is emptied before each request, so that all reuse is LMCache's: of the very first
  request nothing, of a later one all that it shares with those before it, from memory, in whole chunks
One thing is not as it is meant to be. What is it?
"""


def puzzle(
    what: Annotated[
        str, typer.Argument(metavar="[NUMBER|random|answer]", help=f"a puzzle from 1 to {len(PUZZLES)}")
    ] = RANDOM,
    words: Annotated[str | None, typer.Argument(help="with answer: what is wrong, or its number")] = None,
) -> None:
    """Find one hidden fault: it starts a stack and an application that you look at; then answer what it is.

    A wrong answer ends with exit code 1.
    """
    if what == ANSWER:
        judge(Evidence.read(FOLDER), words)
        return
    if words is not None:
        raise ConfigError(f"only an answer has words.\nTo fix: lmcache-tutorial puzzle {ANSWER} '{words}'")
    start(_chosen(what))


def start(chosen: Puzzle) -> None:
    """Start the stack of a puzzle, which is kept, run its application, and say where to look."""
    run = run_config(RunOptions(keep=True))
    need_servers(run.stack.profile, "lmcache-tutorial puzzle")
    need_lessons("lmcache-tutorial puzzle")
    from ..asking.ask import Asker
    from ..traces.record import Traces

    if kept_servers():
        raise StackError("a stack is kept already.\nTo fix: lmcache-tutorial down, and then once more")
    _make_folder()
    line("puzzle: starting its stack; this takes a minute or two")
    model = prepare(run.stack.model, _silent)
    chunk, block = run.stack.cache.chunk_tokens, run.stack.engine.block_tokens
    application = Application(Renderer.from_folder(model.folder, model.chat_template), chunk)
    room = application.room(block or chunk, model.kv_bytes_per_token(run.stack.dtype))
    stack = open_stack(replace(run, stack=chosen.stack(run.stack, room)), _silent)
    traces = Traces(FOLDER / "traces", f"{time.strftime('%Y%m%d-%H%M%S')}-{application.seed}")
    ask = Asker(stack, traces)
    try:
        found = play(chosen, ask, application, FOLDER, lambda text: line(f"puzzle: {text}"))
        text = "\n".join(
            [MEANT.format(chunk=chunk), *evidence_table(found), "", *_where(stack, traces.path, chunk)]
        )
    except BaseException:
        error("the stack goes on running; stop it with: lmcache-tutorial down")
        raise
    finally:
        ask.close()
        traces.close()
        stack.close()
    write_user_file(FOLDER / "puzzle.txt", text + "\n")
    line(f"\n{text}")
    if not chosen.told_by(found):
        error("failed: this time the fault does not show.\nTo fix: play another one: lmcache-tutorial puzzle")
        raise typer.Exit(1)


def judge(found: Evidence, words: str | None) -> None:
    """Say whether an answer is right, and explain it; ask for it on a terminal where there is none.

    Raises:
        ConfigError: there is none and nobody to ask, or it cannot be understood.
        typer.Exit: it is wrong.
    """
    hidden, guess = puzzle_of(found.puzzle), said(words) if words is not None else _asked()
    if guess is not hidden:
        line(f"no: it is not that {guess.fault}. That would be seen so:")
        line(f"  {guess.shows}")
        line("look once more, and answer again")
        raise typer.Exit(1)
    line(f"yes: {hidden.fault}.\n")
    line(f"how it shows    {hidden.shows}")
    line(f"what it means   {hidden.means}\n")
    for row in evidence_table(found):
        line(row)
    line("\nstop the stack with: lmcache-tutorial down")


def _make_folder() -> None:
    """Make the folder, without the evidence of an earlier puzzle."""
    try:
        FOLDER.mkdir(parents=True, exist_ok=True)
        (FOLDER / FILE).unlink(missing_ok=True)
    except OSError as problem:
        raise ConfigError(
            f"{FOLDER.absolute()} cannot be written: {problem.strerror}.\nTo fix: use a folder of yours"
        ) from None


def _chosen(what: str) -> Puzzle:
    if what == RANDOM:
        return random.choice(PUZZLES)
    if what.isdecimal():
        return puzzle_of(int(what))
    raise ConfigError(
        f"{printable(what)!r} is no puzzle.\nTo fix: a number from 1 to {len(PUZZLES)}, {RANDOM}, or {ANSWER}"
    )


def _asked() -> Puzzle:
    """Ask for the answer, until one is understood."""
    if not sys.stdin.isatty():
        raise ConfigError(
            "nobody can be asked here what it is.\nTo fix: lmcache-tutorial puzzle answer 'what it is'"
        )
    line(choices_text())
    while True:
        try:
            return said(typer.prompt("what is it? a number, or words"))
        except ConfigError as problem:
            line(str(problem))


def _where(stack: Stack, traces: Path, chunk: int) -> list[str]:
    """Say with which commands a reader looks further."""
    units = f"--block-tokens {stack.block_tokens} --chunk-tokens {chunk}"
    if stack.model.name != DEFAULT_MODEL:
        units += f" --tokenizer {stack.model.folder}"
    return [
        "Look further:",
        "  lmcache-tutorial status",
        f"  lmcache-tutorial watch {traces} --parts {TURNS} {units}",
        f"  lmcache-tutorial diagnose {FOLDER / REQUESTS} {units}",
        f"  curl -s {stack.engine.url}/metrics | grep prompt_tokens_by_source",
        f"  curl -s {stack.cache.url}/metrics | grep lookup",
        f"  curl -s {stack.cache.url}/status",
        "Say what it is (a choice by number, or your own words), and stop the stack:",
        "  lmcache-tutorial puzzle answer",
        "  lmcache-tutorial down",
    ]


def _silent(text: str) -> None:
    """Say nothing of how the stack starts: it would tell what is hidden."""
