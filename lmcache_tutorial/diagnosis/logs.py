"""Logs -> chat requests: OpenAI-style lines, servers' logs, Langfuse exports, traces, whole files."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from .log_forms import Report, clean, parsed, requests_of
from .logged import BrokenLineError, Logged
from .server_log import Entry, entry_of, is_server_line, without_prefix

NO_PROMPT = "a log without prompts; needed: level DEBUG (VLLM_LOGGING_LEVEL=DEBUG with --enable-log-requests)"
MESSAGE_KEYS = ("message", "msg", "log", "event")  # where loggers that write JSON keep a line
BLANK = re.compile(r"\s*")
TABLE_COLUMNS = {"input", "messages", "prompt", "request", "body"}  # those that hold a request
__all__ = ["BrokenLineError", "Log", "Logged", "open_log", "parse_line"]


@dataclass
class Log:
    """Reads a log; keeps what could not be read and why, and how many lines were something else.

    ``broken`` are the numbers of the lines of which at least a part was not read, ``reasons`` says why (a
    line may hold many requests), ``number`` is the line that was read last. ``reordered`` says that requests
    were put in the order of the times that the log gives.
    """

    lines: Iterable[str]
    broken: list[int] = field(default_factory=list)
    reasons: dict[str, list[int]] = field(default_factory=dict)
    other: int = 0
    number: int = 0
    reordered: bool = False
    _server: bool = False
    _bodies: bool = False
    _came: dict[str, int] = field(default_factory=dict)
    _asked: dict[str, None] = field(default_factory=dict)
    _held: tuple[str, Logged] | None = None
    _noted: set[int] = field(default_factory=set)

    def __iter__(self) -> Iterator[Logged]:
        """Yield the requests in the order of their times, or of the log if it gives none.

        Times need the whole log in memory; without them, it is read as it is asked for.
        """
        requests = self._requests()
        first = next(requests, None)
        if first is None:
            return
        if first.at is None:
            yield first
            yield from requests
            return
        found, last = [first, *requests], 0.0
        timed = []
        for request in found:
            last = last if request.at is None else request.at
            timed.append((last, request))
        found = [request for _, request in sorted(timed, key=lambda pair: pair[0])]
        self.reordered = [one for _, one in timed] != found
        yield from found

    def report(self, reason: str, line: int | None = None) -> None:
        """Note that a line, or a request in it, was not read."""
        at = self.number if line is None else line
        if at not in self._noted:
            self._noted.add(at)
            self.broken.append(at)
        self.reasons.setdefault(reason, []).append(at)

    @property
    def unread(self) -> int:
        """Count what was not read: lines, or requests in them."""
        return sum(map(len, self.reasons.values()))

    def _requests(self) -> Iterator[Logged]:
        for request in self._of_file():
            yield request if request.line else replace(request, line=self.number)
        yield from self._released()
        for number, line in self._came.items():
            if number not in self._asked:
                self.report(NO_PROMPT, line)
        self.broken.sort()

    def _of_file(self) -> Iterator[Logged]:
        """Read line by line, unless the file as a whole is a table or holds documents of many lines."""
        lines = iter(self.lines)
        first = self._first(lines)
        lines = chain([first], lines)
        if _is_table(first):
            yield from self._of_table(lines)
        elif first.lstrip()[:1] in ("[", "{") and not _is_document(first):
            whole = list(lines)
            documents = _whole(whole)
            for document in documents:
                self.number += 1
                yield from self._of_document(document)
            yield from self._of_lines([] if documents else whole)
        else:
            yield from self._of_lines(lines)

    def _first(self, lines: Iterator[str]) -> str:
        """Return the first line that is not blank; ``number`` is that of the line before it."""
        first = ""
        for number, line in enumerate(lines):
            first, self.number = line, number
            if line.strip():
                break
        return first.removeprefix("\ufeff")

    def _of_lines(self, lines: Iterable[str]) -> Iterator[Logged]:
        for line in lines:
            self.number += 1
            if line.strip():
                yield from self._of_line(line)

    def _of_line(self, line: str) -> list[Logged]:
        try:
            text = without_prefix(line)
            if text.lstrip()[:1] not in ("{", "[") and (is_server_line(text) or self._server):
                self._server = True
                found = self._of_entry(entry_of(line))
            else:
                found = self._of_document(parsed(text))
        except BrokenLineError as error:
            self.report(str(error))
            return []
        except RecursionError:
            self.report("its brackets are nested too deeply")
            return []
        held = self._held is not None and self._held[1].line == self.number
        self.other += not found and not held and self.number not in self._noted
        return found

    def _of_document(self, document: Any) -> list[Logged]:
        line = _logged_message(document)
        if line is not None:
            self._server = True
            return self._of_entry(entry_of(line))
        try:
            return requests_of(document, self.report)
        except BrokenLineError as error:
            self.report(str(error))
        except RecursionError:
            self.report("its brackets are nested too deeply")
        return []

    def _of_entry(self, entry: Entry | None) -> list[Logged]:
        """Take a request from a server's log, which may tell of it in up to three lines: once is enough.

        A prompt is held back until the next line of its request, which names the adapter.
        """
        if entry is None:
            return []
        if isinstance(entry.body, dict):
            self._bodies = True
            self._asked[entry.number] = None
            return [*self._released(), *requests_of(entry.body, self.report)]
        if entry.prompt is None and entry.ids is None:
            if self._held and self._held[0] == entry.number:
                return self._released(entry.adapter)
            # With bodies, a request's second number differs; then every request has its own body.
            if not self._bodies:
                self._came.setdefault(entry.number, self.number)
            return []
        if self._bodies:
            return []
        self._asked[entry.number] = None
        before = self._released()
        request = Logged(prompt=entry.prompt, ids=entry.ids, cache=(entry.adapter, ""), line=self.number)
        self._held = (entry.number, request)
        return before

    def _released(self, adapter: str = "") -> list[Logged]:
        """Let go of the prompt that was held back."""
        if self._held is None:
            return []
        request, self._held = self._held[1], None
        return [replace(request, cache=(adapter, "")) if adapter else request]

    def _of_table(self, lines: Iterable[str]) -> Iterator[Logged]:
        """Read a CSV export, a request a row."""
        csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
        reader = csv.DictReader(lines)
        start = self.number
        while True:
            try:
                row = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.report(f"it is no row of a table: {error}")
                continue
            finally:
                self.number = start + reader.line_num
            document = {key: value for key, value in row.items() if isinstance(key, str) and value}
            found = self._of_document(document)
            self.other += not found and self.number not in self._noted
            yield from (replace(one, line=self.number) for one in found)


def parse_line(line: str, report: Report | None = None) -> list[Logged]:
    """Read one line: the requests in it; none for a line that belongs in such a log but is no request.

    Raises:
        BrokenLineError: it is neither.

    >>> parse_line('{"messages": [{"role": "user", "content": "Hi"}]}')[0].messages[0]["content"]
    'Hi'
    """
    log = Log([line])
    found = list(log)
    for reason in log.reasons:
        if report is None:
            raise BrokenLineError(reason)
        report(reason)
    return found


@contextmanager
def open_log(path: Path) -> Iterator[Iterable[str]]:
    """Open a log, also one that is gzipped or written in UTF-16.

    Raises:
        OSError: it cannot be opened.
    """
    with path.open("rb") as raw:
        head = raw.peek(2)[:2]  # not read: it may be a pipe
        plain = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if head == b"\x1f\x8b" else raw
        coding = "utf-16" if head in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with io.TextIOWrapper(plain, encoding=coding, errors="replace", newline="\n") as lines:
            yield lines


def _is_table(line: str) -> bool:
    names = [name.strip(' "\r\n') for name in line.split(",")] if len(line) < 10_000 else []
    return len(names) > 1 and bool(TABLE_COLUMNS & set(names)) and not line.lstrip().startswith(("{", "["))


def _is_document(line: str) -> bool:
    try:
        parsed(line)
    except BrokenLineError:
        return False
    return True


def _whole(lines: list[str]) -> list[Any]:
    """Parse a file of documents that run over many lines each; empty if it is none."""
    text = "".join(line if line.endswith("\n") else line + "\n" for line in lines)
    found: list[Any] = []
    decoder, begin = json.JSONDecoder(), 0
    while rest := BLANK.match(text, begin):
        begin = rest.end()
        if begin == len(text):
            return [clean(document, text) for document in found]
        try:
            document, begin = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            break
        found.append(document)
    return []


def _logged_message(document: Any) -> str | None:
    """Return the line inside a log in JSON: a logger's, or a container's."""
    if not isinstance(document, dict) or {"messages", "input", "body", "prompt"} & set(document):
        return None
    for key in MESSAGE_KEYS:
        line = document.get(key)
        levelled = {"level", "levelname", "severity", "stream", "asctime"} & set(document)
        if isinstance(line, str) and (levelled or is_server_line(line)):
            return line
    return None
