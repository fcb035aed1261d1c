"""Exercise 5.2. Let this fan-out wait once.

Three experts start side by side over one manual, and each of them prefills it. One engine can hand on the
blocks of a prompt while it is still being prefilled, so once would do.

File        tutorial_tests/exercises/ex5_2_let_the_fan_out_wait_once.py
Change      `messages`: what an expert sends. Keep who the expert is, and the manual, word for word.
Command     pytest tutorial_tests/exercises/ex5_2_let_the_fan_out_wait_once.py
Fails with  times, and once is enough
Hints       lmcache-tutorial hint 5.2
"""

from typing import Any, TypedDict

from langgraph.graph import END, START, StateGraph

from lmcache_tutorial.asking.ask import Asker
from lmcache_tutorial.graphs.told import told
from lmcache_tutorial.prompts.documents import Document, Read, fresh
from lmcache_tutorial.stack.stack import Stack

MANUAL = Document("lmcache-source", size="medium", seed=15)
EXPERTS = ("storage", "transfer", "eviction")

# %% yours


def messages(expert: str, manual: str) -> list[tuple[str, str]]:
    return [("system", f"You are the {expert} expert.\n\n{manual}"), ("user", "Say what you see.")]


# %% the judge


class Reading(TypedDict, total=False):
    """The state of the graph."""

    manual: str


def fan_out(model: Any) -> Any:
    """Three experts, each a node of its own."""

    def reader(expert: str) -> Any:
        def read(state: Reading) -> Reading:
            model.invoke(messages(expert, state["manual"]))
            return {}

        return read

    graph = StateGraph(Reading)
    for expert in EXPERTS:
        graph.add_node(expert, reader(expert))
        graph.add_edge(START, expert)
        graph.add_edge(expert, END)
    return graph.compile()


def test_ex5_2_the_manual_is_prefilled_once(ask: Asker, read: Read, stack: Stack) -> None:
    manual = fresh(read(MANUAL))
    for expert in EXPERTS:
        text = "\n".join(content for _, content in messages(expert, manual))
        assert manual in text, "the manual is not in the prompt, word for word"
        assert f"You are the {expert} expert." in text, "nobody tells the expert who it is"
    model = ask.chat_model(max_tokens=1, logprobs=True)  # which tell of a token without text, too
    turn = ask(fan_out(model), {"manual": manual})
    print(told(stack, sorted(turn.calls, key=lambda call: call.cached_tokens)))  # they end in any order
    times = turn.tokens.computed / stack.count_tokens(manual)
    assert times < 2, f"the manual was prefilled {times:.1f} times, and once is enough"
