"""Exercise 8.2. Survive the cache server.

A deployment on processors runs with what vLLM 0.32 and LMCache 0.5.6 take by default. Last night its cache
server was paused for a minute, and then killed in the midst of a store. Requests hung, some ended in an
error, and then the engine was gone. Your users bear ten seconds, once.

The judge holds the settings against what lesson 8 and `test_faults.py` measure; it starts nothing.

File        tutorial_tests/exercises/ex8_2_survive_the_cache_server.py
Change      `TRANSFER` and `LMCACHE`: what is said to vLLM (`--kv-transfer-config`) and to `lmcache server`.
Command     pytest tutorial_tests/exercises/ex8_2_survive_the_cache_server.py
Fails with  a request that waits for a paused server hangs for 300 s
Hints       lmcache-tutorial hint 8.2
"""

from itertools import pairwise
from typing import Any

BEARABLE_S = 10.0
DEFAULT_TIMEOUT_S, DEFAULT_HEARTBEAT_S = 300.0, 10.0
TIMEOUT, HEARTBEAT = "lmcache.mp.mq_timeout", "lmcache.mp.heartbeat_interval"

# %% yours

TRANSFER: dict[str, Any] = {
    "kv_connector": "LMCacheMPConnector",
    "kv_role": "kv_both",
    "kv_connector_extra_config": {},
}
LMCACHE = ["--l1-size-gb", "2"]

# %% the judge


def test_ex8_2_no_request_is_lost_and_none_waits_too_long() -> None:
    assert TRANSFER.get("kv_connector") == "LMCacheMPConnector", "the engine is not connected to LMCache"
    extra = TRANSFER.get("kv_connector_extra_config", {})
    timeout_s, heartbeat_s = extra.get(TIMEOUT, DEFAULT_TIMEOUT_S), extra.get(HEARTBEAT, DEFAULT_HEARTBEAT_S)
    hangs = f"a request that waits for a paused server hangs for {timeout_s:g} s"
    assert 0 < timeout_s <= BEARABLE_S, hangs
    later = (
        f"the engine learns only after {heartbeat_s:g} s that the server is gone, and requests wait meanwhile"
    )
    assert 0 < heartbeat_s <= timeout_s, later
    lost = "KV that was found and does not come ends the request in an error"
    assert TRANSFER.get("kv_load_failure_policy") == "recompute", lost
    named = dict(pairwise(LMCACHE))
    dies = "an engine that stores into shared memory dies with the cache server"
    assert named.get("--shm-name") == "", dies
    assert named.get("--l1-size-gb") == "2", "LMCache's memory is another one"
