"""How long an idle HTTP connection is used again: less long than servers keep it open.

uvicorn, which vLLM and LMCache run on, closes a connection that was idle for 5 s, and httpx would use it for
as long: a request that begins just then meets a server that is closing, and has no answer.
"""

from __future__ import annotations

import httpx

IDLE_S = 2.0
CONNECTIONS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=IDLE_S)
