"""The stack that a session's lessons ask: the deployment that was named, else servers of ours."""

from __future__ import annotations

import pytest

from ..gate.attach import Beside, attach
from ..settings.paths import user_path
from ..settings.run import RunConfig
from ..stack.keep import open_stack
from ..stack.stack import Stack
from ..traces.look_ups import LookUps
from .configuration import usage_errors
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
    deployment, options = known.at(run.url), known.options
    tokenizer = user_path("tokenizer", options.tokenizer) if options.tokenizer else None
    look_ups = None
    if options.lmcache_spans:
        with usage_errors(config):
            look_ups = LookUps(options.lmcache_spans)
        config.add_cleanup(look_ups.close)
    return attach(deployment, Beside(known.lmcache, tokenizer, look_ups), progress)
