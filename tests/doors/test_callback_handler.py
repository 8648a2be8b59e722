"""The cost callback handler under load, cancellation, odd models and LangChain's own contract."""

import asyncio
import inspect
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, Generation, LLMResult
from langchain_core.runnables import RunnableLambda, RunnableParallel

from llmcost_plugins import Ledger, PriceBook, track
from llmcost_plugins.langchain import CostCallbackHandler
from llmcost_plugins.types import Usage

MODEL = "gpt-5.4-mini"
TOKENS = {"input_tokens": 1_000, "output_tokens": 50, "total_tokens": 1_050}
WORTH = PriceBook().cost("openai", MODEL, Usage(1_000, 50), at=1.8e9)


class NullChat(BaseChatModel):
    """Answers at once, with whatever usage it is told to report."""

    model: str = MODEL
    usage: Any = TOKENS
    metadata_of_answer: dict[str, Any] = {}

    @property
    def _llm_type(self) -> str:
        return "null"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": self.model, "ls_model_type": "chat"}

    def _message(self) -> AIMessage:
        message = AIMessage("an answer", response_metadata=dict(self.metadata_of_answer))
        message.usage_metadata = self.usage
        return message

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._message())])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return self._generate(messages)


class HangingChat(NullChat):
    """Never answers, and says when it was asked."""

    asked: Any = None

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self.asked.release()
        await asyncio.Event().wait()
        raise AssertionError


class FailingChat(NullChat):
    """Fails so many times before it answers."""

    failures: list[Exception]

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        if self.failures:
            raise self.failures.pop(0)
        return super()._generate(messages)


class StreamingChat(NullChat):
    """Streams words without ever telling usage."""

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        for word in ("one ", "two ", "three ", "four"):
            yield ChatGenerationChunk(message=AIMessageChunk(word))

    async def _astream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> AsyncIterator:
        for chunk in self._stream(messages):
            yield chunk


def handled(**settings: Any) -> tuple[Ledger, CostCallbackHandler, dict[str, Any]]:
    ledger = Ledger()
    handler = CostCallbackHandler(ledger=ledger, **settings)
    return ledger, handler, {"callbacks": [handler]}


# --- runs that never end


async def test_a_thousand_cancelled_calls_leave_nothing_open() -> None:
    ledger, handler, config = handled()
    asked = asyncio.Semaphore(0)
    model = HangingChat(asked=asked)
    tasks = [asyncio.ensure_future(model.ainvoke("a question", config)) for _ in range(1_000)]
    for _ in tasks:
        await asked.acquire()
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)

    swept = handler.sweep(older_than=0)

    totals = ledger.totals()
    assert handler.open_runs == 0
    assert totals.abandoned + totals.cut == totals.paid == totals.estimated == totals.calls == 1_000
    assert totals.abandoned == swept
    assert totals.cost > 0
    assert handler.sweep(older_than=0) == 0


async def test_open_runs_are_bounded_by_number() -> None:
    ledger, handler, config = handled(max_open=50, open_ttl=1e9)
    asked = asyncio.Semaphore(0)
    model = HangingChat(asked=asked)
    tasks = []
    for _ in range(200):
        tasks.append(asyncio.ensure_future(model.ainvoke("a question", config)))
        await asked.acquire()
        assert handler.open_runs <= 51
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    handler.sweep(older_than=0)
    assert ledger.totals().calls == 200


async def test_young_runs_are_not_swept() -> None:
    ledger, handler, config = handled()
    asked = asyncio.Semaphore(0)
    task = asyncio.ensure_future(HangingChat(asked=asked).ainvoke("a question", config))
    await asked.acquire()
    assert handler.sweep() == 0
    assert handler.open_runs == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    handler.sweep(older_than=0)
    assert ledger.totals().calls == 1


def test_a_run_that_ends_after_its_sweep_is_billed_once_and_truly() -> None:
    ledger, handler, _ = handled()
    run_id = uuid4()
    about = {"ls_provider": "openai", "ls_model_name": MODEL}
    handler.on_chat_model_start({}, [[HumanMessage("a question")]], run_id=run_id, metadata=about)
    handler.sweep(older_than=0)
    message = AIMessage("late", usage_metadata=TOKENS)
    handler.on_llm_end(LLMResult(generations=[[ChatGeneration(message=message)]]), run_id=run_id)

    totals = ledger.totals()
    assert (totals.calls, totals.paid) == (1, 1)
    assert (totals.input_tokens, totals.output_tokens, totals.abandoned, totals.estimated) == (1_000, 50, 0, 0)


def test_nothing_is_left_behind_by_failures_chains_and_wrappers() -> None:
    _, handler, config = handled()
    for _ in range(100):
        chain = RunnableLambda(lambda text: text) | FailingChat(failures=[ValueError("no")]).with_fallbacks(
            [NullChat()]
        )
        chain.invoke("a question", config)
        with pytest.raises(ValueError, match="no"):
            FailingChat(failures=[ValueError("no")]).invoke("a question", config)
    kept = [handler._open, handler._inside, handler._wrappers, handler._failures]
    assert [len(each) for each in kept] == [0, 0, 0, 0]


# --- exactness under load


def assert_exact(ledger: Ledger, calls: int) -> None:
    totals = ledger.totals()
    assert WORTH is not None
    assert (totals.requests, totals.paid, totals.answered) == (calls,) * 3
    assert (totals.input_tokens, totals.output_tokens) == (1_000 * calls, 50 * calls)
    assert totals.cost == WORTH.total * calls


def test_sixteen_threads_are_counted_exactly() -> None:
    ledger, handler, config = handled()
    model, barrier = NullChat(), threading.Barrier(16)

    def work(_: int) -> None:
        barrier.wait()
        for _ in range(500):
            model.invoke("a question", config)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert_exact(ledger, 8_000)
    assert handler.open_runs == 0


async def test_three_thousand_tasks_are_counted_exactly() -> None:
    ledger, handler, config = handled()
    with track() as costs:
        await asyncio.gather(*(NullChat().ainvoke("a question", config) for _ in range(3_000)))
    assert_exact(ledger, 3_000)
    assert_exact(costs, 3_000)
    assert handler.open_runs == 0


async def test_blocks_in_tasks_see_their_own_calls_only() -> None:
    async def work(calls: int) -> Ledger:
        with track() as costs:
            for _ in range(calls):
                await NullChat().ainvoke("a question")
                await asyncio.sleep(0)
        return costs

    with track() as outer:
        ledgers = await asyncio.gather(*(work(calls) for calls in range(1, 8)))
    for calls, ledger in enumerate(ledgers, 1):
        assert_exact(ledger, calls)
    assert_exact(outer, 28)


def test_nested_blocks_and_what_comes_after() -> None:
    with track() as outer:
        NullChat().invoke("a question")
        with track() as inner:
            NullChat().batch(["a question"] * 3)
        NullChat().invoke("a question")
    NullChat().invoke("a question")
    assert_exact(inner, 3)
    assert_exact(outer, 5)


# --- LangChain's contract


def test_signatures_are_langchain_s() -> None:
    """LangChain passes arguments by name and only logs a mismatch: a wrong name would stop billing in silence."""
    own = [name for name in vars(CostCallbackHandler) if name.startswith("on_")]
    assert {"on_chat_model_start", "on_llm_start", "on_llm_end", "on_llm_error"} <= set(own)
    for name in own:
        theirs = inspect.signature(getattr(BaseCallbackHandler, name)).parameters
        ours = inspect.signature(getattr(CostCallbackHandler, name)).parameters
        takes_rest = any(parameter.kind is parameter.VAR_KEYWORD for parameter in ours.values())
        positional = [p.name for p in theirs.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert [p.name for p in ours.values() if p.kind is p.POSITIONAL_OR_KEYWORD] == positional, name
        assert takes_rest or set(theirs) <= set(ours), name
        assert set(ours) <= set(theirs) | {"kwargs"}, name


def test_the_handler_logs_no_complaint(caplog: pytest.LogCaptureFixture) -> None:
    ledger, _, config = handled()
    caplog.set_level(logging.WARNING, logger="langchain_core.callbacks")
    NullChat().invoke("a question", config)
    NullChat(usage=None).invoke("a question", config)
    list(StreamingChat().stream("a question", config))
    asyncio.run(NullChat().ainvoke([HumanMessage("a question")], config))
    FakeListLLM(responses=["an answer"]).invoke("a question", config)
    flaky = FailingChat(failures=[ValueError("no")]).with_fallbacks([NullChat()])
    (RunnableLambda(lambda text: text) | flaky).invoke("a question", config)
    assert ledger.totals().calls == 7
    assert caplog.records == []


def test_the_handler_runs_inline() -> None:
    """In async code a handler that does not is moved to a thread for each event."""
    threads: set[int] = set()

    class Noting(CostCallbackHandler):
        def on_llm_end(self, *args: Any, **kwargs: Any) -> None:
            threads.add(threading.get_ident())
            super().on_llm_end(*args, **kwargs)

    asyncio.run(NullChat().ainvoke("a question", {"callbacks": [Noting(ledger=Ledger())]}))
    assert threads == {threading.get_ident()}


# --- odd models


def test_an_unknown_model_is_unpriced_not_free() -> None:
    ledger, _, config = handled()
    NullChat(model="house-model-7b").invoke("a question", config)
    totals = ledger.totals()
    assert (totals.unpriced, totals.paid, totals.cost) == (1, 1, 0)
    assert ledger.to_records()[0]["cost"] is None
    assert "UNPRICED" in str(ledger)


def test_a_price_of_one_s_own() -> None:
    prices = PriceBook()
    prices.set("house-model-7b", input="0.10", output="0.20")
    ledger = Ledger(prices=prices)
    NullChat(model="house-model-7b").invoke("a question", {"callbacks": [CostCallbackHandler(ledger=ledger)]})
    assert ledger.totals().cost == 1_000 * 100_000 + 50 * 200_000
    assert ledger.totals().unpriced == 0


@pytest.mark.parametrize("usage", [None, {}])
def test_missing_usage_is_estimated(usage: Any) -> None:
    ledger, _, config = handled()
    NullChat(usage=usage).invoke("How many eggs does a hen lay in a year?", config)
    totals = ledger.totals()
    assert (totals.estimated, totals.paid, totals.unpriced) == (1, 1, 0)
    assert 5 < totals.input_tokens < 40
    assert 0 < totals.output_tokens < 10


def test_a_stream_without_usage_is_estimated() -> None:
    ledger, _, config = handled()
    list(StreamingChat().stream("a question", config))
    totals = ledger.totals()
    assert (totals.estimated, totals.answered) == (1, 1)
    assert totals.output_tokens > 2


ABSURD = [
    {"input_tokens": -5, "output_tokens": 3, "total_tokens": -2},
    {"input_tokens": 5, "output_tokens": -3, "total_tokens": 2},
    {"input_tokens": 10**15, "output_tokens": 3, "total_tokens": 10**15 + 3},
    {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8, "input_token_details": {"cache_read": 50}},
    {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8, "output_token_details": {"reasoning": 9}},
    {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8, "input_token_details": {"cache_creation": -1}},
    {"input_tokens": 1.5, "output_tokens": 3, "total_tokens": 4.5},
    {"input_tokens": "many", "output_tokens": 3, "total_tokens": 3},
    {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8, "input_token_details": {"cache_read": "some"}},
]


@pytest.mark.parametrize("usage", ABSURD, ids=str)
def test_absurd_usage_costs_no_call_and_is_not_believed(
    usage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    ledger, handler, config = handled()
    assert NullChat(usage=usage).invoke("a question", config).content == "an answer"

    totals = ledger.totals()
    assert caplog.records == []
    assert handler.open_runs == 0
    assert (totals.calls, totals.unpriced, totals.cost) == (1, 1, 0)
    assert (totals.input_tokens, totals.output_tokens) == (0, 0)
    assert ledger.to_records()[0]["error"]


def test_zero_usage_is_free() -> None:
    ledger, _, config = handled()
    NullChat(usage={"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}).invoke("a question", config)
    totals = ledger.totals()
    assert (totals.calls, totals.cost, totals.unpriced) == (1, 0, 0)


def test_the_answering_model_s_price_beats_the_asked_one_s() -> None:
    ledger, _, config = handled()
    NullChat(model="gpt-5.4", metadata_of_answer={"model_name": MODEL}).invoke("a question", config)
    assert WORTH is not None
    assert ledger.totals().cost == WORTH.total


# --- failures


def test_retries_are_counted_by_their_tag() -> None:
    ledger, _, config = handled()
    model = FailingChat(failures=[ValueError("one"), ValueError("two")])
    model.with_retry(stop_after_attempt=3, wait_exponential_jitter=False).invoke("a question", config)
    rows = ledger.to_records()
    assert [row["attempt"] for row in rows] == [1, 2, 3]
    assert [row["status"] for row in rows] == ["error", "error", "ok"]
    assert [row["error"] for row in rows] == ["ValueError: one", "ValueError: two", ""]
    totals = ledger.totals()
    assert (totals.requests, totals.calls, totals.paid, totals.failed, totals.retries) == (1, 3, 1, 2, 2)
    assert totals.retry_cost == totals.cost
    assert totals.fallbacks == 0


def test_fallbacks_are_told_from_the_parent_s_failures() -> None:
    ledger, _, config = handled()
    models = [FailingChat(failures=[ValueError(str(n))]) for n in range(2)]
    chain = RunnableLambda(lambda text: text) | models[0].with_fallbacks([models[1], NullChat()])
    chain.invoke("a question", config)
    totals = ledger.totals()
    assert (totals.requests, totals.calls, totals.failed, totals.paid, totals.fallbacks) == (1, 3, 2, 1, 2)


def test_calls_beside_a_failed_one_are_no_fallbacks() -> None:
    """Two models asked for different things under one chain, of which the first fails."""
    ledger, _, config = handled()

    def ask(text: str) -> str:
        with pytest.raises(ValueError, match="no"):
            FailingChat(failures=[ValueError("no")]).invoke("one question")
        return str(NullChat().invoke("quite another question").content)

    RunnableLambda(ask).invoke("x", config)
    totals = ledger.totals()
    assert (totals.requests, totals.failed, totals.fallbacks) == (2, 1, 0)


def test_parallel_branches_are_requests_of_their_own() -> None:
    ledger, _, config = handled()
    RunnableParallel(a=NullChat(), b=NullChat(), c=NullChat()).invoke("a question", config)
    assert_exact(ledger, 3)


def test_a_failure_costs_nothing_and_says_why() -> None:
    ledger, handler, config = handled()
    with pytest.raises(ValueError, match="the provider is on holiday"):
        FailingChat(failures=[ValueError("the provider is on holiday")]).invoke("a question", config)
    totals = ledger.totals()
    assert (totals.requests, totals.failed, totals.paid, totals.cost, totals.unpriced) == (1, 1, 0, 0, 0)
    assert ledger.to_records()[0]["error"] == "ValueError: the provider is on holiday"
    assert handler.open_runs == 0


# --- completion models


class Completion(FakeListLLM):
    """A completion model of OpenAI's that may tell its usage."""

    told: dict[str, int] | None = None

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        return {"ls_provider": "openai", "ls_model_name": MODEL, "ls_model_type": "llm"}

    def _generate(self, prompts: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> LLMResult:
        output = {"token_usage": self.told, "model_name": MODEL} if self.told else None
        return LLMResult(generations=[[Generation(text="an answer")] for _ in prompts], llm_output=output)


def test_a_completion_model_is_billed() -> None:
    ledger, handler, config = handled()
    told = {"prompt_tokens": 1_000, "completion_tokens": 50, "total_tokens": 1_050}
    Completion(responses=[], told=told).invoke("a question", config)
    assert_exact(ledger, 1)
    assert handler.open_runs == 0


def test_a_completion_model_in_silence_is_estimated() -> None:
    ledger, _, config = handled()
    Completion(responses=[]).batch(["a question", "another"], config)
    totals = ledger.totals()
    assert (totals.paid, totals.estimated, totals.requests) == (2, 2, 2)


def test_a_completion_model_given_several_prompts_is_billed_once_for_all() -> None:
    """LangChain flattens the result, and leaves the whole usage with the first prompt's."""
    ledger, handler, _ = handled()
    told = {"prompt_tokens": 1_000, "completion_tokens": 50, "total_tokens": 1_050}
    Completion(responses=[], told=told).generate(["a question", "another"], callbacks=[handler])
    totals = ledger.totals()
    assert (totals.input_tokens, totals.output_tokens) == (1_000, 50)
    assert handler.open_runs == 0


def test_a_chat_generate_whose_first_prompt_fails_leaves_no_run_open_after_a_sweep() -> None:
    """LangChain starts every prompt's run, and ends none after the first that fails."""
    ledger, handler, _ = handled()
    with pytest.raises(ValueError, match="no"):
        FailingChat(failures=[ValueError("no")]).generate(
            [[HumanMessage("a")], [HumanMessage("b")]], callbacks=[handler]
        )
    handler.sweep(older_than=0)
    assert handler.open_runs == 0
    assert ledger.totals().failed == 1


def test_costs_are_told_to_the_process_ledger_too() -> None:
    from llmcost_plugins.ledger import process_ledger

    before = process_ledger().totals()
    NullChat().invoke("a question", {"callbacks": [CostCallbackHandler()]})
    after = process_ledger().totals()
    assert (after.requests - before.requests, after.input_tokens - before.input_tokens) == (1, 1_000)


def test_a_handler_with_a_ledger_tells_no_other() -> None:
    from llmcost_plugins.ledger import process_ledger

    before = process_ledger().totals().calls
    _, _, config = handled()
    NullChat().invoke("a question", config)
    assert process_ledger().totals().calls == before
