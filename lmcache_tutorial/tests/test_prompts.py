"""Segments, layouts, divergences and orders, with a tokenizer of one token a byte."""

import json
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from lmcache_tutorial.models.model import CHAT_TEMPLATE
from lmcache_tutorial.prompts.layout import (
    Segment,
    best_order,
    better_order,
    divergence,
    lay_out,
    predicted_reuse,
    render,
)
from lmcache_tutorial.prompts.rendering import Renderer, RenderingError
from lmcache_tutorial.quantities.predict import (
    engine_reusable_tokens,
    lmcache_reusable_tokens,
    reusable_tokens,
)

LETTERS = pre_tokenizers.ByteLevel.alphabet()
CHANGES = ("static", "session", "turn")


def byte_renderer() -> Renderer:
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(sorted(LETTERS))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return Renderer(tokenizer, CHAT_TEMPLATE.read_text())


RENDERER = byte_renderer()
BLOCK = partial(engine_reusable_tokens, block=4)


def tool(name: str) -> Segment:
    return Segment(name, "static", json.dumps({"type": "function", "function": {"name": name}}), "tools")


@st.composite
def two_turns(draw):
    """Segments of one prompt at two turns: the static ones keep their text, the others may change it."""
    words = st.text("abc ", min_size=1, max_size=12)
    first, second = [], []
    for number in range(draw(st.integers(1, 6))):
        change, role = draw(st.sampled_from(CHANGES)), draw(st.sampled_from(["system", "user", "tools"]))
        name = f"s{number}"
        if role == "tools":
            first.append(tool(name))
            second.append(first[-1])
            continue
        text = draw(words)
        first.append(Segment(name, change, text, role))
        second.append(Segment(name, change, text if change == "static" else draw(words), role))
    for turn in (first, second):
        turn.append(Segment("question", "turn", draw(words), "user"))
    return [first, second]


@settings(deadline=None)
@given(two_turns(), st.sampled_from([BLOCK, partial(lmcache_reusable_tokens, chunk=8)]))
def test_the_better_order_is_never_predicted_worse_than_the_given(turns, reuse):
    def total(order):
        return sum(predicted_reuse([lay_out(turn, RENDERER).rendered for turn in order], reuse))

    chosen = better_order(turns, RENDERER, reuse)
    assert total(chosen) >= total(turns)
    for turn, given_turn in zip(chosen, turns, strict=True):
        assert sorted(s.name for s in turn) == sorted(s.name for s in given_turn)


@settings(deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.sampled_from([1, 4, 32]))
def test_predictions_are_monotone_in_the_shared_prefix(length, more, unit):
    def reused(shared: int) -> int:
        turns = [
            [Segment("manual", "static", "x" * shared), Segment("clock", "turn", stamp)] for stamp in "ab"
        ]
        prompts = [lay_out(turn, RENDERER).rendered for turn in turns]
        return predicted_reuse(prompts, partial(reusable_tokens, block=unit, chunk=2 * unit))[1]

    assert reused(length) <= reused(length + more)


@settings(deadline=None)
@given(two_turns())
def test_a_token_belongs_to_the_segment_whose_text_it_is(turns):
    layout = lay_out(turns[0], RENDERER)
    assert len(layout.owners) == len(layout.rendered)
    places = list(zip(layout.rendered.offsets, layout.owners, strict=True))
    for segment in turns[0]:
        owned = [layout.rendered.text[begin:end] for (begin, end), owner in places if owner == segment.name]
        assert "".join(owned) == segment.text
    assert layout.tokens() == len(layout.rendered)
    assert sum(layout.tokens(change) for change in CHANGES) <= layout.tokens()


CHANGING = {
    "capitals": "{% for m in messages %}[{{ m.content | upper }}]{% endfor %}",
    "left out": "{% for m in messages %}[{{ m.content | replace('Read me', '') }}]{% endfor %}",
    "stripped": "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}",
    "the first alone": "[{{ messages[0].content | lower }}]",
}


@pytest.mark.parametrize("name", CHANGING)
def test_no_token_is_given_to_a_segment_whose_text_it_is_not(name):
    """A text that was not found had the place -1, which gave what stood before to it."""
    renderer = Renderer(RENDERER.tokenizer, CHANGING[name])
    segments = [
        Segment("rules", "static", " Be brief. "),
        Segment("manual", "static", "Read me\n", "user"),
        Segment("answer", "session", "So be it.", "assistant"),
        Segment("question", "turn", "Why?", "user"),
    ]
    layout = lay_out(segments, renderer)
    owned = {segment.name: "" for segment in segments}
    for (begin, end), owner in zip(layout.rendered.offsets, layout.owners, strict=True):
        if owner:
            owned[owner] += layout.rendered.text[begin:end]
    for segment in segments:
        assert owned[segment.name].lower().strip() in ("", segment.text.lower().strip())
    assert owned["rules"].lower().strip() == "be brief."
    if name != "the first alone":
        assert owned["question"].lower() == "why?"


def test_a_divergence_names_the_segment_the_text_and_the_loss():
    def turn(stamp):
        return [
            Segment("rules", "static", "Be brief."),
            Segment("clock", "turn", stamp),
            Segment("manual", "static", "m" * 40),
        ]

    found = divergence(*(lay_out(turn(stamp), RENDERER) for stamp in ("at 12:01 now", "at 12:02 now")))
    assert found.segment == "clock"
    assert found.before.endswith("at 12:0")
    assert (found.first[:5], found.second[:5]) == ("1 now", "2 now")
    assert found.lost == {"clock": 5, "manual": 40}


def test_prompts_of_which_one_continues_the_other_do_not_part():
    one = lay_out([Segment("a", "static", "abc")], RENDERER)
    assert divergence(one, one) is None


def test_a_shuffled_tool_list_parts_at_the_first_tool_that_moved():
    one = lay_out([Segment("rules", "static", "Be brief."), tool("alpha"), tool("beta")], RENDERER)
    other = lay_out([Segment("rules", "static", "Be brief."), tool("beta"), tool("alpha")], RENDERER)
    assert divergence(one, other).segment == "beta"
    assert [owner for owner in dict.fromkeys(one.owners) if owner] == ["rules", "alpha", "beta"]


def test_what_changes_moves_below_what_stays_and_below_the_tools():
    clock, manual = Segment("clock", "turn", "12:00"), Segment("manual", "static", "Read.", "user")
    ordered = best_order([clock, tool("alpha"), manual])
    assert [(segment.name, segment.role) for segment in ordered] == [
        ("alpha", "tools"),
        ("manual", "user"),
        ("clock", "user"),
    ]
    assert len(render(ordered).messages) == 1


def test_the_template_renders_tools_calls_and_messages_without_content():
    text = RENDERER.text(
        [
            {"role": "system", "content": "S"},
            {"role": "user", "content": "U"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}],
            },
            {"role": "tool", "content": "T"},
        ],
        [{"type": "function", "function": {"name": "f"}}],
    )
    assert text == (
        "<|im_start|>system\nS\n\n# Tools\n" + '{"type": "function", "function": {"name": "f"}}<|im_end|>\n'
        "<|im_start|>user\nU<|im_end|>\n"
        '<|im_start|>assistant\n<tool_call>{"name": "f", "arguments": {}}</tool_call><|im_end|>\n'
        "<|im_start|>tool\nT<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_folder_without_tokenizer_or_template_is_an_error(tmp_path):
    with pytest.raises(RenderingError, match=r"no tokenizer\.json"):
        Renderer.from_folder(tmp_path)
    RENDERER.tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(RenderingError, match="no chat template"):
        Renderer.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages[0].content }}"}')
    assert Renderer.from_folder(tmp_path).render([{"role": "user", "content": "ab"}]).text == "ab"


def test_a_request_that_the_template_refuses_is_an_error():
    refusing = Renderer(RENDERER.tokenizer, "{{ raise_exception('roles must alternate') }}")
    with pytest.raises(RenderingError, match="roles must alternate"):
        refusing.text([])
