"""The components as LangChain knows them."""

from llmcost_plugins.langchain.cache import SemanticCache
from llmcost_plugins.langchain.callbacks import CostCallbackHandler
from llmcost_plugins.langchain.chat import CostAwareChatModel
from llmcost_plugins.langchain.embeddings import LocalEmbeddings
from llmcost_plugins.ledger import track
from llmcost_plugins.scope import scope

__all__ = ["CostAwareChatModel", "CostCallbackHandler", "LocalEmbeddings", "SemanticCache", "scope", "track"]
