"""What running servers state about themselves, compared with what they were to be started with.

Predictions are made from the configuration: a chunk of another size would look like a lack of memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import httpx

from ..settings.packages import ENGINES
from .stack import Stack


def differences(stack: Stack) -> Iterator[str]:
    """Yield a sentence for everything that a server states otherwise than the configuration says.

    Args:
        stack: ready; an engine, with LMCache's server or without.
    """
    config = stack.config
    models = [model["id"] for model in stack.client.get(f"{stack.engine.url}/v1/models").json()["data"]]
    if stack.model.name not in models:
        yield f"the engine at {stack.engine.url} serves {', '.join(models)}, and not {stack.model.name}"
    if config.block_tokens and stack.block_tokens != config.block_tokens:
        stated = stack.block_tokens
        yield f"the engine's block has {stated} tokens, where {config.block_tokens} are configured"
    yield from _version(stack.client, f"{stack.engine.url}/version", ENGINES[config.profile])
    if stack.lmcache and stack.lmcache_http:
        if stack.chunk_tokens != config.chunk_tokens:
            yield (
                f"LMCache's chunk has {stack.chunk_tokens} tokens, where {config.chunk_tokens} are configured"
            )
        yield from _version(stack.client, f"{stack.lmcache_http}/lmc_version", "lmcache")


def _version(client: httpx.Client, url: str, package: str) -> Iterator[str]:
    """Compare a server's version with the installed package's; one that states none is not blamed."""
    answer = client.get(url)
    if answer.status_code != 200:
        return
    body = answer.json()
    stated = str(body.get("version") if isinstance(body, dict) else body)
    installed = metadata.version(package)
    if stated.partition("+")[0] != installed.partition("+")[0]:
        yield f"{package} {installed} is installed, but {url} states {stated}"
