"""The retrieval compressor as LlamaIndex knows it."""

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, Node, NodeWithScore, QueryBundle, TextNode
from typing_extensions import override

from llmcost_plugins.compression import CompressionResult, Compressor, Passage, compressor_of, described
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import Plan, adrive, drive

COMPRESSION = "compression"  # where `metadata` says what was kept; models do not see it
_TITLES = ("title", "Title", "document_title")


class ContextCompressorPostprocessor(BaseNodePostprocessor):
    """Keeps of retrieved nodes the sentences that bear on the question, to the letter, within a token budget.

    ```python
    engine = index.as_query_engine(node_postprocessors=[ContextCompressorPostprocessor(ratio=4)])
    ```

    Nodes keep id, score, metadata and relationships; `metadata["compression"]`, which models and embeddings do not see,
    adds what was kept of them and where it stood. Those of which nothing is kept are left out, those without text are
    passed on. The nodes given are not changed. `metadata={"protected": True}` keeps one whole.

    Args:
        compressor: A `Compressor`, or the settings of one:
        settings: such as `ratio=4`, `tokens=1000`, `scorer="bm25"`, `embedder=...`, `protect=[...]`.
    """

    _compressor: Compressor = PrivateAttr()

    def __init__(self, compressor: Compressor | None = None, **settings: Any) -> None:
        super().__init__()
        self._compressor = compressor_of(compressor, settings)

    @classmethod
    @override
    def class_name(cls) -> str:
        """Return the name that LlamaIndex knows the component under."""
        return "ContextCompressorPostprocessor"

    @property
    def compressor(self) -> Compressor:
        """What chooses."""
        return self._compressor

    @override
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return _kept(nodes, drive(self._plan(nodes, query_bundle)))

    @override
    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return _kept(nodes, await adrive(self._plan(nodes, query_bundle)))

    def _plan(self, nodes: Sequence[NodeWithScore], query: QueryBundle | None) -> Plan[CompressionResult]:
        passages = [_passage(node) for node in nodes if _has_text(node.node)]
        return self._compressor.compress(query.query_str if query is not None else "", passages)


class CompressingRetriever(BaseRetriever):
    """Retrieves with any retriever, and compresses what it finds.

    Args:
        retriever: Any retriever.
        compressor: A `ContextCompressorPostprocessor` or a `Compressor`; one with default settings if left out.
    """

    def __init__(
        self,
        retriever: BaseRetriever,
        compressor: ContextCompressorPostprocessor | Compressor | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(retriever, BaseRetriever):
            raise ConfigurationError(f"`retriever` is {retriever!r}; expected a LlamaIndex retriever")
        super().__init__(**kwargs)
        self._retriever = retriever
        if isinstance(compressor, ContextCompressorPostprocessor):
            self._postprocessor = compressor
        else:
            self._postprocessor = ContextCompressorPostprocessor(compressor)

    @override
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._postprocessor.postprocess_nodes(self._retriever.retrieve(query_bundle), query_bundle)

    @override
    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found = await self._retriever.aretrieve(query_bundle)
        return await self._postprocessor.apostprocess_nodes(found, query_bundle)


def _has_text(node: BaseNode) -> bool:
    return isinstance(node, TextNode | Node) and bool(node.get_content(MetadataMode.NONE))


def _passage(found: NodeWithScore) -> Passage:
    node = found.node
    return Passage(
        node.get_content(MetadataMode.NONE),
        id=node.node_id,
        title=next((str(node.metadata[name]) for name in _TITLES if node.metadata.get(name)), ""),
        score=found.score,
        protected=bool(node.metadata.get("protected")),
    )


def _kept(nodes: Sequence[NodeWithScore], result: CompressionResult) -> list[NodeWithScore]:
    """Return new nodes of what was kept, those without text in their places."""
    texts = [place for place, found in enumerate(nodes) if _has_text(found.node)]
    compressed = {
        texts[kept.index]: NodeWithScore(
            node=_with_text(nodes[texts[kept.index]].node, kept.text, described(kept, result)),
            score=nodes[texts[kept.index]].score,
        )
        for kept in result.kept
    }
    others = {place: found for place, found in enumerate(nodes) if place not in texts}
    return [found for _, found in sorted({**compressed, **others}.items())]


def _with_text(node: BaseNode, text: str, description: dict[str, Any]) -> BaseNode:
    copy = node.model_copy()
    copy.metadata = {**node.metadata, COMPRESSION: description}
    copy.excluded_llm_metadata_keys = list(dict.fromkeys([*node.excluded_llm_metadata_keys, COMPRESSION]))
    copy.excluded_embed_metadata_keys = list(dict.fromkeys([*node.excluded_embed_metadata_keys, COMPRESSION]))
    copy.set_content(text)
    return copy
