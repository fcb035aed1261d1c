"""Exercise 2.2. Ask so that it is reused.

An application asks question after question about one manual, each with the words below. Its users wait for
the whole prefill every time, though every prompt but its question is the same.

File        tutorial_tests/exercises/ex2_2_ask_so_that_it_is_reused.py
Change      `messages`: arrange question and manual so that more than 90 % of the second prompt is reused.
Command     pytest tutorial_tests/exercises/ex2_2_ask_so_that_it_is_reused.py
Fails with  of the second prompt was reused, and more than
Hints       lmcache-tutorial hint 2.2
"""

from typing import Any

from lmcache_tutorial.asking.ask import Asker
from lmcache_tutorial.graphs.told import told
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.quantities.formats import percent
from lmcache_tutorial.quantities.statistics import hit_rate
from lmcache_tutorial.settings.bars import Thresholds
from lmcache_tutorial.stack.stack import Stack

MANUAL = Document("lmcache-source", size="long", seed=12)
QUESTIONS = ("Which class stores a chunk?", "What decides which chunk is evicted first?")
Messages = list[dict[str, str]]

# %% yours


def messages(manual: str, question: str) -> Messages:
    return [
        {"role": "system", "content": f"Find the answer to this question: {question}"},
        {"role": "user", "content": manual},
    ]


# %% the judge


def test_ex2_2_the_second_question_finds_the_manual(
    ask: Asker, sender: Any, read: Read, stack: Stack, bars: Thresholds
) -> None:
    manual = fresh(read(MANUAL))
    prompts = [messages(manual, question) for question in QUESTIONS]
    for prompt, question in zip(prompts, QUESTIONS, strict=True):
        text = "\n".join(message["content"] for message in prompt)
        assert manual in text, "the manual is not in the prompt, word for word"
        assert question in text, "the question is not in the prompt"
    turns = [ask(sender, {"messages": prompt}) for prompt in prompts]
    print(told(stack, [turn.call for turn in turns]))
    rate, bar = hit_rate([turns[1].tokens]), bars.min_hit_rate
    said = f"{percent(rate)} of the second prompt was reused, and more than {percent(bar)} must be"
    assert rate > bar, said
