"""The bundled embedder as LlamaIndex's indexes take it."""

from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from typing_extensions import override

from llmcost_plugins.embeddings import Embedder, LocalEmbedder
from llmcost_plugins.plan import adrive, drive


class LocalEmbedding(BaseEmbedding):
    """Embeds on this machine, with no network and no key: `Settings.embed_model = LocalEmbedding()`.

    The bundled model reads 256 tokens of each text.

    Args:
        embedder: What embeds; a `LocalEmbedder` with so many `threads` otherwise.
        threads: How many cores one text may take.
        options: The fields that every LlamaIndex embedding has.
    """

    threads: int = Field(default=1, ge=1, description="How many cores one text may take.")
    _embedder: Embedder = PrivateAttr()

    def __init__(self, embedder: Embedder | None = None, *, threads: int = 1, **options: Any) -> None:
        chosen: Embedder = LocalEmbedder(threads=threads) if embedder is None else embedder
        super().__init__(**{"model_name": chosen.id, "threads": threads, **options})
        self._embedder = chosen

    @override
    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # makes the object anew from its fields
        self._embedder = state["__pydantic_private__"]["_embedder"]

    @classmethod
    @override
    def class_name(cls) -> str:
        """Return the name that LlamaIndex stores the component under."""
        return "LocalEmbedding"

    @override
    def _get_query_embedding(self, query: str) -> Embedding:
        return self._get_text_embeddings([query])[0]

    @override
    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._aget_text_embeddings([query]))[0]

    @override
    def _get_text_embedding(self, text: str) -> Embedding:
        return self._get_text_embeddings([text])[0]

    @override
    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aget_text_embeddings([text]))[0]

    @override
    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors: list[Embedding] = drive(self._embedder.embed(texts)).vectors.tolist()
        return vectors

    @override
    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        vectors: list[Embedding] = (await adrive(self._embedder.embed(texts))).vectors.tolist()
        return vectors
