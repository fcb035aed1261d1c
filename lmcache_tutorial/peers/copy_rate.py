"""How fast does this machine copy between pinned memory and the GPU? Run as a program: torch stays out.

``python -m lmcache_tutorial.copy_rate`` prints both directions in bytes a second: the median of ten passes
over 512 MiB in pieces of 32 MiB (a chunk of 256 tokens of an 8B model), timed by events on the device.
"""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any

PIECE_BYTES, PIECES, PASSES = 2**25, 16, 10
LIMIT_S = 120


def copy_rates() -> dict[str, float]:
    """Measure in a process of its own [bytes/s].

    Raises:
        RuntimeError: there is no GPU, or no room on it.
    """
    command = [sys.executable, "-m", "lmcache_tutorial.peers.copy_rate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise RuntimeError(f"the copy rate could not be measured: {last}")
    rates: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return rates


def _measure() -> dict[str, float]:
    import torch

    cuda: Any = torch.cuda
    host = torch.empty((PIECES, PIECE_BYTES), dtype=torch.uint8, pin_memory=True)
    device = torch.empty((PIECES, PIECE_BYTES), dtype=torch.uint8, device="cuda")
    host.fill_(1)

    def rate(target: Any, source: Any) -> float:
        times = []
        for _ in range(PASSES + 1):
            start, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
            start.record()
            for piece in range(PIECES):
                target[piece].copy_(source[piece], non_blocking=True)
            end.record()
            cuda.synchronize()
            times.append(start.elapsed_time(end) / 1000)
        return float(PIECES * PIECE_BYTES / median(times[1:]))  # the first pass warms up

    return {"host_to_device": rate(device, host), "device_to_host": rate(host, device)}


if __name__ == "__main__":
    print(json.dumps(_measure()))
