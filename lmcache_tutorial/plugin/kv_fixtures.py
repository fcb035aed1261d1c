"""Fixtures for tests of a reader's own graphs, in any repository; the base install is enough.

A test takes ``kv_http_client`` into its chat model and runs its graph with ``kv_ask``::

    def test_the_agent_keeps_its_prefix(kv_stack, kv_http_client, kv_ask):
        model = ChatOpenAI(base_url=kv_stack.url, model=kv_stack.model, http_client=kv_http_client, …)
        agent = build_agent(model)
        kv_ask(agent, {"question": "Where is it?"})
        turn = kv_ask(agent, {"question": "What does it cost?"})
        turn.assert_hit_rate(above=90)

Every test has a namespace of its own: what one test has computed no other finds.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

    from ..gate.deployment import Deployment
    from ..gate.graph_turn import GraphTurn, RecordedClient

NO_DEPLOYMENT = "no deployment is named: pytest --kv-url=http://…"


@dataclass(frozen=True)
class KvStack:
    """The running deployment: the address of its API (with ``/v1``), its model, and the key for it."""

    url: str
    model: str
    api_key: str = field(repr=False)  # pytest shows the arguments of a test that failed
    deployment: Deployment


@pytest.fixture(scope="session")
def kv_stack(pytestconfig: pytest.Config) -> KvStack:
    """The deployment at ``--kv-url``, the first of several; without one the test is skipped."""
    from ..gate.deployment import DeploymentError, api_key
    from ..settings.run import addresses
    from .deployments import deployments

    found = deployments(pytestconfig)
    urls = addresses(found.options.url)
    if not urls:
        pytest.skip(NO_DEPLOYMENT)
    try:
        deployment = found.at(urls[0])
    except DeploymentError as error:
        pytest.fail(str(error), pytrace=False)
    base = str(deployment.client.base_url).rstrip("/")
    return KvStack(f"{base}/v1", deployment.model, api_key() or "none", deployment)


@pytest.fixture
def kv_http_client(kv_stack: KvStack, pytestconfig: pytest.Config) -> Iterator[RecordedClient]:
    """The HTTP client for a chat model: it notes every request, within a namespace of the test's own."""
    from ..gate.graph_turn import RecordedClient
    from .deployments import deployments

    mask = deployments(pytestconfig).options.mask
    with RecordedClient(kv_stack.deployment, kv_stack.deployment.namespace(), mask=mask) as client:
        yield client


@pytest.fixture
def kv_http_async_client(kv_http_client: RecordedClient) -> httpx.AsyncClient:
    """The HTTP client for a chat model that is awaited: ``ChatOpenAI(http_async_client=…)``."""
    return kv_http_client.awaited()


@pytest.fixture
def kv_ask(
    kv_http_client: RecordedClient, record_property: Callable[[str, object], None]
) -> Callable[..., GraphTurn]:
    """``kv_ask(graph, state, config=None)`` runs a graph once and returns a turn: its calls, by node."""
    from ..gate.graph_turn import ask_graph

    def ask(graph: Any, state: Any, config: Mapping[str, Any] | None = None) -> GraphTurn:
        turn = ask_graph(kv_http_client, graph, state, config)
        _told(turn, record_property)
        return turn

    return ask


@pytest.fixture
def kv_ask_async(
    kv_http_client: RecordedClient, record_property: Callable[[str, object], None]
) -> Callable[..., Awaitable[GraphTurn]]:
    """``kv_ask`` for a graph that is awaited under asyncio: one with ``ainvoke``, or a coroutine function."""
    from ..gate.graph_turn import await_graph

    async def ask(graph: Any, state: Any, config: Mapping[str, Any] | None = None) -> GraphTurn:
        turn = await await_graph(kv_http_client, graph, state, config)
        _told(turn, record_property)
        return turn

    return ask


def _told(turn: GraphTurn, record_property: Callable[[str, object], None]) -> None:
    """Write the calls of a turn into the JUnit file."""
    for place, call in zip(turn.places, turn.calls, strict=True):
        told = f"{call.cached_tokens} of {call.prompt_tokens} tokens"
        record_property(f"call {place + 1}, {call.node or 'no node'}", told)
