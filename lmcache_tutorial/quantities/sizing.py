"""What many machines need, so that documents that one engine computed are found by all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .memories import GIB
from .room import WATERMARK

COLUMNS = (
    "engines",
    "LMCache each, round robin [GiB]",
    "LMCache each, sticky router [GiB]",
    "shared tier [GiB]",
    "it brings [MB/s]",
)


def sizing_rows(
    engines: Iterable[int], working_set_bytes: float, made_bytes_s: float
) -> list[list[int | float]]:
    """Compute what some numbers of engines need; one row each, as :data:`COLUMNS` says.

    Without a tier every LMCache that is asked about every document keeps all of them, below its watermark; a
    router that keeps each document at one engine divides them. A tier keeps one copy. Engines that all load
    at the same moment want it to bring what each of them could have computed meanwhile.

    Args:
        engines: numbers of engines, each with an LMCache of its own.
        working_set_bytes: the KV of all documents that are asked about [bytes].
        made_bytes_s: the KV that one engine makes by prefilling [bytes/s].

    >>> sizing_rows([4], working_set_bytes=8 * GIB, made_bytes_s=50e6)
    [[4, 10.0, 2.5, 8.0, 200.0]]
    """
    gib = working_set_bytes / GIB
    return [
        [count, gib / WATERMARK, gib / WATERMARK / count, gib, count * made_bytes_s / 1e6]
        for count in engines
    ]


def kv_mb_s(tokens: Sequence[int], ttft_s: Sequence[float], kv_bytes_per_token: int) -> list[float]:
    """Compute how fast KV came, request by request, over their TTFT [MB/s].

    Args:
        tokens: those that came in one way, for example from a tier, of each request.
        ttft_s: their TTFT, each above 0 [s].
        kv_bytes_per_token: the keys and values of one token [bytes].

    >>> kv_mb_s([1_000], [0.5], kv_bytes_per_token=23_040)
    [46.08]
    """
    return [n * kv_bytes_per_token / 1e6 / s for n, s in zip(tokens, ttft_s, strict=True)]
