"""results.json -> what a CI reads: a summary in Markdown, GitHub's annotations, and CTRF (ctrf.io)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from html import escape
from typing import Any

from ..quantities.formats import percent, seconds
from .terminal import drop

Results = Mapping[str, Any]
STATUS = {"passed": "passed", "failed": "failed", "error": "failed", "skipped": "skipped"}  # others: other
LEVELS = {"failed": "error", "error": "error", "passed": ""}  # others: warning
MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|~])")
SUMMARY_CHARACTERS = 500_000  # GitHub takes 1 MiB a step
MESSAGE_CHARACTERS = 3_000


def markdown(results: Results) -> str:
    """Build the summary: a row for every lesson and group, then what each that did not pass has to say."""
    rows = [*results["lessons"], *results.get("groups", [])]
    lines = [
        f"## KV-cache gate: {results['verdict']}",
        "",
        "| | outcome | hit rate | TTFT drop (95 % interval) | time |",
        "|---|---|--:|--:|--:|",
    ]
    for row in rows:
        head = row["headline"]
        cells = [_plain(row.get("title") or row["id"]), row["outcome"].replace("_", " ")]
        cells += [percent(head.get("hit_rate")), drop(head), seconds(row["duration_s"])]
        lines.append(f"| {' | '.join(cells)} |")
    for row in rows:
        for words, message in _troubles(row):
            lines += ["", f"**{_plain(row.get('title') or row['id'])}**: {_plain(words)}", ""]
            lines.append(f"<pre>{escape(message[:MESSAGE_CHARACTERS])}</pre>")
    return "\n".join(lines)[:SUMMARY_CHARACTERS] + "\n"


def github_annotations(results: Results) -> list[str]:
    """Build a line for every claim of a group that did not pass; GitHub shows it in the prompts file."""
    lines = []
    for group in results.get("groups", []):
        for words, message in _troubles(group):
            level = LEVELS.get(group["outcome"], "warning")
            where = f"file={_property(group['file'])},line={group['line']}"
            title = _property(f"{group['name']}: {words}")
            lines.append(f"::{level} {where},title={title}::{_data(message[:MESSAGE_CHARACTERS])}")
    return lines


def ctrf(results: Results) -> dict[str, Any]:
    """Build the document of the Common Test Report Format: a test for every claim."""
    tests = [test for row in (*results["lessons"], *results.get("groups", [])) for test in _tests(row)]
    begin = datetime.strptime(results["started"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()
    counted = {
        status: sum(test["status"] == status for test in tests)
        for status in ("passed", "failed", "pending", "skipped", "other")
    }
    times = {"start": round(1000 * begin), "stop": round(1000 * (begin + results["duration_s"]))}
    return {
        "reportFormat": "CTRF",
        "specVersion": "0.0.0",
        "results": {
            "tool": {"name": "lmcache-tutorial"},
            "summary": {"tests": len(tests), **counted, **times},
            "tests": tests,
        },
    }


def _tests(row: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the tests of a lesson or a group; the time of a row is that of all its claims together."""
    claims = row["claims"] or [
        {"name": "it can be asked", "outcome": row["outcome"], "message": row["reason"]}
    ]
    for claim in claims:
        test = {
            "name": f"{row['id']}: {claim['name']}",
            "status": STATUS.get(claim["outcome"], "other"),
            "duration": round(1000 * row["duration_s"] / len(claims)),
            "rawStatus": claim["outcome"],
            "suite": row["id"],
        }
        test |= {"filePath": row["file"], "line": row["line"]} if "file" in row else {}
        yield test | ({"message": claim["message"]} if claim["message"] else {})


def _troubles(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what did not pass: its name and outcome, and the message."""
    if row["outcome"] == "passed":
        return
    found = [one for one in row["claims"] if one["outcome"] != "passed"]
    for claim in found:
        yield f"{claim['name']} ({claim['outcome'].replace('_', ' ')})", claim["message"] or ""
    if not found:
        yield row["outcome"].replace("_", " "), row["reason"] or ""


def _plain(text: str) -> str:
    r"""Take Markdown's and HTML's meaning out of a text, on one line.

    >>> _plain("a | <b> `c`")
    'a \\| &lt;b&gt; \\`c\\`'
    """
    return MARKDOWN.sub(r"\\\1", escape(" ".join(text.split()), quote=False))


def _data(text: str) -> str:
    """Escape the message of a command to GitHub."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape a property of a command to GitHub."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")
