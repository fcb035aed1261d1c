"""The command ``lmcache-tutorial``."""
