"""Chat templates of many families, rendered here and by transformers; and folders as they are found."""

import json
from datetime import datetime

import pytest

from lmcache_tutorial.rendering import RefusedError, Renderer, RenderingError
from lmcache_tutorial.tests.test_prompts import RENDERER

# Written for this test in the manner of the families; each uses what that family's templates use.
TEMPLATES = {
    "chatml": (
        "{%- for m in messages %}\n    {{- '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}\n"
        "{%- endfor %}\n{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "llama3": (
        "{{- bos_token }}\n{%- if not date_string is defined %}\n"
        "    {%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}\n"
        "    {%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}\n{%- endif %}\n"
        "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nToday Date: ' + date_string + '\\n\\n' }}\n"
        "{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content']|trim }}"
        "{%- set messages = messages[1:] %}{%- endif %}{{- '<|eot_id|>' }}\n"
        "{%- if tools is not none %}{%- for t in tools %}{{- t | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}{%- endif %}\n"
        "{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n'"
        " + m['content'] | trim + '<|eot_id|>' }}{%- endfor %}\n"
        "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
    ),
    "mistral": (
        "{%- if messages[0]['role'] == 'system' %}{%- set system = messages[0]['content'] %}"
        "{%- set rest = messages[1:] %}{%- else %}{%- set rest = messages %}{%- endif %}\n"
        "{{- bos_token }}\n{%- for m in rest %}\n"
        "  {%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{- raise_exception('roles must alternate') }}{%- endif %}\n"
        "  {%- if m['role'] == 'user' %}\n    {%- if loop.last and system is defined %}"
        "{{- '[INST] ' + system + '\\n\\n' + m['content'] + '[/INST]' }}"
        "{%- else %}{{- '[INST] ' + m['content'] + '[/INST]' }}{%- endif %}\n"
        "  {%- else %}{{- ' ' + m['content'] + eos_token }}{%- endif %}\n{%- endfor %}"
    ),
    "gemma": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{% set role = 'model' %}"
        "{% else %}{% set role = m['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
    ),
    "phi": (
        "{% for m in messages %}{% if m['role'] == 'system' and m['content'] %}{{ '<|system|>\n' + m['content'] + '<|end|>\n' }}"
        "{% elif m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '<|end|>\n' }}"
        "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\n' + m['content'] + '<|end|>\n' }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
    ),
    "deepseek": (
        "{% set ns = namespace(system='', first=true) %}{%- for m in messages %}{%- if m['role'] == 'system' %}"
        "{% set ns.system = ns.system + m['content'] %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system }}"
        "{%- for m in messages %}{%- if m['role'] == 'user' %}{{ '<|User|>' + m['content'] }}{%- endif %}"
        "{%- if m['role'] == 'assistant' and m['content'] is not none %}"
        "{% set content = m['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}"
        "{{ '<|Assistant|>' + content + eos_token }}{%- endif %}{%- endfor %}"
        "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
    ),
    "qwen tools": (
        "{%- if tools %}\n    {{- '<|im_start|>system\\n' }}{{- '# Tools\\n<tools>' }}\n"
        "    {%- for tool in tools %}{{- \"\\n\" }}{{- tool | tojson }}{%- endfor %}\n    {{- '\\n</tools><|im_end|>\\n' }}\n{%- endif %}\n"
        "{%- for m in messages %}\n    {%- if m.role == 'assistant' and m.tool_calls %}\n"
        "        {%- for call in m.tool_calls %}{%- if call.function is defined %}{%- set call = call.function %}{%- endif %}\n"
        "        {{- '\\n<tool_call>\\n{\"name\": \"' }}{{- call.name }}{{- '\", \"arguments\": ' }}"
        "{{- call.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}\n"
        "    {%- else %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{%- endif %}\n{%- endfor %}"
    ),
    "granite": (
        "{%- set today = strftime_now('%B %d, %Y') %}{{- '<|start_of_role|>system<|end_of_role|>Today is ' + today + '.\n' }}"
        "{%- for m in messages %}{{- '<|start_of_role|>' + m['role'] + '<|end_of_role|>' + m['content'] + '<|end_of_text|>\n' }}"
        "{%- if loop.last and add_generation_prompt %}{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}{%- endfor %}"
    ),
    "generation tag": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{{ eos_token }}{% endgeneration %}"
        "{% else %}{{ m.role }}: {{ m.content }}\n{% endif %}{% endfor %}"
    ),
    "loop controls": (
        "{% for m in messages %}{% if m.role == 'system' %}{% continue %}{% endif %}"
        "{% if loop.index > 4 %}{% break %}{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    ),
    "tojson arguments": (
        "{{ tools | tojson(separators=(',', ':'), sort_keys=true) if tools else '' }}"
        "{{ messages | tojson(ensure_ascii=true) }}{{ messages[0] | tojson(indent=2) }}"
    ),
    "macros and blanks": (
        "    {% macro say(m) %}\n    <{{ m.role }}>{{ m.content }}</{{ m.role }}>\n    {% endmacro %}\n"
        "    {% for m in messages %}\n        {{ say(m) }}\n    {% endfor %}\n"
    ),
    "all special tokens": "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ unk_token }}|{{ sep_token }}|{{ cls_token }}",
}  # fmt: skip
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
    transformers = pytest.importorskip("transformers")
    folder = folder_with(tmp_path, chat_template=TEMPLATES[family])
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(str(folder))
    ours = Renderer.from_folder(folder)
    for tools in (None, TOOLS):
        expected = theirs.apply_chat_template(talk, tools=tools, tokenize=False, add_generation_prompt=True)
        assert ours.text(talk, tools) == expected


def test_a_template_of_several_is_chosen_as_by_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
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


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[9].content.x }}", "{{ 1 / 0 }}", "{{ messages | sum }}", "{% for %}", "{{ nothing() }}",
        "{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__() }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for a in range(90000) %}{{ 'x' * 9000 }}{% endfor %}",
        "{{ 'x'.encode('idna', 'nothing') }}{{ strftime_now(1) }}",
    ],
)  # fmt: skip
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
