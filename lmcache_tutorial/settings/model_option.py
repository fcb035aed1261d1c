"""The option ``model``: our own, a shape, a model folder, or a name on the hub."""

from __future__ import annotations

from pathlib import Path

from .errors import ConfigError
from .paths import user_path
from .profiles import DEFAULT_MODEL, GPU_MODEL


def checked_model(model: str) -> str:
    """Check which model is wanted, without asking the network.

    Returns:
        The name as it is, or the folder's absolute path.

    Raises:
        ConfigError: a folder that is no model, or a text that can be neither folder nor hub name.
    """
    if model in (DEFAULT_MODEL, GPU_MODEL):
        return model
    if model.startswith("shape:"):
        raise ConfigError(
            lambda option: (
                f"{option('model')} is {model}, which is no known shape.\n"
                f"To fix: {option('model', GPU_MODEL)}"
            )
        )
    folder = user_path("model", model)
    if folder.is_dir():
        _check_folder(model, folder)
        return str(folder.resolve())
    if folder.exists() or model.count("/") != 1 or model.startswith((".", "/", "~")):
        raise ConfigError(
            lambda option: (
                f"{option('model')} is {model}, which is neither a model folder nor a hub name "
                f"(organisation/name).\n"
                f"To fix: check the path, or leave the option out for the tutorial's own small model."
            )
        )
    return model


def _check_folder(model: str, folder: Path) -> None:
    missing = [name for name in ("config.json", "tokenizer.json") if not (folder / name).is_file()]
    weights = [*folder.glob("*.safetensors"), *folder.glob("*.bin")]
    if missing or not weights:
        seen = ", ".join(missing) or "weights (*.safetensors)"
        raise ConfigError(
            lambda option: (
                f"{option('model')} is {model}, which is a folder but no model: it lacks {seen}.\n"
                f"To fix: name a folder made by save_pretrained, or leave the option out for the tutorial's "
                f"own model."
            )
        )
