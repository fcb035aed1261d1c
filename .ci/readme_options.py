"""Put the table of options into README.md, between its markers; a test tells where the two differ."""

from __future__ import annotations

from pathlib import Path

from lmcache_tutorial.report.headlines import into
from lmcache_tutorial.settings.readme_table import options_table

if __name__ == "__main__":
    into(Path(__file__).parents[1] / "README.md", options_table(), place="options")
