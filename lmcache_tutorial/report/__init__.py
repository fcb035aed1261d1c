"""results.json, the report's page, and the summaries made from them."""
