"""A deployment becomes a stack: what fits it, what it lacks, and what keeps its prompts cold."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from lmcache_tutorial.gate import attach as module
from lmcache_tutorial.gate.attach import Beside, UnfitError, attach, find_renderer
from lmcache_tutorial.gate.deployment import client_for, find_deployment, lmcache_at
from lmcache_tutorial.prompts.documents import copy_in, fresh
from lmcache_tutorial.prompts.rendering import Renderer
from lmcache_tutorial.quantities.records import LookedUp
from lmcache_tutorial.stack.found import NEEDS
from lmcache_tutorial.tests.stand_in import serving

WORD = r"\w+|[^\w\s]"  # documents are cut by tokens, so these must be about as long as a model's


@pytest.fixture
def attached(monkeypatch, tmp_path):
    """``attached(lmcache=…, may_reset=…, **behaviour)`` gives the stack of a stand-in, and the stand-in."""
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path))
    opened = []

    def make(lmcache=False, may_reset=False, context=2000, token_s=0.0, look_ups=None, **behaviour):
        one = serving(word=WORD, context=context, token_s=token_s, looks_up=True, **behaviour)
        opened.append(one)
        server = one.__enter__()
        named = lmcache_at(server.url, client_for(server.url)) if lmcache else None
        deployment = find_deployment(client_for(server.url), None, named, may_reset=may_reset)
        return attach(deployment, Beside(named, look_ups=look_ups), lambda line: None), server

    yield make
    for one in opened:
        one.__exit__(None, None, None)


def test_a_deployment_alone_is_asked_and_nothing_else(attached):
    stack, server = attached()
    assert (stack.block_tokens, stack.model.name, stack.url) == (4, "small", server.url)
    assert set(stack.lacks) == set(NEEDS)
    assert stack.describe() == {}
    assert server.resets == 0


def test_what_lacks_follows_from_what_was_named_allowed_and_told(attached):
    stack, _ = attached(lmcache=True, may_reset=True, tells_own=True)
    assert set(stack.lacks) == {"own_stack", "restarts", "counters", "whose_tokens", "rendering"}
    assert stack.chunk_tokens == 8
    assert "emptying" in attached(lmcache=True)[0].lacks
    assert "--kv-allow-reset" in attached(lmcache=True)[0].lacks["emptying"]
    assert "--kv-lmcache-url" in attached(may_reset=True)[0].lacks["emptying"]


def test_each_reason_is_one_line_that_says_what_to_do(attached):
    for need, reason in attached()[0].lacks.items():
        assert reason.startswith(f"it needs {NEEDS[need]}, and ")
        assert ". To fix: " in reason
        assert "\n" not in reason


def test_behind_tiers_nobody_tells_which_of_them_served(attached, monkeypatch):
    status = {"chunk_size": 8, "storage_manager": {"num_l2_adapters": 1}}
    monkeypatch.setattr("lmcache_tutorial.servers.lmcache.Cache.status", lambda self: status)
    assert "which of LMCache's tiers" in attached(lmcache=True, may_reset=True)[0].lacks["emptying"]


@pytest.mark.parametrize("comes", [True, False])
def test_where_lmcaches_spans_come_they_tell_who_served(attached, monkeypatch, comes):
    status = {"chunk_size": 8, "storage_manager": {"num_l2_adapters": 1}}
    monkeypatch.setattr("lmcache_tutorial.servers.lmcache.Cache.status", lambda self: status)
    spans = SimpleNamespace(of=lambda answer_id, limit_s: LookedUp(8, 8, 0) if comes and answer_id else None)
    stack, _ = attached(lmcache=True, may_reset=True, tells_own=True, look_ups=spans)
    assert stack.looked_up("chatcmpl-1") == (LookedUp(8, 8, 0) if comes else None)
    assert ({"whose_tokens", "emptying"} <= set(stack.lacks)) is not comes
    assert comes or "--enable-tracing" in stack.lacks["whose_tokens"]


def test_the_documents_fit_the_rate_and_the_context(attached):
    sizes = [(2000, 0.0), (16_384, 0.0005), (16_384, 0.003)]  # the longest prompt, and seconds a token
    found = [attached(context=context, token_s=token_s)[0].workload.sizes.long for context, token_s in sizes]
    assert found == [1200, 3600, 1200]


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        ({"tells_cached": False}, "does not tell how many tokens were not computed .*To fix: a vLLM"),
        ({"tells_ids": False}, r"does not tell token ids \(/tokenize\)"),
        ({"context": None}, "does not tell its context"),
        ({"context": 100}, "its context of 100 tokens has no room"),
    ],
)
def test_a_deployment_on_which_no_lesson_can_be_held_says_why(attached, behaviour, reason):
    with pytest.raises(UnfitError, match=reason):
        attached(**behaviour)


def test_where_salts_are_ignored_a_long_head_of_the_template_leaves_no_prompt_cold(attached, monkeypatch):
    monkeypatch.setattr(module, "_head", lambda deployment: 3)
    stack, _ = attached(honours_salts=False)
    body = {"messages": [{"role": "user", "content": fresh("Read.")}]}
    assert stack.place(body) is body
    monkeypatch.setattr(module, "_head", lambda deployment: 4)
    with pytest.raises(UnfitError, match="no prompt is cold there"):
        attached(honours_salts=False)


def test_every_copy_of_a_manual_has_a_namespace_of_its_own(attached):
    stack, _ = attached()
    one, other = (fresh("Read.") for _ in range(2))
    salts = [
        stack.place({"messages": [{"role": "system", "content": text}, {"role": "user", "content": words}]})
        for text, words in ((one, "Why?"), (one, "When?"), (other, "Why?"))
    ]
    first, again, copy = (body["cache_salt"] for body in salts)
    assert first == again != copy
    assert copy_in(one) in first
    assert attached()[0].place({"messages": [{"content": one}]})["cache_salt"] != first  # another run


def test_what_renders_as_the_server_does_is_found_and_nothing_else_is_taken(attached, monkeypatch):
    _, server = attached()
    deployment = find_deployment(client_for(server.url), None)
    assert find_renderer(deployment, None) is None
    same = Renderer.__new__(Renderer)

    class Ids:
        def __init__(self, body):
            self.ids = server.ids(body)

    same.render = lambda messages, tools: Ids({"messages": messages, "tools": tools})
    other = Renderer.__new__(Renderer)
    other.render = lambda messages, tools: Ids({"messages": messages[:1], "tools": ()})
    monkeypatch.setattr(module, "_renderers", lambda folders: iter([other, same]))
    assert find_renderer(deployment, None) is same
    assert find_renderer(replace(deployment, root="/elsewhere"), None) is same
    monkeypatch.setattr(module, "_renderers", lambda folders: iter([other]))
    assert find_renderer(deployment, None) is None
