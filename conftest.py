"""The map: what a lesson may ask for comes from these modules, and nothing else stands here."""

pytest_plugins = [
    "fixtures.stack",
    "fixtures.needs",
    "fixtures.beside",
    "fixtures.traces",
    "fixtures.ask",
    "fixtures.corpus",
    "fixtures.graphs",
    "fixtures.agents",
    "fixtures.pairs",
    "fixtures.report",
    "fixtures.predictions",
    "fixtures.progress",
    "fixtures.benchmarks",
    "fixtures.peers",
    "fixtures.faults",
    "fixtures.gate",
    "fixtures.browser",
]
