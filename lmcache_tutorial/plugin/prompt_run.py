"""One pytest session with groups of prompts: holds the deployment, judges, prints what was seen."""

from __future__ import annotations

from functools import cached_property

import httpx
import pytest

from ..gate.decide import UndecidedError
from ..gate.deployment import Deployment, DeploymentError, client_for, find_deployment, lmcache_at
from ..gate.judge_group import Judged, judge_group
from ..gate.prompt_group import ask_group
from ..gate.verdict import INCOMPLETE_EXIT_CODE
from ..settings.bars import Thresholds
from ..settings.options import RunOptions
from ..settings.secrets import redact
from .prompt_items import GroupFailedError, PromptItem

OUTCOMES = ("failed", "undecided", "incomplete", "passed")  # the worst first


class PromptRun:
    """A plugin of its own, registered when a run has groups of prompts and a deployment."""

    def __init__(self, options: RunOptions, bars: Thresholds) -> None:
        """Hold what is asked for; nothing is asked before the first group runs."""
        self._options, self._bars = options, bars
        self._clients: list[httpx.Client] = []
        self._judged: dict[str, list[Judged]] = {}
        self._error: DeploymentError | None = None

    @cached_property
    def _found(self) -> Deployment:
        options, lmcache = self._options, None
        self._clients.append(client := client_for(options.url or ""))
        if options.lmcache_url:
            lmcache = lmcache_at(options.lmcache_url)
            self._clients.append(lmcache.client)
        return find_deployment(client, options.model, lmcache, may_reset=options.allow_reset)

    def run(self, item: PromptItem) -> None:
        """Ask a group of the deployment and judge it."""
        judged = judge_group(ask_group(self._deployment(), item.group), self._bars)
        self._judged[item.nodeid] = judged
        words = redact("\n".join(f"{one.outcome}: {one.claim}: {one.seen}" for one in judged))
        worst = min((one.outcome for one in judged), key=OUTCOMES.index)
        if worst == "failed":
            raise GroupFailedError(words)
        if worst != "passed":
            raise UndecidedError(words)

    def _deployment(self) -> Deployment:
        """Find the deployment once; what stands in the way is said to every group."""
        if self._error:
            raise self._error
        try:
            return self._found
        except DeploymentError as error:
            self._error = DeploymentError(redact(str(error)))
            raise self._error from None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Let go of the deployment; a run with a claim that has no answer does not end with 0."""
        for client in self._clients:
            client.close()
        outcomes = {one.outcome for judged in self._judged.values() for one in judged}
        if outcomes & {"undecided", "incomplete"} and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = INCOMPLETE_EXIT_CODE

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print every claim of every group."""
        if not self._judged:
            return
        terminalreporter.section("prompts")
        if not self._found.honours_salts:
            terminalreporter.write_line("cold was made by a nonce in front: the server ignores cache_salt")
        for node, judged in self._judged.items():
            for one in judged:
                first, *_ = one.seen.splitlines()
                terminalreporter.write_line(redact(f"{node} {one.outcome}: {one.claim}: {first}"))
