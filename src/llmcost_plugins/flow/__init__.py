"""The hall: the one way of a request through the rooms."""

from llmcost_plugins.flow.faults import fault_of
from llmcost_plugins.flow.finishes import finish_named
from llmcost_plugins.flow.serve import Account, serve
from llmcost_plugins.flow.settings import account_of, cache_of, models_of, overrides_in, refuse_unknown, router_of

__all__ = [
    "Account",
    "account_of",
    "cache_of",
    "fault_of",
    "finish_named",
    "models_of",
    "overrides_in",
    "refuse_unknown",
    "router_of",
    "serve",
]
