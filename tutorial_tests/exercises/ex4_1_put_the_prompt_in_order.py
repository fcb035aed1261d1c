"""Exercise 4.1. Put this agent's prompt in order.

A help desk's agent sends this prompt with every ticket. Nearly all of it is the same each time: the rules,
the account, the tools, the manual. Nothing of it is reused.

File        tutorial_tests/exercises/ex4_1_put_the_prompt_in_order.py
Change      `prompt`: put the same segments in an order, and into roles, so that more than 90 % of the static
            tokens are reused. Leave no word out, and none of the `change` that segments state.
Command     pytest tutorial_tests/exercises/ex4_1_put_the_prompt_in_order.py
Fails with  of the static tokens are reused, and more than
Hints       lmcache-tutorial hint 4.1
"""

import json
from dataclasses import dataclass
from datetime import datetime

from lmcache_tutorial.graphs.pairs import Pairs
from lmcache_tutorial.graphs.told import told
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.prompts.layout import Segment
from lmcache_tutorial.quantities.formats import percent
from lmcache_tutorial.settings.bars import Thresholds
from lmcache_tutorial.stack.stack import Stack

MANUAL = Document("lmcache-source", size="long", seed=14)
RULES = "You are the help desk of a storage system. Answer from the manual, in one sentence."
TOOLS = ("close_ticket", "look_up", "restart_service")


@dataclass(frozen=True)
class Ticket:
    """What the agent is given; `tools` comes from a set, and `account` from a database, in no order."""

    at: str
    user: str
    question: str
    tools: tuple[str, ...]
    account: dict[str, str]


def tool(name: str) -> Segment:
    parameters = {"type": "object", "properties": {"subject": {"type": "string"}}}
    function = {"name": name, "description": f"Use it to {name.replace('_', ' ')}.", "parameters": parameters}
    return Segment(name, "static", json.dumps({"type": "function", "function": function}), "tools")


# %% yours


def prompt(ticket: Ticket, rules: str, manual: str) -> list[Segment]:
    return [
        Segment("clock", "turn", f"It is {ticket.at}."),
        Segment("user", "turn", f"You talk to {ticket.user}."),
        Segment("rules", "static", rules),
        Segment("account", "static", json.dumps(ticket.account)),
        *map(tool, ticket.tools),
        Segment("manual", "static", manual),
        Segment("question", "turn", ticket.question, "user"),
    ]


# %% the judge


def tickets() -> tuple[Ticket, Ticket]:
    """Two tickets, with what must not matter in another order."""
    account = {"customer": "Nordwind", "contract": "gold", "region": "north"}
    backwards = dict(reversed(account.items()))
    at = [f"{datetime.now():%S.%f seconds past %H:%M}" for _ in range(2)]
    return (
        Ticket(at[0], "Ada", "Which class stores a chunk?", TOOLS, account),
        Ticket(at[1], "Grace", "What decides which chunk is evicted first?", TOOLS[::-1], backwards),
    )


def check_contents(segments: list[Segment], ticket: Ticket, rules: str, manual: str) -> None:
    """Nothing may be left out, and nothing that changes may be called static."""
    texts = {segment.name: segment.text for segment in segments}
    changing = {segment.name for segment in segments if segment.change != "static"}
    assert set(texts) == {"clock", "user", "rules", "account", *TOOLS, "manual", "question"}, sorted(texts)
    assert changing == {"clock", "user", "question"}, f"what changes is {sorted(changing)}"
    assert json.loads(texts["account"]) == ticket.account, "the account is another one"
    assert (texts["rules"], texts["manual"]) == (rules, manual), "rules or manual are not what they were"
    told_of = {"clock": ticket.at, "user": ticket.user, "question": ticket.question}
    assert all(word in texts[name] for name, word in told_of.items()), "the ticket is not in the prompt"


def test_ex4_1_the_static_text_is_reused(pairs: Pairs, read: Read, stack: Stack, bars: Thresholds) -> None:
    rules, manual = fresh(RULES), fresh(read(MANUAL))  # whichever leads, no earlier run has sent it
    asked = []
    for ticket in tickets():
        segments = prompt(ticket, rules, manual)
        check_contents(segments, ticket, rules, manual)
        asked.append(pairs.send(segments, "as it is"))
    print(told(stack, [turn.call for _, turn in asked]))
    layout, turn = asked[1]
    rate = layout.tokens_before(turn.tokens.reused, "static") / layout.tokens("static")
    bar = bars.min_hit_rate
    said = f"{percent(rate)} of the static tokens are reused, and more than {percent(bar)} must be"
    assert rate > bar, said
