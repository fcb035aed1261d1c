"""Chat templates of many families, rendered here and by transformers; and folders as they are found."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from lmcache_tutorial.prompts.rendering import RefusedError, Renderer, RenderingError
from lmcache_tutorial.tests.test_prompts import RENDERER

# Written for this test in the manner of the families; each uses what that family's templates use.
TEMPLATES = {
    path.stem: path.read_text() for path in sorted((Path(__file__).parent / "chat_templates").glob("*.jinja"))
}
TOKENS = {
    "bos_token": "<s>",
    "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": False, "normalized": False},
    "pad_token": "<pad>",
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find",
            "description": "Finds Ärzte & <others>",
            "parameters": {"z": 1, "a": [1, 2]},
        },
    }
]
TALKS = {
    "one question": [{"role": "user", "content": " What <is> 'this' & that?\n"}],
    "a talk": [
        {"role": "system", "content": "You help. 日本\n"},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>hm</think>Yes?"},
        {"role": "user", "content": "Go on."},
    ],
}


def folder_with(tmp_path, **config):
    RENDERER.tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **TOKENS, **config})
    )
    return tmp_path


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS)
@pytest.mark.parametrize("family", TEMPLATES)
def test_a_template_is_rendered_as_by_transformers(tmp_path, family, talk):
    import transformers

    folder = folder_with(tmp_path, chat_template=TEMPLATES[family])
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    ours = Renderer.from_folder(folder)
    for tools in (None, TOOLS):
        expected = theirs.apply_chat_template(talk, tools=tools, tokenize=False, add_generation_prompt=True)
        assert ours.text(talk, tools) == expected


def test_a_template_of_several_is_chosen_as_by_transformers(tmp_path):
    import transformers

    named = [
        {"name": "default", "template": "plain {{ messages[0].content }}"},
        {"name": "tool_use", "template": "tools {{ tools | length }}"},
    ]
    folder = folder_with(tmp_path, chat_template=named)
    theirs, ours = (
        transformers.PreTrainedTokenizerFast.from_pretrained(str(folder)),
        Renderer.from_folder(folder),
    )
    talk = TALKS["one question"]
    for tools in (None, TOOLS):
        assert ours.text(talk, tools) == theirs.apply_chat_template(talk, tools=tools, tokenize=False)


def test_a_template_like_llama_keeps_its_first_token_and_todays_date(tmp_path):
    text = Renderer.from_folder(folder_with(tmp_path, chat_template=TEMPLATES["llama3"])).text(
        TALKS["a talk"]
    )
    assert text.startswith("<s><|start_header_id|>system")
    assert datetime.now().strftime("%d %b %Y") in text


def test_variables_of_a_request_reach_the_template():
    renderer = Renderer(RENDERER.tokenizer, "{{ 'thinks' if enable_thinking else 'not' }}")
    assert renderer.text([], variables={"enable_thinking": True}) == "thinks"
    assert renderer.text([]) == "not"


def test_parts_of_a_content_are_handed_over_as_vllm_does():
    """vLLM joins text parts by a line break, and keeps them for a template that loops over them."""
    message = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    plain = Renderer(RENDERER.tokenizer, "{{ messages[0].content }}")
    assert plain.text([message]) == "a\nb"
    loop = "{% for m in messages %}{% for part in m.content %}({{ part.text }}){% endfor %}{% endfor %}"
    assert Renderer(RENDERER.tokenizer, loop).text([message]) == "(a)(b)"
    assert Renderer(RENDERER.tokenizer, loop).text([{"role": "user", "content": "c"}]) == "(c)"
    macro = (
        "{% macro say(given) %}{% for part in given %}({{ part.text }}){% endfor %}{% endmacro %}"
        "{% for m in messages %}{{ say(m['content']) }}{% endfor %}"
    )
    assert Renderer(RENDERER.tokenizer, macro).text([message]) == "(a)(b)"
    tools = "{% for t in tools %}{% for c in t.content %}{% endfor %}{% endfor %}{{ messages[0].content }}"
    assert Renderer(RENDERER.tokenizer, tools).text([message], [{"content": []}]) == "a\nb"


def test_a_developer_is_the_system_for_a_template_that_does_not_know_the_role():
    renderer = Renderer(
        RENDERER.tokenizer, "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
    )
    talk = [
        {"role": "system", "content": "a"},
        {"role": "user", "content": "b"},
        {"role": "developer", "content": "c"},
    ]
    assert renderer.text(talk) == "system:a\n\nc;user:b;"


BAD_CALLS = {
    "broken arguments": {"function": {"name": "f", "arguments": '{"q": '}},
    "no function": {"name": "f"},
}


@pytest.mark.parametrize("call", BAD_CALLS.values(), ids=BAD_CALLS)
def test_a_broken_tool_call_refuses_the_request(call):
    with pytest.raises(RefusedError):
        RENDERER.text([{"role": "assistant", "content": None, "tool_calls": [call]}])


BAD_TEMPLATES = [
    "{{ messages[9].content.x }}",
    "{{ 1 / 0 }}",
    "{{ messages | sum }}",
    "{% for %}",
    "{{ nothing() }}",
    "{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__() }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for a in range(90000) %}{{ 'x' * 9000 }}{% endfor %}",
    "{{ 'x'.encode('idna', 'nothing') }}{{ strftime_now(1) }}",
]


@pytest.mark.parametrize("template", BAD_TEMPLATES)
def test_whatever_a_template_does_is_a_refusal(template):
    with pytest.raises(RefusedError):
        Renderer(RENDERER.tokenizer, template).text([{"role": "user", "content": "a"}])


def test_a_damaged_folder_is_an_error_that_names_the_file(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{")
    (tmp_path / "chat_template.jinja").write_text("x")
    with pytest.raises(RenderingError, match=r"tokenizer\.json is damaged"):
        Renderer.from_folder(tmp_path)
    folder_with(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(RenderingError, match=r"chat_template\.jinja cannot be read"):
        Renderer.from_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(RenderingError, match=r"tokenizer_config\.json is damaged"):
        Renderer.from_folder(tmp_path)
