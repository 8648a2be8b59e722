"""The compressor in LangChain: documents keep who they are, and lose what nobody asked for."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.messages import ToolMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from llmcost_plugins import Compressor
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.langchain import CompressingRetriever, ContextCompressor, ToolResultCompressor
from llmcost_plugins.testing import FakeProvider

QUESTION = "When was the lighthouse of Port Ellis built?"
FACT = "The lighthouse of Port Ellis was built in 1874 by Ada Lorne."
NOISE = (
    "The harbour has a market on Fridays. Fish is sold there from six in the morning. "
    "Visitors park behind the church. The road was widened twice. A ferry leaves every two hours. "
    "Local bakers make a bread with seaweed. The school has ninety pupils. Winters are mild and wet. "
)
TEXTS = (f"{NOISE}{FACT} {NOISE}", NOISE * 2, f"Ships were built elsewhere. {NOISE}")


def documents() -> list[Document]:
    return [
        Document(text, id=f"d{number}", metadata={"source": f"page {number}", "score": 0.9 - number / 10})
        for number, text in enumerate(TEXTS)
    ]


def run(compressor: ContextCompressor, way: str, given: list[Document], query: str = QUESTION) -> list[Document]:
    if way == "sync":
        return list(compressor.compress_documents(given, query))
    return list(asyncio.run(compressor.acompress_documents(given, query)))


@pytest.mark.parametrize("way", ["sync", "async"])
@pytest.mark.parametrize("scorer", ["bm25", "hybrid", "hybrid+head"])
def test_the_answer_stays_and_the_noise_goes(way: str, scorer: str) -> None:
    kept = run(ContextCompressor(ratio=4, scorer=scorer), way, documents())
    assert FACT in kept[0].page_content
    assert sum(len(document.page_content) for document in kept) < sum(map(len, TEXTS)) / 3


def test_documents_keep_id_and_metadata_and_say_what_was_kept_of_them() -> None:
    given = documents()
    before = [document.model_copy(deep=True) for document in given]
    for kept in run(ContextCompressor(ratio=4, scorer="bm25"), "sync", given):
        original = next(document for document in given if document.id == kept.id)
        said = kept.metadata["compression"]
        assert {**kept.metadata, "compression": None} == {**original.metadata, "compression": None}
        assert said["kept_tokens"] < said["original_tokens"]
        for start, end in said["kept_spans"]:
            assert original.page_content[start:end] in kept.page_content
    assert given == before


def test_a_protected_document_stays_whole() -> None:
    given = documents()
    given[1].metadata["protected"] = True
    kept = run(ContextCompressor(ratio=4, scorer="bm25"), "sync", given)
    assert next(document for document in kept if document.id == "d1").page_content.strip() == TEXTS[1].strip()


def test_a_short_context_passes_through_with_the_reason() -> None:
    (kept,) = run(ContextCompressor(), "sync", [Document("The tower is high.", id="d")])
    assert kept.page_content == "The tower is high."
    assert "shorter than" in kept.metadata["compression"]["reason"]


@pytest.mark.parametrize("query", ["", "   "])
def test_nothing_is_lost_without_a_question(query: str) -> None:
    kept = run(ContextCompressor(ratio=4), "sync", documents(), query)
    assert [document.page_content for document in kept] == list(TEXTS)


def test_no_documents_are_no_documents() -> None:
    assert run(ContextCompressor(), "sync", []) == []


def test_a_compressor_or_its_settings() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        ContextCompressor(Compressor(), ratio=2)
    with pytest.raises(ConfigurationError, match="does not take"):
        ContextCompressor(rate=2)
    with pytest.raises(ConfigurationError, match="`ratio`"):
        ContextCompressor(ratio=0.5)


class Shelf(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return documents()


@pytest.mark.parametrize("make", [Shelf, lambda: RunnableLambda(lambda _: documents())], ids=["retriever", "runnable"])
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_retriever_that_compresses_what_another_finds(make: Callable[[], Any], way: str) -> None:
    retriever = CompressingRetriever(retriever=make(), compressor=ContextCompressor(ratio=4, scorer="bm25"))
    assert isinstance(retriever, BaseRetriever)
    found = retriever.invoke(QUESTION) if way == "invoke" else asyncio.run(retriever.ainvoke(QUESTION))
    assert FACT in found[0].page_content
    assert "compression" in found[0].metadata


def test_a_retriever_takes_a_plain_compressor_and_other_compressors() -> None:
    class First(BaseDocumentCompressor):
        def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
            return documents[:1]

    assert len(CompressingRetriever(retriever=Shelf(), compressor=First()).invoke(QUESTION)) == 1
    assert (
        FACT in CompressingRetriever(retriever=Shelf(), compressor=Compressor("bm25")).invoke(QUESTION)[0].page_content
    )


@pytest.mark.parametrize("settings", [{"retriever": "store"}, {"retriever": Shelf(), "compressor": "bm25"}])
def test_what_is_no_retriever_or_compressor_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="expected a"):
        CompressingRetriever(**settings)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_an_agent_s_model_reads_the_compressed_result_of_a_tool(way: str) -> None:
    @tool
    def look_up(topic: str) -> str:
        """Look something up."""
        return TEXTS[0]

    read: list[str] = []

    def answer(model: str, messages: Any) -> str:
        read.extend(str(message["content"]) for message in messages if message["role"] == "tool")
        return "In 1874."

    with FakeProvider(answer, keep_alive=False) as provider:
        model = ChatOpenAI(model="gpt-5.4", base_url=provider.url, api_key="none")
        agent = create_agent(model, [look_up], middleware=[ToolResultCompressor(ratio=4, scorer="bm25", min_tokens=50)])
        asked = {"messages": [("user", QUESTION)]}
        state = agent.invoke(asked) if way == "invoke" else asyncio.run(agent.ainvoke(asked))
        message = next(message for message in state["messages"] if isinstance(message, ToolMessage))
        assert FACT in message.text
        assert len(message.text) < len(TEXTS[0]) / 3
        assert message.artifact == TEXTS[0]
        assert message.additional_kwargs["compression"]["kept_spans"]
        assert read == [message.text]


def test_errors_short_results_and_other_tools_are_passed_on() -> None:
    @tool
    def fail(topic: str) -> str:
        """Fail."""
        return TEXTS[0]

    with FakeProvider(keep_alive=False) as provider:
        model = ChatOpenAI(model="gpt-5.4", base_url=provider.url, api_key="none")
        middleware = ToolResultCompressor(ratio=4, scorer="bm25", min_tokens=50, tools=["another"])
        state = create_agent(model, [fail], middleware=[middleware]).invoke({"messages": [("user", QUESTION)]})
        message = next(message for message in state["messages"] if isinstance(message, ToolMessage))
        assert (message.text, message.artifact) == (TEXTS[0], None)
