"""The headlines of reference runs, from their files into a README: lessons by run, then the peers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .pages import RANDOM_WEIGHTS, machine_words, percent, seconds
from .sources import served_by

BEGIN, END = "<!-- headlines -->", "<!-- /headlines -->"


class HeadlinesError(ValueError):
    """A file is no results.json, or the README has no place for headlines."""


def headlines(files: Sequence[Path], readme: Path) -> str:
    """Build the Markdown: for each run its machine, a link to its report, and each lesson's figures.

    Args:
        files: results.json of each run; peers.json is read where it lies beside one.
        readme: where the text will stand; links are relative to it.

    Raises:
        HeadlinesError: a file cannot be read as results.json.
    """
    parts = [_run(file, Path(os.path.relpath(file.parent, readme.parent))) for file in files]
    return "\n\n".join(parts)


def into(readme: Path, text: str) -> None:
    """Put the text between the markers of a README.

    Raises:
        HeadlinesError: the markers are not there, once each and in order.
    """
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise HeadlinesError(
            f"{readme} has no place for headlines.\nTo fix: put {BEGIN} and {END} on lines of their own."
        )
    readme.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def _run(file: Path, folder: Path) -> str:
    try:
        run = json.loads(file.read_text())
        environment, lessons = run["environment"], run["lessons"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HeadlinesError(f"{file} is no results.json: {error}") from None
    weights = f" with {RANDOM_WEIGHTS}" if environment["weights"] == "random" else ""
    packages = environment["packages"]
    engine = next(name for name in packages if name.startswith("vllm"))
    versions = f"{engine} {packages[engine]}, lmcache {packages['lmcache']}"
    lines = [
        f"**{environment['hardware']}** ({machine_words(environment)}): {environment['model']}{weights}. "
        f"{versions}; {seconds(run['duration_s'])}, "
        f"[{run['verdict']}]({folder / 'index.html'}) ([results.json]({folder / 'results.json'})).",
        "",
        "| lesson | outcome | hit rate | served by | TTFT drop | 95 % interval | time |",
        "|---|---|---|---|---|---|---|",
        *(_lesson(lesson) for lesson in lessons),
    ]
    peers = file.with_name("peers.json")
    if peers.is_file():
        lines += ["", *_peers(json.loads(peers.read_text()), folder)]
    return "\n".join(lines)


def _lesson(lesson: Mapping[str, Any]) -> str:
    head = lesson["headline"]
    drop, interval = "–", "–"
    if "ttft_drop" in head:
        drop = percent(head["ttft_drop"])
        interval = f"{percent(head['ttft_drop_low'])} to {percent(head['ttft_drop_high'])}"
    outcome = lesson["outcome"].replace("_", " ")
    rate, served = percent(head.get("hit_rate")), served_by(head.get("tokens"))
    cells = [lesson["title"], outcome, rate, served, drop, interval, seconds(lesson["duration_s"])]
    return f"| {' | '.join(cells)} |"


def _peers(peers: Mapping[str, Any], folder: Path) -> list[str]:
    lengths = sorted({row["tokens"] for row in peers["rows"]})
    columns = " | ".join(f"{tokens:,} tokens" for tokens in lengths)
    lines = [
        f"TTFT of [the peers, side by side]({folder / 'peers.html'}) in ms, medians (prompts of token ids):",
        "",
        f"| peer | {columns} |",
        "|---" * (len(lengths) + 1) + "|",
    ]
    arms = {"cold": "no reuse (cold)", "engine": "its own prefix cache", "outside": "from outside the engine"}
    for peer in dict.fromkeys(row["peer"] for row in peers["rows"]):
        rows = {row["tokens"]: row for row in peers["rows"] if row["peer"] == peer}
        for arm, words in arms.items():
            if (peer == "vLLM alone") == (arm != "outside"):
                cells = [f"{rows[n][arm]['value'] * 1000:,.0f}" if rows[n][arm] else "–" for n in lengths]
                lines.append(f"| {peer}, {words} | {' | '.join(cells)} |")
    return lines
