"""An agent as people build it: a router, three experts over one manual, a tool, turns, a checkpointer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypedDict

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolCall, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph

from ..asking.ask import Asker
from ..prompts.layout import predicted_reuse
from ..quantities.records import Call
from ..stack.stack import Stack

EXPERTS = ("storage", "transfer", "eviction")
ANSWER_TOKENS = 6
TOKEN_IDS = {"return_token_ids": True}  # the engine's own ids of what it generated
WORDS = ("chunk", "block", "store", "memory")
LOOK_UP: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Finds the first line of the manual with a word in it.",
        "parameters": {
            "type": "object",
            "properties": {"word": {"enum": list(WORDS)}},
            "required": ["word"],
        },
    },
}
TOOL_TOKENS = 60  # of LOOK_UP in a prompt, at least
Policy = Callable[[str, Sequence[BaseMessage]], list[BaseMessage]]
"""(manual, history) -> the messages that every request of this turn begins with."""


def toolbox(tokens: int) -> list[dict[str, Any]]:
    """Build tools like :data:`LOOK_UP` under as many names as it takes to fill a prompt with so many tokens.

    >>> [tool["function"]["name"] for tool in toolbox(60)]
    ['look_up_0', 'look_up_1', 'look_up_2']
    """
    names = [f"look_up_{number}" for number in range(2 + tokens // TOOL_TOKENS)]
    return [{**LOOK_UP, "function": {**LOOK_UP["function"], "name": name}} for name in names]


class Talk(TypedDict, total=False):
    """The state of a conversation; the checkpointer keeps it between turns."""

    manual: str
    question: str
    history: list[BaseMessage]
    head: list[BaseMessage]
    expert: str
    called: list[BaseMessage]


class Agents:
    """Builds graphs on the stack's model, which is too small to choose well: its choices are constrained."""

    def __init__(self, ask: Asker) -> None:
        self._model = ask.chat_model(max_tokens=ANSWER_TOKENS, extra_body=TOKEN_IDS)

    def talk(self, policy: Policy) -> Any:
        """A conversation: route the question, let the expert call its tool, answer, remember."""
        plain = self._model.bind(tools=[LOOK_UP], tool_choice="none")

        def choose(messages: Sequence[BaseMessage], choices: Sequence[str]) -> str:
            """Let the model choose a word; one that is cut off, as by a long tokenization, is the first."""
            extra = {**TOKEN_IDS, "structured_outputs": {"choice": list(choices)}}
            said = str(plain.bind(extra_body=extra).invoke(messages).content)
            return said if said in choices else choices[0]

        def route(state: Talk) -> Talk:
            head = [*policy(state["manual"], state.get("history", [])), HumanMessage(state["question"])]
            asked = HumanMessage(f"Who knows: {', '.join(EXPERTS)}?")
            return {"head": head, "expert": choose([*head, asked], EXPERTS)}

        def expert(state: Talk) -> Talk:
            task = HumanMessage(f"You are the {state['expert']} expert. Look one word up.")
            word = choose([*state["head"], task], WORDS)
            # A model of this size does not write tool calls reliably, and writing one takes it fifty tokens:
            # it chooses the argument, and the node writes the call.
            call = ToolCall(name="look_up", args={"word": word}, id=f"look-up-{word}")
            result = ToolMessage(look_up(state["manual"], word), tool_call_id=call["id"])
            return {"called": [task, AIMessage("", tool_calls=[call]), result]}

        def answer(state: Talk) -> Talk:
            said = str(plain.invoke([*state["head"], *state["called"]]).content)
            return {"history": [*state.get("history", []), HumanMessage(state["question"]), AIMessage(said)]}

        return _chain({"route": route, "expert": expert, "answer": answer}).compile(InMemorySaver())

    def fan_out(self, *, warm_up: bool = False) -> Any:
        """Three experts read one manual side by side, perhaps after one short request about it."""

        def reader(name: str) -> Any:
            def read(state: Talk) -> Talk:
                task = f"You are the {name} expert. Say what you see."
                self._model.invoke([("system", state["manual"]), ("user", task)])
                return {}

            return read

        graph = StateGraph(Talk)
        for name in EXPERTS:
            graph.add_node(name, reader(name))
            graph.add_edge("warm_up" if warm_up else START, name)
            graph.add_edge(name, END)
        if warm_up:
            graph.add_node("warm_up", reader("first"))
            graph.add_edge(START, "warm_up")
        return graph.compile()


def predicted_reuse_of(stack: Stack, calls: Sequence[Call]) -> list[int]:
    """Predict what each request reuses of those before it, and of their answers [tokens].

    Args:
        stack: which renders prompts; its block and chunk decide.
        calls: every request since its caches knew nothing of these prompts, in their order.

    Raises:
        AssertionError: our rendering is not the server's.
    """
    prompts = []
    for call in calls:
        messages, tools = call.request["messages"], call.request.get("tools", [])
        prompts.append(stack.renderer.render(messages, tools))
        assert list(prompts[-1].ids) == stack.tokenize(messages, tools), "our rendering is not the server's"
    return predicted_reuse(prompts, stack.reuse, [call.generated for call in calls])


def look_up(manual: str, word: str) -> str:
    """Return the first line of a manual that has the word in it."""
    return next((line.strip()[:120] for line in manual.splitlines() if word in line), "nothing found")


def _chain(nodes: dict[str, Any]) -> Any:
    graph = StateGraph(Talk)
    for name, node in nodes.items():
        graph.add_node(name, node)
    for before, after in zip([START, *nodes], [*nodes, END], strict=True):
        graph.add_edge(before, after)
    return graph
