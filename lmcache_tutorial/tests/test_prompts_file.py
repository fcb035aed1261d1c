"""Files of prompts: groups, their bars, and one clear sentence for what is wrong with a line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_tutorial.prompts.prompts_file import GroupBars, PromptsError, parse_prompts, read_prompts

CHAT = {"messages": [{"role": "user", "content": "Where?"}]}


def lines(*objects):
    return [json.dumps(one) for one in objects]


def test_requests_are_grouped_in_the_order_of_their_lines():
    found = parse_prompts(
        [
            *lines({**CHAT, "group": "b"}, {"prompt": "Once", "group": "a", "temperature": 1}),
            "",
            *lines({**CHAT, "group": "b", "tools": []}),
        ],
        "my.prompts.jsonl",
    )
    assert [(group.name, [one.line for one in group.prompts]) for group in found] == [
        ("b", [1, 4]),
        ("a", [2]),
    ]
    assert found[1].prompts[0].body == {"prompt": "Once"}  # sampling is not the file's to decide
    assert [one.path for one in found[0].prompts] == ["/v1/chat/completions"] * 2
    assert found[1].prompts[0].path == "/v1/completions"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u0085", "\x1c", "\f"])
def test_a_text_may_hold_what_python_takes_for_the_end_of_a_line(tmp_path, character, end):
    file = tmp_path / "my.prompts.jsonl"
    told = json.dumps({"prompt": f"one{character}two"}, ensure_ascii=False)
    file.write_bytes(f"{told}{end}{told}{end}".encode())
    (found,) = read_prompts(file)
    assert [one.body["prompt"] for one in found.prompts] == [f"one{character}two"] * 2


def test_a_group_without_a_name_has_the_files():
    assert [group.name for group in parse_prompts(lines(CHAT), "agent.prompts.jsonl")] == ["agent"]


def test_bars_stand_in_a_request_or_in_a_line_of_their_own():
    bars = {"min_hit_rate": 80, "served_by": "lmcache", "exact": True, "tolerance": 0.1}
    expected = GroupBars(80, None, True, "lmcache", 0.1)
    assert parse_prompts(lines({**CHAT, "kv": bars}), "x")[0].bars == expected
    (group,) = parse_prompts(lines({"group": "g", "kv": bars}, {**CHAT, "group": "g"}), "x")
    assert (group.bars, len(group.prompts)) == (expected, 1)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "my:1: no JSON"),
        ("[]", "an object was expected, not list"),
        ('{"group": "a"}', "no messages and no prompt; it has 'group'"),
        ('{"messages": []}', "messages must be a list of objects that have a role"),
        ('{"messages": [{"content": "x"}]}', "have a role"),
        ('{"prompt": ""}', "prompt must be a text"),
        ('{"prompt": "x", "messages": [{"role": "user"}]}', "it has messages and a prompt"),
        ('{"prompt": "x", "group": 3}', "group must be a name, and is 3"),
        ('{"prompt": "x", "group": "\\u001b[31m"}', "group must be a name, and is "),
        ('{"prompt": "x", "kv": {"min_hitrate": 90}}', "did you mean min_hit_rate?"),
        ('{"prompt": "x", "kv": {"zzz": 90}}', "known are min_hit_rate"),
        ('{"prompt": "x", "kv": {"min_hit_rate": 0.9}}', "must be per cent"),
        ('{"prompt": "x", "kv": {"min_hit_rate": "90"}}', "must be a number in per cent"),
        ('{"prompt": "x", "kv": {"served_by": "disk"}}', "must be one of any, lmcache"),
        ('{"prompt": "x", "kv": {"exact": 1}}', "exact must be true or false"),
        ('{"prompt": "x", "kv": {"times": 0}}', "times must be true or false"),
        ('{"prompt": "x", "kv": {"times": false, "min_ttft_drop": 5}}', "min_ttft_drop is a bar of times"),
        ('{"prompt": "x", "kv": {"tolerance": -1}}', "tolerance must be a number from 0"),
        ('{"prompt": "x", "kv": {"tolerance": NaN}}', "tolerance must be a number from 0"),
        ('{"prompt": "x", "kv": 3}', "kv must be an object"),
        ('{"kv": {"exact": true}}', "holds no request"),
        ('{"prompt": "x", "cache_salt": 3}', "cache_salt must be a text, and is 3"),
    ],
)
def test_what_is_wrong_with_a_line_is_one_sentence(line, told):
    with pytest.raises(PromptsError) as caught:
        parse_prompts([line], "my")
    assert told in str(caught.value)


def test_bars_are_given_once_and_to_a_group_that_has_requests():
    bars = {"kv": {"min_hit_rate": 80}}
    with pytest.raises(PromptsError, match="x:2: the group 'x' has bars already"):
        parse_prompts(lines({**CHAT, **bars}, {**CHAT, **bars}), "x")
    with pytest.raises(PromptsError, match="the group 'g' has bars and no request"):
        parse_prompts(lines(CHAT, {"group": "g", **bars}), "x")


def test_a_file_that_cannot_be_read_is_told(tmp_path):
    with pytest.raises(PromptsError, match=r"a.prompts.jsonl cannot be read"):
        read_prompts(tmp_path / "a.prompts.jsonl")
    (tmp_path / "b.prompts.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptsError, match="save it as UTF-8"):
        read_prompts(tmp_path / "b.prompts.jsonl")


@given(st.text())
def test_any_text_is_read_or_refused(text):
    try:
        groups = parse_prompts(text.splitlines(), "x")
    except PromptsError:
        return
    assert all(group.prompts for group in groups)
