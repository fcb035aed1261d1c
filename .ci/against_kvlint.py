"""How fast is `lmcache-tutorial diagnose` beside kvlint 0.1.1, start-up included, on one log?

    python -m venv /tmp/kvlint && /tmp/kvlint/bin/pip install kvlint==0.1.1
    python .ci/against_kvlint.py /tmp/kvlint/bin/kvlint [TOKENS]

The log has a million prompt tokens: agents with a clock in their system prompt, tools, and growing histories,
cut from real source text. Both tools read the same file with the same tokenizer; they take turns.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from lmcache_tutorial.models.small import small_model_folder
from lmcache_tutorial.prompts.documents import Document, full_text

ROUNDS = 5
LIMIT_S = 120
TURNS = 6
CHARACTERS_PER_TOKEN = 3.7


def write_log(path: Path, tokens: int) -> int:
    """Write conversations until they should have the wanted tokens; return the requests written."""
    chance = random.Random(1)
    text = full_text(Document("log", "long", seed=1), 2_000_000)
    written, lines, number = 0.0, [], 0
    while written < tokens:
        number += 1
        begin = chance.randrange(len(text) - 20_000)
        messages = [{"role": "system", "content": f"It is 12:{number % 60:02d}. You help.\n{text[:6_000]}"}]
        for turn in range(TURNS):
            at = begin + 900 * turn
            messages.append({"role": "user", "content": text[at : at + 300]})
            line = json.dumps({"messages": messages})
            lines.append(line)
            written += len(line) / CHARACTERS_PER_TOKEN
            messages.append({"role": "assistant", "content": text[at + 300 : at + 900]})
    path.write_text("\n".join(lines) + "\n")
    return len(lines)


def seconds(command: list[str]) -> float:
    """Time one run, start-up included."""
    begin = time.perf_counter()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, check=True, timeout=LIMIT_S, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - begin


def main() -> None:
    """Write the log, run both in turns, print medians."""
    kvlint, tokens = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    model = str(small_model_folder())
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        requests = write_log(log, tokens)
        ours = [
            str(Path(sys.executable).with_name("lmcache-tutorial")),
            "diagnose",
            str(log),
            "--tokenizer",
            model,
        ]
        theirs = [kvlint, "lint", str(log), "--model", model]
        found = json.loads(
            subprocess.run([*ours, "--json"], check=True, capture_output=True, text=True).stdout
        )
        times = [(seconds(ours), seconds(theirs)) for _ in range(ROUNDS)]
    mine, other = (median(column) for column in zip(*times, strict=True))
    print(f"{requests} requests, {found['prompt_tokens']:,} prompt tokens, {ROUNDS} rounds in turns, medians")
    print(f"lmcache-tutorial diagnose  {mine:.2f} s")
    print(f"kvlint lint                {other:.2f} s")
    print(f"ratio                      {other / mine:.1f}")


if __name__ == "__main__":
    main()
