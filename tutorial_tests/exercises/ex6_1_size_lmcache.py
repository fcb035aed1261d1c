"""Exercise 6.1. Size LMCache for this working set.

Documents are asked in turn, again and again, after each restart of the engine. Somebody has given LMCache as
much memory as the KV of all documents takes, byte for byte. Documents are missing at the second pass.

The judge is the lesson's model of LMCache 0.5.6, with pauses in which its eviction thread wakes.

File        tutorial_tests/exercises/ex6_1_size_lmcache.py
Change      `memory_gib`: enough for every document to stay, and at most a tenth more than is needed.
Command     pytest tutorial_tests/exercises/ex6_1_size_lmcache.py
Fails with  is reused, since LMCache gave the rest up
Hints       lmcache-tutorial hint 6.1
"""

from lmcache_tutorial.quantities.formats import percent
from lmcache_tutorial.quantities.memories import GIB, CacheMemory, TierSize, memory_bytes, object_bytes
from lmcache_tutorial.quantities.outcomes import possible
from lmcache_tutorial.quantities.room import Room
from lmcache_tutorial.quantities.statistics import hit_rate
from lmcache_tutorial.quantities.tiers import Tiers

BLOCK, CHUNK = 32, 64
KV_BYTES = 23_040  # of a token of the tutorial's model, in 16 bits
WORKING_SETS = ((4, 1_230), (10, 700), (3, 5_000))  # documents, tokens of each prompt
BAR = 0.9

# %% yours


def memory_gib(documents: int, prompt_tokens: int, kv_bytes_per_token: int) -> float:
    return documents * prompt_tokens * kv_bytes_per_token / GIB


# %% the judge


def second_pass(documents: int, prompt_tokens: int, gib: float) -> float:
    """The hit rate of the second pass, from LMCache's memory alone."""
    size = TierSize(memory_bytes(gib), object_bytes(CHUNK, KV_BYTES))
    tiers = Tiers(None, CacheMemory(size), chunk_tokens=CHUNK)
    prompts = [[document] * prompt_tokens for document in range(documents)]
    return hit_rate(one.lowest for one in possible(tiers, prompts * 2, ticks=None)[documents:])


def test_ex6_1_every_document_stays() -> None:
    for documents, tokens in WORKING_SETS:
        gib = memory_gib(documents, tokens, KV_BYTES)
        rate = second_pass(documents, tokens, gib)
        said = (
            f"{documents} documents of {tokens:,} tokens in {gib:.3f} GiB: {percent(rate)} of a second pass"
        )
        print(said, "is reused")
        assert rate > BAR, f"{said} is reused, since LMCache gave the rest up"
        needed = Room(tokens, BLOCK, CHUNK, KV_BYTES).cache_gib(documents)
        assert gib <= 1.1 * needed, f"{said} is reused, and {needed:.3f} GiB would do"
