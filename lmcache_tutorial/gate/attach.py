"""A deployment that was found -> a stack that lessons can ask, and what they will lack there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..asking.answers import timed_stream
from ..asking.streams import Streamed, read_stream
from ..models.model import CHAT_TEMPLATE, Model
from ..models.small import small_model_folder
from ..prompts.documents import copy_in, fresh, full_text
from ..prompts.prompts_file import Prompt
from ..prompts.rendering import Renderer, RenderingError
from ..quantities.predict import shared_prefix_tokens
from ..quantities.records import LookedUp
from ..servers.lmcache import Cache
from ..servers.vllm import Engine
from ..settings.environment import cache_folder
from ..settings.profiles import DEPLOYMENT_CLASSES, SizeClass
from ..settings.size_classes import FEWEST_CHUNKS, classes_within
from ..settings.topology import CacheConfig, EngineConfig, StackConfig
from ..settings.workload import Memory, Workload, fit
from ..stack.found import FoundStack, lacking
from ..stack.stack import CHARACTERS_A_TOKEN, WARM_UP, Progress
from ..traces.look_ups import LookUps
from .deployment import Deployment, api_key
from .namespace import Namespace

CHAT = "v1/chat/completions"
WARM_UP_TOKENS = (512, 4096)  # the second where the first came too soon to tell how fast a prefill is
QUICK_S = 0.2
TOLD = {"return_token_ids": True, "max_tokens": 2, "temperature": 0}
A_TOOL = {
    "type": "function",
    "function": {"name": "look_up", "description": "Finds a word.", "parameters": {}},
}
RENDERED: tuple[dict[str, Any], ...] = (
    {"messages": [{"role": "system", "content": "Read."}, {"role": "user", "content": "What is it?"}]},
    {"messages": [{"role": "user", "content": "Which?"}], "tools": [A_TOOL]},
)
TEMPLATES = (None, CHAT_TEMPLATE)  # a stack of this suite serves its model with a template of its own
NO_RENDERING = (
    "none here renders as the deployment does. To fix: --kv-tokenizer=FOLDER, with tokenizer.json and the "
    "chat template that it serves"
)
NO_SPANS = (
    "no answer tells, and no request span of LMCache came. To fix: --kv-lmcache-spans=HOST:PORT, and LMCache "
    "with --enable-tracing --otlp-endpoint http://HOST:PORT"
)
SPAN_LIMIT_S = 10.0  # LMCache sends spans every 5 s
SILENT = "its answers do not have them. To fix: "


class UnfitError(RuntimeError):
    """No lesson can be held on this deployment; the message says why, and what to do."""


@dataclass(frozen=True)
class WarmedUp:
    """What a deployment's first answers have told: its prefill rate [tokens/s], and the last answer."""

    tokens_s: float
    answer: Streamed


@dataclass(frozen=True)
class Beside:
    """What was named beside a deployment, all of it or nothing.

    Attributes:
        lmcache: what asks its LMCache.
        tokenizer: a folder with its model's tokenizer and chat template; ``None`` looks for one here.
        look_ups: waits for LMCache's request spans.
    """

    lmcache: Cache | None = None
    tokenizer: Path | None = None
    look_ups: LookUps | None = None


def attach(deployment: Deployment, beside: Beside, progress: Progress) -> FoundStack:
    """Make a stack of a deployment: nothing of it is started, stopped, restarted or emptied.

    Args:
        deployment: what was found.
        beside: what was named beside it.
        progress: told what happens, a line at a time.

    Raises:
        UnfitError: no lesson can be held there.
        NoAnswerError: it does not answer.
        CorpusError: the documents' source is not installed.
    """
    _check_told(deployment)
    classes = _classes(deployment)
    lmcache, renderer = beside.lmcache, find_renderer(deployment, beside.tokenizer)
    warmed_up = _warm_up(deployment)
    looked_up = _looking_up(beside, warmed_up.answer)
    base = str(deployment.client.base_url).rstrip("/")
    engine = EngineConfig(
        block_tokens=deployment.block_tokens,
        cache=0 if lmcache else None,
        context_tokens=deployment.context_tokens or 0,
    )
    caches = (CacheConfig(chunk_tokens=deployment.chunk_tokens),) if deployment.chunk_tokens else ()
    found = Engine("vllm", base, deployment.client, engine, deployment.model)
    found.cache = lmcache
    stack = FoundStack(
        StackConfig("deployment", deployment.model, "unknown", (engine,), caches),
        Model(Path(deployment.root), deployment.model, digest=deployment.template or ""),
        (*([lmcache] if lmcache else []), found),
        progress,
        deployment.client,
        workload=_workload(deployment, classes, warmed_up.tokens_s),
        lacks=_lacks(deployment, beside, renderer, warmed_up.answer, told=looked_up is not None),
        api_key=api_key() or "none",
        place=_placing(deployment),
        forget=deployment.forget if deployment.may_reset else None,
        found_renderer=renderer,
        looked_up=looked_up or (lambda answer_id: None),
    )
    sizes = stack.workload.sizes if stack.workload else None
    assert sizes
    progress(
        f"deployment: {base} serves {deployment.model}, prefill {warmed_up.tokens_s:,.0f} tokens/s; "
        f"documents of {sizes.short:,}, {sizes.medium:,} and {sizes.long:,} tokens"
    )
    return stack


def find_renderer(deployment: Deployment, named: Path | None) -> Renderer | None:
    """Find the tokenizer and template that render as the deployment does; ``None`` if none here does.

    Args:
        deployment: what it is compared with, token by token.
        named: a folder; ``None`` tries what the server says that it serves, and the tutorial's own model.
    """
    folders = [named] if named else [Path(deployment.root or "/nowhere"), small_model_folder()]
    wanted = [deployment.tokens(Prompt(body, 0), Namespace()) for body in RENDERED]
    for renderer in _renderers(folders):
        try:
            found = [list(renderer.render(one["messages"], one.get("tools")).ids) for one in RENDERED]
        except RenderingError:
            continue
        if found == wanted:
            return renderer
    return None


def _renderers(folders: list[Path]) -> Iterator[Renderer]:
    for folder in folders:
        for template in TEMPLATES:
            try:
                yield Renderer.from_folder(folder, template)
            except RenderingError:
                continue


def _check_told(deployment: Deployment) -> None:
    """Refuse a deployment that does not tell what every lesson needs, or where no prompt is cold.

    Raises:
        UnfitError: see its message.
    """
    silent = {
        "how many tokens were not computed (vLLM: --enable-prompt-tokens-details)": deployment.tells_cached,
        "token ids (/tokenize)": deployment.tells_ids,
        "its block (/metrics)": deployment.block_tokens,
        "its context (max_model_len in /v1/models)": deployment.context_tokens,
    }
    if missing := [words for words, told in silent.items() if not told]:
        raise UnfitError(
            f"lessons predict and count, and the deployment does not tell {'; nor '.join(missing)}. "
            "To fix: a vLLM server's own address, or leave --kv-url out"
        )
    if not deployment.honours_salts and (head := _head(deployment)) >= (deployment.block_tokens or 1):
        raise UnfitError(
            f"no prompt is cold there: it ignores cache_salt, and its template writes {head} tokens in front "
            f"of every prompt, a block of {deployment.block_tokens} or more. To fix: a server that honours "
            "cache_salt, or leave --kv-url out"
        )


def _head(deployment: Deployment) -> int:
    """Count the tokens that the template writes in front of two texts that begin with another nonce."""
    one, other = (
        deployment.tokens(Prompt({"messages": [{"role": "system", "content": fresh("")}]}, 0), Namespace())
        for _ in range(2)
    )
    return shared_prefix_tokens(one or [], other or [])


def _placing(deployment: Deployment) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """Return what puts a request into the run's namespace.

    Every copy of a manual has one of its own: else cold requests would share what the template writes in
    front of them. Where salts are ignored the copy's nonce is what there is.
    """
    run = deployment.namespace().salt

    def place(body: Mapping[str, Any]) -> Mapping[str, Any]:
        return Namespace(salt=f"{run} {copy_in(json.dumps(body.get('messages')))}").put(body)

    return place if deployment.honours_salts else lambda body: body


def _warm_up(deployment: Deployment) -> WarmedUp:
    """Ask new prompts twice; the faster tells the rate. Longer ones follow where that took no time."""
    for tokens in WARM_UP_TOKENS:
        answers = [_ask_cold(deployment, tokens) for _ in range(2)]
        took_s, answer = min(answers, key=lambda one: one[0])
        prompt = answer.usage["prompt_tokens"]
        if took_s > QUICK_S or 2 * WARM_UP_TOKENS[-1] > (deployment.context_tokens or 0):
            break
    return WarmedUp(prompt / took_s, answer)


def _ask_cold(deployment: Deployment, tokens: int) -> tuple[float, Streamed]:
    """Ask a prompt of about so many tokens that nobody has asked; return its TTFT [s] and the answer."""
    text = fresh(full_text(WARM_UP, tokens * CHARACTERS_A_TOKEN // 2))
    asked = {"model": deployment.model, "messages": [{"role": "user", "content": text}], **TOLD}
    pieces, sent = timed_stream(deployment.client, CHAT, deployment.namespace().put(asked))
    answer = read_stream(pieces)
    if not answer.times or not answer.usage.get("prompt_tokens"):
        raise UnfitError(
            "the deployment answered without a token, or does not tell how long the prompt was. "
            "To fix: try a chat request with curl, or leave --kv-url out"
        )
    return answer.times[0] - sent, answer


def _classes(deployment: Deployment) -> tuple[SizeClass, ...]:
    """Return the sizes of documents that the deployment's context has room for.

    Raises:
        UnfitError: it has room for none.
    """
    unit = max(deployment.block_tokens or 1, deployment.chunk_tokens or 1)
    context = deployment.context_tokens or 0
    if classes := classes_within(DEPLOYMENT_CLASSES, unit, context):
        return classes
    raise UnfitError(
        f"its context of {context:,} tokens has no room for a document of {FEWEST_CHUNKS} times {unit} "
        "tokens, with which rounding alone could not keep a hit rate below the bar. "
        "To fix: serve the model with a larger --max-model-len, or leave --kv-url out"
    )


def _workload(deployment: Deployment, classes: tuple[SizeClass, ...], tokens_s: float) -> Workload:
    """Choose the sizes of the documents by the prefill rate, and by what this deployment had last."""
    parts = [str(deployment.client.base_url), deployment.model, deployment.engine_version or ""]
    memory = Memory(cache_folder() / "size-classes.json", parts)
    workload = fit(classes, tokens_s, memory.last())
    memory.keep(workload)
    return workload


def _looking_up(beside: Beside, answer: Streamed) -> Callable[[str], LookedUp | None] | None:
    """Return what tells LMCache's look-ups; ``None`` where no span comes of an answer that was given."""
    spans = beside.look_ups
    if spans is None or spans.of(answer.id, SPAN_LIMIT_S) is None:
        return None
    return lambda answer_id: spans.of(answer_id, SPAN_LIMIT_S)


def _lacks(
    deployment: Deployment, beside: Beside, renderer: Renderer | None, answer: Streamed, *, told: bool
) -> dict[str, str]:
    """Say of every need that the deployment does not meet why, and what to do.

    ``told``: LMCache's request spans come.
    """
    own = "a deployment is asked alone. To fix: leave --kv-url out"
    shared = "others may use the deployment too. To fix: leave --kv-url out"
    found = {
        "own_stack": own,
        "restarts": own,
        "counters": shared,
        "whose_tokens": "" if told else NO_SPANS,
        "emptying": _no_emptying(deployment, beside.lmcache, told=told),
        "chunks": "" if beside.lmcache else "no LMCache is named. To fix: --kv-lmcache-url=http://…",
        "rendering": "" if renderer else NO_RENDERING,
        "engine_times": "" if answer.metrics else f"{SILENT}vLLM with --enable-per-request-metrics",
        "generated_ids": "" if answer.generated else f"{SILENT}a vLLM that knows return_token_ids",
    }
    return {need: lacking(need, why) for need, why in found.items() if why}


def _no_emptying(deployment: Deployment, lmcache: Cache | None, *, told: bool) -> str:
    """Say why LMCache cannot be asked alone; empty where it can. ``told``: its request spans come."""
    if lmcache is None:
        return "no LMCache is named. To fix: --kv-lmcache-url=http://…, and --kv-allow-reset if you may"
    if not deployment.may_reset:
        return "nobody has allowed it. To fix: --kv-allow-reset, if the engine's own cache may be emptied"
    if lmcache.has_tiers and not told:
        return "which of LMCache's tiers serves then only its request spans tell. To fix: --kv-lmcache-spans"
    return ""
