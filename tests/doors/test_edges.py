"""Where parts meet: what is captured when, who hears of what, and what must not be kept."""

import asyncio
import contextvars
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_openai import ChatOpenAI

from llmcost_plugins import Cache, Ledger, PriceBook, scope, track
from llmcost_plugins.events import listening
from llmcost_plugins.langchain import CostAwareChatModel, CostCallbackHandler, SemanticCache
from llmcost_plugins.langchain.convert import finish_of, from_serialised, to_message
from llmcost_plugins.pricing import pico
from llmcost_plugins.testing import FakeProvider

QUESTION = "What is a frame lock?"


class Plain(BaseChatModel):
    """A model that cannot stream, and names neither itself nor its provider."""

    text: str = "It locks the rear wheel."

    @property
    def _llm_type(self) -> str:
        return "plain"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"text": self.text}

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
        return ChatResult(generations=[ChatGeneration(message=AIMessage(self.text, usage_metadata=usage))])


def openai(provider: FakeProvider, model: str = "gpt-5.4-mini") -> ChatOpenAI:
    return ChatOpenAI(model=model, base_url=provider.url, api_key="none", max_retries=0, stream_usage=True)  # type: ignore[arg-type]


def hit_of(message: AIMessage) -> str | None:
    return message.response_metadata.get("llmcost", {}).get("cache")


@pytest.mark.parametrize("cached", [True, None])
def test_a_model_that_cannot_stream_is_streamed_whole(cached: bool | None) -> None:
    ledger = Ledger()
    model = CostAwareChatModel(Plain(), cache=cached, ledger=ledger)
    chunks = list(model.stream(QUESTION))
    assert "".join(str(chunk.content) for chunk in chunks) == Plain().text
    assert (ledger.totals().answered, ledger.totals().cut) == (1, 0)


async def test_a_model_that_cannot_stream_is_streamed_whole_async() -> None:
    chunks = [chunk async for chunk in CostAwareChatModel(Plain()).astream(QUESTION)]
    assert "".join(str(chunk.content) for chunk in chunks) == Plain().text


def test_tenants_given_by_metadata_reach_the_cache_of_inner_models(fake_provider: FakeProvider) -> None:
    set_llm_cache(SemanticCache())
    model = CostAwareChatModel(openai(fake_provider))
    for tenant in ("A", "B", "A"):
        model.invoke(QUESTION, {"metadata": {"tenant": tenant}})
    assert fake_provider.calls == 2


def test_a_stream_belongs_to_the_scope_that_it_was_asked_for_in(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)

    def view(tenant: str) -> Iterator[Any]:
        with scope(tenant=tenant):
            return model.stream(QUESTION)

    for tenant in ("A", "B", "A"):
        list(view(tenant))
    assert fake_provider.calls == 2


async def test_an_async_stream_belongs_to_the_scope_that_it_was_asked_for_in(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    for tenant in ("A", "B", "A"):
        with scope(tenant=tenant):
            source = model.astream(QUESTION)
        assert [chunk async for chunk in source]
    assert fake_provider.calls == 2


def test_a_sink_that_raises_costs_nobody_an_answer(
    fake_provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(event: object) -> None:
        raise RuntimeError("full")

    model, ledger = CostAwareChatModel(openai(fake_provider), cache=True), Ledger()
    with listening(broken), listening(ledger.record):
        assert model.invoke(QUESTION).content
        assert list(model.stream(QUESTION))
    assert model._cost_cache is not None
    assert model._cost_cache.turns_held == 0
    assert ledger.totals().requests == 2
    assert "a sink failed" in caplog.text


def test_the_prices_of_a_block_price_its_calls(fake_provider: FakeProvider) -> None:
    prices = PriceBook()
    prices.set("gpt-5.4-mini", per_call="0.5")
    with track(prices=prices) as costs:
        openai(fake_provider).invoke(QUESTION)
    assert costs.totals().cost == pico("0.5")


def test_the_prices_of_a_door_hold_within_a_block(fake_provider: FakeProvider) -> None:
    prices = PriceBook()
    prices.set("gpt-5.4-mini", per_call="0.5")
    with track() as costs:
        CostAwareChatModel(openai(fake_provider), prices=prices).invoke(QUESTION)
    assert (costs.totals().requests, costs.totals().cost) == (1, pico("0.5"))


@pytest.mark.parametrize(
    ("metadata", "finish"),
    [
        ({"finish_reason": "stop"}, "stop"),
        ({"status": "completed", "model_provider": "openai"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"stopReason": "max_tokens"}, "length"),
        ({"stopReason": "guardrail_intervened"}, "content_filter"),
        ({"done_reason": "length"}, "length"),
        ({"finish_reason": "STOP"}, "stop"),
        ({"finish_reason": "RECITATION"}, "other"),
        ({"finish_reason": "MALFORMED_FUNCTION_CALL"}, "other"),
        ({"model_provider": "openai"}, None),
        ({}, "stop"),
    ],
)
def test_how_answers_end(metadata: dict[str, Any], finish: str | None) -> None:
    assert finish_of(AIMessage("text", response_metadata=metadata)) == finish


@pytest.mark.parametrize("failing", ["gpt-5.4", "gpt-5.4-mini"])
def test_an_answer_given_for_want_of_a_better_one_is_not_kept(failing: str) -> None:
    def answer(model: str, messages: Any) -> str:
        return "I don't know." if "mini" in model else "It locks the wheel."

    with FakeProvider(answer, keep_alive=False) as provider:
        cache = Cache()
        tiers = [openai(provider), openai(provider, "gpt-5.4")]
        model = CostAwareChatModel(tiers=tiers, cache=cache)
        provider.fail(model=failing, status=500, times=1)
        first, second = model.invoke(QUESTION), model.invoke(QUESTION)
    kept = failing == "gpt-5.4-mini"  # then the strong model answered, which is as good as it gets
    assert (hit_of(first), hit_of(second)) == (None, "exact" if kept else None)
    assert second.content == "It locks the wheel."


def test_content_blocks_are_the_same_whatever_ids_the_provider_drew() -> None:
    def turn(call_id: str, block_id: str) -> list[Any]:
        content = [
            {"type": "reasoning", "id": block_id, "summary": []},
            {"type": "tool_use", "id": call_id, "name": "look_up", "input": {"q": "lock"}},
        ]
        calls = [{"name": "look_up", "args": {"q": "lock"}, "id": call_id}]
        extras = {"tool_calls": [{"id": call_id, "function": {"name": "look_up", "arguments": "{}"}}]}
        return [to_message(AIMessage(content, tool_calls=calls, additional_kwargs=extras))]

    from llmcost_plugins.cache.fingerprint import fingerprint
    from llmcost_plugins.types import Request

    def key(*messages: Any) -> str:
        asked = Request((*messages, {"role": "user", "content": QUESTION}))
        return fingerprint(asked, namespace="", version="").key

    assert key(*turn("toolu_1", "rs_1")) == key(*turn("toolu_2", "rs_2"))
    pictures = [{"role": "user", "content": [{"type": "image", "id": f"file-{n}"}]} for n in range(2)]
    assert key(pictures[0]) != key(pictures[1])


def test_both_doors_read_a_message_alike() -> None:
    from langchain_core.load import dumpd

    message = AIMessage("hi", tool_calls=[{"name": "f", "args": {"a": 1}, "id": "c1"}], additional_kwargs={"k": 1})
    assert from_serialised(dumpd(message)) == to_message(message)


def test_scopes_and_blocks_end_quietly_in_another_context() -> None:
    def steps() -> Generator[None, None, None]:
        with scope(tenant="A"), track():
            yield
            yield

    source = steps()
    for _ in range(2):
        contextvars.copy_context().run(next, source)
    contextvars.copy_context().run(source.close)


def test_a_hit_is_valued_as_its_call_was_billed() -> None:
    prices = PriceBook()
    prices.set("plain", input=1, output=2)
    ledger = Ledger(prices=prices)
    model = CostAwareChatModel(Plain(), cache=True, ledger=ledger)
    model.invoke(QUESTION)
    model.invoke(QUESTION)
    sums = ledger.totals()
    assert (sums.hits, sums.unpriced_hits) == (1, 0)
    assert sums.cache_saved == sums.cost > 0


def test_a_reader_that_leaves_at_the_end_had_its_answer(fake_provider: FakeProvider) -> None:
    ledger = Ledger()
    source = CostAwareChatModel(openai(fake_provider), ledger=ledger).stream(QUESTION)
    for chunk in source:
        if chunk.chunk_position == "last":
            break
    source.close()  # type: ignore[attr-defined]
    assert (ledger.totals().answered, ledger.totals().cut, ledger.totals().estimated) == (1, 0, 0)


def test_a_question_is_not_kept_whole_in_the_ledger(fake_provider: FakeProvider) -> None:
    ledger = Ledger()
    model = CostAwareChatModel(openai(fake_provider), cache=True, ledger=ledger)
    long = "What is a lock? " + "x" * 10_000
    model.invoke(long)
    model.invoke(long)
    (hit,) = ledger.summary().newest_hits
    assert len(hit.question) == 200


async def test_an_inner_stream_ends_before_the_stream_around_it() -> None:
    order: list[str] = []

    class Streaming(Plain):
        async def _astream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
            try:
                for word in self.text.split():
                    yield ChatGenerationChunk(message=AIMessageChunk(word))
            finally:
                order.append("model closed")

    class Watcher(AsyncCallbackHandler):
        async def on_chain_error(self, error: BaseException, **kwargs: Any) -> None:
            order.append("chain ended")

    source: Any = CostAwareChatModel(Streaming()).astream(QUESTION, {"callbacks": [Watcher()]})
    await anext(source)
    await source.aclose()
    assert order == ["model closed", "chain ended"]


async def test_answers_shared_with_those_that_waited_are_copies(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    answers = await asyncio.gather(*(model.ainvoke(QUESTION) for _ in range(3)))
    assert sorted(str(hit_of(answer)) for answer in answers) == ["None", "coalesced", "coalesced"]
    for answer in answers:
        answer.response_metadata["token_usage"]["prompt_tokens_details"]["seen"] = answer.id
    seen = {answer.response_metadata["token_usage"]["prompt_tokens_details"]["seen"] for answer in answers}
    assert len(seen) == 3


def test_a_stream_may_be_any_iterator() -> None:
    class Listed(Plain):
        def stream(self, *args: Any, **kwargs: Any) -> Any:
            return iter([AIMessageChunk("It "), AIMessageChunk("locks.", chunk_position="last")])

    assert [chunk.content for chunk in CostAwareChatModel(Listed()).stream(QUESTION)] == ["It ", "locks."]


def test_a_hit_of_generate_has_its_price_in_another_ledger(fake_provider: FakeProvider) -> None:
    ledger = Ledger()
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    for _ in range(2):
        model.generate([[HumanMessage(QUESTION)]], callbacks=[CostCallbackHandler(ledger=ledger)])
    sums = ledger.totals()
    assert (sums.hits, sums.unpriced_hits, sums.unpriced) == (1, 0, 0)
    assert sums.cache_saved == sums.cost > 0
