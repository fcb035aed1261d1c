"""Exercise 8.1. Store only what will pay.

A request can ask LMCache not to store it. This application lets all of them be stored: also those that are
shorter than a chunk, and those that a slow tier would bring later than the engine computes them.

The lines are examples. `Line.through` makes such ones of lesson 8's medians on your machine.

File        tutorial_tests/exercises/ex8_1_store_what_will_pay.py
Change      `is_to_be_stored`: whether a prompt of so many tokens is worth it, by the two lines and the chunk.
Command     pytest tutorial_tests/exercises/ex8_1_store_what_will_pay.py
Fails with  is stored, and loading it would never pay
Hints       lmcache-tutorial hint 8.1
"""

from lmcache_tutorial.quantities.break_even import Line, break_even_tokens

CHUNK = 64
LENGTHS = (40, 63, 65, 100, 200, 400, 1_000, 5_000)  # tokens
COMPUTE = Line(fixed_s=0.02, token_s=0.001)
LOADS = {
    "memory": Line(fixed_s=0.03, token_s=0.00005),
    "a disk far away": Line(fixed_s=0.25, token_s=0.0002),
    "a tier that is too slow": Line(fixed_s=0.03, token_s=0.002),
}

# %% yours


def is_to_be_stored(prompt_tokens: int, compute: Line, load: Line, chunk: int) -> bool:
    return True


# %% the judge


def test_ex8_1_what_pays_is_stored_and_nothing_else() -> None:
    for tier, load in LOADS.items():
        least = break_even_tokens(COMPUTE, load)
        for tokens in LENGTHS:
            pays = tokens >= CHUNK and tokens > least
            stored = is_to_be_stored(tokens, COMPUTE, load, CHUNK)
            said = f"{tier}: a prompt of {tokens:,} tokens"
            assert pays or not stored, f"{said} is stored, and loading it would never pay"
            assert stored or not pays, f"{said} is not stored, and loading it would pay"
