"""Where caches, budgets and jobs keep what they know."""

from llmcost_plugins.stores.connect import connect
from llmcost_plugins.stores.memory import Memory
from llmcost_plugins.stores.sqlite import SQLite

__all__ = ["Memory", "SQLite", "connect"]
