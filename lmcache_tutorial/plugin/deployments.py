"""The deployments that a run was pointed at: each is looked at once, when it is first needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from ..gate.deployment import Deployment, DeploymentError, client_for, find_deployment, lmcache_at
from ..servers.lmcache import Cache
from ..settings.options import RunOptions
from ..settings.shown import shown
from .options import given_options
from .stash import DEPLOYMENTS


@dataclass
class Deployments:
    """Holds what was found at each address, or what stood in the way."""

    options: RunOptions
    clients: list[httpx.Client] = field(default_factory=list)
    found: dict[str, Deployment | DeploymentError] = field(default_factory=dict)
    lmcache: Cache | None = None

    def at(self, url: str) -> Deployment:
        """Return the deployment at an address.

        Raises:
            DeploymentError: it cannot be judged; said again to everybody who asks.
        """
        if url not in self.found:
            try:
                self.found[url] = self._find(url)
            except DeploymentError as error:
                self.found[url] = DeploymentError(shown(str(error)))
        found = self.found[url]
        if isinstance(found, DeploymentError):
            raise found
        return found

    @property
    def known(self) -> list[Deployment]:
        """Those that were found."""
        return [one for one in self.found.values() if isinstance(one, Deployment)]

    @property
    def documents(self) -> list[dict[str, Any]]:
        """What results.json tells of them."""
        return [one.document() for one in self.known]

    def close(self) -> None:
        """Let go of them."""
        for client in self.clients:
            client.close()

    def _find(self, url: str) -> Deployment:
        self.clients.append(client := client_for(url))
        if self.options.lmcache_url and self.lmcache is None:
            self.lmcache = lmcache_at(self.options.lmcache_url, client)
            self.clients.append(self.lmcache.client)
        return find_deployment(client, self.options.model, self.lmcache, may_reset=self.options.allow_reset)


def deployments(config: pytest.Config) -> Deployments:
    """Return the run's deployments; they are let go of when it ends."""
    if DEPLOYMENTS not in config.stash:
        made = config.stash[DEPLOYMENTS] = Deployments(given_options(config))
        config.add_cleanup(made.close)
    return config.stash[DEPLOYMENTS]
