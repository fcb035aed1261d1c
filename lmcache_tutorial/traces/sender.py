"""Files of traces -> a Langfuse server, or any OTLP receiver: a second step, with a total deadline.

At least once: a batch whose fate is not known is sent again, with the same ids, and is counted.
"""

from __future__ import annotations

import gzip
import os
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import httpx
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from ..settings.connections import CONNECTIONS
from ..settings.secrets import redact
from . import scores
from .langfuse_api import LangfuseError, project_client
from .ledger import Ledger, Line
from .otlp import walk_spans

LANGFUSE_PATH = "/api/public/otel/v1/traces"
BATCH_BYTES = 3_000_000  # of protobuf, before gzip; Langfuse takes 4.5 MB
SHORTEST_WAIT_S, LONGEST_WAIT_S = 0.1, 2.0  # between two tries
AT_ONCE_S = 0.2  # a request is not begun with less time left
REFUSED = (400, 413, 422)  # for what was sent; any other answer may be another one later
IDS = ("traceId", "spanId", "parentSpanId")


@dataclass
class Sent:
    """What a sending has done.

    Attributes:
        traces: ids that a receiver has taken.
        resent: batches that were sent once more, since nobody knew whether they were taken.
        refused: why parts were refused for good.
        left: bytes of spools that are still to be sent.
        trouble: what stood in the way last; empty where nothing did.
    """

    traces: set[str]
    resent: int = 0
    refused: tuple[str, ...] = ()
    left: int = 0
    trouble: str = ""


@dataclass(frozen=True)
class Receiver:
    """Where lines of files go.

    Attributes:
        client: knows the server and its keys.
        path: where they are posted.
        packed: whether it takes gzip.
        kind: the media type of a request.
        encoded: builds its body of some lines; raises ValueError where a line is none.
        refused: says what of a request that was taken was not; empty where all was.
    """

    client: httpx.Client
    path: str
    packed: bool = True
    kind: str = "application/x-protobuf"
    encoded: Callable[[Sequence[Line]], bytes] = lambda lines: otlp_request(lines).SerializeToString()
    refused: Callable[[httpx.Response], str] = lambda answer: _partly(answer)

    @classmethod
    def langfuse(cls) -> Receiver:
        """The Langfuse server that the environment names.

        Raises:
            LangfuseError: a variable is missing.
        """
        client = project_client()
        client.headers["x-langfuse-ingestion-version"] = "4"
        return cls(client, LANGFUSE_PATH)

    def for_scores(self) -> Receiver:
        """The same Langfuse server, for scores."""
        kind, path = "application/json", scores.INGESTION_PATH
        return Receiver(self.client, path, False, kind, scores.encoded, scores.refused)

    @classmethod
    def at(cls, url: str) -> Receiver:
        """Any receiver of OTLP over HTTP; not all of them take gzip.

        Raises:
            LangfuseError: it is no address.
        """
        if not url.startswith(("http://", "https://")):
            raise LangfuseError("no address.\nTo fix: an address such as http://127.0.0.1:4318/v1/traces")
        return cls(httpx.Client(limits=CONNECTIONS, trust_env=False), url, packed=False)


def send(spools: Sequence[Path], receiver: Receiver, limit_s: float) -> Sent:
    """Send what of some spools was not sent yet; nothing is lost that is not taken.

    Args:
        spools: files of traces, the oldest first.
        receiver: where to.
        limit_s: how long it may take in all [s].
    """
    deadline, done = time.monotonic() + limit_s, Sent(set())
    for spool in spools:
        with Ledger(spool).locked() as ledger:
            if ledger is None:
                done.trouble = "another sender is at work"
            elif not done.trouble:
                for batch in _batches(ledger.unsent()):
                    done.trouble = _deliver(batch, ledger, receiver, deadline)
                    if done.trouble:
                        break
                done.traces |= ledger.taken
                done.resent += ledger.resent
                done.refused += tuple(ledger.refused)
        done.left += spool.stat().st_size - Ledger(spool).sent_to
    return done


def otlp_request(lines: Sequence[Line]) -> ExportTraceServiceRequest:
    """Turn lines of a spool back into one request.

    Raises:
        ValueError: a line is none.
    """
    merged = ExportTraceServiceRequest()
    for line in lines:
        document = {"resourceSpans": deepcopy(line.document.get("resourceSpans", []))}
        for span in walk_spans(document):
            for name in IDS:
                if name in span:
                    span[name] = b64encode(bytes.fromhex(span[name])).decode()
        try:
            merged.MergeFrom(ParseDict(document, ExportTraceServiceRequest()))
        except ParseError as error:
            raise ValueError(f"bytes {line.begin} to {line.end} are no spans: {error}") from None
    return merged


def _batches(lines: Iterator[Line]) -> Iterator[list[Line]]:
    """Join lines up to a size; one that is larger by itself is a batch."""
    batch: list[Line] = []
    for line in lines:
        if batch and line.end - batch[0].begin > BATCH_BYTES:
            yield batch
            batch = []
        batch.append(line)
    if batch:
        yield batch


def _deliver(batch: list[Line], ledger: Ledger, receiver: Receiver, deadline: float) -> str:
    """Send a batch until it is taken or refused; return what stood in the way when the time was over."""
    begin, end, wait_s = batch[0].begin, batch[-1].end, SHORTEST_WAIT_S
    try:
        body = receiver.encoded(batch)
    except ValueError as error:
        return _apart(batch, ledger, receiver, deadline, str(error))
    while True:
        if (left_s := deadline - time.monotonic()) < AT_ONCE_S:
            return "the time for sending was over"
        ledger.note("sending", begin, end)
        status, trouble, asked_s = _post(receiver, body, left_s)
        if not trouble:
            ledger.note("taken", begin, end)
            ledger.taken |= {str(span["traceId"]) for line in batch for span in walk_spans(line.document)}
            return ""
        if status in REFUSED or 200 <= status < 300:
            return _apart(batch, ledger, receiver, deadline, trouble)
        if status:  # else nobody knows whether it was taken
            ledger.note("put off", begin, begin)
        wait_s = max(asked_s, min(2 * wait_s, LONGEST_WAIT_S))
        if time.monotonic() + wait_s + AT_ONCE_S > deadline:
            return trouble
        time.sleep(wait_s)


def _apart(batch: list[Line], ledger: Ledger, receiver: Receiver, deadline: float, reason: str) -> str:
    """Send the lines of a batch that was refused one by one: one malformed span refuses all."""
    if len(batch) == 1:
        ledger.note("refused", batch[0].begin, batch[0].end, reason)
        return ""
    for line in batch:
        if trouble := _deliver([line], ledger, receiver, deadline):
            return trouble
    return ""


def _post(receiver: Receiver, body: bytes, limit_s: float) -> tuple[int, str, float]:
    """Send a request; return its status, what was wrong with it, and how long the server wants peace [s]."""
    headers = {"content-type": receiver.kind}
    if receiver.packed:
        body, headers["content-encoding"] = gzip.compress(body), "gzip"
    try:
        answer = receiver.client.post(receiver.path, content=body, headers=headers, timeout=limit_s)
    except httpx.HTTPError as error:
        return 0, f"{type(error).__name__}: {error}".rstrip(": "), 0.0
    told = answer.headers.get("retry-after", "")
    asked_s = float(told) if told.isdigit() else 0.0
    if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
        return 0, f"HTTP {answer.status_code}: the keys are refused", float("inf")  # they may be right later
    if not answer.is_success:
        return answer.status_code, f"HTTP {answer.status_code}: {redact(answer.text)[:200]}", asked_s
    return answer.status_code, receiver.refused(answer), asked_s


def _partly(answer: httpx.Response) -> str:
    """Say what of a request that was taken was not; empty where all was, or the answer has another form."""
    try:
        told = ExportTraceServiceResponse.FromString(answer.content).partial_success
    except DecodeError:
        return ""
    return f"{told.rejected_spans} spans refused: {told.error_message}" if told.rejected_spans else ""


def spools(folder: Path) -> list[Path]:
    """Return the files of traces in a folder, the oldest first; those of scores are no traces.

    Raises:
        LangfuseError: there is none.
    """
    found = [path for path in folder.glob("*.jsonl") if not path.name.endswith(scores.ENDING)]
    found.sort(key=os.path.getmtime)
    if not found:
        raise LangfuseError(f"no traces in {folder}.\nTo fix: run a lesson first, or name another folder")
    return found


def send_scores(spools: Sequence[Path], receiver: Receiver, limit_s: float) -> list[str]:
    """Send the scores of traces that are there; return what is to be said: nothing where all went well."""
    files = [path for path in map(scores.beside, spools) if path.exists()]
    done = send(files, receiver.for_scores(), limit_s)
    lines = [f"scores: refused, and still in the file: {reason}" for reason in done.refused]
    if done.left:
        why = done.trouble or "nobody knows why"
        lines.append(f"scores: {done.left:,} bytes are left ({why}); later: lmcache-tutorial traces send")
    return lines


def words(done: Sent, receiver: str) -> list[str]:
    """Say what a sending has done."""
    lines = [f"traces: {len(done.traces)} sent to {receiver}"]
    if done.resent:
        lines.append(f"traces: sent again, with the same ids, since their fate was not known: {done.resent}")
    lines += [f"traces: refused, and still in the file: {reason}" for reason in done.refused]
    if done.left:
        why = done.trouble or "nobody knows why"
        lines.append(f"traces: {done.left:,} bytes are left ({why}); later: lmcache-tutorial traces send")
    return lines
