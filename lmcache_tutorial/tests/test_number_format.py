"""What a processor can do, and the number format that follows."""

import pytest

from lmcache_tutorial.machine.checks import instruction_set
from lmcache_tutorial.settings import number_format as options
from lmcache_tutorial.settings import run as run_settings
from lmcache_tutorial.settings.errors import ConfigError
from lmcache_tutorial.settings.options import RunOptions
from lmcache_tutorial.settings.run import run_config

AVX2 = frozenset({"avx2"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512vl"}
BF16 = AVX512 | {"avx512_bf16"}
AMX = BF16 | {"amx_bf16", "amx_tile"}


@pytest.mark.parametrize(
    ("flags", "limit", "found"),
    [
        (AVX2, "", "AVX2"),
        (AVX512, "", "AVX-512"),
        (BF16, "", "AVX512_BF16"),
        (AMX, "", "AMX"),
        (AMX, "AVX512_CORE", "AVX-512"),
        (AMX, "avx2", "AVX2"),
        (AMX, "AVX512_CORE_BF16", "AVX512_BF16"),
        (AMX, "AVX512_CORE_AMX", "AMX"),
        (AMX, "DEFAULT", "AMX"),
        (AVX2, "AVX512_CORE_AMX", "AVX2"),
    ],
)
def test_the_instruction_set_is_what_processor_and_limit_both_allow(flags, limit, found):
    assert instruction_set(flags, limit) == found


@pytest.fixture
def processor(monkeypatch):
    """Return a function that sets the processor's flags and oneDNN's limit."""

    def become(flags, limit=""):
        monkeypatch.setattr(options, "processor_flags", lambda: flags)
        for module in (options, run_settings):
            monkeypatch.setattr(module, "instruction_set_here", lambda: instruction_set(flags, limit))

    return become


@pytest.mark.parametrize(
    ("flags", "limit", "dtype", "chunk"),
    [
        (AMX, "", "bfloat16", 64),
        (BF16, "", "bfloat16", 64),
        (AVX512, "", "float32", 64),
        (AVX2, "", "float32", 32),
        (AMX, "AVX512_CORE", "float32", 64),
        (AMX, "AVX512_CORE_BF16", "float32", 64),  # vLLM would use AMX all the same, and die of it
        (BF16, "AVX512_CORE_BF16", "bfloat16", 64),
    ],
)
def test_the_number_format_and_the_chunk_follow_the_processor(processor, flags, limit, dtype, chunk):
    processor(flags, limit)
    run = run_config(RunOptions(stack="cpu"))
    assert (run.stack.dtype, run.stack.cache.chunk_tokens) == (dtype, chunk)


def test_an_option_overrides_what_was_chosen(processor):
    processor(AVX2)
    run = run_config(RunOptions(stack="cpu", dtype="bfloat16", chunk_tokens=96))
    assert (run.stack.dtype, run.stack.cache.chunk_tokens, run.dtype_reason) == (
        "bfloat16",
        96,
        "it was asked for",
    )


def test_bf16_with_amx_switched_off_is_refused_before_the_engine_dies_of_it(processor):
    processor(AMX, "AVX512_CORE")
    with pytest.raises(ConfigError, match="To fix: unset ONEDNN_MAX_CPU_ISA, or --dtype=float32"):
        run_config(RunOptions(stack="cpu", dtype="bfloat16"))


def test_an_unknown_format_is_refused():
    with pytest.raises(ConfigError, match="must be one of auto, bfloat16, float32"):
        run_config(RunOptions(stack="cpu", dtype="int3"))
