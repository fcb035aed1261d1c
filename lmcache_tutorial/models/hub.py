"""A model from the hub, by its name."""

from __future__ import annotations

from pathlib import Path

from .model import ModelError, Progress


def fetch(name: str, progress: Progress) -> Path:
    """Return the folder of a model in the hub's cache; fetch it first if need be.

    Raises:
        ModelError: there is no such model, or no network.
    """
    from huggingface_hub import snapshot_download

    progress(f"model: fetching {name} from the hub, unless it is in your hub cache")
    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model"]))
    except Exception as error:  # the hub client raises a dozen unrelated types
        raise ModelError(
            f"the model {name} could not be fetched from the hub: {type(error).__name__}.\n"
            f"To fix: check the name and the network, or name a model folder."
        ) from error
