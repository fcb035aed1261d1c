"""What a Langfuse project holds, read through its public API: generations, by tag, name and time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from ..settings.connections import CONNECTIONS

HOSTS = ("LANGFUSE_BASE_URL", "LANGFUSE_HOST")
KEYS = ("LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY")
PAGE = 50  # traces; a page with whole prompts may be large
REQUEST_LIMIT_S = 30.0
PATIENCE_S = 60.0  # in all, with a server that says that it was asked too often
Document = dict[str, Any]


class LangfuseError(RuntimeError):
    """A Langfuse that cannot be read; the message says what was seen and what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which traces: those that have all of this; times in ISO 8601, ``until`` itself excluded."""

    tag: str | None = None
    name: str | None = None
    since: str | None = None
    until: str | None = None

    @property
    def query(self) -> dict[str, str]:
        """How the API is asked for them, the newest first."""
        given = {"tags": self.tag, "name": self.name, "fromTimestamp": self.since, "toTimestamp": self.until}
        return {"orderBy": "timestamp.desc"} | {name: value for name, value in given.items() if value}


def project_client() -> httpx.Client:
    """Make a client for the project that the environment names.

    Raises:
        LangfuseError: a variable is missing.
    """
    host = next((os.environ[name] for name in HOSTS if os.environ.get(name)), "")
    public, secret = (os.environ.get(name, "") for name in KEYS)
    missing = [
        name for name, value in zip((HOSTS[0], *KEYS), (host, public, secret), strict=True) if not value
    ]
    if missing:
        raise LangfuseError(
            f"no Langfuse is named: {' and '.join(missing)} are not set.\nTo fix: set them, or name an export"
        )
    return httpx.Client(base_url=host, auth=(public, secret), timeout=REQUEST_LIMIT_S, limits=CONNECTIONS)


def traces(client: httpx.Client, wanted: Wanted, most: int) -> Iterator[Document]:
    """Yield whole traces, each with its observations, the newest first.

    Raises:
        LangfuseError: the server refuses, or does not answer as it should.
    """
    found, page, patience = 0, 1, [PATIENCE_S]
    while True:
        listed = _get(client, "/api/public/traces", {**wanted.query, "page": page, "limit": PAGE}, patience)
        data = listed.get("data") or []
        for one in data:
            if found == most:
                return
            found += 1
            yield trace(client, one["id"], patience)
        pages = (listed.get("meta") or {}).get("totalPages", 0)
        if not data or page >= pages:
            return
        page += 1


def trace(
    client: httpx.Client, name: str, patience: list[float] | None = None, limit_s: float = REQUEST_LIMIT_S
) -> Document:
    """Return one trace with its observations; the server may be silent for so long [s].

    Raises:
        LangfuseError: it is not there, or the server does not answer as it should.
    """
    path = f"/api/public/traces/{name}"
    return _get(client, path, {}, patience or [0.0], min(limit_s, REQUEST_LIMIT_S))


def traces_address(client: httpx.Client, limit_s: float) -> str:
    """Return where a browser finds the project's traces, to which a trace's id is added.

    Args:
        client: of the project.
        limit_s: how long it may take [s].

    Returns:
        An address that ends in a slash; empty where the server does not name the project in time.
    """
    if limit_s <= 0:
        return ""
    try:
        listed = client.get("/api/public/projects", timeout=limit_s).raise_for_status().json()
        name = str(listed["data"][0]["id"])
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        return ""
    base = client.base_url.copy_with(userinfo=b"")
    return f"{str(base).rstrip('/')}/project/{quote(name, safe='')}/traces/"


def _get(
    client: httpx.Client,
    path: str,
    query: Mapping[str, Any],
    patience: list[float],
    limit_s: float = REQUEST_LIMIT_S,
) -> Document:
    """Ask one page; wait where the server says so, while there is patience left."""
    while True:
        try:
            answer = client.get(path, params=dict(query), timeout=limit_s)
        except httpx.HTTPError as error:
            raise LangfuseError(
                f"Langfuse at {client.base_url} does not answer: {type(error).__name__}.\n"
                f"To fix: look at {HOSTS[0]}"
            ) from None
        wait_s = _asked_to_wait(answer)
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS and wait_s <= patience[0]:
            patience[0] -= wait_s
            time.sleep(wait_s)
            continue
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise LangfuseError(f"Langfuse refuses the keys.\nTo fix: look at {' and '.join(KEYS)}")
        if answer.status_code != httpx.codes.OK:
            raise LangfuseError(f"Langfuse answers {path} with HTTP {answer.status_code}.")
        return _object(answer, path)


def _object(answer: httpx.Response, path: str) -> Document:
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise LangfuseError(f"Langfuse answers {path} with no JSON object.\nTo fix: look at {HOSTS[0]}")
    return found


def _asked_to_wait(answer: httpx.Response) -> float:
    """Return how long a server wants to be left alone [s]; a second at least, where it does not say."""
    told = answer.headers.get("retry-after", "")
    return max(1.0, float(told)) if told.isdigit() else 1.0
