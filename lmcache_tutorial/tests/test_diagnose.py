"""The diagnosis: logs with one planted culprit each, broken lines, bounded memory, and the command."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcache_tutorial.diagnose import diagnose
from lmcache_tutorial.diagnosis import diagnosis_page, diagnosis_text
from lmcache_tutorial.logs import Log, parse_line
from lmcache_tutorial.predict import shared_prefix_tokens
from lmcache_tutorial.rendering import Renderer
from lmcache_tutorial.replay import BlockMemory, Encoder
from lmcache_tutorial.tests.conftest import HOSTILE
from lmcache_tutorial.tests.planted import PLANTED, history, log_of, planted, system_with, with_history
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
    assert (found.requests, found.broken_lines) == (3, [3])


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
    """Run ``lmcache-tutorial diagnose`` with the byte tokenizer; returns the finished process."""
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    RENDERER.tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    )
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path / "cache"))

    def call(name: str, *options: str, tokenizer: bool = True):
        log = tmp_path / "log.jsonl"
        log.write_text("\n".join(log_of(name)))
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
    assert done.returncode == 2
    assert "lmcache-tutorial prepare" in done.stderr


def test_the_command_loads_neither_torch_nor_transformers():
    heavy = "{'torch', 'transformers', 'matplotlib', 'pandas', 'scipy'}"
    code = f"import sys, lmcache_tutorial.cli; print(*{heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == ""
