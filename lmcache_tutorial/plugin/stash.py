"""What a run keeps in pytest's stash. The session's module is heavy, and named here without loading it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..settings.run import RunConfig

if TYPE_CHECKING:
    from .deployments import Deployments
    from .prompt_run import PromptRun
    from .session import Session

CONFIG: pytest.StashKey[RunConfig] = pytest.StashKey()
SESSION: pytest.StashKey[Session] = pytest.StashKey()
DEPLOYMENTS: pytest.StashKey[Deployments] = pytest.StashKey()
PROMPTS: pytest.StashKey[PromptRun] = pytest.StashKey()  # where a deployment was named
FAULTS_PAGE: pytest.StashKey[Path] = pytest.StashKey()  # once this run has written it
