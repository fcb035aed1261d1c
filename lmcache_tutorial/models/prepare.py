"""Which model: our own small real one, a shape with random weights, a folder, or a name on the hub."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from ..prompts.documents import CorpusError
from ..settings.environment import cache_folder
from ..settings.profiles import DEFAULT_MODEL
from .folder import digest, once
from .hub import fetch
from .model import CHAT_TEMPLATE, Model, ModelError, Progress
from .shapes import PREFIX, SHAPES, write_shape
from .small import prepare_small


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
        folder = prepare_small(progress)
        return Model(folder, DEFAULT_MODEL, digest(folder), CHAT_TEMPLATE)
    if model in SHAPES:
        folder = _prepare_shape(model, progress)
        return Model(folder, model, digest(folder), CHAT_TEMPLATE, random_weights=True)
    folder = Path(model) if Path(model).is_dir() else fetch(model, progress)
    return Model(folder, folder.name if Path(model).is_dir() else model, digest(folder))


def _prepare_shape(name: str, progress: Progress) -> Path:
    def write(folder: Path) -> None:
        progress(f"model: training a tokenizer for {name} on LMCache's source (once, seconds)")
        write_shape(name, folder)

    version = metadata.version("lmcache")
    return once(cache_folder() / "models" / f"shape-{name.removeprefix(PREFIX)}-{version}", write, progress)
