"""Exercise 3.2. Which engine came back without LMCache?

Three engines were restarted this night, all beside one LMCache that has kept the documents of yesterday.
One of them may have come back without its connector, as lesson 3's control does on purpose. You have
what each request since then reused, and of whom, in the order of the requests.

What stands here names the engines that reused nothing at all. That misses an engine that has learned a
document by itself meanwhile, and it accuses one that was asked about nothing but new documents.

File        tutorial_tests/exercises/ex3_2_which_engine_lost_lmcache.py
Change      `without_lmcache`: name the engines that the requests prove to be without LMCache.
Command     pytest tutorial_tests/exercises/ex3_2_which_engine_lost_lmcache.py
Fails with  came back without LMCache, and you name
Hints       lmcache-tutorial hint 3.2
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lmcache_tutorial.quantities.predict import engine_reusable_tokens, lmcache_reusable_tokens
from lmcache_tutorial.quantities.records import TokenSources

PROMPT, BLOCK, CHUNK = 1_230, 32, 64  # tokens; every document has as many, and every question is the same


@dataclass(frozen=True)
class Asked:
    """A request since the restart: the engine, the document, whether LMCache had it yesterday, its tokens."""

    engine: str
    document: str
    stored_yesterday: bool
    tokens: TokenSources


# %% yours


def without_lmcache(requests: Sequence[Asked]) -> set[str]:
    reused: dict[str, int] = {}
    for one in requests:
        reused[one.engine] = reused.get(one.engine, 0) + one.tokens.reused
    return {engine for engine, tokens in reused.items() if tokens == 0}


# %% the judge

YESTERDAY = {"manual", "handbook", "price list"}
NIGHTS = {  # requests as "engine: document"; the engines in brackets are those without LMCache
    "asked twice": ("a: manual, b: manual, b: manual, c: manual", {"b"}),
    "a new document": ("a: manual, b: letter, c: handbook", set[str]()),
    "all is well": ("a: manual, b: manual, c: manual, a: manual", set[str]()),
    "two of them": ("a: handbook, c: handbook, a: handbook, b: price list, c: handbook", {"a", "c"}),
    "a new one, and an old one": ("b: letter, b: letter, b: manual, a: letter, c: manual", {"b"}),
}


def night(written: str, lost: set[str]) -> list[Asked]:
    """What lesson 3's closed forms say of each request."""
    own: set[tuple[str, str]] = set()
    requests = []
    for engine, document in (request.split(": ") for request in written.split(", ")):
        in_engine = engine_reusable_tokens(PROMPT, PROMPT, BLOCK) if (engine, document) in own else 0
        stored = document in YESTERDAY and engine not in lost and not in_engine
        lmcache = lmcache_reusable_tokens(PROMPT, PROMPT, CHUNK) if stored else 0
        tokens = TokenSources(PROMPT - in_engine - lmcache, in_engine, lmcache, 0)
        requests.append(Asked(engine, document, document in YESTERDAY, tokens))
        own.add((engine, document))
    return requests


def test_ex3_2_the_engines_without_lmcache_are_named() -> None:
    for name, (written, lost) in NIGHTS.items():
        named = without_lmcache(night(written, lost))
        said = f"{name}: {sorted(lost)} came back without LMCache, and you name {sorted(named)}"
        assert named == lost, said
