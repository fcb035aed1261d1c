"""Exercise 4.2. The chunk at which these short system prompts pay.

Three assistants share one LMCache. Each has a short system prompt, and behind it stands what changes. With
LMCache's default chunk the shortest of them gets nothing back after a restart of its engine.

File        tutorial_tests/exercises/ex4_2_the_chunk_that_pays.py
Change      `CHUNK`: the largest one, for fewer chunks are looked up sooner, with which each assistant gets
            four fifths of its system prompt back. It is a multiple of the engine's block.
Command     pytest tutorial_tests/exercises/ex4_2_the_chunk_that_pays.py
Fails with  support gets 0 of its 150 static tokens back
Hints       lmcache-tutorial hint 4.2
"""

from lmcache_tutorial.quantities.predict import lmcache_reusable_tokens

BLOCK = 32  # tokens of the engine
STATIC = {"support": 150, "search": 215, "summary": 340}  # tokens before the first that changes
BEHIND = 400  # tokens of what changes
ENOUGH = 0.8  # of the static tokens

# %% yours

CHUNK = 256

# %% the judge


def given_back(static: int, chunk: int) -> int:
    """What LMCache serves of such a prompt to an engine that holds nothing [tokens]."""
    return lmcache_reusable_tokens(static, static + BEHIND, chunk)


def test_ex4_2_every_assistant_gets_its_prompt_back() -> None:
    assert CHUNK > 0, "a chunk has tokens"
    assert CHUNK % BLOCK == 0, f"a chunk is a number of whole blocks of {BLOCK} tokens"
    for name, static in STATIC.items():
        back = given_back(static, CHUNK)
        said = f"with chunks of {CHUNK} {name} gets {back} of its {static} static tokens back"
        assert back >= ENOUGH * static, said
    for larger in range(CHUNK + BLOCK, max(STATIC.values()) + 1, BLOCK):
        enough = all(given_back(static, larger) >= ENOUGH * static for static in STATIC.values())
        assert not enough, f"chunks of {larger} do as well, and there are fewer of them"
