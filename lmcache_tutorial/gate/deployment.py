"""A running deployment, found at an address: what it serves, what it tells, and how cold is made there.

It is somebody else's: nothing of it is started, stopped or emptied, and others may use it meanwhile. So only
what it says of each request is believed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx

from ..asking.answers import Answer, NoAnswerError, ask_streamed
from ..prompts.prompts_file import Prompt
from ..servers.lmcache import Cache
from ..settings.connections import CONNECTIONS
from ..settings.topology import CacheConfig
from .namespace import Namespace
from .probe import Probe, probe_numbers

KEYS = ("LMCACHE_TUTORIAL_API_KEY", "OPENAI_API_KEY")  # the first of these variables that is set
ANSWER_TOKENS = 4
CANDIDATES = 5  # for the first token
ALWAYS_THE_SAME = Prompt(
    {
        "messages": [
            {"role": "user", "content": "What is the same?"},
            {"role": "assistant", "content": "This."},
        ]
    },
    0,
)
OPEN_LIMIT_S = 10.0
COUNTED_LIMIT_S = 5.0  # until LMCache has counted a look-up
RESET_LIMIT_S = 30.0  # an engine refuses while a store holds blocks


class DeploymentError(RuntimeError):
    """A deployment that cannot be judged; the message says what was seen and what to do."""


@dataclass(frozen=True)
class Deployment:
    """What was found at an address.

    Attributes:
        client: knows the address and the key.
        model: the name that is asked for.
        honours_salts: whether requests of another ``cache_salt`` share nothing; else cold is made by a nonce.
        tells_cached: whether answers say how many tokens were not computed.
        block_tokens: the engine's KV block; ``None`` where it does not tell.
        chunk_tokens: LMCache's chunk; ``None`` where no LMCache was named.
        may_reset: whether the engine's own cache may be emptied.
        tells_ids: whether it says how it renders a prompt.
        engine_version: as it states it.
        lmcache_url: the address of the LMCache that was named.
        template: a hash of how it renders a chat that is always the same: of its tokenizer and template.
        context_tokens: the longest prompt with its answer that it takes; ``None`` where it does not tell.
        root: what it serves the model from: a folder on its machine, or a hub name; empty where it does
            not tell.
    """

    client: httpx.Client
    model: str
    honours_salts: bool
    tells_cached: bool
    block_tokens: int | None = None
    chunk_tokens: int | None = None
    may_reset: bool = False
    tells_ids: bool = True
    engine_version: str | None = None
    lmcache_url: str | None = None
    template: str | None = None
    context_tokens: int | None = None
    root: str = ""

    def document(self) -> dict[str, Any]:
        """Build what results.json tells of it; what it does not tell is ``None``, and ``not_told`` why."""
        silent = {
            "how many tokens were not computed (vLLM: --enable-prompt-tokens-details)": self.tells_cached,
            "token ids (/tokenize), so nothing is predicted": self.tells_ids,
            "the engine's block (/metrics), so nothing is predicted": self.block_tokens,
            "the engine's version (/version)": self.engine_version,
            "whether hits are the engine's own or LMCache's, for no --kv-lmcache-url was given": (
                self.lmcache_url
            ),
        }
        return {
            "url": str(self.client.base_url).rstrip("/"),
            "model": self.model,
            "engine_version": self.engine_version,
            "lmcache_url": self.lmcache_url,
            "template": self.template,
            "block_tokens": self.block_tokens,
            "chunk_tokens": self.chunk_tokens,
            "context_tokens": self.context_tokens,
            "cold_by": "cache_salt" if self.honours_salts else "nonce",
            "not_told": [words for words, told in silent.items() if not told],
        }

    def namespace(self) -> Namespace:
        """Make a namespace that nothing was asked in yet."""
        drawn = f"lmcache-tutorial {secrets.token_hex(8)}"
        return Namespace(salt=drawn) if self.honours_salts else Namespace(nonce=drawn)

    def ask(self, prompt: Prompt, within: Namespace) -> Answer:
        """Ask one prompt within a namespace.

        Raises:
            NoAnswerError: no whole answer came.
        """
        # A server that does not state vLLM's version may refuse what the API does not know.
        ids = {"return_tokens_as_token_ids": True} if self.engine_version else {}
        asked = {**_asked(self.model, prompt), **ids, **within.put(prompt.body)}
        return ask_streamed(self.client, prompt.path, asked)

    def tokens(self, prompt: Prompt, within: Namespace) -> list[int] | None:
        """Return the prompt's token ids as the server renders it; ``None`` where it has no such page."""
        body = within.put(prompt.body)
        kept = ("messages", "tools", "chat_template_kwargs", "prompt")
        asked = {"model": self.model, **{name: body[name] for name in kept if name in body}}
        asked |= {"add_generation_prompt": True} if prompt.is_chat else {}
        try:
            answer = self.client.post("/tokenize", json=asked)
            return list(answer.json()["tokens"]) if answer.status_code == httpx.codes.OK else None
        except (httpx.HTTPError, ValueError, LookupError, TypeError):
            return None

    def forget(self) -> None:
        """Empty the engine's own cache, where that is allowed; LMCache keeps what it has.

        Raises:
            DeploymentError: it is not allowed, or the engine does not do it.
        """
        assert self.may_reset, "nobody has allowed it"
        deadline = time.monotonic() + RESET_LIMIT_S
        while time.monotonic() < deadline:
            try:
                answer = self.client.post("/reset_prefix_cache").raise_for_status()
                if answer.json().get("success", True):
                    return
            except (httpx.HTTPError, ValueError) as error:
                raise DeploymentError(
                    f"the engine does not empty its own cache: {error}.\n"
                    "To fix: start it with VLLM_SERVER_DEV_MODE=1, or leave --kv-allow-reset out"
                ) from None
            time.sleep(0.1)
        raise DeploymentError(
            f"the engine did not empty its own cache within {RESET_LIMIT_S:g} s.\n"
            "To fix: try again when fewer requests are under way"
        )


def find_deployment(
    client: httpx.Client, model: str | None, lmcache: Cache | None = None, *, may_reset: bool = False
) -> Deployment:
    """Look at what serves at a client's address.

    Args:
        client: see :func:`client_for`.
        model: the name to ask for; ``None`` is the first that it serves.
        lmcache: the LMCache server that the engine is said to use.
        may_reset: whether the engine's own cache may be emptied.

    Raises:
        DeploymentError: nothing serves there, or not this model, or it gives no answer, or does not use
            this LMCache.
    """
    card = _served(client, model)
    named = str(card["id"])
    chunk_tokens, before = (_chunk_tokens(lmcache), _Work.of(lmcache)) if lmcache else (None, None)
    unknown = Deployment(client, named, honours_salts=True, tells_cached=True)
    try:
        probe = Probe(unknown, probe_numbers(chunk_tokens or 0, card.get("max_model_len")))
    except NoAnswerError as error:
        raise DeploymentError(
            f"{client.base_url.host} serves {named}, but a request had no answer: {error}.\n"
            "To fix: try the request with curl; the server's log may say more"
        ) from None
    if lmcache and before and probe.prompt_tokens >= (chunk_tokens or 0):
        _check_asked(lmcache, before, probe.prompt_tokens)
    found = Deployment(
        client,
        named,
        probe.honours_salts,
        probe.tells_cached,
        _block_tokens(client),
        chunk_tokens,
        may_reset,
        engine_version=_version(client),
        lmcache_url=lmcache.url if lmcache else None,
        context_tokens=card.get("max_model_len"),
        root=str(card.get("root") or ""),
    )
    ids = found.tokens(ALWAYS_THE_SAME, Namespace())
    template = ids and hashlib.sha256(repr(ids).encode()).hexdigest()[:16]
    return replace(found, tells_ids=ids is not None, template=template or None)


def lmcache_at(url: str, engine: httpx.Client) -> Cache:
    """Make what asks an LMCache server at the address of its HTTP side.

    The key is the engine's: it is sent where both have one host, such as a gateway's, and to no other.

    Raises:
        DeploymentError: it is no address.
    """
    client = client_for(url)
    if client.base_url.host != engine.base_url.host:
        client.headers.pop("authorization", None)
    return Cache("lmcache", str(client.base_url).rstrip("/"), client, CacheConfig(), port=0)


def client_for(url: str) -> httpx.Client:
    """Make a client for an address; a key comes from the environment and is sent as a bearer's.

    A name and a password in the address are sent as such, in the key's place.

    Raises:
        DeploymentError: it is no address.
    """
    key = api_key()
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL("")
    if address.scheme not in ("http", "https") or not address.host:
        raise DeploymentError("no address of a server.\nTo fix: an address such as http://127.0.0.1:8000")
    path = address.path.removesuffix("/").removesuffix("/v1") + "/"
    base = address.copy_with(path=path, userinfo=b"")  # a message may show it, and never a password
    auth = (address.username, address.password) if address.userinfo else None
    headers["accept-encoding"] = "identity"  # a compressed stream would arrive in other pieces
    return httpx.Client(
        base_url=base,
        headers=headers,
        auth=auth,
        timeout=OPEN_LIMIT_S,
        limits=CONNECTIONS,
        trust_env=False,
    )


def api_key() -> str:
    """Return the key that the environment has for the deployment; empty without one."""
    return next((os.environ[name] for name in KEYS if os.environ.get(name)), "")


def _served(client: httpx.Client, model: str | None) -> Mapping[str, Any]:
    """Return what the server says of the model to ask for; its name is ``id``."""
    host = str(client.base_url).rstrip("/")
    try:
        answer = client.get("v1/models")
    except httpx.HTTPError as error:
        raise DeploymentError(
            f"nothing answers at {host}: {type(error).__name__}.\nTo fix: start it, or name another address"
        ) from None
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        raise DeploymentError(
            f"{host} asks for a key (HTTP {answer.status_code}).\nTo fix: put it into the variable {KEYS[0]}"
        )
    try:
        cards: Mapping[str, Any] = {one["id"]: one for one in answer.raise_for_status().json()["data"]}
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        cards = {}
    if not cards:
        raise DeploymentError(
            f"{host}/v1/models names no model (HTTP {answer.status_code}).\n"
            "To fix: the address of an OpenAI-compatible server, without a path behind /v1"
        )
    if model and model not in cards:
        raise DeploymentError(
            f"{host} serves {', '.join(cards)}, and not {model}.\nTo fix: name one of these"
        )
    found: Mapping[str, Any] = cards[model or next(iter(cards))]
    return found


def _chunk_tokens(lmcache: Cache) -> int:
    try:
        return lmcache.chunk_tokens
    except (httpx.HTTPError, ValueError, LookupError) as error:
        raise DeploymentError(
            f"no LMCache answers at {lmcache.url}: {type(error).__name__}.\n"
            "To fix: start it, or name the address of its HTTP side (--http-port), which has /status"
        ) from None


@dataclass(frozen=True)
class _Work:
    """What an LMCache server says of its work.

    ``looked_up`` [tokens] is ``None`` where its page has no counter of LMCache's: with ``--otlp-endpoint`` it
    sends them there instead. ``held`` then counts the objects in its memory.
    """

    looked_up: int | None
    held: int

    @classmethod
    def of(cls, lmcache: Cache) -> _Work:
        counters = lmcache.counters()
        if counters.told:
            return cls(counters.lookup_requested, 0)
        try:
            return cls(None, lmcache.held_objects)
        except (LookupError, TypeError):  # its page of another version lacks it
            return cls(None, 0)

    def follows(self, before: _Work, prompt_tokens: int) -> bool:
        """Tell whether a prompt was looked up since, or stored where look-ups are not told."""
        if self.looked_up is None:
            return self.held != before.held
        return self.looked_up - (before.looked_up or 0) >= prompt_tokens


def _check_asked(lmcache: Cache, before: _Work, prompt_tokens: int) -> None:
    """Check that an LMCache server was asked about a prompt; others may have asked it too."""
    deadline = time.monotonic() + COUNTED_LIMIT_S
    while not (now := _Work.of(lmcache)).follows(before, prompt_tokens):
        if time.monotonic() > deadline:
            seen = (
                f"it counted {now.looked_up - (before.looked_up or 0):,}"
                if now.looked_up is not None
                else "it has stored nothing (it sends its counters elsewhere, to an --otlp-endpoint)"
            )
            raise DeploymentError(
                f"the engine does not ask the LMCache at {lmcache.url}: a prompt of {prompt_tokens:,} tokens "
                f"was sent, and {seen}.\n"
                "To fix: start the engine with --kv-transfer-config for this LMCache, or name another one"
            )
        time.sleep(0.1)


def _block_tokens(client: httpx.Client) -> int | None:
    """Return the engine's block, as vLLM's metrics page states it."""
    try:
        lines = client.get("metrics").text.splitlines()
    except httpx.HTTPError:
        return None
    stated = next((line for line in lines if line.startswith("vllm:cache_config_info{")), "")
    block = stated.partition('block_size="')[2].partition('"')[0]
    return int(block) if block.isdigit() else None


def _version(client: httpx.Client) -> str | None:
    """Return the engine's version, as vLLM states it."""
    try:
        return str(client.get("version").raise_for_status().json()["version"])
    except (httpx.HTTPError, ValueError, LookupError, TypeError):
        return None


def _asked(model: str, prompt: Prompt) -> dict[str, Any]:
    """Build what is asked of the answer: few tokens, the likeliest, and the candidates for the first."""
    wanted = {"model": model, "max_tokens": ANSWER_TOKENS, "temperature": 0}
    if prompt.is_chat:
        return {**wanted, "logprobs": True, "top_logprobs": CANDIDATES}
    return {**wanted, "logprobs": CANDIDATES}
