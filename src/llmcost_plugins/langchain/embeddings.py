"""The bundled embedder as LangChain's vector stores take it."""

from typing import Any

from langchain_core.embeddings import Embeddings
from typing_extensions import override

from llmcost_plugins.embeddings import Embedder, LocalEmbedder
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import adrive, drive


class LocalEmbeddings(Embeddings):
    """Embeds on this machine, with no network and no key: `InMemoryVectorStore(LocalEmbeddings())`.

    Takes an `Embedder`, or the keywords of a `LocalEmbedder`. The bundled model reads 256 tokens of each text.

    Args:
        embedder: What embeds; a `LocalEmbedder` made from `options` otherwise.
        options: Keywords of `LocalEmbedder`.
    """

    def __init__(self, embedder: Embedder | None = None, **options: Any) -> None:
        if embedder is not None and options:
            names = ", ".join(f"`{name}`" for name in options)
            raise ConfigurationError(f"{names}: set on the embedder itself; pass either an embedder or its keywords")
        self.embedder: Embedder = LocalEmbedder(**options) if embedder is None else embedder

    def __repr__(self) -> str:
        return f"LocalEmbeddings({self.embedder!r})"

    @override
    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector of unit length a text."""
        vectors: list[list[float]] = drive(self.embedder.embed(texts)).vectors.tolist()
        return vectors

    @override
    def embed_query(self, text: str) -> list[float]:
        """Return the text's vector, the same as a document of that text has."""
        return self.embed_documents([text])[0]

    @override
    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Do as `embed_documents` without blocking the event loop."""
        vectors: list[list[float]] = (await adrive(self.embedder.embed(texts))).vectors.tolist()
        return vectors

    @override
    async def aembed_query(self, text: str) -> list[float]:
        """Do as `embed_query` without blocking the event loop."""
        return (await self.aembed_documents([text]))[0]
