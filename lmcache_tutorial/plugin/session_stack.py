"""The stack that a session's lessons ask: the deployment that was named, else servers of ours."""

from __future__ import annotations

import pytest

from ..gate.attach import attach
from ..settings.paths import user_path
from ..settings.run import RunConfig
from ..stack.keep import open_stack
from ..stack.stack import Stack
from .deployments import deployments
from .progress import progress_line


def session_stack(run: RunConfig, config: pytest.Config) -> Stack:
    """Return a ready stack.

    Raises:
        UnfitError: no lesson can be held on the deployment.
        DeploymentError: it cannot be judged, or does not answer.
        CorpusError: the documents' source is not installed.
        StackError: servers of ours cannot run here.
        ServerError: one of them did not start.
        ModelError: the model cannot be had.
    """
    progress = progress_line(config)
    if run.url is None:
        return open_stack(run, progress)
    known = deployments(config)
    named = known.options.tokenizer
    tokenizer = user_path("tokenizer", named) if named else None
    return attach(known.at(run.url), known.lmcache, tokenizer, progress)
