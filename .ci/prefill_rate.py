"""How fast does this processor prefill, in bfloat16 and in float32? Starts an engine for each; two minutes.

    python .ci/prefill_rate.py
    ONEDNN_MAX_CPU_ISA=AVX512_CORE python .ci/prefill_rate.py

Prints medians of three cold prompts of each length, in tokens a second.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from lmcache_tutorial.machine.checks import instruction_set_here, processor
from lmcache_tutorial.models.prepare import prepare
from lmcache_tutorial.prompts.documents import Document, fresh, full_text
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.settings.options import RunOptions
from lmcache_tutorial.settings.run import run_config
from lmcache_tutorial.stack.stack import Stack
from lmcache_tutorial.stack.start import launch, wait_ready

LENGTHS = (600, 1_200, 4_800)
ROUNDS = 3
CHARACTERS_A_TOKEN = 8


def prefill_s(stack: Stack, text: str, tokens: int) -> float:
    """Time one cold request for one token [s]."""
    encode: Callable[[str], Any] = stack.renderer.tokenizer.encode
    prompt = encode(fresh(text[: tokens * CHARACTERS_A_TOKEN])).ids[:tokens]
    body = {"model": stack.model.name, "prompt": prompt, "max_tokens": 1}
    sent = time.perf_counter()
    stack.client.post(f"{stack.engine.url}/v1/completions", json=body, timeout=300).raise_for_status()
    return time.perf_counter() - sent


def rates(dtype: str) -> list[float]:
    """Start an engine in a number format, and return its rate at each length [tokens/s]."""
    run = run_config(RunOptions(stack="cpu", dtype=dtype))
    config = replace(run.stack, offload="none")
    text = full_text(Document("rates", "long", seed=3), LENGTHS[-1] * CHARACTERS_A_TOKEN)
    with tempfile.TemporaryDirectory() as logs:
        stack = launch(config, prepare(config.model), Path(logs), lambda line: None)
        with closing(stack):
            wait_ready(stack)
            stack.warm_up()
            return [
                length / median(prefill_s(stack, text, length) for _ in range(ROUNDS)) for length in LENGTHS
            ]


def main() -> None:
    """Measure and print."""
    print(f"{processor()}, {instruction_set_here()}")
    print("tokens     " + "".join(f"{length:>8,}" for length in LENGTHS))
    for dtype in ("bfloat16", "float32"):
        try:
            print(f"{dtype:<11}" + "".join(f"{rate:>8,.0f}" for rate in rates(dtype)), flush=True)
        except ConfigError as error:
            print(f"{dtype:<11}not run: {str(error).splitlines()[0]}")


if __name__ == "__main__":
    main()
