"""The diagnosis: logs with one planted culprit each, broken lines, bounded memory, and the command."""

import gzip
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.cli.diagnose import read_log
from lmcache_tutorial.diagnosis.diagnose import diagnose
from lmcache_tutorial.diagnosis.logs import Log, parse_line
from lmcache_tutorial.diagnosis.memory import Encoder
from lmcache_tutorial.diagnosis.result import diagnosis_page, diagnosis_text
from lmcache_tutorial.prompts.rendering import Renderer, RenderingError
from lmcache_tutorial.quantities.blocks import BlockMemory
from lmcache_tutorial.quantities.predict import shared_prefix_tokens
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.tests.conftest import HOSTILE
from lmcache_tutorial.tests.planted import (
    MANUAL,
    PLANTED,
    asked,
    cut,
    history,
    log_of,
    planted,
    system_with,
    tool,
    with_history,
)
from lmcache_tutorial.tests.test_logs import ANYTHING, REQUEST
from lmcache_tutorial.tests.test_prompts import RENDERER, byte_renderer

BLOCK, CHUNK = 64, 128


def run(lines, **options):
    return diagnose(lines, RENDERER, **{"block_tokens": BLOCK, "chunk_tokens": CHUNK, **options})


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_culprit_is_named_with_its_segment(name):
    found = run(log_of(name))
    worst = found.culprits[0]
    assert (worst.kind, worst.segment) == (name.partition(":")[0], PLANTED[name])
    assert worst.lost_tokens > 0
    assert 0 < worst.share_of_requests <= 1
    assert found.hit_rate < found.best_hit_rate <= 1
    assert (worst.message_index is None) == (worst.segment == "tools")


def test_an_aligned_log_has_no_culprit():
    found = run(log_of("nothing"))
    assert found.culprits == []
    assert found.hit_rate == found.best_hit_rate > 0.8


def test_a_template_that_renders_earlier_turns_anew_is_named():
    template = (
        "{% for m in messages %}<{{ m.role }}>"
        "{% if m.role == 'assistant' and not loop.last and messages|length > 4 %}"
        "{{ m.content[:20] }}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )
    renderer = Renderer(byte_renderer().tokenizer, template)
    lines = [json.dumps(with_history(history(number), number)) for number in range(1, 5)]
    found = diagnose(lines, renderer, block_tokens=32, chunk_tokens=64)
    assert ("history_rewritten", "history") in {(c.kind, c.segment) for c in found.culprits}


def test_a_message_without_text_does_not_end_the_run():
    """An empty tool result or an image alone left nothing to look for, and rpartition("") raised."""
    image = [{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}]
    for last in ({"role": "tool", "content": ""}, {"role": "user", "content": image}):
        first = [{"role": "user", "content": MANUAL}, {"role": "assistant", "content": ""}, last]
        lines = [json.dumps({"messages": m}) for m in (first, [*first, {"role": "user", "content": "So?"}])]
        assert run(lines).requests == 2


def test_broken_lines_are_counted_by_number():
    lines = [
        *log_of("nothing")[:2],
        "not json",
        '{"messages": []}',
        "",
        '{"messages": [{"content": "x"}]}',
        "[1]",
    ]
    found = run(lines)
    assert (found.requests, found.broken_lines) == (2, [3, 4, 6, 7])
    assert "broken lines        4: 3, 4, 6, 7" in diagnosis_text(found)


def test_a_request_that_the_template_refuses_is_a_broken_line():
    template = "{{ raise_exception('no tools') if tools else messages[0].content }}"
    renderer = Renderer(RENDERER.tokenizer, template)
    lines = [*log_of("nothing")[:2], log_of("tool_order")[0], log_of("nothing")[2]]
    found = diagnose(lines, renderer, block_tokens=BLOCK, chunk_tokens=CHUNK)
    assert (found.requests, found.broken_lines, found.refused_lines) == (3, [3], [3])
    assert found.unread[0].reason == "the chat template refuses this request: no tools"
    text = diagnosis_text(found)
    assert "refused lines       1: 3" in text
    assert "broken lines" not in text


def test_refused_lines_are_told_apart_from_unreadable_ones():
    renderer = Renderer(
        RENDERER.tokenizer, "{{ raise_exception('no tools') if tools else messages[0].content }}"
    )
    lines = [*log_of("nothing")[:2], log_of("tool_order")[0], "not json"]
    found = diagnose(lines, renderer, block_tokens=BLOCK, chunk_tokens=CHUNK)
    assert (found.broken_lines, found.refused_lines) == ([3, 4], [3])
    text = diagnosis_text(found)
    assert "broken lines        1: 4" in text
    assert "refused lines       1: 3" in text
    assert "no tools" in text


def test_a_template_that_loops_is_stopped(monkeypatch):
    monkeypatch.setattr("lmcache_tutorial.diagnosis.diagnose.RENDERING_S", 0.2)
    loop = "{% set r = range(99999) %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}"
    slow = "{% if messages[0].content == 'slow' %}" + loop + "{% endif %}{{ messages[0].content }}"
    lines = [json.dumps({"messages": [{"role": "user", "content": word}]}) for word in ("a", "slow", "b")]
    renderer = Renderer(RENDERER.tokenizer, slow)
    found = diagnose(lines, renderer, block_tokens=BLOCK, chunk_tokens=CHUNK)
    assert (found.requests, found.broken_lines) == (2, [2])
    assert "ran for more than" in found.unread[0].reason
    with pytest.raises(RenderingError, match="look for a loop"):
        diagnose([lines[1]] * 3, renderer, block_tokens=BLOCK, chunk_tokens=CHUNK)


def test_each_model_and_each_salt_has_a_cache_of_its_own():
    request = json.loads(log_of("nothing")[0])
    plain = run([json.dumps(request)] * 2)
    assert plain.hit_rate > 0.4
    for key, values in {"model": ("llama", "qwen"), "cache_salt": ("a", "b")}.items():
        lines = [json.dumps({**request, key: value}) for value in values]
        found = run(lines)
        assert (found.hit_rate, found.culprits) == (0, [])
        assert found.warnings
        assert run(lines * 2).hit_rate == plain.hit_rate


def test_another_image_is_computed_anew_and_the_output_says_what_it_counts():
    def asked_about(name):
        part = {"type": "image_url", "image_url": {"url": f"https://example.org/{name}.png"}}
        content = [part, {"type": "text", "text": MANUAL}]
        return json.dumps({"messages": [{"role": "user", "content": content}]})

    found = run([asked_about(name) for name in "abc"])
    assert found.hit_rate < 0.1
    assert [(c.kind, c.segment) for c in found.culprits] == [("image", "user")]
    assert "\ue001" not in diagnosis_text(found)
    assert "3 images" in found.warnings[0]
    assert run([asked_about("a")] * 3).hit_rate > 0.6


def test_the_spacing_of_arguments_that_no_template_renders_is_no_cause():
    def called(arguments, *more):
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
        turns = [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
        ]
        return json.dumps({"messages": [*turns, {"role": "tool", "content": MANUAL}, *more]})

    more = {"role": "user", "content": "And?"}
    assert run([called('{"a": 1, "b": 2}'), called('{"a":1,"b":2}', more)]).culprits == []
    found = run([called('{"a": 1, "b": 2}'), called('{"b": 2, "a": 1}', more)])
    assert [(c.kind, c.segment, c.message_index) for c in found.culprits] == [
        ("json_key_order", "history", 1)
    ]


def test_one_cause_is_listed_once_with_its_count():
    """An older result is dropped at every step: always another message, and always the same cause."""
    lines, messages = [], [{"role": "user", "content": "Audit."}]
    for number in range(6):
        messages.append({"role": "assistant", "content": f"step {number}"})
        messages.append({"role": "tool", "content": cut(4_000 * number, 900)})
        if number > 1:
            messages[2 * (number - 1)] = {"role": "tool", "content": "[dropped]"}
        lines.append(json.dumps({"messages": messages}))
    found = run(lines)
    assert [(c.kind, c.segment) for c in found.culprits] == [("history_rewritten", "history")]
    assert found.culprits[0].requests == found.culprits[0].messages == 4
    assert "and 3 more" in diagnosis_text(found)


def test_sessions_that_take_turns_are_not_blamed():
    """Each of 40 sessions only appends; between two of its requests come 39 others."""
    chance = random.Random(4)

    def said(words):
        return " ".join(f"{chance.getrandbits(40):x}" for _ in range(words))

    talks = [[{"role": "system", "content": MANUAL}] for _ in range(40)]
    lines = []
    for _ in range(4):
        for talk in talks:
            talk.append({"role": "user", "content": f"{said(16)}?"})
            lines.append(json.dumps({"messages": talk}))
            talk.append({"role": "assistant", "content": said(30)})
    for sample in (lines, random.Random(3).sample(lines, len(lines))[: len(lines) // 4]):
        found = run(sorted(sample, key=lines.index))
        assert found.culprits == []
        assert found.best_hit_rate == found.hit_rate > 0.5


def test_prompts_that_only_share_the_templates_words_have_no_short_prefix():
    lines = [json.dumps({"messages": [{"role": "user", "content": cut(5_000 * n, 800)}]}) for n in range(4)]
    assert run(lines).culprits == []


def test_prompts_shorter_than_a_chunk_have_a_short_prefix():
    lines = [json.dumps({"messages": [{"role": "system", "content": "Be brief."}, asked(1)]})] * 3
    found = run(lines, block_tokens=512, chunk_tokens=1024)
    assert found.hit_rate == 0
    assert [c.kind for c in found.culprits] == ["short_prefix"]


MENDED = {
    "timestamp: a clock": "nothing",
    "request_id: uuid": "nothing",
    "user_text_above_static: system": "nothing",
    "whitespace": "nothing",
}


@pytest.mark.parametrize("name", MENDED)
def test_the_rate_after_the_fixes_is_what_a_mended_log_gives(name):
    assert abs(run(log_of(name)).best_hit_rate - run(log_of(MENDED[name])).hit_rate) < 0.05


@pytest.mark.parametrize("order", ["tool_order", "required", "keys"])
def test_the_rate_after_the_fixes_is_what_sorted_tools_give(order):
    """The cause recurs in every tool: what stands between two of its places is saved as well."""
    chance, words = random.Random(2), ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]

    def request(number, mixed):
        tools = [tool(word, sorted(["q", "limit", "page", "sort"])) for word in words]
        for one in tools:
            parameters = one["function"]["parameters"]
            parameters["required"] = sorted(words[:4])
            if mixed and order == "required":
                chance.shuffle(parameters["required"])
            if mixed and order == "keys":
                keys = list(parameters["properties"])
                chance.shuffle(keys)
                parameters["properties"] = {key: parameters["properties"][key] for key in keys}
        if mixed and order == "tool_order":
            chance.shuffle(tools)
        return json.dumps(
            {"messages": [{"role": "system", "content": "Be brief."}, asked(number)], "tools": tools}
        )

    mixed, mended = (run([request(n, mixed) for n in range(8)]) for mixed in (True, False))
    assert mixed.culprits[0].segment == "tools"
    assert abs(mixed.best_hit_rate - mended.hit_rate) < 0.05


def agent_log(steps: int, clock: bool) -> list[str]:
    messages = [{"role": "system", "content": ""}, {"role": "user", "content": "Audit."}]
    lines = []
    for number in range(steps):
        messages[0]["content"] = f"It is 10:{number % 60 if clock else 0:02d}.\n{MANUAL}"
        lines.append(json.dumps({"messages": messages}))
        messages.append({"role": "assistant", "content": cut(120 * number, 30)})
        messages.append({"role": "tool", "content": cut(120 * number + 30, 90)})
    return lines


@pytest.mark.parametrize("clock", [False, True], ids=["append only", "a clock"])
def test_the_time_for_a_token_does_not_grow_with_the_turns_of_a_session(clock):
    """Each message was compared with 32 candidates: a token took as many times longer as there were turns."""

    def seconds_a_character(steps: int) -> float:
        lines, times = agent_log(steps, clock), []
        for _ in range(3):
            begin = time.process_time()
            run(lines)
            times.append(time.process_time() - begin)
        return min(times) / sum(map(len, lines))

    assert seconds_a_character(240) < 2 * seconds_a_character(60)


@pytest.mark.parametrize("depth", [50, 150, 300, 320, 450, 480, 900, 980, 5_000])
def test_nothing_is_nested_too_deeply(depth):
    nested = '{"a":' * depth + "1" + "}" * depth  # json cannot write it: each part is put in as a text

    def line(parameters):
        request = {
            "messages": [
                {"role": "user", "content": MANUAL},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"function": {"name": "f", "arguments": "NESTED"}}],
                },
                {"role": "user", "content": "So?"},
            ],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": parameters}}],
        }
        return json.dumps(request).replace('"NESTED"', nested)

    system = {"role": "system", "content": nested}
    found = run([line("NESTED"), line({}), line("NESTED"), line({}), json.dumps({"messages": [system]})])
    assert found.requests + len(found.broken_lines) == 5


@settings(deadline=None, max_examples=150)
@given(st.lists(ANYTHING | REQUEST, max_size=3))
def test_no_log_raises_anything(documents):
    found = run([json.dumps(document) for document in documents])
    assert 0 <= found.hit_rate <= found.best_hit_rate <= 1
    diagnosis_text(found)
    diagnosis_page(found, "log")


def test_other_forms_of_logs_are_read():
    message = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    vllm = "(APIServer pid=7) DEBUG 11-24 06:17:32 [logger.py:71] Request chatcmpl-1 details: "
    forms = {
        "batch file": json.dumps({"custom_id": "1", "body": {"messages": [message]}}),
        "langfuse observation": json.dumps({"type": "GENERATION", "input": [message]}),
        "langfuse with tools": json.dumps(
            {"type": "GENERATION", "input": json.dumps({"messages": [message]})}
        ),
    }
    for form in forms.values():
        assert parse_line(form)[0].messages[0]["content"] == "Hi"
    logged = parse_line(vllm + r"prompt: '<|im_start|>user\nIt\'s \"late\"', prompt_token_ids: [1, 2], x")
    assert logged[0].prompt == '<|im_start|>user\nIt\'s "late"'
    log = Log(["INFO 11-24 06:17:32 [x.py:1] other", json.dumps({"type": "SPAN", "input": "x"})])
    assert (list(log), log.broken, log.other) == ([], [], 2)


def test_a_request_that_a_vllm_log_holds_twice_counts_once():
    lines = []
    for number in range(3):
        request = planted("timestamp: a clock", number, random.Random(1))
        lines.append(f"DEBUG 11-24 Request c-{number} JSON body: {json.dumps(request)}")
        text = RENDERER.text(request["messages"])
        lines.append(f"DEBUG 11-24 Request c-{number} details: prompt: {text!r}, prompt_token_ids: [1], x")
    found = run(lines)
    assert (found.requests, found.other_lines, found.broken_lines) == (3, 3, [])


def test_a_prompt_that_a_vllm_log_holds_is_taken_apart():
    prompts = [
        RENDERER.text(planted("timestamp: a clock", n, random.Random(1))["messages"]) for n in range(4)
    ]
    lines = [
        f"INFO 11-24 Request c-{n} details: prompt: {p!r}, prompt_token_ids: [1]"
        for n, p in enumerate(prompts)
    ]
    worst = run(lines).culprits[0]
    assert (worst.kind, worst.segment) == ("timestamp", "system")


def test_memory_is_bounded_and_the_output_says_so():
    found = run(log_of("nothing"), remembered_blocks=10)
    assert found.forgotten_blocks > 0
    assert found.hit_rate < run(log_of("nothing")).hit_rate
    assert "forgotten" in diagnosis_text(found)


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), max_size=30), max_size=6), st.integers(1, 5))
def test_a_memory_knows_the_longest_prefix_in_whole_blocks(prompts, block):
    memory = BlockMemory(block, limit=10_000)
    for place, prompt in enumerate(prompts):
        shared = [shared_prefix_tokens(one, prompt) for one in prompts[:place]]
        assert memory.visit(prompt) == max(shared, default=0) // block * block


def test_remembered_pieces_change_no_token():
    texts = [RENDERER.text(planted("retrieval_order", n, random.Random(n))["messages"]) for n in range(4)]
    encoder = Encoder(RENDERER)
    for _ in range(2):
        whole = [list(RENDERER.tokenizer.encode(text, add_special_tokens=False).ids) for text in texts]
        assert encoder.encode(texts) == whole


def test_a_page_escapes_what_the_log_says():
    lines = [json.dumps(system_with(f"{HOSTILE} Now: 10:{n:02d}", n)) for n in range(3)]
    page = diagnosis_page(run(lines), HOSTILE)
    assert "<script" not in page
    assert "<img" not in page
    assert "<mark>" in page


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run ``lmcache-tutorial diagnose`` with the byte tokenizer on a log, a planted one by its name.

    The log is ``log.jsonl`` in ``tmp_path``. Returns the finished process.
    """
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    RENDERER.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    )
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path / "cache"))

    def call(name: str | list[str], *options: str, tokenizer: bool = True):
        log = tmp_path / "log.jsonl"
        log.write_text("\n".join(log_of(name) if isinstance(name, str) else name))
        chosen = ["--tokenizer", str(folder)] if tokenizer else []
        program = Path(sys.executable).with_name("lmcache-tutorial")
        arguments = [program, "diagnose", log, *chosen, *options]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)

    return call


def test_the_command_prints_json_and_holds_a_bar(command):
    done = command("timestamp: a clock", "--json", "--min-hit-rate", "50")
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert document["culprits"][0]["kind"] == "timestamp"
    assert set(document["culprits"][0]) >= {
        "kind",
        "segment",
        "message_index",
        "lost_tokens",
        "before",
        "after",
    }
    assert command("nothing", "--min-hit-rate", "50").returncode == 0


def test_the_command_needs_a_tokenizer_and_says_how_to_get_one(command):
    done = command("nothing", tokenizer=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "lmcache-tutorial prepare" in done.stderr


def test_a_gate_fails_over_a_log_that_is_not_read_and_says_why(command):
    access = 'INFO:     172.19.0.1:43934 - "POST /v1/chat/completions HTTP/1.1" 200 OK'
    lines = [*log_of("nothing"), *["{"] * 3, *[access] * 30]
    done = command(lines, "--min-hit-rate", "50")
    assert done.returncode == 1
    assert "20.0 % of the requests could not be read: it is no JSON" in done.stderr
    assert "--allow-unread" in done.stderr
    assert command(lines, "--min-hit-rate", "50", "--allow-unread", "20").returncode == 0
    assert command(lines, "--min-hit-rate", "50", "--allow-unread", "19").returncode == 1
    assert command([*log_of("nothing"), *[access] * 30], "--min-hit-rate", "50").returncode == 0
    assert command(lines).returncode == 0  # no gate was asked for


def test_a_page_does_not_overwrite_the_log_and_a_bad_path_is_a_message(command, tmp_path):
    for page in ("log.jsonl", "nowhere/page.html", "tokenizer"):
        done = command("nothing", "--html", str(tmp_path / page))
        assert (done.returncode, done.stdout) == (2, "")
        assert "--html" in done.stderr
        assert "To fix: name" in done.stderr
        assert (tmp_path / "log.jsonl").read_text().startswith("{")
    assert command("nothing", "--html", str(tmp_path / "page.html")).returncode == 0
    assert "<h1>Prefix diagnosis</h1>" in (tmp_path / "page.html").read_text()


def test_a_log_that_holds_nothing_says_what_was_seen_and_what_is_read(command):
    done = command(['{"contents": []}'])
    assert (done.returncode, done.stdout) == (2, "")
    assert "no request was read" in done.stderr
    assert "an object with the keys contents is not a form that is read; needed: messages" in done.stderr
    assert "log.jsonl" in done.stderr


def test_nothing_in_a_log_steers_the_terminal(command, tmp_path):
    lines = [json.dumps(system_with(f"\x1b[2J:rocket: [red] 10:{n:02d}", n)) for n in range(3)]
    done = command(lines)
    assert "\x1b" not in done.stdout
    assert ":rocket: [red]" in done.stdout
    done = command(lines, "--html", str(tmp_path / "\x1b[2J" / "page.html"))
    assert "\x1b" not in done.stderr


def test_a_damaged_file_is_a_message(command, tmp_path):
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{")
    done = command("nothing")
    assert (done.returncode, done.stdout) == (2, "")
    assert "tokenizer.json is damaged" in done.stderr


@pytest.mark.parametrize("harm", ["cut", "damaged"])
def test_a_harmed_gzip_is_a_message(tmp_path, harm):
    packed = gzip.compress(random.Random(1).randbytes(10_000))
    packed = packed[:-9] if harm == "cut" else packed[:200] + bytes(200) + packed[400:]
    (tmp_path / "log.gz").write_bytes(packed)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_log(tmp_path / "log.gz", RENDERER, BLOCK, CHUNK, 100)


def test_the_command_loads_neither_torch_nor_transformers():
    heavy = "{'torch', 'transformers', 'matplotlib', 'pandas', 'scipy'}"
    code = f"import sys, lmcache_tutorial.cli.app; print(*{heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""
