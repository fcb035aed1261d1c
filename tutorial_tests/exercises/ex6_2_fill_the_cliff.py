"""Exercise 6.2. Fill the cliff.

Eight documents are asked in turn, and then once more. LMCache's memory has room for four of them, and so a
tier of files was put behind it, with room for eight. The second pass finds nothing all the same.

The judge is the lesson's model of LMCache 0.5.6, with pauses in which its eviction threads wake.

File        tutorial_tests/exercises/ex6_2_fill_the_cliff.py
Change      `FILES_FOR`: the smallest tier, in documents, behind which more than 90 % of the second pass are
            reused. And `RETAIN`, so that some of it comes from memory, which is faster.
Command     pytest tutorial_tests/exercises/ex6_2_fill_the_cliff.py
Fails with  of the second pass is reused, and more than 90.0 % must be
Hints       lmcache-tutorial hint 6.2
"""

from lmcache_tutorial.quantities.formats import percent
from lmcache_tutorial.quantities.memories import (
    GIB,
    CacheMemory,
    SecondTier,
    TierSize,
    memory_bytes,
    object_bytes,
)
from lmcache_tutorial.quantities.outcomes import possible
from lmcache_tutorial.quantities.records import TokenSources
from lmcache_tutorial.quantities.room import Room
from lmcache_tutorial.quantities.statistics import hit_rate, total
from lmcache_tutorial.quantities.tiers import Tiers

ROOM = Room(prompt_tokens=1_230, block_tokens=32, chunk_tokens=64, kv_bytes_per_token=23_040)
DOCUMENTS, IN_MEMORY = 8, 4
BAR = 0.9

# %% yours

FILES_FOR = 8  # documents that the tier has the bytes for
RETAIN = True  # what comes back from the files stays in memory, like a new chunk

# %% the judge


def second_pass(files_for: int, *, retain: bool) -> TokenSources:
    """Who serves the second pass, where the engine's own cache holds nothing; the least that is possible."""
    object_size = object_bytes(ROOM.chunk_tokens, ROOM.kv_bytes_per_token)
    memory = CacheMemory(TierSize(memory_bytes(ROOM.cache_gib(IN_MEMORY)), object_size))
    file_size = ROOM.chunk_tokens * ROOM.kv_bytes_per_token
    files = SecondTier(TierSize(int(ROOM.tier_gib(files_for) * GIB), file_size), retain=retain)
    tiers = Tiers(None, memory, files, chunk_tokens=ROOM.chunk_tokens)
    prompts = [[document] * ROOM.prompt_tokens for document in range(DOCUMENTS)]
    return total(one.lowest for one in possible(tiers, prompts * 2, ticks=None)[DOCUMENTS:])


def test_ex6_2_the_smallest_tier_fills_the_cliff() -> None:
    found = second_pass(FILES_FOR, retain=RETAIN)
    rate = hit_rate([found])
    print(found)
    assert rate > BAR, f"{percent(rate)} of the second pass is reused, and more than {percent(BAR)} must be"
    smaller = hit_rate([second_pass(FILES_FOR - 1, retain=RETAIN)])
    assert smaller <= BAR, f"a tier for {FILES_FOR - 1} documents does as well"
    assert found.lmcache_l1 > 0, "all of it comes from files, and memory holds what nobody asks for next"
