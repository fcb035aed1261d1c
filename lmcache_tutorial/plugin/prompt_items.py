"""Files of prompts are collected: each group of requests is a test of a running deployment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from ..prompts.prompts_file import SUFFIX, PromptGroup, PromptsError, read_prompts
from ..settings.run import addresses
from ..settings.shown import shown
from .kv_fixtures import NO_DEPLOYMENT
from .options import given_options
from .stash import PROMPTS


def is_prompts_file(path: Path) -> bool:
    """Tell a file of prompts by its name."""
    return path.name.endswith(SUFFIX)


class PromptsFile(pytest.File):
    """A file of prompts."""

    def collect(self) -> Iterator[PromptItem]:
        """Yield a test for each group; what is wrong with the file is a collection error."""
        try:
            groups = read_prompts(self.path)
        except PromptsError as error:
            raise self.CollectError(str(error)) from None
        urls = addresses(given_options(self.config).url)
        for group in groups:
            for url, label in zip(urls, labels(urls), strict=True) if urls else [("", "")]:
                name = f"{group.name}[{label}]" if label else group.name
                yield PromptItem.from_parent(self, name=name, group=group, url=url)


def host_of(url: str) -> str:
    """Return an address without a name and a password that it may have."""
    return urlsplit(url).netloc.rpartition("@")[2]


def labels(urls: Sequence[str]) -> list[str]:
    """Tell several addresses apart in the names of tests, as short as can be; a single one needs no label.

    >>> labels(["http://one:8000", "http://two:8000/v1"])
    ['one:8000', 'two:8000']
    >>> labels(["https://gateway/a/v1", "https://gateway/b/v1"])
    ['gateway/a/v1', 'gateway/b/v1']
    >>> labels(["http://me:secret@gateway", "https://gateway", "http://gateway"])
    ['gateway 1', 'gateway 2', 'gateway 3']
    """
    if len(urls) < 2:
        return [""] * len(urls)
    hosts = [host_of(url) for url in urls]
    places = [f"{host}{urlsplit(url).path.rstrip('/')}" for host, url in zip(hosts, urls, strict=True)]
    numbered = [f"{place} {number}" for number, place in enumerate(places, 1)]
    return next(found for found in (hosts, places, numbered) if len(set(found)) == len(urls))


class GroupFailedError(Exception):
    """A group did not meet its bars; the message says what was seen of each claim."""


class PromptItem(pytest.Item):
    """A group of prompts: it is asked of the deployment, and judged."""

    def __init__(self, *, group: PromptGroup, url: str, **others: Any) -> None:
        """Hold the group, and the address at which it is asked; the rest is pytest's."""
        super().__init__(**others)
        self.group, self.url = group, url

    def setup(self) -> None:
        """Skip where no deployment was named."""
        if PROMPTS not in self.config.stash:
            pytest.skip(NO_DEPLOYMENT)

    def runtest(self) -> None:
        """Ask and judge.

        Raises:
            GroupFailedError: a claim failed.
            UndecidedError: none failed, and one has no answer.
        """
        self.config.stash[PROMPTS].run(self)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Say what was seen; where this plugin failed, show where."""
        from ..asking.answers import NoAnswerError
        from ..gate.deployment import DeploymentError

        if isinstance(excinfo.value, GroupFailedError | NoAnswerError | DeploymentError):
            return shown(str(excinfo.value))  # a server may repeat the key that it was sent
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        """Name the group, and the line of its first request."""
        return self.path, self.group.prompts[0].line - 1, f"prompts: {self.name}"
