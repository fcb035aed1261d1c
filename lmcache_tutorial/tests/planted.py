"""Logs with one planted culprit each."""

import json
import random
import uuid

from lmcache_tutorial.prompts.documents import Document, full_text

SOURCE = full_text(Document("logs", "long", seed=9), 60_000)
MANUAL = SOURCE[:2_400]
REQUESTS = 12


def cut(start: int, length: int) -> str:
    return SOURCE[start : start + length].replace("\n\n", "\n")


def asked(number: int) -> dict:
    return {
        "role": "user",
        "content": f"{'abcdefghijklmnop'[number % 16]}: what is {cut(5_000 + 37 * number, 40)}?",
    }


def shuffled(items, chance):
    items = list(items)
    chance.shuffle(items)
    return items


def tool(name: str, keys=("q", "limit", "page")) -> dict:
    properties = {key: {"type": "string"} for key in keys}
    parameters = {"type": "object", "properties": properties}
    return {
        "type": "function",
        "function": {"name": name, "description": f"Finds {name}", "parameters": parameters},
    }


def system_with(line: str, number: int) -> dict:
    return {"messages": [{"role": "system", "content": f"{line}\n{MANUAL}"}, asked(number)]}


def history(number: int) -> list[dict]:
    turns = []
    for turn in range(number):
        turns += [asked(turn), {"role": "assistant", "content": cut(9_000 + 300 * turn, 260)}]
    return turns


def with_history(messages: list[dict], number: int) -> dict:
    return {"messages": [{"role": "system", "content": "You help."}, *messages, asked(number)]}


def planted(name: str, number: int, chance: random.Random) -> dict:
    """Return the request of this number in a log with that culprit."""
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
    brief = {"role": "system", "content": "Be brief."}
    long_question = {"role": "user", "content": f"{MANUAL}\n{asked(number)['content']}"}
    passages = [f"Passage {n}: {cut(20_000 + 400 * n, 200)}" for n in range(8)]
    summary = {"role": "user", "content": f"So far: {cut(30_000 + 300 * number, 200)}"}
    turns = history(number)
    requests = {
        "timestamp: a clock": lambda: system_with(f"Now: 2026-11-24T10:{number:02d}:1{number % 10}Z", number),
        "timestamp: a date": lambda: system_with(f"Today is {number + 1} November 2026.", number),
        "timestamp: seconds": lambda: system_with(f"t={1_795_500_000 + 61 * number}", number),
        "request_id: uuid": lambda: system_with(f"Request {uuid.UUID(int=chance.getrandbits(128))}", number),
        "request_id: session": lambda: system_with(f"session_id=sess_{chance.getrandbits(40):x}", number),
        "request_id: number": lambda: system_with(f"Ticket #{chance.randrange(10**6)}", number),
        "user_text_above_static: user": lambda: {
            "messages": [{"role": "user", "content": f"{asked(number)['content']}\n\nThe manual:\n{MANUAL}"}]
        },
        "user_text_above_static: system": lambda: system_with(
            f"The user asks {asked(number)['content']}", number
        ),
        "tool_order": lambda: {
            "messages": [brief, long_question],
            "tools": shuffled(map(tool, words), chance),
        },
        "json_key_order: system": lambda: system_with(
            "Settings: " + json.dumps({word: word * 3 for word in shuffled(words, chance)}), number
        ),
        "json_key_order: tools": lambda: {
            "messages": [brief, long_question],
            "tools": [tool("alpha", shuffled(["q", "limit", "page", "sort"], chance))],
        },
        "whitespace": lambda: system_with("You help." + " " * chance.randrange(9), number),
        "history_trimmed": lambda: with_history(turns[-6:], number),
        "history_rewritten: summary": lambda: with_history(
            [summary, *turns[-2:]] if number > 2 else turns, number
        ),
        "history_rewritten: edited": lambda: with_history(
            [{**turn, "content": f"[{'x' * number}] {turn['content']}"} for turn in turns], number
        ),
        "retrieval_order": lambda: {
            "messages": [
                brief,
                {
                    "role": "user",
                    "content": "\n\n".join([*shuffled(passages, chance), asked(number)["content"]]),
                },
            ]
        },
        "short_prefix": lambda: {
            "messages": [
                {
                    "role": "system",
                    "content": "Be terse.",
                },
                {"role": "user", "content": cut(20_000 + 700 * number, 400)},
            ]
        },
        "timestamp: above manual and question": lambda: {
            "messages": [
                {"role": "user", "content": f"[10:{number:02d}:00]\n{MANUAL}\n{asked(number)['content']}"}
            ]
        },
        "request_id: user number": lambda: system_with(f"User u{chance.randrange(10**5)}", number),
        "user_text_above_static: two messages": lambda: {
            "messages": [asked(number), {"role": "user", "content": MANUAL}]
        },
        "retrieval_order: earlier turn": lambda: {
            "messages": [
                brief,
                {"role": "user", "content": "\n\n".join(shuffled(passages, chance))},
                {"role": "assistant", "content": "Read."},
                asked(number),
            ]
        },
        "history_rewritten: summary in the system": lambda: {
            "messages": [
                {"role": "system", "content": f"You help. Summary: {cut(30_000 + 300 * number, 200)}"},
                *turns[-2:],
                asked(number),
            ]
        },
        "nothing": lambda: system_with("You help.", number),
    }
    return requests[name]()


CULPRITS_IN = {
    "system": [
        "timestamp: a clock",
        "timestamp: a date",
        "timestamp: seconds",
        "request_id: uuid",
        "request_id: session",
        "request_id: number",
        "request_id: user number",
        "user_text_above_static: system",
        "json_key_order: system",
        "history_rewritten: summary in the system",
        "whitespace",
        "short_prefix",
    ],
    "tools": ["tool_order", "json_key_order: tools"],
    "user": [
        "user_text_above_static: user",
        "user_text_above_static: two messages",
        "timestamp: above manual and question",
        "retrieval_order",
    ],
    "history": [
        "history_trimmed",
        "history_rewritten: summary",
        "history_rewritten: edited",
        "retrieval_order: earlier turn",
    ],
}
PLANTED = {name: segment for segment, names in CULPRITS_IN.items() for name in names}


def log_of(name: str) -> list[str]:
    chance = random.Random(5)
    return [json.dumps(planted(name, number, chance)) for number in range(REQUESTS)]
