"""Which model answers."""

from llmcost_plugins.routing.router import Router
from llmcost_plugins.routing.rules import Choice, difficulty, shortcoming

__all__ = ["Choice", "Router", "difficulty", "shortcoming"]
