"""Put the tables whose source is code into README.md, between their markers; tests tell where they differ."""

from __future__ import annotations

from pathlib import Path

from lmcache_tutorial.lessons.glossary import glossary_table
from lmcache_tutorial.report.headlines import into
from lmcache_tutorial.settings.readme_table import options_table

README = Path(__file__).parents[1] / "README.md"

if __name__ == "__main__":
    into(README, glossary_table(), place="glossary")
    into(README, options_table(), place="options")
