"""Several runs of one fingerprint -> one document, which says of which runs it was joined.

A machine that is lent for minutes runs the lessons in several calls; what they found belongs together if
code, machine, packages, model and settings were the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ..gate.verdict import verdict
from .fingerprint import AGAIN, CODE, Results, differences, fingerprint
from .results import CONVERTED
from .runs import NamedRun, RunError

MOST_SHOWN = 6  # differences that an error names


def join(runs: Sequence[NamedRun]) -> dict[str, Any]:
    """Join runs.

    Args:
        runs: two or more; one that was joined itself may be among them.

    Returns:
        A document of the results.json contract. Lessons and groups are those of all runs, and the verdict
        is theirs; ``joined`` tells of each run when it began, how long it took, what it ran, and its prefill
        rate. The order of the runs does not matter.

    Raises:
        RunError: there are fewer than two, one is of an older schema or does not tell its code, their
            fingerprints differ, or two of them hold the same lesson or group.
    """
    if len(runs) < 2:
        raise RunError("joining takes two runs or more.\nTo fix: name them all: report --merge RUN1 RUN2 …")
    for run in runs:
        _check_age(run)
    for one, other in pairwise(runs):
        _check_fingerprint(one, other)
    _check_ids(runs)
    return _document(
        sorted((run.results for run in runs), key=lambda run: (run["started"], sorted(_ids(run))))
    )


def _document(runs: Sequence[Results]) -> dict[str, Any]:
    """Build the document from runs in the order in which they began."""
    lessons = sorted((one for run in runs for one in run["lessons"]), key=lambda one: str(one["id"]))
    groups = [one for run in runs for one in run.get("groups", [])]
    notes = list(dict.fromkeys(note for run in runs for note in run.get("notes", [])))
    rows = sorted((row for run in runs for row in _rows(run)), key=lambda row: (row["started"], row["ran"]))
    return {
        "schema": runs[0]["schema"],
        "started": runs[0]["started"],
        "duration_s": round(sum(row["duration_s"] for row in rows), 3),
        "environment": _environment(runs, rows),
        "thresholds": runs[0]["thresholds"],
        "verdict": verdict({str(one["id"]): [one["outcome"]] for one in (*lessons, *groups)}),
        "interrupted": any(run.get("interrupted") for run in runs),
        **({"notes": notes} if notes else {}),
        "joined": rows,
        "lessons": lessons,
        **({"groups": groups} if groups else {}),
    }


def _check_age(run: NamedRun) -> None:
    if CONVERTED in run.results.get("notes", []):
        raise RunError(
            f"{run.where} has an older schema, and what it does not tell cannot be compared.\n"
            "To fix: run its lessons again with this version"
        )
    if CODE not in run.results["environment"]:
        raise RunError(
            f"{run.where} does not tell which code made it, so it may not be that of the others.\n"
            "To fix: run its lessons again with this version"
        )


def _check_fingerprint(first: NamedRun, second: NamedRun) -> None:
    apart = differences([fingerprint(first.results), fingerprint(second.results)])
    if not apart:
        return
    shown = [
        f"  {what}: {' / '.join('not told' if value is None else value or 'given' for value in values)}"
        for what, values in apart.items()
    ]
    more = [f"  and {len(shown) - MOST_SHOWN} more"] if len(shown) > MOST_SHOWN else []
    raise RunError(
        "\n".join([f"{first.where} and {second.where} were not made alike:", *shown[:MOST_SHOWN], *more])
        + "\nTo fix: join runs of one commit, machine and settings; to see these side by side: "
        f"lmcache-tutorial report {first.where} {second.where}"
    )


def _check_ids(runs: Sequence[NamedRun]) -> None:
    seen: dict[str, str] = {}
    for run in runs:
        for one in _ids(run.results):
            if one in seen:
                raise RunError(
                    f"{seen[one]} and {run.where} both hold {one}, and only one of them can count.\n"
                    "To fix: leave one of them out, or run what is missing alone, with pytest -k"
                )
        seen |= dict.fromkeys(_ids(run.results), run.where)


def _ids(run: Results) -> list[str]:
    return [str(one["id"]) for one in (*run["lessons"], *run.get("groups", []))]


def _rows(run: Results) -> Iterator[Mapping[str, Any]]:
    """Tell of a run; of one that was joined itself, of all that it was joined of."""
    if "joined" in run:
        yield from run["joined"]
        return
    yield {
        "started": run["started"],
        "duration_s": run["duration_s"],
        "ran": _ids(run),
        "prefill_tokens_s": run["environment"].get("prefill_tokens_s"),
    }


def _environment(runs: Sequence[Results], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join what the runs say of themselves: all servers, and what all agree in.

    What they measured differently, as the prefill rate, is left to ``joined``.
    """
    told = [run["environment"] for run in runs]
    environment, stack = dict(told[0]), dict(told[0]["stack"])
    if len({row["prefill_tokens_s"] for row in rows}) > 1:
        environment.pop("prefill_tokens_s", None)
    if len({one.get("langfuse") for one in told}) > 1:
        environment.pop("langfuse", None)
    for one in told[1:]:
        for name, about in one["stack"].items():
            stack[_free_name(name, about, stack)] = about
    return environment | {"stack": stack}


def _free_name(name: str, about: Mapping[str, Any], stack: Mapping[str, Any]) -> str:
    """Name a server beside those of earlier runs: by its own name, or by that and a number.

    >>> _free_name("vllm", {"port": 2}, {"vllm": {"port": 1}}), _free_name("vllm", {}, {})
    ('vllm (2)', 'vllm')
    >>> _free_name("vllm (2)", {"port": 3}, {"vllm": {"port": 1}, "vllm (2)": {"port": 2}})
    'vllm (3)'
    """
    name = AGAIN.sub("", name)
    number, free = 1, name
    while stack.get(free, about) != about:
        number += 1
        free = f"{name} ({number})"
    return free
