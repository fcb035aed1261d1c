"""The file tier: a folder that comes and goes with its keeper, and what LMCache is told about it."""

import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from lmcache_tutorial.servers.file_tier import FileTier, launch, resume
from lmcache_tutorial.servers.process import ServerError
from lmcache_tutorial.servers.program import Site
from lmcache_tutorial.settings.profiles import PROFILES
from lmcache_tutorial.settings.topology import TierConfig


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("LMCACHE_TUTORIAL_CACHE", str(tmp_path / "cache"))
    with httpx.Client() as client:
        yield Site(PROFILES["cpu"].stack, None, tmp_path / "logs", "run", client)


def wait_for(seen):
    deadline = time.monotonic() + 10
    while not seen():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_folder_is_there_while_its_keeper_runs_and_gone_with_everything_in_it_afterwards(site):
    tier = launch(site, TierConfig("file_tier"), "file_tier")
    try:
        wait_for(tier.answers)
        (tier.folder / "deep").mkdir()
        (tier.folder / "deep" / "m@0x1@0@ab.data").write_bytes(b"x" * 1000)
        (tier.folder / "half.tmp").write_bytes(b"x" * 24)
        assert [path.name for path in tier.paths] == ["m@0x1@0@ab.data"]
        assert tier.used_bytes == 1024
        with pytest.raises(ServerError, match="file_tier holds 1 files; 8 must be read to time them"):
            tier.reading_mb_s()
        for number in range(9):
            (tier.folder / f"{number}.data").write_bytes(b"x" * 1000)
        rates = tier.reading_mb_s()
        assert len(rates) == 8
        assert min(rates) > 0
    finally:
        tier.process.stop()
    assert not tier.folder.exists()
    assert tier.used_bytes == 0


def test_a_kept_folder_is_found_again(site):
    tier = launch(site, TierConfig("file_tier"), "file_tier")
    try:
        again = resume(site, TierConfig("file_tier"), tier.state(), tier.process)
        assert again.folder == tier.folder
        assert again.adapter() == tier.adapter()
    finally:
        tier.process.stop()


def test_a_folder_that_is_there_already_is_somebody_elses(site):
    folder = Path(site.logs.parent / "cache" / "tiers" / "run-file_tier")
    folder.mkdir(parents=True)
    (folder / "theirs").touch()
    with pytest.raises(ServerError, match=r"file_tier could not be executed(.|\n)*exists"):
        launch(site, TierConfig("file_tier"), "file_tier")
    assert (folder / "theirs").exists()


def test_the_folder_goes_when_the_run_dies(site, tmp_path):
    """The run is a process of its own here, and is killed without a chance to clean up."""
    code = """
import sys, time
from pathlib import Path
from lmcache_tutorial.servers.process import Launch, Server
here = Path(sys.argv[1])
Server.start("keeper", ["sleep", "600"], Launch(1, here / "log", folder=here / "tier"))
print("started", flush=True)
time.sleep(600)
"""
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert run.stdout.readline() == "started\n"
    wait_for((tmp_path / "tier").is_dir)
    run.kill()
    run.wait()
    run.stdout.close()
    wait_for(lambda: not (tmp_path / "tier").exists())


def test_lmcache_is_told_of_a_bound_together_with_an_eviction():
    with httpx.Client() as client:
        free = FileTier("file_tier", Path("/d"), client, TierConfig("file_tier"))
        bounded = FileTier("file_tier", Path("/d"), client, TierConfig("file_tier", capacity_gib=0.5))
        sealed = TierConfig("file_tier", adapter=(("serde", {"type": "aesgcm"}),))
        assert free.adapter() == {"type": "fs", "base_path": "/d"}
        assert bounded.adapter()["type"] == "fs_native"
        assert bounded.adapter()["max_capacity_gb"] == 0.5
        assert bounded.adapter()["eviction"]["eviction_policy"] == "LRU"
        assert FileTier("file_tier", Path("/d"), client, sealed).adapter()["serde"] == {"type": "aesgcm"}
