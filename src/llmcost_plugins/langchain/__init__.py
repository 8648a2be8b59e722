"""The components as LangChain knows them."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmcost_plugins.errors import MissingExtra
from llmcost_plugins.langchain.cache import SemanticCache
from llmcost_plugins.langchain.callbacks import CostCallbackHandler
from llmcost_plugins.langchain.chat import CostAwareChatModel
from llmcost_plugins.langchain.compression import CompressingRetriever, ContextCompressor
from llmcost_plugins.langchain.embeddings import LocalEmbeddings
from llmcost_plugins.langchain.judge import ChatClassifier, ChatGrader, ChatJudge
from llmcost_plugins.ledger import track
from llmcost_plugins.scope import scope

if TYPE_CHECKING:
    from llmcost_plugins.langchain.middleware import CostAwareMiddleware as CostAwareMiddleware
    from llmcost_plugins.langchain.tool_results import ToolResultCompressor as ToolResultCompressor

_AGENTS = {"CostAwareMiddleware": "middleware", "ToolResultCompressor": "tool_results"}

# not those of agents: they need an extra, which a star import must not
__all__ = [
    "ChatClassifier",
    "ChatGrader",
    "ChatJudge",
    "CompressingRetriever",
    "ContextCompressor",
    "CostAwareChatModel",
    "CostCallbackHandler",
    "LocalEmbeddings",
    "SemanticCache",
    "scope",
    "track",
]


def __getattr__(name: str) -> Any:
    """Import what needs LangChain's agents when it is first asked for."""
    if name not in _AGENTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_AGENTS[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {"langchain", "langgraph"}:
            raise
        raise MissingExtra("langchain", "agents") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_AGENTS})
