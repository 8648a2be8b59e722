"""The components as LlamaIndex knows them."""

from llmcost_plugins.errors import MissingExtra

try:
    import llama_index.core  # noqa: F401 - every module of this package needs it
except ModuleNotFoundError as error:
    if error.name not in {"llama_index", "llama_index.core"}:
        raise
    raise MissingExtra("llama-index-core", "llamaindex") from error

from llmcost_plugins.ledger import track
from llmcost_plugins.llamaindex.compression import CompressingRetriever, ContextCompressorPostprocessor
from llmcost_plugins.llamaindex.embedding import LocalEmbedding
from llmcost_plugins.llamaindex.llm import CostAwareLLM
from llmcost_plugins.scope import scope

__all__ = [
    "CompressingRetriever",
    "ContextCompressorPostprocessor",
    "CostAwareLLM",
    "LocalEmbedding",
    "scope",
    "track",
]
