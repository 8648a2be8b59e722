"""The compressor in LlamaIndex: nodes keep who they are, and lose what nobody asked for."""

import asyncio
from typing import Any

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.llms.mock import MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.schema import (
    ImageNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

from llmcost_plugins import Compressor
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.llamaindex import CompressingRetriever, ContextCompressorPostprocessor, LocalEmbedding
from tests.doors.test_compression_langchain import FACT, QUESTION, TEXTS


def nodes() -> list[NodeWithScore]:
    made = []
    for number, text in enumerate(TEXTS):
        node = TextNode(text=text, id_=f"n{number}", metadata={"page": number})
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"doc{number}")
        made.append(NodeWithScore(node=node, score=None if number == 1 else 0.5))
    return made


def run(way: str, given: list[NodeWithScore], query: str | None = QUESTION, **settings: Any) -> list[NodeWithScore]:
    postprocessor = ContextCompressorPostprocessor(**{"ratio": 4, "scorer": "bm25", **settings})
    if way == "sync":
        return postprocessor.postprocess_nodes(given, query_str=query)
    return asyncio.run(postprocessor.apostprocess_nodes(given, query_str=query))


class Shelf(BaseRetriever):
    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return nodes()


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("scorer", ["bm25", "hybrid+head"])
def test_the_answer_stays_and_the_noise_goes(way: str, scorer: str) -> None:
    kept = run(way, nodes(), scorer=scorer)
    assert FACT in kept[0].node.get_content()
    assert sum(len(found.node.get_content()) for found in kept) < sum(map(len, TEXTS)) / 3


def test_nodes_keep_id_score_metadata_and_relationships() -> None:
    given = nodes()
    before = [found.model_copy(deep=True) for found in given]
    for found in run("sync", given):
        original = next(other for other in given if other.node.node_id == found.node.node_id)
        assert (found.score, found.node.relationships) == (original.score, original.node.relationships)
        assert found.node.metadata["page"] == original.node.metadata["page"]
        for start, end in found.node.metadata["compression"]["kept_spans"]:
            assert original.node.get_content()[start:end] in found.node.get_content()
    assert given == before


def test_models_do_not_read_what_was_kept() -> None:
    found = run("sync", nodes())[0].node
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert "kept_spans" not in found.get_content(mode)
        assert "page: 0" in found.get_content(mode)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_nodes_without_text_are_passed_on_in_their_places(way: str) -> None:
    given = nodes()
    given.insert(1, NodeWithScore(node=ImageNode(id_="image", image_url="http://127.0.0.1/a.png"), score=0.1))
    assert [found.node.node_id for found in run(way, given)][:2] == ["n0", "image"]


@pytest.mark.parametrize("query", ["", None])
def test_nothing_is_lost_without_a_question(query: str | None) -> None:
    assert [found.node.get_content() for found in run("sync", nodes(), query)] == list(TEXTS)


def test_a_node_that_is_found_twice_is_kept_at_most_as_often() -> None:
    kept = run("sync", [*nodes(), nodes()[0]])
    assert FACT in kept[0].node.get_content()
    assert sum(found.node.node_id == "n0" for found in kept) <= 2


@pytest.mark.parametrize("compressor", [None, Compressor("bm25"), ContextCompressorPostprocessor(scorer="bm25")])
@pytest.mark.parametrize("way", ["retrieve", "aretrieve"])
def test_a_retriever_that_compresses_what_another_finds(compressor: Any, way: str) -> None:
    retriever = CompressingRetriever(Shelf(), compressor)
    found = retriever.retrieve(QUESTION) if way == "retrieve" else asyncio.run(retriever.aretrieve(QUESTION))
    assert FACT in found[0].node.get_content()
    assert sum(len(one.node.get_content()) for one in found) < sum(map(len, TEXTS)) / 3


def test_it_works_in_query_engines() -> None:
    retriever = CompressingRetriever(Shelf(), Compressor("bm25"))
    answer = RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query(QUESTION)
    assert [found.node.node_id for found in answer.source_nodes][:1] == ["n0"]
    assert FACT in str(answer)
    after = RetrieverQueryEngine.from_args(
        Shelf(), llm=MockLLM(), node_postprocessors=[ContextCompressorPostprocessor(scorer="bm25")]
    )
    assert FACT in str(asyncio.run(after.aquery(QUESTION)))


def test_it_works_in_a_citation_engine_over_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    index = VectorStoreIndex([found.node for found in nodes()], embed_model=LocalEmbedding())
    monkeypatch.setattr(Settings, "_llm", MockLLM())
    engine = CitationQueryEngine.from_args(
        index,
        llm=MockLLM(),
        similarity_top_k=3,
        citation_chunk_size=512,
        node_postprocessors=[ContextCompressorPostprocessor(scorer="bm25")],
    )
    answer = engine.query(QUESTION)
    assert FACT in " ".join(found.node.get_content() for found in answer.source_nodes)
    assert all(found.node.metadata["page"] in (0, 1, 2) for found in answer.source_nodes)


def test_what_is_no_retriever_or_compressor_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="expected a LlamaIndex retriever"):
        CompressingRetriever("index")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="expected a `Compressor`"):
        CompressingRetriever(Shelf(), "bm25")  # type: ignore[arg-type]


def test_it_works_in_a_chat_engine() -> None:
    retriever = CompressingRetriever(Shelf(), Compressor("bm25"))
    memory = ChatMemoryBuffer.from_defaults(token_limit=3_000)
    engine = ContextChatEngine.from_defaults(retriever=retriever, llm=MockLLM(), memory=memory)
    answer = engine.chat(QUESTION)
    assert FACT in " ".join(found.node.get_content() for found in answer.source_nodes)
    assert all("compression" in found.node.metadata for found in answer.source_nodes)
