"""The hall: the one way of a request through the rooms."""

from llmcost_plugins.flow.serve import Account, serve

__all__ = ["Account", "serve"]
