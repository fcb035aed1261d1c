"""A graph that reads one manual and answers one question; and one that sends what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from langchain_core.messages import BaseMessage, convert_to_messages
from langgraph.graph import END, START, StateGraph

from ..asking.ask import Asker


class Reading(TypedDict, total=False):
    """The state of the reader: what is read, what is asked, the prompt, the answer.

    ``options`` is what else its request carries, as the chat client takes it: ``extra_headers``,
    ``extra_body``.
    """

    manual: str
    question: str
    options: dict[str, Any]
    prompt: list[BaseMessage]
    answer: str


@dataclass(frozen=True)
class Reader:
    """A graph of two nodes, ``compose`` and ``answer``, and the prompt that it composes."""

    graph: Any

    @staticmethod
    def messages(manual: str, question: str) -> list[dict[str, str]]:
        """The manual leads, the question trails: two prompts agree for as long as they can."""
        return [{"role": "system", "content": manual}, {"role": "user", "content": question}]


def build_reader(ask: Asker, answer_tokens: int) -> Reader:
    """Build the reader on the chat model of an asker."""
    model = ask.chat_model(max_tokens=answer_tokens, logprobs=True)

    def compose(state: Reading) -> Reading:
        return {"prompt": convert_to_messages(Reader.messages(state["manual"], state["question"]))}

    def answer(state: Reading) -> Reading:
        return {"answer": str(model.invoke(state["prompt"], **state.get("options", {})).content)}

    graph = StateGraph(Reading)
    graph.add_node("compose", compose)
    graph.add_node("answer", answer)
    graph.add_edge(START, "compose")
    graph.add_edge("compose", "answer")
    graph.add_edge("answer", END)
    return Reader(graph.compile())


class Sending(TypedDict, total=False):
    """The state of the sender: a finished request, what else it carries (as in `Reading`), the answer."""

    messages: list[dict[str, str]]
    tools: list[dict[str, Any]]
    options: dict[str, Any]
    answer: str


def build_sender(ask: Asker, answer_tokens: int) -> Any:
    """Build a graph of one node that sends messages and tools as they are; the model may not call a tool."""
    # Log-probabilities tell of a first token that has no text, such as the end of an answer.
    model = ask.chat_model(max_tokens=answer_tokens, logprobs=True)

    def answer(state: Sending) -> Sending:
        tools, options = state.get("tools"), state.get("options", {})
        bound = model.bind(tools=tools, tool_choice="none") if tools else model
        return {"answer": str(bound.invoke(convert_to_messages(state["messages"]), **options).content)}

    graph = StateGraph(Sending)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile()
