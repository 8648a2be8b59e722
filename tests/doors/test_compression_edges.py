"""The compressor's doors where frameworks do as they like: odd documents, second rounds, odd results, callbacks."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents.middleware import ToolCallRequest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import BaseDocumentCompressor
from langchain_core.documents import Document as LangChainDocument
from langchain_core.messages import HumanMessage, ToolMessage
from langgraph.types import Command
from llama_index.core.schema import Document, ImageNode, IndexNode, MetadataMode, NodeWithScore, TextNode

from llmcost_plugins.langchain import CompressingRetriever, ContextCompressor, ToolResultCompressor
from llmcost_plugins.llamaindex import ContextCompressorPostprocessor
from tests.doors.test_compression_langchain import FACT, QUESTION, TEXTS, Shelf


class Page(LangChainDocument):
    number: int = 7


def test_documents_that_share_metadata_and_have_no_ids() -> None:
    shared = {"source": {"page": 1}}
    given = [Page(page_content=text, metadata=shared) for text in TEXTS]
    before = copy.deepcopy(given)
    kept = ContextCompressor(ratio=4, scorer="bm25").compress_documents(given, QUESTION)
    assert given == before
    assert shared == {"source": {"page": 1}}
    assert all(isinstance(document, Page) and document.id is None for document in kept)
    assert len({id(document.metadata) for document in kept}) == len(kept)


def test_a_compressor_is_copied_with_what_holds_it() -> None:
    compressor = ContextCompressor(ratio=4, scorer="bm25").model_copy(deep=True)
    assert FACT in compressor.compress_documents([LangChainDocument(TEXTS[0])], QUESTION)[0].page_content


def test_compressing_twice_loses_no_answer() -> None:
    compressor = ContextCompressor(tokens=60, scorer="bm25")
    once = list(compressor.compress_documents([LangChainDocument(text) for text in TEXTS], QUESTION))
    twice = list(compressor.compress_documents(once, QUESTION))
    assert [document.page_content for document in twice] == [document.page_content for document in once]


class Seen(BaseCallbackHandler):
    def __init__(self) -> None:
        self.runs: list[tuple[Any, Any]] = []

    def on_retriever_start(
        self, serialized: Any, query: str, *, run_id: Any, parent_run_id: Any = None, **_: Any
    ) -> None:
        self.runs.append((run_id, parent_run_id))


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
async def test_callbacks_reach_the_inner_retriever_and_the_compressor(way: str) -> None:
    given: list[Any] = []

    class First(BaseDocumentCompressor):
        def compress_documents(self, documents: Any, query: str, callbacks: Any = None) -> Any:
            given.append(callbacks)
            return documents[:1]

    seen = Seen()
    retriever = CompressingRetriever(Shelf(), First())
    config: Any = {"callbacks": [seen]}
    await retriever.ainvoke(QUESTION, config) if way == "ainvoke" else retriever.invoke(QUESTION, config)
    (outer, none), (_, parent) = seen.runs
    assert (none, parent) == (None, outer)
    assert given[0].parent_run_id == outer


@pytest.mark.parametrize(
    "make",
    [
        lambda text: TextNode(text=text, text_template="<{content}|{metadata_str}>"),
        lambda text: IndexNode(text=text, index_id="i"),
        lambda text: ImageNode(text=text, image_url="http://127.0.0.1/a.png"),
        lambda text: Document(text=text),
    ],
    ids=["template", "index", "image", "document"],
)
def test_nodes_of_any_kind(make: Callable[[str], Any]) -> None:
    given = [NodeWithScore(node=make(text), score=0.5) for text in TEXTS]
    before = copy.deepcopy(given)
    postprocessor = ContextCompressorPostprocessor(tokens=60, scorer="bm25")
    once = postprocessor.postprocess_nodes(given, query_str=QUESTION)
    twice = postprocessor.postprocess_nodes(once, query_str=QUESTION)
    assert given == before
    assert FACT in once[0].node.get_content(MetadataMode.LLM)
    assert type(once[0].node) is type(given[0].node)
    for first, second in zip(once, twice, strict=True):
        assert first.node.get_content() == second.node.get_content()
        assert second.node.excluded_llm_metadata_keys.count("compression") == 1
        assert second.node.excluded_embed_metadata_keys.count("compression") == 1


def asked(messages: list[Any]) -> ToolCallRequest:
    call: Any = {"name": "look_up", "args": {"topic": "lighthouse Port Ellis built", "n": 3}, "id": "c"}
    return ToolCallRequest(tool_call=call, tool=None, state={"messages": messages}, runtime=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "result",
    [
        ToolMessage([{"type": "text", "text": TEXTS[0]}], tool_call_id="c"),
        ToolMessage(TEXTS[0], tool_call_id="c", status="error"),
        ToolMessage("", tool_call_id="c"),
        Command(update={"messages": []}),
    ],
    ids=["list", "error", "empty", "command"],
)
async def test_results_that_are_no_text_are_passed_on(result: Any) -> None:
    async def handler(request: ToolCallRequest) -> Any:
        return result

    middleware = ToolResultCompressor(ratio=4, scorer="bm25", min_tokens=0)
    assert middleware.wrap_tool_call(asked([]), lambda request: result) is result
    assert await middleware.awrap_tool_call(asked([]), handler) is result


@pytest.mark.parametrize(
    "messages", [[], [HumanMessage(QUESTION)], [HumanMessage([{"type": "text", "text": QUESTION}])]]
)
def test_without_a_user_message_the_tool_s_arguments_are_the_question(messages: list[Any]) -> None:
    result = ToolMessage(TEXTS[0], tool_call_id="c", artifact={"raw": 1})
    middleware = ToolResultCompressor(ratio=4, scorer="bm25", min_tokens=0)
    kept: Any = middleware.wrap_tool_call(asked(messages), lambda request: result)
    assert FACT in kept.content
    assert (kept.artifact, result.content) == ({"raw": 1}, TEXTS[0])
