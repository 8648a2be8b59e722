"""Answers that may be given again."""

from llmcost_plugins.cache.cache import Cache, Found

__all__ = ["Cache", "Found"]
