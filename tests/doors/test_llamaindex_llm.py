"""`CostAwareLLM`: every way to ask LlamaIndex's way, and nothing billed, shown or kept that should not be."""

import asyncio
import copy
import json
import pickle
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from llama_index.core import Document, PromptTemplate, Settings, VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    LLMMetadata,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, TokenCountingHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMChatStartEvent, LLMCompletionEndEvent
from llama_index.core.llms import MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.llms.utils import parse_partial_json
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation.dispatcher import instrument_tags
from pydantic import BaseModel

from llmcost_plugins import Cache, Ledger, PriceBook, Router, Tier, scope, track
from llmcost_plugins.errors import ConfigurationError, NoTierAnswered
from llmcost_plugins.events import ComponentFailed, Event
from llmcost_plugins.langchain import CostAwareChatModel
from llmcost_plugins.llamaindex import CostAwareLLM, LocalEmbedding
from llmcost_plugins.llamaindex.caller import CALL_ID, Caller, Chat
from llmcost_plugins.llamaindex.convert import to_message
from llmcost_plugins.llamaindex.usage import finish_of, usage_of
from llmcost_plugins.testing import FakeProvider
from llmcost_plugins.testing.generation import default_answer
from llmcost_plugins.testing.records import Latency
from llmcost_plugins.types import Request, Scope, Usage

WEAK, STRONG = "gpt-5.4-mini", "gpt-5.4"
pytestmark = [  # what LlamaIndex itself does when it is first used with LangChain beside it, and with agents
    pytest.mark.filterwarnings("ignore:.*langchain-community:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
]
QUESTION = "Which colours does the sofa come in?"
CHATS = ("chat", "achat", "stream_chat", "astream_chat")
COMPLETIONS = ("complete", "acomplete", "stream_complete", "astream_complete")
PREDICTIONS = ("predict", "apredict", "stream", "astream")


class HTTPLLM(FunctionCallingLLM):
    """An integration as the published ones are: decorated methods around the provider's own client."""

    model: str = WEAK
    base_url: str = ""
    api_key: str = "any"
    temperature: float | None = None
    context_window: int = 128_000
    max_tokens: int = -1
    stream_usage: bool = True
    blocks: bool = True

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            model_name=self.model,
            context_window=self.context_window,
            num_output=self.max_tokens,
            is_chat_model=True,
            is_function_calling_model=True,
        )

    @contextmanager
    def _client(self) -> Iterator[Any]:
        with openai.OpenAI(base_url=self.base_url, api_key=self.api_key, max_retries=0) as client:
            yield client.chat.completions

    @asynccontextmanager
    async def _aclient(self) -> AsyncGenerator[Any, None]:
        async with openai.AsyncOpenAI(base_url=self.base_url, api_key=self.api_key, max_retries=0) as client:
            yield client.chat.completions

    def _body(self, messages: Sequence[ChatMessage], stream: bool, kwargs: dict[str, Any]) -> dict[str, Any]:
        body = {"model": self.model, "messages": [wire(message) for message in messages], **kwargs}
        if self.temperature is not None:
            body["temperature"] = self.temperature
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": self.stream_usage}}
        return body

    def _response(self, raw: Any) -> ChatResponse:
        message = raw.choices[0].message
        return ChatResponse(message=self._message(message.content or "", message.tool_calls or []), raw=raw)

    def _message(self, text: str, calls: Sequence[Any]) -> ChatMessage:
        blocks: list[Any] = [TextBlock(text=text)]
        if self.blocks:
            blocks += [
                ToolCallBlock(tool_call_id=c.id, tool_name=c.function.name, tool_kwargs=c.function.arguments or {})
                for c in calls
            ]
        extras = {"tool_calls": [*calls]} if calls else {}
        return ChatMessage(role="assistant", blocks=blocks, additional_kwargs=extras)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        with self._client() as client:
            return self._response(client.create(**self._body(messages, False, kwargs)))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        async with self._aclient() as client:
            return self._response(await client.create(**self._body(messages, False, kwargs)))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Generator[ChatResponse, None, None]:
        def gen() -> Generator[ChatResponse, None, None]:
            so_far = _SoFar()
            with self._client() as client, client.create(**self._body(messages, True, kwargs)) as chunks:
                for chunk in chunks:
                    yield self._chunk(chunk, so_far)

        return gen()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncGenerator[ChatResponse, None]:
        async def gen() -> AsyncGenerator[ChatResponse, None]:
            so_far = _SoFar()
            async with self._aclient() as client, await client.create(**self._body(messages, True, kwargs)) as chunks:
                async for chunk in chunks:
                    yield self._chunk(chunk, so_far)

        return gen()

    def _chunk(self, raw: Any, so_far: "_SoFar") -> ChatResponse:
        delta = raw.choices[0].delta if raw.choices else SimpleNamespace(content="", tool_calls=[])
        so_far.add(delta)
        return ChatResponse(message=self._message(so_far.text, so_far.calls), delta=delta.content or "", raw=raw)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        with self._client() as client:
            response = client.create(**self._body([ChatMessage(prompt)], False, kwargs))
        return CompletionResponse(text=response.choices[0].message.content, raw=response)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        async with self._aclient() as client:
            response = await client.create(**self._body([ChatMessage(prompt)], False, kwargs))
        return CompletionResponse(text=response.choices[0].message.content, raw=response)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        def gen() -> Generator[CompletionResponse, None, None]:
            so_far = _SoFar()
            body = self._body([ChatMessage(prompt)], True, kwargs)
            with self._client() as client, client.create(**body) as chunks:
                for raw in chunks:
                    chunk = self._chunk(raw, so_far)
                    yield CompletionResponse(text=so_far.text, delta=chunk.delta, raw=raw)

        return gen()

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        async def gen() -> AsyncGenerator[CompletionResponse, None]:
            so_far = _SoFar()
            body = self._body([ChatMessage(prompt)], True, kwargs)
            async with self._aclient() as client, await client.create(**body) as chunks:
                async for raw in chunks:
                    chunk = self._chunk(raw, so_far)
                    yield CompletionResponse(text=so_far.text, delta=chunk.delta, raw=raw)

        return gen()

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[Any],
        user_msg: Any = None,
        chat_history: Any = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = [*(chat_history or [])] + ([ChatMessage(user_msg)] if isinstance(user_msg, str) else [])
        choice = {"tool_choice": "required"} if tool_required else {}
        kwargs.pop("tool_choice", None)
        return {"messages": messages, "tools": [tool.metadata.to_openai_tool() for tool in tools], **choice, **kwargs}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        calls = response.message.additional_kwargs.get("tool_calls") or []
        if not calls and error_on_no_tool_call:
            raise ValueError("no tool call")
        return [
            ToolSelection(
                tool_id=c.id, tool_name=c.function.name, tool_kwargs=parse_partial_json(c.function.arguments or "{}")
            )
            for c in calls
        ]


class _SoFar:
    def __init__(self) -> None:
        self.text = ""
        self.calls: list[Any] = []

    def add(self, delta: Any) -> None:
        self.text += delta.content or ""
        for call in delta.tool_calls or ():
            if call.index >= len(self.calls):
                self.calls.append(copy.deepcopy(call))
            else:
                self.calls[call.index].function.arguments += call.function.arguments or ""


def wire(message: ChatMessage) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role.value, "content": message.content or ""}
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if calls:
        body["tool_calls"] = [
            {
                "id": call.tool_call_id,
                "type": "function",
                "function": {
                    "name": call.tool_name,
                    "arguments": call.tool_kwargs
                    if isinstance(call.tool_kwargs, str)
                    else json.dumps(call.tool_kwargs),
                },
            }
            for call in calls
        ]
    if "tool_call_id" in message.additional_kwargs:
        body["tool_call_id"] = message.additional_kwargs["tool_call_id"]
    return body


def inner(provider: FakeProvider, model: str = WEAK, **given: Any) -> HTTPLLM:
    return HTTPLLM(model=model, base_url=provider.url, **given)


def both(provider: FakeProvider, **given: Any) -> list[Tier]:
    """Return two tiers; they name their provider, as the module of a published integration would."""
    return [Tier(model, inner(provider, model, **given), provider="openai") for model in (WEAK, STRONG)]


def unsure_if_weak(model: str, messages: list[dict[str, Any]]) -> str:
    return "I'm not sure." if model == WEAK else default_answer(model, messages)


def ask(way: str, llm: Any, question: str = QUESTION, **kwargs: Any) -> Any:
    """Ask in one of the eight ways; of a stream return the last chunk, with all deltas joined as its `delta`."""
    if way.startswith("a"):
        return asyncio.run(aask(way, llm, question, **kwargs))
    given: Any = question if way in COMPLETIONS else [ChatMessage(question)]
    answer = getattr(llm, way)(given, **kwargs)
    return whole(list(answer)) if way.startswith("stream") else answer


async def aask(way: str, llm: Any, question: str = QUESTION, **kwargs: Any) -> Any:
    given: Any = question if way in COMPLETIONS else [ChatMessage(question)]
    answer = await getattr(llm, way)(given, **kwargs)
    return whole([chunk async for chunk in answer]) if way.startswith("astream") else answer


def whole(chunks: list[Any]) -> Any:
    return chunks[-1].model_copy(update={"delta": "".join(chunk.delta or "" for chunk in chunks)})


def text_of(answer: Any) -> str:
    return answer.text if isinstance(answer, CompletionResponse) else answer.message.content


def hit_of(answer: Any) -> str | None:
    return answer.additional_kwargs.get("llmcost", {}).get("cache")


class Heard(BaseEventHandler):
    """What LlamaIndex's instrumentation was told."""

    events: list[Any] = []

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.events.append(event)


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler, dispatcher = Heard(events=[]), get_dispatcher()
    dispatcher.event_handlers.append(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)


@pytest.fixture(autouse=True)
def _settings_as_they_were() -> Iterator[None]:
    before = dict(vars(Settings))
    yield
    vars(Settings).update(before)


# --- every way to ask


@pytest.mark.parametrize("way", CHATS + COMPLETIONS)
def test_every_way_gives_the_tier_s_answer(fake_provider: FakeProvider, way: str) -> None:
    ledger = Ledger()
    answer = ask(way, CostAwareLLM(tiers=both(fake_provider), ledger=ledger))
    assert text_of(answer) == fake_provider.served[0].answer
    if "stream" in way:
        assert answer.delta == text_of(answer)
    assert hit_of(answer) is None
    totals, billed = ledger.totals(), fake_provider.billed()
    assert (totals.paid, totals.estimated, totals.unpriced) == (1, 0, 0)
    assert (totals.input_tokens, totals.output_tokens) == (billed.input_tokens, billed.output_tokens)


@pytest.mark.parametrize("second", CHATS)
@pytest.mark.parametrize("first", CHATS)
def test_every_chat_is_a_hit_for_every_other(fake_provider: FakeProvider, first: str, second: str) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    cold, warm, last = ask(first, llm), ask(second, llm), ask(second, llm)
    assert fake_provider.calls == 1
    assert [hit_of(cold), hit_of(warm), hit_of(last)] == [None, "exact", "exact"]
    assert text_of(warm) == text_of(cold)
    assert warm.message.role == "assistant"
    assert warm.message is not last.message
    if "stream" in second:
        assert warm.delta == text_of(cold)


@pytest.mark.parametrize("second", COMPLETIONS)
@pytest.mark.parametrize("first", COMPLETIONS)
def test_every_completion_is_a_hit_for_every_other(fake_provider: FakeProvider, first: str, second: str) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    cold, warm = ask(first, llm), ask(second, llm)
    assert fake_provider.calls == 1
    assert (hit_of(cold), hit_of(warm)) == (None, "exact")
    assert isinstance(warm, CompletionResponse)
    assert warm.text == cold.text


def test_a_hit_says_how_it_was_found(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    llm.chat([ChatMessage(QUESTION)])
    answer = llm.chat([ChatMessage("which colours  does the sofa come in")])
    mark = answer.additional_kwargs["llmcost"]
    assert mark == answer.raw["llmcost"]
    assert mark.keys() == {"cache", "age", "entry_id", "hit_id", "similarity"}
    assert mark["cache"] == "normalised"
    assert "usage" not in answer.raw


def test_chats_and_completions_have_answers_of_their_own(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    assert [hit_of(ask(way, llm)) for way in ("chat", "complete", "chat", "complete")] == [None, None, "exact", "exact"]


def test_the_answer_may_be_changed_without_changing_the_next(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    cold = llm.chat([ChatMessage(QUESTION)])
    original = cold.message.content
    cold.message.blocks[0].text = "spoilt"
    warm = llm.chat([ChatMessage(QUESTION)])
    warm.message.blocks.clear()
    assert llm.chat([ChatMessage(QUESTION)]).message.content == original


# --- streams


def test_a_tier_streams_word_by_word_and_the_cache_at_once(fake_provider: FakeProvider) -> None:
    llm, plain = CostAwareLLM(inner(fake_provider), cache=True), inner(fake_provider)
    counts = [len(list(one.stream_chat([ChatMessage(QUESTION)]))) for one in (plain, llm, llm)]
    assert counts[0] == counts[1] > 5
    assert counts[2] == 1


def test_a_broken_off_stream_is_not_kept(fake_provider: FakeProvider) -> None:
    ledger = Ledger()
    llm = CostAwareLLM(inner(fake_provider), cache=True, ledger=ledger)
    with closing(llm.stream_chat([ChatMessage(QUESTION)])) as chunks:
        next(chunks)
        next(chunks)
        assert llm._cost_cache.turns_held == 1
    assert llm._cost_cache.turns_held == 0
    fake_provider.wait_idle()
    assert [hit_of(ask("stream_chat", llm)) for _ in range(2)] == [None, "exact"]
    assert (ledger.totals().cut, ledger.totals().paid) == (1, 2)


async def test_a_broken_off_async_stream_is_not_kept(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    async with aclosing(await llm.astream_chat([ChatMessage(QUESTION)])) as chunks:
        await anext(chunks)
        await anext(chunks)
        assert llm._cost_cache.turns_held == 1
    assert llm._cost_cache.turns_held == 0
    assert [hit_of(await aask("achat", llm)) for _ in range(2)] == [None, "exact"]


@pytest.mark.parametrize("way", ["stream_chat", "astream_chat", "stream_complete"])
def test_a_stream_cut_cleanly_is_not_kept(fake_provider: FakeProvider, way: str) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    fake_provider.drop_stream(after_chunks=4, mode="clean")
    assert [hit_of(ask(way, llm)) for _ in range(3)] == [None, None, "exact"]


def test_a_stream_that_is_never_begun_asks_nobody(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    llm.stream_chat([ChatMessage(QUESTION)]).close()
    assert fake_provider.served == []


def test_a_stream_belongs_to_whom_it_was_asked_for(fake_provider: FakeProvider) -> None:
    ledger = Ledger()
    llm = CostAwareLLM(inner(fake_provider), cache=True, ledger=ledger)
    with scope(tenant="A"):
        chunks = llm.stream_chat([ChatMessage(QUESTION)])
    with scope(tenant="B"):
        list(chunks)
        assert hit_of(ask("chat", llm)) is None
    assert [row["tenant"] for row in ledger.to_records()] == ["A", "B"]


def test_what_a_reader_does_between_chunks_is_its_own(fake_provider: FakeProvider) -> None:
    from llmcost_plugins.scope import current_scope

    with scope(tenant="A"):
        chunks = CostAwareLLM(inner(fake_provider)).stream_chat([ChatMessage(QUESTION)])
    assert {current_scope() for _ in chunks} == {Scope()}


def test_a_stream_without_usage_is_estimated(fake_provider: FakeProvider) -> None:
    ledger = Ledger()
    ask("stream_chat", CostAwareLLM(inner(fake_provider, stream_usage=False), ledger=ledger))
    totals = ledger.totals()
    assert (totals.paid, totals.estimated) == (1, 1)
    assert totals.output_tokens > 0


# --- tiers


@pytest.mark.parametrize("way", CHATS + COMPLETIONS)
def test_a_failed_tier_falls_back(fake_provider: FakeProvider, way: str) -> None:
    ledger = Ledger()
    fake_provider.fail(model=WEAK, status=503)
    assert text_of(ask(way, CostAwareLLM(tiers=both(fake_provider), ledger=ledger)))
    assert [one.model for one in fake_provider.served] == [WEAK, STRONG]
    assert ledger.totals().fallbacks == 1


@pytest.mark.parametrize("way", CHATS)
def test_escalation_hides_the_draft(way: str) -> None:
    ledger = Ledger()
    with FakeProvider(unsure_if_weak, keep_alive=False) as provider:
        answer = ask(way, CostAwareLLM(tiers=both(provider), ledger=ledger))
        assert text_of(answer) == provider.served[1].answer
    assert ledger.totals().escalations == 1
    if "stream" in way:
        assert "sure" not in answer.delta


@pytest.mark.parametrize("way", CHATS)
def test_every_tier_failed(fake_provider: FakeProvider, way: str) -> None:
    llm = CostAwareLLM(tiers=both(fake_provider), cache=True)
    fake_provider.fail(times=6)
    with pytest.raises(NoTierAnswered):
        ask(way, llm)
    assert llm._cost_cache.turns_held == 0
    assert text_of(ask(way, llm))


@pytest.mark.parametrize("way", CHATS + COMPLETIONS)
def test_a_single_tier_s_error_is_raised_as_it_is(fake_provider: FakeProvider, way: str) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    fake_provider.fail(status=429, retry_after=60)
    with pytest.raises(openai.RateLimitError):
        ask(way, llm)
    assert llm._cost_cache.turns_held == 0
    assert text_of(ask(way, llm))


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_errors_of_the_request_s_own_are_not_retried(fake_provider: FakeProvider, status: int) -> None:
    fake_provider.fail(status=status)
    with pytest.raises(openai.APIStatusError, match=str(status)):
        CostAwareLLM(tiers=both(fake_provider)).chat([ChatMessage(QUESTION)])
    assert len(fake_provider.served) == 1


def test_a_provider_that_cannot_be_reached_is_one_to_fall_back_from(fake_provider: FakeProvider) -> None:
    gone = HTTPLLM(base_url="http://127.0.0.1:9/v1")
    llm = CostAwareLLM(tiers=[gone, inner(fake_provider, STRONG)])
    assert llm.chat([ChatMessage(QUESTION)]).message.content == fake_provider.served[0].answer


class Overloaded(Exception):
    status_code = 529


class ReadTimeout(Exception):
    """Named and derived as httpx's is."""


class InternalServerError(Exception): ...


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (Overloaded(), True),
        (InternalServerError(), True),
        (type("APITimeoutError", (Exception,), {})(), True),
        (type("Quota", (Exception,), {"response": SimpleNamespace(status_code=429)})(), True),
        (type("Denied", (Exception,), {"status_code": 403})(), False),
        (ValueError("a bug"), False),
        (KeyError("status"), False),
    ],
)
def test_which_errors_another_tier_may_mend(error: Exception, again: bool) -> None:
    assert (Caller(Chat([]), Request(())).fault(error).kind != "fatal") is again


@pytest.mark.parametrize("way", ["stream_chat", "astream_chat"])
def test_no_second_model_is_spliced_into_a_stream(fake_provider: FakeProvider, way: str) -> None:
    llm = CostAwareLLM(router=Router(both(fake_provider), escalate=False), cache=True)
    fake_provider.drop_stream(after_chunks=4, mode="abort")
    with pytest.raises(Exception, match=r"(?i)incomplete|connection|closed"):
        ask(way, llm)
    assert [one.model for one in fake_provider.served] == [WEAK]
    assert llm._cost_cache.turns_held == 0


# --- one call for many askers


@pytest.mark.parametrize("way", ["chat", "stream_chat", "complete", "stream_complete"])
def test_identical_misses_in_threads_are_one_call(fake_provider: FakeProvider, way: str) -> None:
    ledger = Ledger()
    llm = CostAwareLLM(tiers=both(fake_provider)[:1], cache=True, ledger=ledger)
    barrier = threading.Barrier(64)

    def work(_: int) -> str:
        barrier.wait()
        return text_of(ask(way, llm))

    with ThreadPoolExecutor(64) as pool:
        assert len(set(pool.map(work, range(64)))) == 1
    assert fake_provider.calls == 1
    assert llm._cost_cache.turns_held == 0
    totals = ledger.totals()
    assert (totals.requests, totals.paid, totals.hits) == (64, 1, 63)
    assert totals.cache_saved == 63 * totals.cost > 0


@pytest.mark.parametrize("way", ["achat", "astream_chat", "acomplete", "astream_complete"])
def test_identical_misses_in_tasks_are_one_call(fake_provider: FakeProvider, way: str) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)

    async def gather() -> list[Any]:
        return await asyncio.gather(*(aask(way, llm) for _ in range(64)))

    assert len({text_of(answer) for answer in asyncio.run(gather())}) == 1
    assert fake_provider.calls == 1
    assert llm._cost_cache.turns_held == 0


def test_when_the_leader_fails_the_next_leads(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    fake_provider.fail(status=400, times=3)
    barrier = threading.Barrier(16)

    def work(_: int) -> str:
        barrier.wait()
        try:
            return text_of(ask("chat", llm))
        except openai.APIStatusError:
            return "failed"

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(work, range(16)))
    assert answers.count("failed") == 3
    assert fake_provider.calls == 1
    assert llm._cost_cache.turns_held == 0


@pytest.mark.parametrize("way", ["achat", "astream_chat", "acomplete"])
def test_a_task_cancelled_in_mid_call_holds_nothing(way: str) -> None:
    reached = threading.Event()

    def answer(model: str, messages: list[dict[str, Any]]) -> str:
        reached.set()
        return default_answer(model, messages)

    async def cancel(llm: CostAwareLLM) -> None:
        task = asyncio.ensure_future(aask(way, llm))
        assert await asyncio.to_thread(reached.wait, 10)
        assert llm._cost_cache.turns_held == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert llm._cost_cache.turns_held == 0

    with FakeProvider(answer, latency=Latency(60.0, sigma=0), keep_alive=False) as slow:
        asyncio.run(cancel(CostAwareLLM(inner(slow), cache=True)))


# --- what must be kept apart


@pytest.mark.parametrize("how", ["scope", "tags"])
def test_tenants_are_kept_apart(fake_provider: FakeProvider, how: str) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)

    def ask_for(tenant: str) -> str | None:
        with scope(tenant=tenant) if how == "scope" else instrument_tags({"tenant": tenant}):
            return hit_of(llm.chat([ChatMessage(QUESTION)]))

    assert [ask_for(tenant) for tenant in ("A", "B", "A", "B", "C")] == [None, None, "exact", "exact", None]


def test_a_cache_with_required_scope_answers_nobody_without(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=Cache(require_scope=True))
    assert [hit_of(ask("chat", llm)) for _ in range(2)] == [None, None]


def test_a_shared_cache_keeps_models_apart(fake_provider: FakeProvider) -> None:
    cache = Cache()
    made = [
        CostAwareLLM(inner(fake_provider), cache=cache),
        CostAwareLLM(inner(fake_provider, STRONG), cache=cache),
        CostAwareLLM(inner(fake_provider, temperature=0.4), cache=cache),
        CostAwareLLM(inner(fake_provider, context_window=4_000), cache=cache),
        CostAwareLLM(tiers=both(fake_provider), cache=cache),
        CostAwareLLM(router=Router(both(fake_provider), threshold=0.4), cache=cache),
    ]
    assert [hit_of(ask("chat", llm)) for llm in made] == [None] * len(made)
    assert [hit_of(ask("chat", llm)) for llm in made] == ["exact"] * len(made)


def test_an_llm_changed_after_its_first_call_is_another(fake_provider: FakeProvider) -> None:
    only = inner(fake_provider)
    llm = CostAwareLLM(only, cache=True)
    ask("chat", llm)
    only.temperature = 0.9
    assert hit_of(ask("chat", llm)) is None


def test_another_key_or_time_limit_asks_the_same_model(fake_provider: FakeProvider) -> None:
    cache = Cache()
    first, second = (CostAwareLLM(inner(fake_provider, api_key=key), cache=cache) for key in ("sk-1", "sk-2"))
    ask("chat", first)
    assert hit_of(ask("chat", second)) == "exact"
    assert "sk-1" not in first._identity()


def test_langchain_s_answers_are_not_llamaindex_s(fake_provider: FakeProvider) -> None:
    from langchain_openai import ChatOpenAI

    cache = Cache()
    model = ChatOpenAI(model=WEAK, base_url=fake_provider.url, api_key="any")
    CostAwareChatModel(model, cache=cache).invoke(QUESTION)
    assert hit_of(ask("chat", CostAwareLLM(inner(fake_provider), cache=cache))) is None


@pytest.mark.parametrize("kwargs", [{"temperature": 0.1}, {"stop": ["\n\n"]}, {"max_tokens": 400}])
def test_a_call_s_own_settings_are_a_part_of_the_key(fake_provider: FakeProvider, kwargs: dict[str, Any]) -> None:
    llm = CostAwareLLM(inner(fake_provider, "gpt-4.1"), cache=True)
    hits = [hit_of(ask("chat", llm, **given)) for given in ({}, kwargs, kwargs)]
    assert hits == [None, None, "exact"]


def test_earlier_turns_are_a_part_of_the_key(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)

    def hit(said: str) -> str | None:
        turns = [ChatMessage("Hello"), ChatMessage(said, role="assistant"), ChatMessage(QUESTION)]
        return hit_of(llm.chat(turns))

    assert [hit("Hi"), hit("Good day"), hit("Hi")] == [None, None, "exact"]


def test_what_has_no_lasting_form_is_asked_each_time(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(MockLLM(is_chat_model=True), cache=True)
    assert [hit_of(llm.chat([ChatMessage(QUESTION)], hook=object())) for _ in range(2)] == [None, None]


# --- messages


def test_messages_are_plain_json() -> None:
    image = ImageBlock(image=b"\x89PNG\r\n\x1a\nsome bytes", detail="low")
    told = [
        ChatMessage("Be brief", role="system"),
        ChatMessage(blocks=[TextBlock(text="What is this?"), image]),
        ChatMessage(
            role="assistant",
            blocks=[
                ThinkingBlock(content="hm"),
                ToolCallBlock(tool_call_id="c1", tool_name="look", tool_kwargs={"at": 1}),
            ],
            additional_kwargs={"tool_calls": [object()], "usage": {"input_tokens": 1}, "stop_reason": "tool_use"},
        ),
        ChatMessage("a cat", role="tool", additional_kwargs={"tool_call_id": "c1"}),
    ]
    system, user, assistant, tool = json.loads(json.dumps([to_message(message) for message in told]))
    assert system == {"role": "system", "content": "Be brief"}
    assert user["content"][0] == {"type": "text", "text": "What is this?"}
    assert user["content"][1]["image"].startswith("sha256:")
    assert user["content"][1]["detail"] == "low"
    assert assistant["tool_calls"] == [{"name": "look", "args": {"at": 1}, "id": "c1"}]
    assert [part["type"] for part in assistant["content"]] == ["thinking"]
    assert "extras" not in assistant
    assert tool == {"role": "tool", "content": "a cat", "tool_call_id": "c1"}


def test_tool_calls_of_older_integrations_are_calls_too() -> None:
    call = SimpleNamespace(id="c1", function=SimpleNamespace(name="look", arguments="{}"))
    message = ChatMessage("", role="assistant", additional_kwargs={"tool_calls": [call]})
    assert to_message(message)["tool_calls"] == [{"name": "look", "args": "{}", "id": "c1"}]


def test_images_of_other_content_are_other_questions(tmp_path: Any) -> None:
    path = tmp_path / "image.png"
    seen = []
    for content in (b"one", b"two", b"one"):
        path.write_bytes(content)
        seen.append(json.dumps(to_message(ChatMessage(blocks=[ImageBlock(path=path)]))["content"]))
    assert seen[0] == seen[2] != seen[1]


# --- what providers report


OPENAI = {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
ANTHROPIC = {
    "input_tokens": 3,
    "output_tokens": 5,
    "cache_read_input_tokens": 4,
    "cache_creation_input_tokens": 3,
    "cache_creation": {"ephemeral_1h_input_tokens": 2, "ephemeral_5m_input_tokens": 1},
}
GEMINI = {
    "prompt_token_count": 10,
    "candidates_token_count": 3,
    "thoughts_token_count": 2,
    "cached_content_token_count": 4,
}


def response(raw: Any = None, message: Any = None, **extras: Any) -> ChatResponse:
    said = ChatMessage("hi", role="assistant", additional_kwargs=message or {})
    return ChatResponse(message=said, raw=raw, additional_kwargs=extras)


@pytest.mark.parametrize("form", [dict, lambda usage: SimpleNamespace(**usage)])
@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (OPENAI, Usage(10, 5, 4)),
        ({**OPENAI, "completion_tokens_details": {"reasoning_tokens": 2}}, Usage(10, 5, 4, reasoning_tokens=2)),
        (ANTHROPIC, Usage(10, 5, 4, 3, 2)),
        ({"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 2}, Usage(12, 5, 2)),
    ],
)
def test_usage_in_every_form(form: Callable[[Any], Any], usage: dict[str, Any], expected: Usage) -> None:
    for raw in ({"usage": form(usage)}, SimpleNamespace(usage=form(usage))):
        assert usage_of([response(raw)]) == expected


def test_usage_elsewhere() -> None:
    assert usage_of([response({"usage_metadata": GEMINI})]) == Usage(10, 5, 4, reasoning_tokens=2)
    assert usage_of([response({"prompt_eval_count": 7, "eval_count": 2})]) == Usage(7, 2)
    assert usage_of([response(None, prompt_tokens=7, completion_tokens=2)]) == Usage(7, 2)
    assert usage_of([response(None, {"usage": {"input_tokens": 7, "output_tokens": 2}})]) == Usage(7, 2)
    assert usage_of([response({"model": "x"})]) is None
    assert usage_of([response(None)]) is None


def test_usage_of_a_stream_is_the_greatest_of_each_count() -> None:
    start = {"message": {"usage": {**ANTHROPIC, "output_tokens": 1}}}
    assert usage_of([response(start), response(None), response({"usage": {"output_tokens": 5}})]) == Usage(
        10, 5, 4, 3, 2
    )


@pytest.mark.parametrize(
    ("raw", "message", "finish"),
    [
        ({"choices": [{"finish_reason": "stop"}]}, {}, "stop"),
        ({"choices": [{"finish_reason": "length"}]}, {}, "length"),
        ({"choices": [{"finish_reason": None}]}, {}, None),
        ({"choices": []}, {}, None),
        ({"type": "message", "stop_reason": "end_turn"}, {}, "stop"),
        ({"type": "content_block_delta"}, {"stop_reason": None}, None),
        ({"type": "message_delta"}, {"stop_reason": "max_tokens"}, "length"),
        ({"candidates": [{"finish_reason": SimpleNamespace(name="SAFETY")}]}, {}, "content_filter"),
        ({"done_reason": "stop"}, {}, "stop"),
        ({"status": "incomplete"}, {}, "other"),
        (None, {}, "stop"),
    ],
)
def test_how_answers_end(raw: Any, message: dict[str, Any], finish: str | None) -> None:
    assert finish_of([response(raw, message)]) == finish


def test_a_truncated_answer_is_not_kept(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    hits = [hit_of(ask("chat", llm, max_completion_tokens=3)) for _ in range(2)]
    assert hits == [None, None]


# --- LlamaIndex's own books


def test_llamaindex_hears_of_each_call_once_and_of_no_hit(fake_provider: FakeProvider, heard: Heard) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    for way in CHATS:
        ask(way, llm)
    assert sum(isinstance(event, LLMChatStartEvent) for event in heard.events) == 1
    assert sum(isinstance(event, LLMChatEndEvent) for event in heard.events) == 1
    ask("complete", llm)
    ask("complete", llm)
    assert sum(isinstance(event, LLMCompletionEndEvent) for event in heard.events) == 1


@pytest.mark.parametrize("way", CHATS)
def test_events_name_the_recorded_call(fake_provider: FakeProvider, heard: Heard, way: str) -> None:
    ledger = Ledger()
    ask(way, CostAwareLLM(inner(fake_provider), ledger=ledger))
    (call,) = ledger.to_records()
    told = [e.tags[CALL_ID] for e in heard.events if isinstance(e, LLMChatStartEvent | LLMChatEndEvent)]
    assert told == [call["call_id"]] * 2


@pytest.mark.parametrize("where", ["inner", "own", "later"])
def test_a_callback_manager_hears_of_the_tiers_calls(fake_provider: FakeProvider, where: str) -> None:
    counter = TokenCountingHandler(tokenizer=str.split)
    manager = CallbackManager([counter])
    only = inner(fake_provider, **({"callback_manager": manager} if where == "inner" else {}))
    llm = CostAwareLLM(only, cache=True, **({"callback_manager": manager} if where == "own" else {}))
    if where == "later":
        llm.callback_manager = manager
    for _ in range(2):
        ask("chat", llm)
    assert len(counter.llm_token_counts) == 1
    assert counter.total_llm_token_count == fake_provider.billed().input_tokens + fake_provider.billed().output_tokens


def test_track_sees_calls_and_hits(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(tiers=both(fake_provider), cache=True)
    with track() as costs, scope(tenant="acme", user="u7"):
        for way in ("chat", "achat", "stream_chat", "astream_chat"):
            ask(way, llm)
    totals = costs.totals()
    assert (totals.requests, totals.paid, totals.hits) == (4, 1, 3)
    assert totals.cache_saved == 3 * totals.cost > 0
    assert {(row["tenant"], row["user"]) for row in costs.to_records()} == {("acme", "u7")}


def test_own_prices(fake_provider: FakeProvider) -> None:
    ledger, prices = Ledger(), PriceBook()
    prices.set("house-model", input="1", output="2")
    ask("chat", CostAwareLLM(inner(fake_provider, "house-model"), ledger=ledger, prices=prices))
    billed = fake_provider.billed()
    assert ledger.totals().cost == (billed.input_tokens + 2 * billed.output_tokens) * 10**6


# --- prompts and their question


TEMPLATE = PromptTemplate("Context:\n{context_str}\nAnswer the query.\nQuery: {query_str}\nAnswer: ")
CHAT_TEMPLATE = ChatPromptTemplate(
    [ChatMessage("Use the context.", role="system"), ChatMessage("{context_str}\n\nQuery: {query_str}")]
)


class Noted:
    """A rule that notes what it is asked."""

    id = "noted"

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Any:
        self.requests.append(request)
        return SimpleNamespace(difficulty=0.0, reason="noted")


def predict(way: str, llm: Any, template: Any = TEMPLATE, **args: Any) -> str:
    async def apredict() -> str:
        answer = await getattr(llm, way)(template, **args)
        return "".join([token async for token in answer]) if way == "astream" else answer

    if way.startswith("a"):
        return asyncio.run(apredict())
    answer = getattr(llm, way)(template, **args)
    return "".join(answer) if way == "stream" else answer


@pytest.mark.parametrize("way", PREDICTIONS)
@pytest.mark.parametrize("template", [TEMPLATE, CHAT_TEMPLATE, TEMPLATE.partial_format(query_str=QUESTION)])
def test_the_query_is_the_question(fake_provider: FakeProvider, way: str, template: Any) -> None:
    rule = Noted()
    llm = CostAwareLLM(router=Router(both(fake_provider), scorer=rule))
    given = {} if "query_str" in template.kwargs else {"query_str": QUESTION}
    assert predict(way, llm, template, context_str="The sofa is blue.", **given) == fake_provider.served[0].answer
    assert [request.question for request in rule.requests] == [QUESTION]
    assert "The sofa is blue." in rule.requests[0].messages[-1]["content"]


def test_prompts_of_llms_that_only_complete_have_a_question_too() -> None:
    rule = Noted()
    llm = CostAwareLLM(router=Router([Tier("a", MockLLM()), Tier("b", MockLLM())], scorer=rule))
    assert not llm.metadata.is_chat_model
    predict("predict", llm, query_str=QUESTION, context_str="blue")
    assert [request.question for request in rule.requests] == [QUESTION]


def test_a_prompt_without_a_query_has_no_question(fake_provider: FakeProvider) -> None:
    rule = Noted()
    llm = CostAwareLLM(router=Router(both(fake_provider), scorer=rule))
    llm.predict(PromptTemplate("Name a {thing}."), thing="sofa", query_str="not in the prompt")
    llm.chat([ChatMessage(QUESTION)])
    assert [request.question for request in rule.requests] == [None, None]


def test_questions_of_many_threads_do_not_mix(fake_provider: FakeProvider) -> None:
    rule = Noted()
    llm = CostAwareLLM(router=Router(both(fake_provider), scorer=rule))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: predict("predict", llm, query_str=f"Query {n}?", context_str=str(n)), range(24)))
    for request in rule.requests:
        assert f"Query: {request.question}" in request.messages[-1]["content"]


def test_system_prompts_of_the_tiers_are_kept(fake_provider: FakeProvider) -> None:
    CostAwareLLM(inner(fake_provider, system_prompt="Be brief.")).predict(PromptTemplate("Hello"))
    assert fake_provider.served[0].request["messages"][0] == {"role": "system", "content": "Be brief."}


# --- indexes


TEXTS = ["The sofa comes in blue and green.", "Refunds take five days.", "We ship to Norway."]


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    return VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=LocalEmbedding())


@pytest.mark.parametrize("streaming", [False, True])
def test_a_query_engine_through_settings(
    fake_provider: FakeProvider, index: VectorStoreIndex, heard: Heard, streaming: bool
) -> None:
    Settings.llm = CostAwareLLM(tiers=both(fake_provider), cache=True)
    assert Settings.llm.class_name() == "CostAwareLLM"
    engine = index.as_query_engine(streaming=streaming, similarity_top_k=1)
    with track() as costs:
        answers = [str(engine.query(QUESTION)) for _ in range(3)]
    assert set(answers) == {fake_provider.served[0].answer}
    totals = costs.totals()
    assert (totals.paid, totals.hits, fake_provider.calls) == (1, 2, 1)
    assert totals.input_tokens == fake_provider.billed().input_tokens
    assert sum(isinstance(event, LLMChatEndEvent) for event in heard.events) == 1


async def test_an_async_query_engine(fake_provider: FakeProvider, index: VectorStoreIndex) -> None:
    engine = index.as_query_engine(llm=CostAwareLLM(inner(fake_provider), cache=True), similarity_top_k=1)
    answers = {str(await engine.aquery(QUESTION)) for _ in range(2)}
    assert answers == {fake_provider.served[0].answer}
    assert fake_provider.calls == 1


@pytest.mark.parametrize("mode", ["refine", "compact", "tree_summarize", "simple_summarize"])
def test_every_synthesiser_tells_the_question(fake_provider: FakeProvider, index: VectorStoreIndex, mode: str) -> None:
    rule = Noted()
    llm = CostAwareLLM(router=Router(both(fake_provider), scorer=rule))
    index.as_query_engine(llm=llm, response_mode=mode).query(QUESTION)
    assert {request.question for request in rule.requests} == {QUESTION}


def test_a_chat_engine(fake_provider: FakeProvider, index: VectorStoreIndex) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    for _ in range(2):
        engine = index.as_chat_engine(llm=llm, chat_mode="context", memory=ChatMemoryBuffer.from_defaults(llm=llm))
        engine.chat(QUESTION)
        engine.chat("And the chairs?")
    assert fake_provider.calls == 2


@pytest.mark.parametrize("mode", ["context", "condense_question", "condense_plus_context", "simple"])
def test_a_streaming_chat_engine_is_tracked(fake_provider: FakeProvider, index: VectorStoreIndex, mode: str) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    with track() as costs, scope(tenant="acme"):
        for _ in range(2):
            memory = ChatMemoryBuffer.from_defaults(llm=llm)
            engine = index.as_chat_engine(llm=llm, chat_mode=mode, memory=memory)
            assert "".join(engine.stream_chat(QUESTION).response_gen)
    totals, billed = costs.totals(), fake_provider.billed()
    assert (totals.paid, totals.input_tokens) == (billed.requests, billed.input_tokens)
    assert totals.hits == totals.paid == 1
    assert {row["tenant"] for row in costs.to_records()} == {"acme"}


# --- tools and structure


def opening_hours(city: str) -> str:
    """Return the opening hours of the shop in a city."""
    return f"In {city} from 9 to 5."


class Hours(BaseModel):
    """When a shop is open."""

    opens: int
    closes: int


TOOL = FunctionTool.from_defaults(opening_hours)
ASKED = "When do you open?"


def with_tools(way: str, llm: Any, history: Any = None, **kwargs: Any) -> ChatResponse:
    async def achat() -> Any:
        answer = await getattr(llm, f"{way}_with_tools")([TOOL], ASKED, chat_history=history, **kwargs)
        return whole([chunk async for chunk in answer]) if way == "astream_chat" else answer

    if way.startswith("a"):
        return asyncio.run(achat())
    answer = getattr(llm, f"{way}_with_tools")([TOOL], ASKED, chat_history=history, **kwargs)
    return whole(list(answer)) if way == "stream_chat" else answer


@pytest.mark.parametrize("way", CHATS)
@pytest.mark.parametrize("blocks", [True, False])
@pytest.mark.parametrize("many", [True, False])
def test_tools(fake_provider: FakeProvider, way: str, blocks: bool, many: bool) -> None:
    one = inner(fake_provider, blocks=blocks)
    llm = CostAwareLLM(**({"tiers": both(fake_provider, blocks=blocks)} if many else {"llm": one}), cache=True)
    cold, warm = with_tools(way, llm), with_tools(way, llm)
    (asked,), (again,) = llm.get_tool_calls_from_response(cold), llm.get_tool_calls_from_response(warm)
    assert (hit_of(cold), hit_of(warm), fake_provider.calls) == (None, "exact", 1)
    assert asked.tool_name == again.tool_name == "opening_hours"
    assert asked.tool_kwargs == again.tool_kwargs
    assert asked.tool_id != again.tool_id
    assert [b.tool_call_id for b in warm.message.blocks if isinstance(b, ToolCallBlock)] == [again.tool_id][:blocks]


def test_the_result_of_a_tool_leads_to_an_answer(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    for _ in range(2):
        called = llm.chat_with_tools([TOOL], ASKED)
        (call,) = llm.get_tool_calls_from_response(called)
        result = ChatMessage("9 to 5", role="tool", additional_kwargs={"tool_call_id": call.tool_id})
        told = llm.chat_with_tools([TOOL], chat_history=[ChatMessage(ASKED), called.message, result])
        assert told.message.content
        assert llm.get_tool_calls_from_response(told, error_on_no_tool_call=False) == []
    assert fake_provider.calls == 2
    assert hit_of(told) == "exact"


def test_tool_calls_are_given_again_to_the_same_words_only(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    hits = [hit_of(llm.chat_with_tools([TOOL], asked)) for asked in (ASKED, "when do you open", ASKED)]
    assert hits[1] is None
    assert fake_provider.calls >= 2


def test_no_tool_call_is_an_error_where_one_is_expected(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(tiers=both(fake_provider), cache=True)
    for _ in range(2):
        with pytest.raises(ValueError, match="at least one tool call"):
            llm.get_tool_calls_from_response(llm.chat([ChatMessage(QUESTION)]))


def test_tools_need_tiers_that_take_them(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(tiers=[Tier("local", MockLLM(is_chat_model=True)), inner(fake_provider)])
    assert not llm.metadata.is_function_calling_model
    with pytest.raises(ConfigurationError, match="local"):
        llm.chat_with_tools([TOOL], ASKED)


def test_other_tools_are_another_request(fake_provider: FakeProvider) -> None:
    def opening_hours(city: str, day: str) -> str:
        """Return the opening hours of the shop in a city."""
        return ""

    llm = CostAwareLLM(inner(fake_provider), cache=True)
    llm.chat_with_tools([TOOL], ASKED)
    assert hit_of(llm.chat_with_tools([FunctionTool.from_defaults(opening_hours)], ASKED)) is None
    assert hit_of(llm.chat_with_tools([TOOL], ASKED, tool_required=True)) is None


SHOP = PromptTemplate("Tell me about shop {query_str}.")


@pytest.mark.parametrize("way", ["structured_predict", "astructured_predict", "stream_structured_predict", "astream"])
def test_structured_prediction(fake_provider: FakeProvider, way: str) -> None:
    rule = Noted()
    llm = CostAwareLLM(router=Router(both(fake_provider), scorer=rule), cache=True)

    async def astream() -> Any:
        chunks = await llm.astream_structured_predict(Hours, SHOP, query_str="7")
        return [chunk async for chunk in chunks][-1]

    def once() -> Any:
        if way == "astream":
            return asyncio.run(astream())
        if way == "astructured_predict":
            return asyncio.run(llm.astructured_predict(Hours, SHOP, query_str="7"))
        answer = getattr(llm, way)(Hours, SHOP, query_str="7")
        return answer if way == "structured_predict" else list(answer)[-1]

    first, second = once(), once()
    assert isinstance(first, Hours)
    assert first == second
    assert fake_provider.calls == 1
    assert [request.question for request in rule.requests] == ["7"]


class OnlyBlocks(HTTPLLM):
    """Has tool calls in blocks alone, as Anthropic's integration does."""

    def _message(self, text: str, calls: Sequence[Any]) -> ChatMessage:
        blocks = super()._message(text, calls).blocks
        return ChatMessage(role="assistant", blocks=blocks)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        blocks = [block for block in response.message.blocks if isinstance(block, ToolCallBlock)]
        return [
            ToolSelection(tool_id=b.tool_call_id, tool_name=b.tool_name, tool_kwargs=parse_partial_json(b.tool_kwargs))
            for b in blocks
        ]


def test_objects_stream_out_of_blocks_alone(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(OnlyBlocks(base_url=fake_provider.url), cache=True)
    answers = [list(llm.stream_structured_predict(Hours, SHOP, query_str="7"))[-1] for _ in range(2)]
    assert isinstance(answers[0], Hours)
    assert answers[0] == answers[1] == llm.structured_predict(Hours, SHOP, query_str="7")
    assert fake_provider.calls == 1


def test_a_structured_llm(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True).as_structured_llm(Hours)
    first, second = (llm.chat([ChatMessage("Tell me about shop 7.")]).raw for _ in range(2))
    assert isinstance(first, Hours)
    assert first == second
    assert fake_provider.calls == 1


def test_structured_prediction_by_text() -> None:
    def answer(model: str, messages: list[dict[str, Any]]) -> str:
        return '{"opens": 9, "closes": 17}'

    with FakeProvider(answer, keep_alive=False) as provider:
        llm = CostAwareLLM(inner(provider), cache=True, pydantic_program_mode="llm")
        answers = [llm.structured_predict(Hours, SHOP, query_str="7") for _ in range(2)]
        assert answers == [Hours(opens=9, closes=17)] * 2
        assert provider.calls == 1


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_function_agent(fake_provider: FakeProvider, streaming: bool) -> None:
    llm = CostAwareLLM(tiers=both(fake_provider), cache=True)
    agent = FunctionAgent(tools=[opening_hours], llm=llm, streaming=streaming)
    with track() as costs, scope(tenant="acme"):
        answers = [str(await agent.run(ASKED)) for _ in range(3)]
    assert set(answers) == {fake_provider.served[1].answer}
    assert fake_provider.calls == 2
    totals = costs.totals()
    assert (totals.paid, totals.hits) == (2, 4)
    assert totals.output_tokens == fake_provider.billed().output_tokens
    assert {row["tenant"] for row in costs.to_records()} == {"acme"}


# --- the object itself


def test_metadata_holds_for_every_tier(fake_provider: FakeProvider) -> None:
    small = inner(fake_provider, context_window=16_000, max_tokens=256)
    strong = inner(fake_provider, STRONG, context_window=20_000, max_tokens=8_000)
    assert CostAwareLLM(small).metadata == small.metadata
    merged = CostAwareLLM(tiers=[small, strong]).metadata
    assert merged.context_window == 16_000
    assert merged.context_window - merged.num_output == 12_000
    assert merged.is_chat_model
    assert merged.is_function_calling_model
    assert merged.model_name == f"{WEAK} -> {STRONG}"


def test_settings_that_cannot_work(fake_provider: FakeProvider) -> None:
    llm = inner(fake_provider)
    for given in ({}, {"llm": llm, "tiers": [llm]}):
        with pytest.raises(ConfigurationError, match="one of `llm` and `tiers`"):
            CostAwareLLM(**given)
    for unknown in ({"budget": "0.50"}, {"cahce": True}, {"rate_limiter": object()}):
        with pytest.raises(ConfigurationError, match="not a setting of `CostAwareLLM`"):
            CostAwareLLM(llm, **unknown)
    with pytest.raises(ConfigurationError, match="empty"):
        CostAwareLLM(tiers=[])
    with pytest.raises(ConfigurationError, match="not a LlamaIndex LLM"):
        CostAwareLLM("gpt-5.4")
    with pytest.raises(ConfigurationError, match="cache"):
        CostAwareLLM(llm, cache="yes")
    with pytest.raises(ConfigurationError, match="name"):
        CostAwareLLM(tiers=[llm, inner(fake_provider)])
    with pytest.raises(ConfigurationError, match="made of"):
        CostAwareLLM(CostAwareLLM(llm))
    with pytest.raises(ConfigurationError, match="pass the one for all"):
        CostAwareLLM(tiers=[llm, inner(fake_provider, STRONG, system_prompt="Be brief.")])


def test_no_key_is_told(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider, api_key="sk-secret"))
    told = json.dumps([llm.to_dict(), llm.to_payload()], default=repr) + repr(llm) + llm._identity()
    assert "sk-secret" not in told


def test_a_pickle_answers_without_the_cache(fake_provider: FakeProvider) -> None:
    ledger = Ledger()
    llm = CostAwareLLM(tiers=both(fake_provider), cache=True, ledger=ledger, system_prompt="Be brief.")
    other = pickle.loads(pickle.dumps(llm))
    assert other._cost_cache is None
    assert [tier.name for tier in other.tiers] == [WEAK, STRONG]
    assert other.system_prompt == "Be brief."
    assert other.chat([ChatMessage(QUESTION)]).message.content == fake_provider.served[0].answer


def test_a_copy_shares_the_cache(fake_provider: FakeProvider) -> None:
    llm = CostAwareLLM(inner(fake_provider), cache=True)
    ask("chat", llm)
    for other in (copy.copy(llm), llm.model_copy()):
        assert hit_of(ask("chat", other)) == "exact"


class Unlasting(HTTPLLM):
    """Its answers hold what no JSON can."""

    def _message(self, text: str, calls: Sequence[Any]) -> ChatMessage:
        return ChatMessage(text, role="assistant", additional_kwargs={"handle": object()})


def test_an_answer_that_cannot_be_kept_is_given(fake_provider: FakeProvider) -> None:
    from llmcost_plugins.events import listening

    told: list[Event] = []
    llm = CostAwareLLM(Unlasting(base_url=fake_provider.url), cache=True)
    with listening(told.append):
        answers = [ask("chat", llm) for _ in range(2)]
    assert [text_of(answer) for answer in answers] == [one.answer for one in fake_provider.served]
    assert [event.component for event in told if isinstance(event, ComponentFailed)] == ["cache", "cache"]
