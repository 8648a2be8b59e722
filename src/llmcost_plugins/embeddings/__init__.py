"""Texts as vectors."""

from llmcost_plugins.embeddings.embedder import Embedded, Embedder
from llmcost_plugins.embeddings.local import LocalEmbedder

__all__ = ["Embedded", "Embedder", "LocalEmbedder"]
