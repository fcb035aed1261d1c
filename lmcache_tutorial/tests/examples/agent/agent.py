"""An agent over one manual: a router says which expert is asked, and the expert answers."""

from typing import TypedDict

from langchain_core.messages import HumanMessage, SystemMessage
from langgraph.graph import END, START, StateGraph


class State(TypedDict, total=False):
    """What goes through the graph."""

    question: str
    topic: str
    answer: str


def build_agent(model, manual: str, *, clock: str = ""):
    """Compile the graph.

    Both nodes send the manual first and what changes last, so that all calls share its KV. ``clock`` puts
    the time in front of it: a mistake that costs every hit.
    """
    system = SystemMessage(f"{clock}You help with this software.\n\n{manual}")

    def ask(task: str, question: str) -> str:
        return model.invoke([system, HumanMessage(f"{question}\n{task}")]).content

    def route(state: State) -> State:
        return {"topic": ask("Name the topic in one word.", state["question"])}

    def expert(state: State) -> State:
        return {"answer": ask("Answer in one sentence.", state["question"])}

    graph = StateGraph(State)
    graph.add_node("route", route)
    graph.add_node("expert", expert)
    graph.add_edge(START, "route")
    graph.add_edge("route", "expert")
    graph.add_edge("expert", END)
    return graph.compile()
