"""Exercise 5.1. Trim this conversation in steps.

A conversation goes on for forty turns over one manual, and the model's context ends. So somebody sends the
last messages that fit, and leaves the older ones out. From the turn on in which the history is full, every
request prefills all of its history again.

File        tutorial_tests/exercises/ex5_1_trim_in_steps.py
Change      `left_out`: how many of the oldest messages a request leaves out. More than 90 % of all turns but
            the first must be reused; no request may hold more than `MOST` messages, nor fewer than `LEAST`
            where there are as many.
Command     pytest tutorial_tests/exercises/ex5_1_trim_in_steps.py
Fails with  of the conversation is reused, and more than 90.0 % must be
Hints       lmcache-tutorial hint 5.1
"""

from lmcache_tutorial.quantities.formats import percent
from lmcache_tutorial.quantities.predict import reusable_tokens, shared_prefix_tokens

MANUAL, MESSAGE = 1_200, 50  # tokens of the manual, and of each message
TURNS = 40  # a question and an answer each
MOST, LEAST = 16, 4  # messages of the history in a request
BLOCK, CHUNK, BAR = 32, 64, 0.9

# %% yours


def left_out(messages: int) -> int:
    return max(0, messages - MOST)


# %% the judge


def prompt(number: int) -> list[int]:
    """The token ids of a turn's request: the manual, what is kept of the history, the new question."""
    history = 2 * number
    begin = left_out(history)
    assert 0 <= begin <= history, f"of {history} messages {begin} cannot be left out"
    assert history - begin <= MOST, f"{history - begin} messages do not fit, {MOST} do"
    assert history - begin >= min(history, LEAST), f"of {history} messages only {history - begin} are kept"
    return [*range(MANUAL), *range(MANUAL + begin * MESSAGE, MANUAL + (history + 1) * MESSAGE)]


def test_ex5_1_the_conversation_is_reused() -> None:
    asked: list[list[int]] = []
    prefilled = total = 0
    for number in range(TURNS):
        ids = prompt(number)
        shared = max((shared_prefix_tokens(before, ids) for before in asked), default=0)
        reused = reusable_tokens(shared, len(ids), block=BLOCK, chunk=CHUNK)
        if asked:
            prefilled, total = prefilled + len(ids) - reused, total + len(ids)
        asked.append(ids)
    rate = 1 - prefilled / total
    said = f"{percent(rate)} of the conversation is reused, and more than {percent(BAR)} must be"
    print(f"{prefilled:,} of {total:,} tokens are prefilled")
    assert rate > BAR, said
