"""What every page shares: the template environment, and how numbers are printed. Light: no matplotlib."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from ..quantities.formats import figure, percent, seconds, sequence, summary

# The pages beside the report, each in a file of that name: the sets of peers, and the faults.
TITLES = {
    "peers": "LMCache and its peers, side by side",
    "tuning": "What makes LMCache's first token faster: predicted, changed, measured",
    "faults": "What breaks, and what the client sees of it",
}
RANDOM_WEIGHTS = "random weights: times and hits are real, answers are noise"
MARKED = re.compile(r"`([^`]+)`|\*([^*\s][^*]*)\*")  # code; stress


def page_environment() -> Environment:
    """Return an environment that escapes everything and fails on what is missing."""
    environment = Environment(
        loader=PackageLoader("lmcache_tutorial.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["random_weights"] = RANDOM_WEIGHTS
    environment.filters |= {"percent": percent, "seconds": seconds, "figure": figure}
    environment.filters |= {"summary": summary, "sequence": sequence, "inline": inline}
    return environment


def inline(text: str) -> Markup:
    """Show a sentence's `code` and *stress* as such; all else is escaped.

    >>> print(inline("KV depends on *all before it*: `a < b`"))
    KV depends on <em>all before it</em>: <code>a &lt; b</code>
    """
    done, at = Markup(), 0
    for found in MARKED.finditer(text):
        tag = "code" if found[1] else "em"
        done += escape(text[at : found.start()]) + Markup(f"<{tag}>") + escape(found[1] or found[2])
        done += Markup(f"</{tag}>")
        at = found.end()
    return done + escape(text[at:])


def style_sheet() -> str:
    """Return the style that all pages have, without the element around it."""
    text = resources.files(__package__).joinpath("templates/style.html").read_text(encoding="utf-8")
    return text.removeprefix("<style>").rstrip().removesuffix("</style>")


def machine_words(environment: Mapping[str, Any]) -> str:
    """Say what the run's work was fitted to; empty where the document does not tell.

    >>> machine_words({"instruction_set": "AMX", "cores": 2, "dtype": "bfloat16", "prefill_tokens_s": 2130.4})
    'AMX, 2 cores, bfloat16, prefill 2,130 tokens/s'
    """
    cores, rate = environment.get("cores"), environment.get("prefill_tokens_s")
    words = [
        environment.get("instruction_set"),
        cores and figure(cores, "cores" if cores > 1 else "core"),
        environment.get("dtype"),
        rate and f"prefill {rate:,.0f} tokens/s",
    ]
    return ", ".join(word for word in words if word)


def workload_words(environment: Mapping[str, Any]) -> str:
    """Say how long the documents are and why; empty where the document does not tell.

    >>> sizes = {"class": "small", "short": 1200, "medium": 2400, "long": 4800, "reason": "it is slow"}
    >>> workload_words({"workload": sizes})
    'documents of 1,200, 2,400 and 4,800 tokens, because it is slow'
    """
    workload = environment.get("workload")
    if not workload:
        return ""
    short, medium, long = (figure(workload[size]) for size in ("short", "medium", "long"))
    return f"documents of {short}, {medium} and {long} tokens, because {workload['reason']}"
