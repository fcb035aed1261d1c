"""Seats: the engines of one block of peers, side by side."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from ..models.model import Model
from ..servers.process import ServerError
from ..settings.environment import cache_folder
from ..settings.profiles import LessonSizes
from ..settings.run import RunConfig
from ..settings.topology import StackConfig
from ..stack.kept_state import StackError
from ..stack.needs import resources
from ..stack.stack import Stack
from ..stack.start import launch, wait_ready
from .catalogue import Peer

GIB = 2**30


Seat = tuple[Peer, Stack]


GiveUp = Callable[[Peer, Exception], None]
"""Told of a peer that failed. If it returns, the others go on without that peer."""


def seat_config(plain: StackConfig, peer: Peer, model: Model, sizes: LessonSizes, seat: int) -> StackConfig:
    """Fit a peer's stack into a seat: memory for the longest prompt, and outside for two of them."""
    kv, context = model.kv_bytes_per_token(plain.dtype), sizes.longest + max(512, sizes.longest // 40)
    config = peer.config(plain)
    engine = max(0.25, math.ceil(10 * 1.03 * context * kv / GIB) / 10)
    kept = max(2, math.ceil(2.5 * sizes.longest * kv / GIB))
    if plain.profile == "gpu":  # engines that compile at the same time must not share one folder of results
        folder = ("VLLM_CACHE_ROOT", str(cache_folder() / f"vllm-seat-{seat}"))
        config = replace(config, environment=(*config.environment, folder))
        config = config.with_engines(gpu_memory_share=0.3)
    if config.engine.offload_gib is not None:
        config = config.with_engines(offload_gib=kept)
    return config.with_engines(context_tokens=context, memory_gib=engine).with_caches(memory_gib=kept)


@dataclass(frozen=True)
class Seats:
    """Where the engines of a block of peers run side by side.

    Attributes:
        run: the configuration.
        sizes: the documents' lengths.
        model: what the engines serve.
        progress: told what happens, a line at a time.
        give_up: told of a peer whose servers did not start; it has no seat then.
    """

    run: RunConfig
    sizes: LessonSizes
    model: Model
    progress: Callable[[str], None]
    give_up: GiveUp

    @contextmanager
    def taken(self, block: Sequence[Peer]) -> Iterator[list[Seat]]:
        """Run the engines of one block for the length of a ``with`` block.

        Raises:
            StackError: the machine has too little for all of them.
            ServerError: a program could not be executed; none is left running.
        """
        seats: list[Seat] = []
        configs = [
            seat_config(self.run.stack, peer, self.model, self.sizes, number)
            for number, peer in enumerate(block)
        ]
        for check in resources(*configs):
            if not check.ok:
                together = " beside ".join(peer.name for peer in block)
                raise StackError(
                    f"{check.name} is too small for {together}: {check.seen}.\nTo fix: {check.remedy}"
                )
        with ExitStack() as opened:  # closes every one, also where closing another fails
            for peer, config in zip(block, configs, strict=True):
                logs = self.run.report_dir / "logs" / peer.name.replace(" ", "-").replace(",", "")
                stack = launch(config, self.model, logs, self.progress)
                opened.callback(stack.close)
                seats.append((peer, stack))
            self.progress(f"peers: starting {' beside '.join(peer.name for peer in block)}")
            started = time.monotonic()
            for peer, stack in list(seats):
                try:
                    wait_ready(stack, since=started)
                except ServerError as error:
                    self.give_up(peer, error)
                    seats.remove((peer, stack))
            yield seats
