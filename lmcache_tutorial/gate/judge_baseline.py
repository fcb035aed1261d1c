"""A group of prompts against a baseline: two claims, one about hits and one about times."""

from __future__ import annotations

from collections.abc import Callable

from .baseline import (
    COMPARED,
    FOR_HITS,
    FOR_TIMES,
    RENEW,
    Baseline,
    Fingerprint,
    Group,
    Margin,
    lost_hits,
    slower,
)
from .judge_group import Judged

HITS = f"{COMPARED} no request reuses less"
TIMES = f"{COMPARED} the first token comes as soon"
FEWEST_ROUNDS = 3  # that an interval takes


def judge_baseline(
    baseline: Baseline,
    group: Group,
    now: Fingerprint,
    margin: Margin,
    once_more: Callable[[], Group] | None,
) -> list[Judged]:
    """Judge a group by what it was.

    Args:
        baseline: what was kept.
        group: the group's part of results.json.
        now: of the deployment as it is.
        margin: how much longer it may take.
        once_more: asks the group again, where it took longer than that; ``None`` where times are not judged.

    Returns:
        A claim about hits; and one about times, where the fingerprints are equal.
    """
    then = baseline.groups.get(group["id"])
    if then is None:
        return [Judged(HITS, "not_run", f"the baseline has no such group.\nTo fix: {RENEW}")]
    if other := baseline.differences(group, now, FOR_HITS):
        return [Judged(HITS, "not_run", f"{'; '.join(other)}: its hits are other ones.\nTo fix: {RENEW}")]
    if silent := [request["line"] for request in group["requests"] if None in request["reused"]]:
        seen = f"of line {silent[0]} the server does not tell how many tokens were not computed"
        return [Judged(HITS, "not_run", seen)]
    if unknown := [request["line"] for request in then["requests"] if request["reused"] is None]:
        seen = f"of line {unknown[0]} the baseline does not know what was reused.\nTo fix: {RENEW}"
        return [Judged(HITS, "not_run", seen)]
    lost, other = lost_hits(then, group), baseline.differences(group, now, FOR_TIMES)
    words = f"all {len(group['requests'])} reuse at least what they did, {baseline.created}"
    words += f"\ntimes were not compared: {'; '.join(other)}" if other else ""
    claims = [Judged(HITS, "failed" if lost else "passed", "\n".join(lost) or words)]
    if other or not once_more:
        return claims
    if len(then["warm_s"]) < FEWEST_ROUNDS:
        seen = f"the baseline is of {len(then['warm_s'])} rounds, in which no times were judged."
        return [*claims, Judged(TIMES, "not_run", f"{seen}\nTo fix: {RENEW}")]
    return [*claims, _times(then, group, margin, once_more)]


def _times(then: Group, group: Group, margin: Margin, once_more: Callable[[], Group]) -> Judged:
    """Compare times; what looks slower is asked once more, and two answers that disagree decide nothing."""
    worse, seen = slower(then, group, margin)
    if not worse:
        return Judged(TIMES, "passed", seen)
    again, seen_again = slower(then, once_more(), margin)
    both = f"{seen}\nasked once more: {seen_again}"
    return Judged(TIMES, "failed" if again else "inconclusive", both)
