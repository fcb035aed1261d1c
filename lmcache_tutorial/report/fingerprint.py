"""What decides a run's hits and times, by name: runs that agree in all of it may be joined.

What the model's servers are told comes from their command lines, without what no two starts have in common:
ports, and names that carry the run's id. A deployment that was found is told apart as a baseline does it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..gate.baseline import fingerprint as deployed

Results = Mapping[str, Any]
Fingerprint = Mapping[str, str]
CODE = "code"
PLAIN = {  # key of the environment -> its name here
    "code": CODE,
    "python": "Python",
    "weights": "weights",
    "profile": "profile",
    "instruction_set": "instruction set",
    "cores": "cores",
    "dtype": "number format",
}
MODEL, DOCUMENTS = "model", "documents [tokens]"
WORK = (MODEL, "weights", DOCUMENTS)  # where these are equal, times are times of the same work
OWN_NAMES = ("--shm-name", "--log-file")  # options whose value carries the run's id
AGAIN = re.compile(r" \(\d+\)$")  # ends a server's name in a joined document: another start of the same one
RUN_ID = re.compile(r"lct-\d+-[0-9a-f]+")
OPTION = re.compile(r"--?[A-Za-z]")
ANY_PORT = re.compile(r"((?:127\.0\.0\.1|localhost):|port\"?: ?)\d+")


def fingerprint(results: Results) -> dict[str, str]:
    """Take out of a run what decides its hits and its times; each value in words.

    Not in it: the prefill rate, which is measured and scatters, stacks that single lessons open, and of a
    joined document the further starts of a server, which were told the same as its first.
    """
    environment = results["environment"]
    found = {name: str(environment[key]) for key, name in PLAIN.items() if key in environment}
    found["machine"], found[MODEL] = environment["hardware"], environment["model"]
    found |= environment["packages"]
    if workload := environment.get("workload"):
        found[DOCUMENTS] = ", ".join(f"{workload[size]:,}" for size in ("short", "medium", "long"))
    for name, fraction in results["thresholds"].items():
        found[f"bar {name.replace('_', ' ')}"] = f"{100 * fraction:g} %"
    for number, one in enumerate(environment.get("deployments") or [], 1):
        told = {"url": one["url"], **deployed({**environment, "deployments": [one]})}
        found |= {f"deployment {number} {name.replace('_', ' ')}": f"{value}" for name, value in told.items()}
    for server, about in environment["stack"].items():
        if ": " not in server and not AGAIN.search(server):
            found |= {f"{server} {option}": value for option, value in told_options(about["command"]).items()}
    return found


def told_options(command: Sequence[str]) -> dict[str, str]:
    """Read a command line as options and their values, without ports and names of the run.

    >>> told_options(["python", "-m", "vllm", "--port", "8001", "--dtype", "float32", "--async"])
    {'program': 'python', '-m': 'vllm', '--dtype': 'float32', '--async': ''}
    """
    told, option = dict[str, list[str]](), "program"
    for word in command:
        if OPTION.match(word):
            option, _, value = word.partition("=")
            told.setdefault(option, [])
            word = value
        if word:
            told.setdefault(option, []).append(ANY_PORT.sub(r"\1*", RUN_ID.sub("*", word)))
    return {
        option: " ".join(values)
        for option, values in told.items()
        if not option.endswith("port") and option not in OWN_NAMES
    }


def differences(prints: Sequence[Fingerprint]) -> dict[str, list[str | None]]:
    """Find what is not equal in all: its name, and its value in each; ``None`` where one does not tell it.

    >>> differences([{"model": "a", "cores": "2"}, {"model": "b", "cores": "2"}, {"cores": "2"}])
    {'model': ['a', 'b', None]}
    """
    names = dict.fromkeys(name for one in prints for name in one)
    values = {name: [one.get(name) for one in prints] for name in names}
    return {name: found for name, found in values.items() if len(set(found)) > 1}
