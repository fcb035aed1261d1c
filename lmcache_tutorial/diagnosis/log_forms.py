"""A JSON document of a log -> its requests: OpenAI's APIs, Anthropic's, proxies, Langfuse, OpenTelemetry."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from .logged import BrokenLineError, Logged
from .messages import chat_messages, chat_tool, count_images, genai_messages, responses_messages

SHOWN_KEYS = 6
OBSERVATION = "langfuse.observation."
INNER = ("body", "request", "input")  # batch files, proxies, Langfuse
TIMES = ("start_time", "startTime", "timestamp", "created_at", "createdAt")
# Attributes in which other instrumentations keep a prompt; each has a form of its own that is not read.
OTHER_SPANS = ("llm.input_messages.", "gen_ai.prompt", "input.value", "traceloop.entity.input", "llm.prompts")
MAX_CHARACTERS = 8_000_000  # of one request: about two million tokens, more than any model reads
Report = Callable[[str], None]
"""Takes the reason why a part of a document cannot be read, where the rest can."""


def requests_of(document: Any, report: Report) -> list[Logged]:
    """Read a document: the requests in it; none if it belongs in such a log but holds no request.

    Args:
        document: JSON.
        report: is told why a part is left out.

    Raises:
        BrokenLineError: it is neither.
    """
    if isinstance(document, list):
        return _listed(document, report)
    if not isinstance(document, dict):
        raise BrokenLineError("it is neither a JSON object nor a line of a server's log")
    if "resourceSpans" in document:
        return list(_spans(document["resourceSpans"], report))
    if isinstance(document.get("data"), list) and "messages" not in document:  # a page of Langfuse's API
        return _listed(document["data"], report)
    if "observations" in document and isinstance(document["observations"], list):  # a whole trace of it
        return _listed(document["observations"], report)
    if not _is_generation(document):
        return []
    return [_request(document)]


def parsed(text: str) -> Any:
    """Parse JSON.

    Raises:
        BrokenLineError: it is none.
    """
    try:
        return clean(json.loads(text), text)
    except RecursionError:
        raise BrokenLineError("its brackets are nested too deeply") from None
    except ValueError as error:
        raise BrokenLineError(f"it is no JSON: {error}"[:200]) from None


def clean(document: Any, source: str) -> Any:
    r"""Replace halves of surrogate pairs, which no tokenizer takes; JSON may carry them as an escape.

    >>> clean(["cut \ud83d"], "\\ud83d")
    ['cut \ufffd']
    """
    return _cleaned(document) if "\\ud" in source or "\\uD" in source or _broken(source) else document


def _broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _cleaned(document: Any) -> Any:
    if isinstance(document, str):
        return document.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(document, list):
        return [_cleaned(one) for one in document]
    if isinstance(document, dict):
        return {_cleaned(key): _cleaned(value) for key, value in document.items()}
    return document


def _listed(documents: list[Any], report: Report) -> list[Logged]:
    """Read a list of documents, or one request given as its messages."""
    if documents and all(isinstance(one, dict) and "role" in one for one in documents):
        return [_request({"messages": documents})]
    if not any(isinstance(one, dict) for one in documents):
        raise BrokenLineError("it is a list, but not of messages or requests")
    found = []
    for one in documents:
        try:
            found += requests_of(one, report)
        except BrokenLineError as error:
            report(str(error))
    return found


def _is_generation(document: Mapping[str, Any]) -> bool:
    """Tell whether it may hold a request: of Langfuse's observations only generations do."""
    if "input" not in document or "messages" in document or "instructions" in document:
        return True
    return str(document.get("type", "GENERATION")).upper() == "GENERATION"


def _request(document: Mapping[str, Any]) -> Logged:
    at, model = _time(document), document.get("model") or document.get("providedModelName")
    found = _inner(dict(document))
    model = found.get("model") or model
    if isinstance(found.get("prompt"), str | list) and "messages" not in found:
        request = _prompt(found["prompt"])
    else:
        request = _chat(found)
    salt = found.get("cache_salt") or ""
    variables = found.get("chat_template_kwargs")
    return Logged(
        request.messages,
        request.tools,
        request.prompt,
        request.ids,
        request.special,
        cache=(str(model or ""), str(salt)),
        variables={str(k): v for k, v in variables.items()} if isinstance(variables, dict) else {},
        images=count_images(request.messages),
        at=at,
    )


def _inner(document: dict[str, Any]) -> dict[str, Any]:
    """Find the request inside what a batch file, a proxy or Langfuse wraps around it."""
    for key in INNER:
        if "messages" in document or _is_responses(document) or key not in document:
            continue
        inner = document[key]
        if isinstance(inner, str) and inner.lstrip()[:1] in ("{", "["):
            inner = parsed(inner)
        around: dict[str, Any] = {
            name: document[name] for name in ("model_parameters", "tools") if name in document
        }
        if isinstance(inner, list):
            document = {**around, "messages": inner}
        elif isinstance(inner, dict):
            document = {**around, **inner}
        else:
            raise BrokenLineError(f"its {key!r} holds no request in a form that is read; needed: messages")
    return document


def _is_responses(document: Mapping[str, Any]) -> bool:
    """Tell a request of the Responses API, whose ``input`` may be mistaken for Langfuse's."""
    if "input" not in document or "messages" in document:
        return False
    if {"instructions", "previous_response_id", "max_output_tokens"} & set(document):
        return True
    given = document["input"]
    items = given if isinstance(given, list) else []
    types = {one.get("type") for one in items if isinstance(one, dict) and isinstance(one.get("type"), str)}
    if types & {"message", "function_call", "function_call_output", "reasoning", "item_reference"}:
        return True
    return "model" in document and "type" not in document and "id" not in document


def _chat(found: Mapping[str, Any]) -> Logged:
    among: list[Any] = []
    if _is_responses(found):
        messages = responses_messages(found)
    elif "messages" in found:
        messages, among = chat_messages(_with_system(found))
    else:
        keys = ", ".join(sorted(str(key)[:20] for key in found)[:SHOWN_KEYS]) or "none"
        raise BrokenLineError(f"an object with the keys {keys} is not a form that is read; needed: messages")
    tools = found.get("tools") or _inside(found, "tools")
    if tools is not None and not isinstance(tools, list):
        raise BrokenLineError("its tools are no list")
    if sum(len(str(message["content"])) for message in messages) > MAX_CHARACTERS:
        raise BrokenLineError(f"it has more than {MAX_CHARACTERS:,} characters, more than any model reads")
    return Logged(tuple(messages), tuple([*map(chat_tool, tools or ()), *among]))


def _with_system(found: Mapping[str, Any]) -> Any:
    """Put an Anthropic request's ``system`` in front of its messages."""
    listed, system = found["messages"], found.get("system")
    if isinstance(listed, str):
        listed = parsed(listed)
    if isinstance(listed, dict):  # one message
        listed = [listed]
    if isinstance(system, str | list) and system and isinstance(listed, list):
        return [{"role": "system", "content": system}, *listed]
    return listed


def _inside(found: Mapping[str, Any], name: str) -> Any:
    """Look where LiteLLM and Langfuse keep a request's parameters."""
    for key in ("model_parameters", "modelParameters", "optional_params", "invocation_params", "kwargs"):
        inner = found.get(key)
        if isinstance(inner, str) and inner.startswith("{"):
            inner = parsed(inner)
        if isinstance(inner, dict) and inner.get(name):
            return parsed(inner[name]) if isinstance(inner[name], str) else inner[name]
    return None


def _prompt(prompt: Any) -> Logged:
    """Read the prompt of a completion: a text, or token ids."""
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        if len(prompt) > MAX_CHARACTERS:
            raise BrokenLineError(f"its prompt has more than {MAX_CHARACTERS:,} characters")
        return Logged(prompt=prompt, special=True)
    if isinstance(prompt, list) and prompt and all(type(one) is int and 0 <= one < 2**31 for one in prompt):
        return Logged(ids=tuple(prompt))
    raise BrokenLineError("its prompt is not a form that is read; needed: one text, or one list of token ids")


def _time(document: Mapping[str, Any]) -> float | None:
    """Return when a request was asked [s since 1970], if the log says so."""
    for key in TIMES:
        given = document.get(key)
        if isinstance(given, str):
            try:
                read = datetime.fromisoformat(given.strip())
                return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()
            except (ValueError, OverflowError):
                continue
        if isinstance(given, int | float) and not isinstance(given, bool) and 1e9 < given < 1e20:
            thousands = max(0, (len(str(int(given))) - 10) // 3)  # milli-, micro- or nanoseconds
            return float(given) / float(1000**thousands)
    return None


def _spans(resources: Any, report: Report) -> Iterator[Logged]:
    """Read spans in OpenTelemetry's JSON; one that cannot be read is left out and reported."""
    for resource in _dicts(resources):
        for scope in _dicts(resource.get("scopeSpans")):
            for span in _dicts(scope.get("spans")):
                try:
                    yield from _span(span)
                except BrokenLineError as error:
                    report(f"a span: {error}")


def _dicts(listed: Any) -> Iterator[dict[str, Any]]:
    return (one for one in (listed if isinstance(listed, list) else ()) if isinstance(one, dict))


def _span(span: Mapping[str, Any]) -> Iterator[Logged]:
    found = {str(a.get("key")): _value(a.get("value")) for a in _dicts(span.get("attributes"))}
    start = _number(span.get("startTimeUnixNano"))
    around: dict[str, Any] = {"start_time": start} if start else {}
    if str(found.get(OBSERVATION + "type", "")).lower() == "generation":
        given = found.get(OBSERVATION + "input")
        parameters = found.get(OBSERVATION + "model.parameters")
        model = found.get(OBSERVATION + "model.name")
        inner = parsed(given) if isinstance(given, str) else given
        if not isinstance(inner, list | dict):
            raise BrokenLineError("a generation has no input")
        around = {**around, "type": "GENERATION", "model": model, "model_parameters": parameters}
        yield _request({**around, "input": inner})
    elif "gen_ai.input.messages" in found:
        yield _genai(found, around)
    elif not any(key.startswith(OBSERVATION) for key in found):
        other = next((name for name in OTHER_SPANS for key in found if key.startswith(name)), None)
        if other:
            raise BrokenLineError(
                f"prompts in {other!r} are not a form that is read; needed: gen_ai.input.messages"
            )


def _genai(found: Mapping[str, Any], around: Mapping[str, Any]) -> Logged:
    def inner(name: str) -> Any:
        given = found.get(name)
        return parsed(given) if isinstance(given, str) and given.lstrip()[:1] in ("[", "{") else given

    messages = genai_messages(inner("gen_ai.input.messages"), inner("gen_ai.system_instructions"))
    tools = inner("gen_ai.tool.definitions")
    model = found.get("gen_ai.request.model")
    return _request({**around, "messages": messages, "tools": tools, "model": model})


def _value(value: Any) -> Any:
    """Return what an attribute of OTLP holds: a text, or the plain form of a structure."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("arrayValue"), dict):
        return [_value(one) for one in _dicts(value["arrayValue"].get("values"))]
    if isinstance(value.get("kvlistValue"), dict):
        pairs = _dicts(value["kvlistValue"].get("values"))
        return {str(pair.get("key")): _value(pair.get("value")) for pair in pairs}
    return next(iter(value.values()), None)


def _number(given: Any) -> int | None:
    try:
        return int(given)
    except (TypeError, ValueError):
        return None
