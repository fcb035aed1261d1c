"""Exercise 7.2. Share what is public, and no more.

Two customers use one deployment. Both ask about a public handbook, and each about a contract of its own. A
fast answer tells whoever asks that somebody has asked the same before; so what is private must not be shared.
Somebody has given each customer a salt of its own. That is safe, and the handbook is prefilled for each.

File        tutorial_tests/exercises/ex7_2_share_what_is_public.py
Change      `salt`: the `cache_salt` of a request; an empty one is none. The handbook shall be shared, and a
            contract never.
Command     pytest tutorial_tests/exercises/ex7_2_share_what_is_public.py
Fails with  the handbook was prefilled again for another customer
Hints       lmcache-tutorial hint 7.2
"""

from lmcache_tutorial.asking.ask import Asker
from lmcache_tutorial.graphs.reader import Reader
from lmcache_tutorial.graphs.told import told
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.quantities.records import Call
from lmcache_tutorial.stack.stack import Stack

TEXT = Document("lmcache-source", size="short", seed=17)
QUESTION = "Which class stores a chunk?"
PUBLIC = {"handbook": True, "contract": False}
ASKED = [("handbook", "north"), ("handbook", "south"), ("contract", "north"), ("contract", "south")]
ASKED += [("contract", "north")]  # which asks about its own contract again

# %% yours


def salt(customer: str, *, public: bool) -> str:
    return customer


# %% the judge


def test_ex7_2_the_handbook_is_shared_and_a_contract_is_not(
    ask: Asker, reader: Reader, read: Read, stack: Stack
) -> None:
    texts = {name: fresh(read(TEXT)) for name in PUBLIC}

    def request(document: str, customer: str) -> Call:
        own = salt(customer, public=PUBLIC[document])
        options = {"extra_body": {"cache_salt": own}} if own else {}
        state = {"manual": texts[document], "question": QUESTION, "options": options}
        return ask(reader.graph, state).call

    calls = [request(*asked) for asked in ASKED]
    print(*(f"{place}: {who} asks about a {what}" for place, (what, who) in enumerate(ASKED, 1)), sep="\n")
    print(told(stack, calls))
    reused = [call.cached_tokens for call in calls]
    assert reused[1] > 0, "the handbook was prefilled again for another customer"
    assert reused[3] == 0, f"a stranger found {reused[3]:,} tokens of a contract, and learned who had asked"
    assert reused[4] > 0, "a customer's own contract was prefilled again"
