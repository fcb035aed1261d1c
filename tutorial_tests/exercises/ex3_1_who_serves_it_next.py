"""Exercise 3.1. Who serves it next?

One prompt is asked four times: cold; again; after the engine's own cache was emptied, as by a restart; and
once more. What stands here believes that an engine's cache is there for ever. Predict who serves the prompt
each time, and how many of its tokens, before you run it: the servers' counters are the judge.

The prompt is no whole number of blocks, and so none of chunks.

File        tutorial_tests/exercises/ex3_1_who_serves_it_next.py
Change      `predicted`: for each ask the tokens from the engine's own cache, and those from LMCache.
Command     pytest tutorial_tests/exercises/ex3_1_who_serves_it_next.py
Fails with  engine emptied: predicted
Hints       lmcache-tutorial hint 3.1
"""

from lmcache_tutorial.asking.ask import Asker
from lmcache_tutorial.asking.cache_state import Start
from lmcache_tutorial.graphs.reader import Reader
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.stack.stack import Stack

MANUAL = Document("lmcache-source", size="medium", seed=13)
QUESTION = "Which class stores a chunk?"
ASKS: dict[str, Start] = {  # what is asked -> what the caches hold then, which the ask proves
    "cold": "cold",
    "again": "engine",
    "engine emptied": "lmcache",
    "once more": "engine",
}

# %% yours


def predicted(prompt: int, block: int, chunk: int) -> list[tuple[int, int]]:
    blocks = prompt // block * block
    return [(0, 0), (blocks, 0), (blocks, 0), (blocks, 0)]


# %% the judge


def test_ex3_1_every_ask_is_served_as_predicted(ask: Asker, reader: Reader, read: Read, stack: Stack) -> None:
    manual = fresh(read(MANUAL))
    while (prompt := len(stack.tokenize(Reader.messages(manual, QUESTION)))) % stack.block_tokens == 0:
        manual += " more"
    state = {"manual": manual, "question": QUESTION}
    tokens = [ask(reader.graph, state, start=start).tokens for start in ASKS.values()]
    measured = [(one.engine, one.lmcache) for one in tokens]
    expected = predicted(prompt, stack.block_tokens, stack.chunk_tokens)
    print(f"a prompt of {prompt:,} tokens, in blocks of {stack.block_tokens}, chunks of {stack.chunk_tokens}")
    print(f"{'ask':<16}{'predicted (engine, LMCache)':<30}measured")
    for name, one, other in zip(ASKS, expected, measured, strict=True):
        print(f"{name:<16}{one!s:<30}{other}")
    for name, one, other in zip(ASKS, expected, measured, strict=True):
        assert one == other, f"{name}: predicted {one}, measured {other} (engine's own cache, LMCache)"
