"""Exercise 1.1. A prompt that no cache knows.

A benchmark asks about the same manual again and again, and means to measure a cold prefill each time. So
somebody has put a word that is used only once into every copy. The times are too good to be true all the
same: what is reused?

File        tutorial_tests/exercises/ex1_1_a_prompt_that_no_cache_knows.py
Change      `new_copy`, which returns the text with the word in it: put the word where it makes the copy cold.
Command     pytest tutorial_tests/exercises/ex1_1_a_prompt_that_no_cache_knows.py
Fails with  a copy was not cold
Hints       lmcache-tutorial hint 1.1
"""

import secrets

from lmcache_tutorial.asking.ask import Asker
from lmcache_tutorial.graphs.reader import Reader
from lmcache_tutorial.graphs.told import told
from lmcache_tutorial.prompts.documents import Document, Read
from lmcache_tutorial.stack.stack import Stack

MANUAL = Document("lmcache-source", size="short", seed=11)
QUESTION = "Which class stores a chunk?"

# %% yours


def new_copy(text: str, word: str) -> str:
    return f"{text}\n\nThis is copy {word}."


# %% the judge


def test_ex1_1_every_copy_is_cold(ask: Asker, reader: Reader, read: Read, stack: Stack) -> None:
    words = [secrets.token_hex(8) for _ in range(2)]
    copies = [new_copy(read(MANUAL), word) for word in words]
    calls = [ask(reader.graph, {"manual": copy, "question": QUESTION}).call for copy in copies]
    print(told(stack, calls))
    assert all(read(MANUAL) in copy for copy in copies), "the manual is not in the copy"
    assert all(word in copy for word, copy in zip(words, copies, strict=True)), "the word is not in the copy"
    worst = max(calls, key=lambda call: call.cached_tokens)
    reused, prompt = worst.cached_tokens, worst.prompt_tokens
    assert reused == 0, f"a copy was not cold: {reused:,} of its {prompt:,} tokens were reused"
