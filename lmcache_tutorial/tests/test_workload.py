"""How much work fits a machine: sizes by rate, and what is remembered of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcache_tutorial.settings.options import RunOptions
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.settings.run import run_config
from lmcache_tutorial.settings.size_classes import FEWEST_CHUNKS
from lmcache_tutorial.settings.workload import HYSTERESIS, Memory, expected, fit

CLASSES = PROFILES["cpu"].classes
AROUND_TOKENS = 1024  # an agent's template, tools, questions and answers
LONG = [one.sizes.long for one in CLASSES]
rates = st.floats(1, 100_000)


@given(rates, rates)
def test_a_faster_machine_never_gets_shorter_documents(one, other):
    slow, fast = sorted([one, other])
    assert fit(CLASSES, slow).sizes.long <= fit(CLASSES, fast).sizes.long


@given(st.floats(160, 2_300))
def test_a_cold_long_prompt_takes_one_and_a_half_to_four_seconds(rate):
    seconds = fit(CLASSES, rate).sizes.long / rate
    assert 1.5 <= seconds <= 4.0  # 3,600 tokens take up to a third longer than the warm-up's rate says


@given(rates, st.floats(1 - HYSTERESIS + 0.01, 1 + HYSTERESIS - 0.01))
def test_two_runs_whose_rates_scatter_have_the_same_sizes(rate, scatter):
    first = fit(CLASSES, rate).sizes.long
    place = LONG.index(first)
    below = CLASSES[place].from_tokens_s
    above = CLASSES[place + 1].from_tokens_s if place + 1 < len(CLASSES) else float("inf")
    again = min(max(rate * scatter, below * (1 - HYSTERESIS) + 1e-6), above * (1 + HYSTERESIS) - 1e-6)
    assert fit(CLASSES, again, last=first).sizes.long == first


def test_a_machine_that_has_clearly_changed_gets_other_sizes():
    assert fit(CLASSES, 2000, last=1200).sizes.long == 3600
    assert fit(CLASSES, 100, last=3600).sizes.long == 600


@pytest.mark.parametrize("rate", [0, -1, float("nan")])
def test_a_rate_of_nothing_is_an_error(rate):
    with pytest.raises(ValueError, match="above 0"):
        fit(CLASSES, rate)


@pytest.mark.parametrize("chunk", [32, 64, 128, 256])
def test_a_long_document_has_enough_chunks_to_claim_a_rate(chunk):
    classes = run_config(RunOptions(stack="cpu", chunk_tokens=chunk)).classes
    assert classes
    assert all(one.sizes.long >= FEWEST_CHUNKS * chunk for one in classes)
    assert all(one.sizes.short >= 4 * 32 for one in classes)


def test_a_chunk_too_large_for_any_leaves_the_largest():
    (only,) = run_config(RunOptions(stack="cpu", chunk_tokens=1024)).classes
    assert only.sizes.long == LONG[-1]


def test_sizes_are_remembered_by_what_decides_the_speed(tmp_path):
    memory = Memory(tmp_path / "sub" / "classes.json", ["Xeon", "AMX"])
    assert memory.last() is None
    memory.keep(fit(CLASSES, 500))
    assert memory.last() == 1200
    other = Memory(tmp_path / "sub" / "classes.json", ["Xeon", "AVX2"])
    assert other.last() is None
    other.keep(fit(CLASSES, 100))
    assert (memory.last(), other.last()) == (1200, 600)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"x": "y"}', "null"])
def test_a_damaged_memory_is_no_memory(tmp_path, text):
    path = tmp_path / "classes.json"
    path.write_text(text)
    memory = Memory(path, ["Xeon"])
    assert memory.last() is None
    memory.keep(fit(CLASSES, 500))
    assert 1200 in json.loads(path.read_text()).values()


def test_where_nothing_was_measured_the_format_tells_what_to_expect():
    assert expected(CLASSES, None, "bfloat16").long == 3600
    assert expected(CLASSES, None, "float32").long == 600
    assert expected(CLASSES, 1800, "float32").long == 1800


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_a_long_document_and_a_short_one_fit_the_context_together(profile):
    context = profile.stack.engine.context_tokens
    for one in profile.classes:
        assert one.sizes.long + one.sizes.short + AROUND_TOKENS <= context
