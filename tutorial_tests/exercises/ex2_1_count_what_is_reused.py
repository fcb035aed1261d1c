"""Exercise 2.1. Count what is reused.

Write the prediction that the lesson takes from the package: how many tokens of a second prompt does the
engine's own cache give back? What stands here counts every token that stands in both prompts, wherever it
stands.

File        tutorial_tests/exercises/ex2_1_count_what_is_reused.py
Change      `reused_tokens`. Write it yourself: `quantities/predict` has it, and would teach you nothing.
Command     pytest tutorial_tests/exercises/ex2_1_count_what_is_reused.py
Fails with  a word in front: 128 tokens were predicted, and the engine reuses 0
Hints       lmcache-tutorial hint 2.1
"""

from collections.abc import Sequence

from lmcache_tutorial.quantities.predict import engine_reusable_tokens, shared_prefix_tokens

BLOCK = 32
MANUAL, QUESTION, OTHER = list(range(100)), list(range(100, 130)), list(range(200, 230))  # token ids
PAIRS = {
    "another question": (MANUAL + QUESTION, MANUAL + OTHER),
    "a word in front": (MANUAL + QUESTION, [999, *MANUAL, *QUESTION]),
    "the same words in another order": (MANUAL + QUESTION, QUESTION + MANUAL),
    "the same prompt": (MANUAL + QUESTION, MANUAL + QUESTION),
    "the same prompt of whole blocks": (MANUAL[:96], MANUAL[:96]),
    "a prompt that goes on": (MANUAL[:96], MANUAL + QUESTION),
    "two words": (MANUAL[:2], MANUAL[:2]),
}

# %% yours


def reused_tokens(first: Sequence[int], second: Sequence[int], block: int) -> int:
    in_both = set(first) & set(second)
    return len(in_both) // block * block


# %% the judge


def test_ex2_1_the_engine_reuses_what_was_counted() -> None:
    for name, (first, second) in PAIRS.items():
        shared = shared_prefix_tokens(first, second)
        expected = engine_reusable_tokens(shared, len(second), BLOCK)
        counted = reused_tokens(first, second, BLOCK)
        said = f"{name}: {counted} tokens were predicted, and the engine reuses {expected}"
        assert counted == expected, said
