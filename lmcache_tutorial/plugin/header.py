"""The lines that say, before the first test, what will be measured."""

from __future__ import annotations

from ..models.shapes import SHAPES
from ..pages.templating import RANDOM_WEIGHTS, machine_words
from ..report.environment import environment
from ..settings.environment import langfuse_variables_set
from ..settings.run import RunConfig
from ..stack.kept_state import StackError, kept_servers, state_file
from ..stack.needs import COMPILED, compiled_operations
from .prompt_items import host_of


def header(run: RunConfig) -> list[str]:
    """Build the lines of the pytest header."""
    traces = _traces(run)
    if run.url:
        return [
            f"lmcache-tutorial: the deployment at {host_of(run.url)}, which is asked and nothing else",
            traces,
        ]
    try:
        kept = kept_servers()
        where = (
            f"reusing the kept one at {kept['vllm'].url}, if it matches"
            if "vllm" in kept
            else "started when first needed"
        )
    except StackError:  # the first lesson that needs the stack tells all of it
        where = f"none: {state_file()} cannot be read"
    notes = [f"model: {run.stack.model} with {RANDOM_WEIGHTS}"] if run.stack.model in SHAPES else []
    if run.stack.profile == "gpu":
        notes.append(f"{COMPILED}: {compiled_operations().seen}")
    return [
        f"lmcache-tutorial: profile {run.stack.profile}, model {run.stack.model}, stack {where}",
        f"machine: {machine_words(environment(run))}, since {run.dtype_reason}",
        traces,
        *notes,
    ]


def _traces(run: RunConfig) -> str:
    sent = "sent to Langfuse at the end" if run.langfuse else "sent nowhere"
    unused = langfuse_variables_set() and not run.langfuse
    ignored = " (the LANGFUSE_* variables are ignored)" if unused else ""
    masked = ", without prompts and answers" if run.mask else ""
    return f"traces: written to {run.report_dir / 'traces'}{masked}, {sent}{ignored}"
