"""An executable tutorial: what LMCache brings to long-context work on vLLM, proven on your machine.

What a notebook or a script of your own may use is imported from here: measured quantities and predictions,
charts, the configuration of a run, and the chapters of the tutorial's notebook. A name is loaded when it is
first asked for, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .notebook.chapter import begin_chapter as begin_chapter
    from .notebook.inline import show_chart as show_chart
    from .notebook.inline import show_environment as show_environment
    from .notebook.inline import show_lesson as show_lesson
    from .quantities.predict import engine_reusable_tokens as engine_reusable_tokens
    from .quantities.predict import lmcache_reusable_tokens as lmcache_reusable_tokens
    from .quantities.predict import reusable_tokens as reusable_tokens
    from .quantities.predict import shared_prefix_tokens as shared_prefix_tokens
    from .quantities.records import Interval as Interval
    from .quantities.records import TokenSources as TokenSources
    from .quantities.statistics import hit_rate as hit_rate
    from .quantities.statistics import median_interval as median_interval
    from .quantities.statistics import ratio_of_medians as ratio_of_medians
    from .quantities.statistics import total as total
    from .quantities.statistics import ttft_drop as ttft_drop
    from .report.results import Chart as Chart
    from .settings.bars import Thresholds as Thresholds
    from .settings.options import RunOptions as RunOptions
    from .settings.run import RunConfig as RunConfig
    from .settings.run import run_config as run_config

__version__ = "0.1.0"
_HOMES = {
    "notebook.chapter": ("begin_chapter",),
    "notebook.inline": ("show_chart", "show_environment", "show_lesson"),
    "quantities.predict": (
        "engine_reusable_tokens",
        "lmcache_reusable_tokens",
        "reusable_tokens",
        "shared_prefix_tokens",
    ),
    "quantities.records": ("Interval", "TokenSources"),
    "quantities.statistics": ("hit_rate", "median_interval", "ratio_of_medians", "total", "ttft_drop"),
    "report.results": ("Chart",),
    "settings.bars": ("Thresholds",),
    "settings.options": ("RunOptions",),
    "settings.run": ("RunConfig", "run_config"),
}
__all__ = [name for names in _HOMES.values() for name in names]
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load a public name when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(f".{_HOME_OF[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
