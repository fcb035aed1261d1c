"""The headlines of reference runs, from their files into a README: lessons by run, then the peers."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..machine.files import write_atomically
from ..pages.templating import RANDOM_WEIGHTS, machine_words
from ..quantities.formats import percent, seconds
from ..quantities.sources import served_by

FIX = "To fix: name the results.json of a run, as it lies in its report folder"


class HeadlinesError(ValueError):
    """A file is no results.json, or the README has no place for headlines."""


def headlines(files: Sequence[Path], readme: Path) -> str:
    """Build the Markdown: for each run its machine, a link to its report, and each lesson's figures.

    Args:
        files: results.json of each run; peers.json is read where it lies beside one.
        readme: where the text will stand; links are relative to it.

    Raises:
        HeadlinesError: a file cannot be read as results.json, or peers.json beside it.
    """
    parts = []
    for file in files:
        try:
            parts.append(_run(file, Path(os.path.relpath(file.parent, readme.parent))))
        except (OSError, ValueError) as error:
            raise HeadlinesError(f"{file} is no results.json: {error}\n{FIX}") from None
        except (KeyError, TypeError, AttributeError, StopIteration, IndexError) as error:
            raise HeadlinesError(
                f"{file} is no results.json, or peers.json beside it none of ours: "
                f"{type(error).__name__} {error}\n{FIX}"
            ) from None
    return "\n\n".join(parts)


def into(readme: Path, text: str, place: str = "headlines") -> None:
    """Put a text into a README, between the markers ``<!-- headlines -->`` and ``<!-- /headlines -->``.

    ``place`` is the word in the markers.

    Raises:
        HeadlinesError: the markers are not there, once each and in order; or it cannot be read or written.
    """
    try:
        written = readme.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise _no_place(readme, "read", error) from None
    first, last = f"<!-- {place} -->", f"<!-- /{place} -->"
    before, begin, rest = written.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end):
        raise HeadlinesError(
            f"{readme} has no place for {place}.\nTo fix: put {first} and {last} on lines of their own."
        )
    try:
        write_atomically(readme, f"{before}{first}\n\n{text}\n\n{last}{after}")
    except OSError as error:
        raise _no_place(readme, "written", error) from None


def _no_place(readme: Path, act: str, error: OSError | UnicodeDecodeError) -> HeadlinesError:
    why = (error.strerror if isinstance(error, OSError) else None) or error
    return HeadlinesError(
        f"{readme} cannot be {act}: {why}.\nTo fix: name a README that is there, with --into README.md"
    )


def _run(file: Path, folder: Path) -> str:
    run = json.loads(file.read_text())
    environment, lessons = run["environment"], run["lessons"]
    weights = f" with {RANDOM_WEIGHTS}" if environment["weights"] == "random" else ""
    lines = [
        f"**{environment['hardware']}** ({machine_words(environment)}): {environment['model']}{weights}. "
        f"{_versions(environment)}; {seconds(run['duration_s'])}, "
        f"[{run['verdict']}]({folder / 'index.html'}) ([results.json]({folder / 'results.json'})).",
        "",
        "| lesson | outcome | hit rate | served by | TTFT drop | 95 % interval | time |",
        "|---|---|---|---|---|---|---|",
        *(_lesson(lesson) for lesson in lessons),
    ]
    peers = file.with_name("peers.json")
    if peers.is_file():
        lines += ["", *_peers(json.loads(peers.read_text()), folder, environment)]
    return "\n".join(lines)


def _versions(environment: Mapping[str, Any]) -> str:
    """Say which versions served; a deployment tells its engine's, or none."""
    if deployments := environment.get("deployments"):
        told = [f"vllm {one['engine_version']}" for one in deployments if one["engine_version"]]
        return ", ".join(dict.fromkeys(told)) or "of versions that it does not tell"
    packages = environment["packages"]
    engine = next(name for name in packages if name.startswith("vllm"))
    return f"{engine} {packages[engine]}, lmcache {packages['lmcache']}"


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


def _peers(peers: Mapping[str, Any], folder: Path, beside: Mapping[str, Any]) -> list[str]:
    """Write the table; where another machine or pair measured it than the run beside it, say which."""
    lengths = sorted({row["tokens"] for row in peers["rows"]})
    columns = " | ".join(f"{tokens:,} tokens" for tokens in lengths)
    here, there = ((one["hardware"], _versions(one)) for one in (beside, peers["environment"]))
    measured = "" if here == there else f"; measured on {there[0]}, with {there[1]}"
    lines = [
        f"TTFT of [the peers, side by side]({folder / 'peers.html'}) in ms, medians (prompts of token ids)"
        f"{measured}:",
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
