"""Cut the LLM bill of LangChain, LlamaIndex and LangGraph apps, and measure what it saves."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmcost_plugins.scope import scope  # not lazily: the module of that name would hide the function

if TYPE_CHECKING:
    from llmcost_plugins.cache import Cache
    from llmcost_plugins.compression import Compressor
    from llmcost_plugins.embeddings import LocalEmbedder
    from llmcost_plugins.langchain import track
    from llmcost_plugins.ledger import Ledger
    from llmcost_plugins.pricing import PriceBook
    from llmcost_plugins.routing import Router
    from llmcost_plugins.stores import Memory, SQLite
    from llmcost_plugins.types import Deployment, Tier

__version__ = "0.1.0"

_HOMES = {
    "Cache": "cache",
    "Compressor": "compression",
    "Deployment": "types",
    "Ledger": "ledger",
    "LocalEmbedder": "embeddings",
    "Memory": "stores",
    "PriceBook": "pricing",
    "Router": "routing",
    "SQLite": "stores",
    "Tier": "types",
    "track": "langchain",
}

__all__ = [
    "Cache",
    "Compressor",
    "Deployment",
    "Ledger",
    "LocalEmbedder",
    "Memory",
    "PriceBook",
    "Router",
    "SQLite",
    "Tier",
    "scope",
    "track",
]


def __getattr__(name: str) -> Any:
    """Import public names when they are first asked for, so that importing the package loads no framework."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
