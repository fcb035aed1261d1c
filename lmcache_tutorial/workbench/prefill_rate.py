"""How fast does this processor prefill, in each number format? It starts an engine for each; two minutes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from ..machine.checks import instruction_set_here, processor
from ..models.prepare import prepare
from ..prompts.documents import Document, fresh, full_text
from ..settings.errors import ConfigError
from ..settings.options import RunOptions
from ..settings.run import run_config
from ..stack.stack import Stack
from ..stack.start import launch, wait_ready

FORMATS = ("bfloat16", "float32")
LENGTHS = (600, 1_200, 4_800)
ROUNDS = 3
CHARACTERS_A_TOKEN = 8  # more than any tokenizer's mean, so that a text is long enough to be cut by tokens


def prefill_rate_lines() -> Iterator[str]:
    """Yield lines to print: the machine, then the rates of each number format as they are measured."""
    yield f"{processor()}, {instruction_set_here()}"
    yield line("tokens", LENGTHS)
    for dtype in FORMATS:
        try:
            yield line(dtype, rates(dtype))
        except ConfigError as error:  # this processor has no such format
            yield f"{dtype:<11}not run: {str(error).splitlines()[0]}"


def line(name: str, values: Sequence[float]) -> str:
    """Print a row of rates.

    >>> line("bfloat16", [2274.2, 1879, 1523])
    'bfloat16      2,274   1,879   1,523'
    """
    return f"{name:<11}" + "".join(f"{value:>8,.0f}" for value in values)


def rates(dtype: str) -> list[float]:
    """Start an engine in a number format, and measure its rate at each length [tokens/s].

    Returns:
        Medians of three cold prompts, one for each of :data:`LENGTHS`.

    Raises:
        ConfigError: the processor cannot compute in this format.
    """
    run = run_config(RunOptions(stack="cpu", dtype=dtype))
    config = run.stack.without_caches()
    text = full_text(Document("rates", "long", seed=3), LENGTHS[-1] * CHARACTERS_A_TOKEN)
    with tempfile.TemporaryDirectory() as logs:
        stack = launch(config, prepare(config.model), Path(logs), lambda line: None)
        with closing(stack):
            wait_ready(stack)
            stack.warm_up()
            return [
                length / median(prefill_s(stack, text, length) for _ in range(ROUNDS)) for length in LENGTHS
            ]


def prefill_s(stack: Stack, text: str, tokens: int) -> float:
    """Time one cold request for one token [s].

    Args:
        stack: whose engine is asked.
        text: at least as long as the prompt.
        tokens: of the prompt, exactly.
    """
    encode: Callable[[str], Any] = stack.renderer.tokenizer.encode
    prompt = encode(fresh(text[: tokens * CHARACTERS_A_TOKEN])).ids[:tokens]
    sent = time.perf_counter()
    stack.engine.complete(prompt, limit_s=300).raise_for_status()
    return time.perf_counter() - sent
