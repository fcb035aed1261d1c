"""The number format in which the engine computes and keeps KV, by the processor."""

from __future__ import annotations

from ..machine.checks import (
    best_instruction_set,
    instruction_set_here,
    processor_flags,
)
from .errors import ConfigError

DTYPES = ("auto", "bfloat16", "float32")


def number_format(wanted: str, profile: str) -> tuple[str, str]:
    """Choose the format in which the engine computes and keeps KV.

    A processor without bf16 instructions emulates them: it prefills at less than half the rate of float32.

    Args:
        wanted: ``auto``, ``bfloat16`` or ``float32``.
        profile: ``cpu`` or ``gpu``.

    Returns:
        The format and, in words that may follow "since", the reason.

    Raises:
        ConfigError: the engine would die in it here.
    """
    if profile == "gpu":
        chosen = "bfloat16" if wanted == "auto" else wanted
        return chosen, "a GPU computes in it" if wanted == "auto" else "it was asked for"
    best, used = best_instruction_set(processor_flags()), instruction_set_here()
    # vLLM's bf16 attention takes AMX wherever the processor has it. oneDNN, told to use less, does not ask
    # the kernel for AMX's registers, and the engine dies of the first such instruction.
    dies = best == "AMX" and used != "AMX"
    if wanted == "bfloat16" and dies:
        raise ConfigError(
            lambda option: (
                f"{option('dtype', 'bfloat16')} and ONEDNN_MAX_CPU_ISA exclude each other on a processor "
                f"with AMX: vLLM would use AMX all the same, and its engine would die.\n"
                f"To fix: unset ONEDNN_MAX_CPU_ISA, or {option('dtype', 'float32')}"
            )
        )
    if wanted != "auto":
        return wanted, "it was asked for"
    if used in ("AMX", "AVX512_BF16") and not dies:
        return "bfloat16", f"the processor computes in it ({used})"
    limited = ", as ONEDNN_MAX_CPU_ISA limits it," if used != best else ""
    return "float32", f"the processor{limited} has no bf16 instructions ({used})"
