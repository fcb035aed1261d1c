"""Exercise 9.2. Mend what the log shows.

The hit rate of an agent fell with its last release. You have the log of its requests, and no other access to
it. `diagnose` names what breaks the prefix, first what costs the most. Mend the requests until it names
nothing any more; there are two causes.

File        tutorial_tests/exercises/ex9_2_mend_what_the_log_shows.py
Change      `mended`: what the agent should have sent instead of a request, with every word of it.
Command     pytest tutorial_tests/exercises/ex9_2_mend_what_the_log_shows.py
Fails with  the diagnosis still names timestamp in system
Hints       lmcache-tutorial hint 9.2
"""

import json
from typing import Any

from lmcache_tutorial.diagnosis.diagnose import diagnose
from lmcache_tutorial.diagnosis.result import diagnosis_text
from lmcache_tutorial.prompts.documents import Document, Read
from lmcache_tutorial.stack.stack import Stack

MANUAL = Document("lmcache-source", size="medium", seed=19)
TOOLS = ("close_ticket", "look_up", "restart_service", "write_to_user")
ORDERS = (TOOLS, TOOLS[::-1], TOOLS[2:] + TOOLS[:2])  # as a set gave them
REQUESTS = 12
Request = dict[str, Any]

# %% yours


def mended(request: Request) -> Request:
    return request


# %% the judge


def tool(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"subject": {"type": "string"}}}
    function = {"name": name, "description": f"Use it to {name.replace('_', ' ')}.", "parameters": parameters}
    return {"type": "function", "function": function}


def log(manual: str) -> list[Request]:
    """What the agent has sent: the first line of its system message is the time."""
    requests = []
    for number in range(REQUESTS):
        system = f"It is 2026-11-27T10:{number:02d}:07Z.\n{manual}"
        question = {"role": "user", "content": f"Question {number}: which class stores a chunk?"}
        order = ORDERS[number % len(ORDERS)]
        messages = [{"role": "system", "content": system}, question]
        requests.append({"model": "agent", "messages": messages, "tools": [tool(name) for name in order]})
    return requests


def words(request: Request) -> list[str]:
    """Every word of a request, in the order of the alphabet."""
    texts = [message["content"] for message in request["messages"]]
    return sorted(" ".join([*texts, *(json.dumps(one, sort_keys=True) for one in request["tools"])]).split())


def test_ex9_2_the_diagnosis_names_nothing(read: Read, stack: Stack) -> None:
    sent = log(read(MANUAL))
    instead = [mended(json.loads(json.dumps(request))) for request in sent]
    for was, now in zip(sent, instead, strict=True):
        assert words(now) == words(was), "a word of the request was lost, or came to it"
    units = {"block_tokens": stack.block_tokens, "chunk_tokens": stack.chunk_tokens}
    found = diagnose([json.dumps(request) for request in instead], stack.renderer, **units)
    print(diagnosis_text(found))
    if found.culprits:
        worst = found.culprits[0]
        raise AssertionError(f"the diagnosis still names {worst.kind} in {worst.segment}")
    assert found.requests == REQUESTS, "not every request could be read"
