"""LMCache and its peers, side by side: a benchmark, not a lesson; on request: `pytest --kv-peers -k peers`.

vLLM without reuse, its own prefix cache, its native offload, LMCache as it comes and LMCache tuned answer the
same kinds of request on this machine, in turns. `--kv-peers=tuning` measures the steps of the tuning table
instead. The page is `reports/peers.html` (or `tuning.html`), its numbers stand in the `.json` beside it, and
each peer's TTFT is a benchmark of pytest-benchmark too, so that runs can be compared.
"""

from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from lmcache_tutorial.peers.catalogue import ALONE, PEERS, WHOLE_CHUNKS
from lmcache_tutorial.peers.page import findings
from lmcache_tutorial.peers.playback import REPLAY, play_back

pytestmark = pytest.mark.kv_peers


def held(document: dict[str, Any], words: str) -> list[tuple[str, bool, str]]:
    """Return the findings whose sentence holds some words; skip where this machine has none."""
    found = [finding for finding in findings(document) if words in finding[0]]
    if not found:
        pytest.skip("this set of peers, or this machine, has nothing to compare: see the page")
    return found


def test_peers_each_was_measured(side_by_side: dict[str, Any]) -> None:
    if side_by_side["set"] == "tuning":
        pytest.skip("that a step fails is an outcome too: see the page")
    assert not side_by_side["unmeasured"]


def test_peers_each_request_was_served_by_whom_it_names(side_by_side: dict[str, Any]) -> None:
    wrong = []
    for sample in side_by_side["samples"]:
        reused = {"cold": (0, 0), "engine": (sample["predicted"], 0), "outside": (0, sample["predicted"])}
        if (sample["engine"], sample["outside"]) != reused[sample["start"]]:
            wrong.append(sample)
    assert side_by_side["samples"]
    assert not wrong


def test_peers_lmcache_tuned_is_at_or_below_native_offload(side_by_side: dict[str, Any]) -> None:
    found = held(side_by_side, "native offload")
    assert all(holds for _, holds, _ in found), found


def test_peers_the_load_comes_near_the_copy_rate(side_by_side: dict[str, Any]) -> None:
    found = held(side_by_side, "copy rate")
    assert all(holds for _, holds, _ in found), found


def test_peers_the_suite_adds_little_to_a_warm_ttft(side_by_side: dict[str, Any]) -> None:
    found = held(side_by_side, "suite adds")
    assert all(holds for _, holds, _ in found), found


@pytest.mark.parametrize("size", ["short", "medium", "long", *WHOLE_CHUNKS])
@pytest.mark.parametrize("peer", [peer.name for peer in PEERS])
@pytest.mark.benchmark(group="peers", timer=REPLAY.now)
def test_peers_benchmark_warm_ttft(
    peer: str, size: str, side_by_side: dict[str, Any], benchmark: BenchmarkFixture
) -> None:
    samples = side_by_side["samples"]
    wanted = (peer, side_by_side["lengths"].get(size), "engine" if peer == ALONE.name else "outside")
    values = [s["ttft_s"] for s in samples if (s["peer"], s["tokens"], s["start"]) == wanted]
    if not values:
        pytest.skip("this set of peers, or this machine, has no such peer or length: see the page")
    play_back(benchmark, values)
