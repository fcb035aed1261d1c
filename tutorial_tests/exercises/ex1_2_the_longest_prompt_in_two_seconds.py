"""Exercise 1.2. The longest prompt in two seconds.

Your users wait for a first token for two seconds, and no longer. How long may a cold prompt be? Somebody has
divided the TTFT of a prompt of 100 tokens by 100, and taken that for the price of a token. That would allow
shorter prompts than your engine does, on each of the three machines below.

The machines are examples. `Line.through` makes such a line of your own: of the medians of lesson 1's shortest
and longest prompt.

File        tutorial_tests/exercises/ex1_2_the_longest_prompt_in_two_seconds.py
Change      `longest_prompt`: return the most tokens whose TTFT is not above the limit.
Command     pytest tutorial_tests/exercises/ex1_2_the_longest_prompt_in_two_seconds.py
Fails with  a longer prompt keeps the limit too
Hints       lmcache-tutorial hint 1.2
"""

from lmcache_tutorial.quantities.break_even import Line

LIMITS_S = (0.5, 2.0, 10.0)
MACHINES = {
    "a laptop": Line(fixed_s=0.05, token_s=0.0008),
    "an old server": Line(fixed_s=0.31, token_s=0.0041),
    "a GPU": Line(fixed_s=0.02, token_s=0.000037),
}

# %% yours


def longest_prompt(line: Line, limit_s: float) -> int:
    a_token_s = line.seconds(100) / 100
    return int(limit_s / a_token_s)


# %% the judge


def test_ex1_2_the_prompt_fills_the_limit() -> None:
    for machine, line in MACHINES.items():
        for limit_s in LIMITS_S:
            tokens = longest_prompt(line, limit_s)
            said = f"{machine}, {limit_s:g} s: {tokens:,} tokens take {line.seconds(tokens):.2f} s"
            assert line.seconds(tokens) <= limit_s, f"{said}, and that is too long"
            assert line.seconds(tokens + 1) > limit_s, f"{said}, and a longer prompt keeps the limit too"
