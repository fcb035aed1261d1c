"""Closed forms: what a cache must reuse, before anything is measured. Pure functions of token counts."""

from __future__ import annotations

from collections.abc import Sequence


def shared_prefix_tokens(first: Sequence[int], second: Sequence[int]) -> int:
    """Count the tokens that two prompts share from their start.

    Args:
        first: token ids of a prompt, as the server renders it.
        second: token ids of another.

    Returns:
        The length of the longest common prefix [tokens].

    >>> shared_prefix_tokens([1, 2, 3, 4], [1, 2, 9])
    2
    """
    length = 0
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        length += 1
    return length


def engine_reusable_tokens(shared: int, prompt: int, block: int) -> int:
    """Predict what vLLM's own prefix cache reuses: whole blocks, and never the whole prompt.

    The last prompt token is always computed, since its output is the first new token
    (vLLM 0.32, ``KVCacheManager.get_computed_blocks``).

    Args:
        shared: tokens shared with a cached prompt, 0 or more.
        prompt: tokens of this prompt, 1 or more, at least ``shared``.
        block: tokens of a KV block, 1 or more.

    Returns:
        Reused tokens, a multiple of ``block``.

    Raises:
        ValueError: a count is out of range.

    >>> engine_reusable_tokens(shared=100, prompt=130, block=32)
    96
    >>> engine_reusable_tokens(shared=128, prompt=128, block=32)  # one token must be computed
    96
    """
    _check_counts(shared, prompt, block)
    return min(shared, prompt - 1) // block * block


def lmcache_reusable_tokens(shared: int, prompt: int, chunk: int) -> int:
    """Predict what LMCache serves to an engine that holds nothing: whole chunks.

    A prompt that is an exact multiple of the chunk is found whole and all but its last token is used:
    unlike the engine, LMCache does not give up its last chunk for it (seen with LMCache 0.5.6: 640 equal
    tokens, chunk 64, 639 reused).

    Args:
        shared: tokens shared with a stored prompt, 0 or more.
        prompt: tokens of this prompt, 1 or more, at least ``shared``.
        chunk: tokens of an LMCache chunk, 1 or more.

    Returns:
        Reused tokens: a multiple of ``chunk``, or ``prompt - 1``.

    Raises:
        ValueError: a count is out of range.

    >>> lmcache_reusable_tokens(shared=100, prompt=130, chunk=64)
    64
    >>> lmcache_reusable_tokens(shared=1000, prompt=1020, chunk=64)  # the engine, in blocks of 32: 992
    960
    >>> lmcache_reusable_tokens(shared=128, prompt=128, chunk=64)
    127
    """
    _check_counts(shared, prompt, chunk)
    return min(shared // chunk * chunk, prompt - 1)


def reusable_tokens(shared: int, prompt: int, *, block: int, chunk: int) -> int:
    """Predict what an engine with LMCache behind it reuses: its own blocks, and what LMCache has beyond.

    That is the larger of the two, for both keep a prefix. With a chunk of several blocks LMCache has more
    only where the whole prompt is known and is an exact multiple of the chunk.

    >>> reusable_tokens(shared=100, prompt=130, block=32, chunk=64)
    96
    >>> reusable_tokens(shared=128, prompt=128, block=32, chunk=64)
    127
    """
    engine = engine_reusable_tokens(shared, prompt, block)
    return max(engine, lmcache_reusable_tokens(shared, prompt, chunk))


def kv_bytes_per_token(
    layers: int, kv_heads: int, head_size: int, *, value_bytes: int = 2, tensor_parallel: int = 1
) -> int:
    """Compute the bytes of one token's keys and values over all layers (16-bit values by default).

    Spread over GPUs they are as many in all, divided evenly, as long as there is a KV head for each GPU;
    beyond that every GPU holds one, and heads are held more than once (vLLM 0.32,
    ``ModelConfig.get_num_kv_heads``).

    Args:
        layers: of the model.
        kv_heads: of a layer, all GPUs together.
        head_size: values of a head.
        value_bytes: of a value [bytes].
        tensor_parallel: over how many GPUs the engine is spread, 1 or more.

    >>> kv_bytes_per_token(layers=30, kv_heads=3, head_size=64)  # SmolLM2-135M
    23040
    >>> kv_bytes_per_token(layers=32, kv_heads=8, head_size=128)  # Llama-3.1-8B
    131072
    >>> [kv_bytes_per_token(32, 8, 128, tensor_parallel=gpus) for gpus in (2, 8, 16)]
    [131072, 131072, 262144]
    """
    return 2 * layers * max(kv_heads, tensor_parallel) * head_size * value_bytes


def _check_counts(shared: int, prompt: int, unit: int) -> None:
    if not (0 <= shared <= prompt and prompt >= 1 and unit >= 1):
        raise ValueError(
            f"need 0 <= shared <= prompt, prompt >= 1, unit >= 1; got {shared}, {prompt}, {unit}"
        )
