"""A folder of files as a tier: made when the stack starts, removed with everything in it when it ends.

The files are written and read by LMCache's server itself. The process is only the folder's keeper: it does
nothing, but its supervisor removes the folder however the run ends, and a kept stack knows it by its record.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from ..settings.environment import cache_folder, server_environment
from ..settings.topology import TierConfig
from .ports import free_port
from .process import Launch, Server, ServerError
from .program import Site, Tier

KEEPER = "import signal; signal.pause()"
READ, PARTS = 64, 8  # files that are read to know how fast they come, in so many parts


class FileTier(Tier):
    """A folder in which LMCache keeps one file for each chunk."""

    def __init__(self, name: str, folder: Path, client: httpx.Client, own: TierConfig) -> None:
        """Wrap a folder that is there, or about to be."""
        super().__init__(name, folder.as_uri(), client)
        self.folder, self._own = folder, own

    def answers(self) -> bool:
        """Tell whether the folder is there."""
        return self.folder.is_dir()

    def adapter(self) -> dict[str, Any]:
        """Build LMCache's adapter: ``fs``, or ``fs_native`` with an eviction where there is a bound."""
        told: dict[str, Any] = {"type": "fs", "base_path": str(self.folder)}
        if self._own.capacity_gib is not None:
            # Without the eviction block the bound is only reported: files go on to grow beyond it.
            told |= {"type": "fs_native", "max_capacity_gb": self._own.capacity_gib}
            told |= {"eviction": {"eviction_policy": "LRU"}}
        return self._own.told(told)

    @property
    def paths(self) -> list[Path]:
        """The files of the chunks that it holds, by name; what is still being written is left out."""
        return sorted(path for path in self.folder.rglob("*.data") if path.is_file())

    @property
    def used_bytes(self) -> int:
        """The size of all files [bytes], as they are long; a file that goes meanwhile counts nothing."""
        sizes = []
        for path in self.folder.rglob("*"):
            try:
                sizes.append(path.stat().st_size if path.is_file() else 0)
            except FileNotFoundError:
                continue
        return sum(sizes)

    def reading_mb_s(self) -> list[float]:
        """Read its newest files, one after the other, and tell how fast each of some parts came [MB/s].

        Files that were written a moment ago come from the operating system's memory, and so they do when
        LMCache reads them after this.

        Raises:
            ServerError: it does not hold a file for each part.
        """
        newest = sorted(self.paths, key=lambda path: path.stat().st_mtime)[-READ:]
        parts = [newest[start::PARTS] for start in range(PARTS)]
        if not all(parts):
            raise ServerError(f"{self.name} holds {len(newest)} files; {PARTS} must be read to time them.")
        rates = []
        for part in parts:
            begin = time.perf_counter()
            size = sum(len(path.read_bytes()) for path in part)
            rates.append(size / 1e6 / (time.perf_counter() - begin))
        return rates

    def state(self) -> dict[str, Any]:
        """Add where the folder is."""
        return {**super().state(), "folder": str(self.folder)}


def launch(site: Site, own: TierConfig, name: str) -> FileTier:
    """Make the folder and start its keeper.

    Raises:
        ServerError: the keeper could not be executed.
    """
    tier = FileTier(name, cache_folder() / "tiers" / f"{site.run_id}-{name}", site.client, own)
    start = Launch(
        free_port(), site.logs / f"{name}.log", server_environment(site.config), folder=tier.folder
    )
    tier.server = Server.start(name, [sys.executable, "-I", "-c", KEEPER], start)
    return tier


def resume(site: Site, own: TierConfig, kept: Mapping[str, Any], server: Server) -> FileTier:
    """Take over a folder that was kept."""
    tier = FileTier(server.record.name, Path(kept["folder"]), site.client, own)
    tier.server = server
    return tier
