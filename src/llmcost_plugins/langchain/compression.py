"""The retrieval compressor as LangChain knows it."""

from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun, Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable
from pydantic import PrivateAttr
from typing_extensions import override

from llmcost_plugins.compression import CompressionResult, Compressor, Passage, compressor_of, described
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import Plan, adrive, drive

COMPRESSION = "compression"  # where `metadata` says what was kept
_TITLES = ("title", "Title")
_SCORES = ("relevance_score", "score")


class ContextCompressor(BaseDocumentCompressor):
    """Keeps of retrieved documents the sentences that bear on the question, to the letter, within a token budget.

    ```python
    retriever = CompressingRetriever(store.as_retriever(), ContextCompressor(ratio=4))
    ```

    Documents keep their id and metadata; `metadata["compression"]` adds what was kept of them and where it stood. Those
    of which nothing is kept are left out. The documents given are not changed. `metadata={"protected": True}` keeps one
    whole.

    Args:
        compressor: A `Compressor`, or the settings of one:
        settings: such as `ratio=4`, `tokens=1000`, `scorer="bm25"`, `embedder=...`, `protect=[...]`.
    """

    _compressor: Compressor = PrivateAttr()

    def __init__(self, compressor: Compressor | None = None, **settings: Any) -> None:
        super().__init__()
        self._compressor = compressor_of(compressor, settings)

    @property
    def compressor(self) -> Compressor:
        """What chooses."""
        return self._compressor

    @override
    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return what bears on the query, in the order of the documents."""
        return _documents(documents, drive(self._plan(documents, query)))

    @override
    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Do as `compress_documents` without blocking the event loop."""
        return _documents(documents, await adrive(self._plan(documents, query)))

    def _plan(self, documents: Sequence[Document], query: str) -> Plan[CompressionResult]:
        return self._compressor.compress(query, [_passage(document) for document in documents])


class CompressingRetriever(BaseRetriever):
    """Retrieves with any retriever, and compresses what it finds.

    Args:
        retriever: Any retriever, or runnable that takes a question and returns documents.
        compressor: A `ContextCompressor`; one with default settings if left out.
    """

    retriever: Any
    compressor: Any

    def __init__(self, retriever: Any, compressor: Any = None, **kwargs: Any) -> None:
        if not isinstance(retriever, Runnable):
            raise ConfigurationError(f"`retriever` is {retriever!r}; expected a retriever or another runnable")
        if compressor is None or isinstance(compressor, Compressor):
            compressor = ContextCompressor(compressor)
        if not isinstance(compressor, BaseDocumentCompressor):
            raise ConfigurationError(f"`compressor` is {compressor!r}; expected a `ContextCompressor`")
        super().__init__(**{"retriever": retriever, "compressor": compressor, **kwargs})

    @override
    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        found = self.retriever.invoke(query, {"callbacks": run_manager.get_child()}, **kwargs)
        return list(self.compressor.compress_documents(found, query, run_manager.get_child())) if found else []

    @override
    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        found = await self.retriever.ainvoke(query, {"callbacks": run_manager.get_child()}, **kwargs)
        if not found:
            return []
        return list(await self.compressor.acompress_documents(found, query, run_manager.get_child()))


def _passage(document: Document) -> Passage:
    metadata = document.metadata
    score = next((metadata[name] for name in _SCORES if isinstance(metadata.get(name), int | float)), None)
    return Passage(
        document.page_content,
        id=document.id or "",
        title=next((str(metadata[name]) for name in _TITLES if metadata.get(name)), ""),
        score=score,
        protected=bool(metadata.get("protected")),
    )


def _documents(documents: Sequence[Document], result: CompressionResult) -> list[Document]:
    """Return new documents of what was kept."""
    return [
        documents[kept.index].model_copy(
            update={
                "page_content": kept.text,
                "metadata": {**documents[kept.index].metadata, COMPRESSION: described(kept, result)},
            }
        )
        for kept in result.kept
    ]
