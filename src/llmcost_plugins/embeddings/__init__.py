"""Texts as vectors."""

from llmcost_plugins.embeddings.adapt import RememberingEmbedder, embedder_of, same_kind
from llmcost_plugins.embeddings.embedder import Embedded, Embedder
from llmcost_plugins.embeddings.local import LocalEmbedder, bundled_embedder

__all__ = [
    "Embedded",
    "Embedder",
    "LocalEmbedder",
    "RememberingEmbedder",
    "bundled_embedder",
    "embedder_of",
    "same_kind",
]
