"""A baseline: what groups of prompts reused and how long they took, kept in a repository to compare with.

It is a small JSON file, written by a command with a reason. Hits are integers, and are compared to the token;
times scatter, and are compared by an interval and a margin.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from ..quantities.records import Interval
from ..quantities.statistics import ratio_unpaired

SCHEMA = 1
COMPARED = "compared with the baseline"  # so the claims about it begin
FOR_HITS = ("model", "template", "block_tokens", "chunk_tokens")  # what decides how much is reused
FOR_TIMES = (*FOR_HITS, "engine_version", "lmcache", "machine")
RENEW = "lmcache-tutorial baseline reports/results.json --into FILE --reason '…'"
Group = Mapping[str, Any]
Fingerprint = Mapping[str, Any]


class BaselineError(ValueError):
    """A baseline that cannot be written or read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Margin:
    """How much longer the warm TTFT may be than the baseline's: both must be exceeded to fail.

    Attributes:
        ratio: the lower end of the ratio's interval.
        growth_s: the growth of the median [s].
    """

    ratio: float = 1.2
    growth_s: float = 0.05


@dataclass(frozen=True)
class Baseline:
    """What was kept: the fingerprint, and each group by its id in results.json."""

    fingerprint: Fingerprint
    groups: Mapping[str, Group]
    reason: str = ""
    created: str = ""

    @classmethod
    def of(cls, results: Mapping[str, Any], reason: str) -> Baseline:
        """Take the groups of a run's results.

        Raises:
            BaselineError: there is no reason, no group, or one that did not pass.
        """
        groups = results.get("groups") or []
        if not reason.strip():
            raise BaselineError(
                "a baseline needs a reason.\nTo fix: --reason 'what has changed, and why it may'"
            )
        if not groups:
            raise BaselineError("these results hold no group of prompts.\nTo fix: pytest --kv-url=… first")
        for group in groups:
            # What was held against an older baseline may be other than it was: that is why one is renewed.
            own = [one for one in group["claims"] if not one["name"].startswith(COMPARED)]
            bad = [one["name"] for one in own if one["outcome"] != "passed"]
            if bad or not own:
                raise BaselineError(
                    f"{group['id']} is no baseline: {bad[0] if bad else group['reason']}.\n"
                    "To fix: mend what fails first"
                )
        environment = results["environment"]
        first = fingerprint(environment)
        found = {}
        for group in groups:
            its = fingerprint(environment, group.get("url"))
            found[group["id"]] = _kept(group) | ({} if its == first else {"fingerprint": its})
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(first, found, reason.strip(), now)

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """Read a file.

        Raises:
            BaselineError: it is none.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found["schema"] != SCHEMA:
                raise BaselineError(
                    f"{path} has schema {found['schema']}, and this reads {SCHEMA}.\n{_fix()}"
                )
            return cls(found["fingerprint"], found["groups"], found["reason"], found["created"])
        except OSError as error:
            raise BaselineError(f"{path} cannot be read: {error.strerror}.\n{_fix()}") from None
        except (ValueError, LookupError, TypeError) as error:
            if isinstance(error, BaselineError):
                raise
            raise BaselineError(f"{path} is no baseline: {error}.\n{_fix()}") from None

    def text(self) -> str:
        """Build the file's text."""
        document = {"schema": SCHEMA, "created": self.created, "reason": self.reason}
        document |= {"fingerprint": dict(self.fingerprint), "groups": dict(self.groups)}
        return json.dumps(document, indent=1, ensure_ascii=False) + "\n"

    def differences(self, group: Group, now: Fingerprint, names: Sequence[str]) -> list[str]:
        """Say which of some fields of a group's fingerprint are other than they were.

        A template that renders every prompt of the group with as many tokens as it did is none: some write
        the date.
        """
        then: Fingerprint = self.groups[group["id"]].get("fingerprint", self.fingerprint)
        other = [name for name in names if then.get(name) != now.get(name)]
        if "template" in other and _as_long(self.groups[group["id"]], group):
            other.remove("template")
        return [f"{name.replace('_', ' ')} was {then.get(name)}, and is {now.get(name)}" for name in other]


def fingerprint(environment: Mapping[str, Any], url: str | None = None) -> dict[str, Any]:
    """Take out of a run's environment what decides its hits and its times, at an address or at the first."""
    deployments = environment.get("deployments") or [{}]
    found = next((one for one in deployments if one.get("url") == url), deployments[0])
    kept = {name: found.get(name) for name in ("model", "template", "block_tokens", "chunk_tokens")}
    kept |= {"engine_version": found.get("engine_version"), "lmcache": found.get("lmcache_url") is not None}
    return kept | {"machine": environment.get("hardware")}


def lost_hits(then: Group, now: Group) -> list[str]:
    """Say of each request that reuses fewer tokens than it did how many, and what of its prompt is other.

    Returns:
        A line for each; empty where none reuses less.
    """
    lines = []
    for before, request in zip(then["requests"], now["requests"], strict=False):
        was, least = before["reused"], _least(request["reused"])
        if least is None or was is None or least >= was:
            continue
        where = _first_other(before, request)
        lines.append(f"line {request['line']} reuses {least:,} tokens, and reused {was:,}: {where}")
    if len(then["requests"]) != len(now["requests"]):
        lines.append(f"the group has {len(now['requests'])} judged requests, and had {len(then['requests'])}")
    return lines


def slower(then: Group, now: Group, margin: Margin) -> tuple[bool, str]:
    """Compare the warm TTFT with the baseline's: is it longer beyond the margin, and what was seen?"""
    was, found = then["warm_s"], _warm(now)
    ratio = ratio_unpaired(found, was)
    growth_s = median(found) - median(was)
    seen = (
        f"warm TTFT {1000 * median(found):.0f} ms, and was {1000 * median(was):.0f}: {_words(ratio)} times; "
        f"{margin.ratio:g} times and {1000 * margin.growth_s:.0f} ms more are allowed"
    )
    return ratio.low > margin.ratio and growth_s > margin.growth_s, seen


def _as_long(then: Group, now: Group) -> bool:
    lengths = [[one.get("prompt_tokens") for one in group["requests"]] for group in (then, now)]
    return lengths[0] == lengths[1] and None not in lengths[0]


def _first_other(before: Group, request: Group) -> str:
    """Name the first part of a prompt, or of the one that it shares with, that is other than it was."""
    for whose, key in (("", "segments"), (" of the earlier request", "forerunner_segments")):
        then, now = before.get(key) or [], request.get(key) or []
        for place, (name, digest) in enumerate(now):
            if place >= len(then) or then[place][1] != digest:
                return f"{name}{whose} is not what it was"
        if len(then) > len(now):
            return f"{then[len(now)][0]}{whose} is gone"
    return "the prompts are what they were, so the deployment is not"


def _kept(group: Group) -> dict[str, Any]:
    requests = [
        {
            "line": one["line"],
            "prompt_tokens": one.get("prompt_tokens"),
            "reused": _least(one["reused"]),
            "segments": one["segments"],
            "forerunner_segments": one["forerunner_segments"],
        }
        for one in group["requests"]
    ]
    return {"requests": requests, "warm_s": _warm(group)}


def _least(reused: Sequence[int | None]) -> int | None:
    """Return what a request reused in every round; ``None`` where that was not told."""
    known = [one for one in reused if one is not None]
    return min(known) if known and len(known) == len(reused) else None


def _warm(group: Group) -> list[float]:
    (values,) = [one["values"] for one in group["measurements"] if one["arm"] == "warm"]
    return [round(value, 6) for value in values]


def _words(ratio: Interval) -> str:
    return f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _fix() -> str:
    return f"To fix: write one with {RENEW}"
