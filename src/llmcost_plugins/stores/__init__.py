"""Where caches, budgets and jobs keep what they know."""

from llmcost_plugins.stores.memory import Memory

__all__ = ["Memory"]
