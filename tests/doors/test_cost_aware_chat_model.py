"""`CostAwareChatModel`: one face for every way to call it, and nothing held, spliced or counted twice."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import UsageMetadataCallbackHandler, get_usage_metadata_callback
from langchain_core.exceptions import ModelAuthenticationError
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableBinding
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.graph import START, StateGraph
from langgraph.graph.message import add_messages
from pydantic import BaseModel

from llmcost_plugins import Cache, Ledger, Router, Tier, scope
from llmcost_plugins.errors import ConfigurationError, NoTierAnswered
from llmcost_plugins.langchain import CostAwareChatModel, CostCallbackHandler
from llmcost_plugins.testing import FakeProvider
from llmcost_plugins.testing.generation import default_answer
from llmcost_plugins.testing.records import Latency

WEAK, STRONG = "gpt-5.4-mini", "gpt-5.4"
QUESTION = "Which colours does the sofa come in?"
WAYS = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch", "generate", "agenerate")


@pytest.fixture(autouse=True)
def _no_global_cache() -> Iterator[None]:
    set_llm_cache(None)
    yield
    set_llm_cache(None)


def openai(provider: FakeProvider, model: str = WEAK, **given: Any) -> ChatOpenAI:
    settings = {"base_url": provider.url, "api_key": "any", "max_retries": 0, "stream_usage": True, **given}
    return ChatOpenAI(model=model, **settings)


def tiers(provider: FakeProvider, **given: Any) -> list[ChatOpenAI]:
    return [openai(provider, WEAK, **given), openai(provider, STRONG, **given)]


def unsure_if_weak(model: str, messages: list[dict[str, Any]]) -> str:
    return "I'm not sure." if model == WEAK else default_answer(model, messages)


def merged(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    first, *rest = chunks
    return sum(rest, start=first)


def ask(way: str, model: Any, question: Any = QUESTION, config: Any = None) -> AIMessage:
    """Ask in one of the eight ways and return the answer as one message."""
    if way.startswith("a"):
        return asyncio.run(aask(way, model, question, config))
    if way == "invoke":
        return model.invoke(question, config)
    if way == "stream":
        return merged(list(model.stream(question, config)))
    if way == "batch":
        return model.batch([question], config)[0]
    return model.generate([[HumanMessage(question)]], **(config or {})).generations[0][0].message


async def aask(way: str, model: Any, question: Any = QUESTION, config: Any = None) -> AIMessage:
    if way == "ainvoke":
        return await model.ainvoke(question, config)
    if way == "astream":
        return merged([chunk async for chunk in model.astream(question, config)])
    if way == "abatch":
        return (await model.abatch([question], config))[0]
    return (await model.agenerate([[HumanMessage(question)]], **(config or {}))).generations[0][0].message


def hit_of(message: AIMessage) -> str | None:
    return message.response_metadata.get("llmcost", {}).get("cache")


# --- every way to ask


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_tier_s_answer(fake_provider: FakeProvider, way: str) -> None:
    model = CostAwareChatModel(tiers=tiers(fake_provider))
    answer = ask(way, model)
    assert answer.text == fake_provider.served[0].answer
    assert answer.usage_metadata["input_tokens"] == fake_provider.billed().input_tokens
    assert answer.response_metadata["model_name"].startswith(WEAK)
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.id
    assert fake_provider.calls == 1


@pytest.mark.parametrize("second", WAYS)
@pytest.mark.parametrize("first", WAYS)
def test_every_way_s_answer_is_a_hit_for_every_other(fake_provider: FakeProvider, first: str, second: str) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    cold, warm, last = ask(first, model), ask(second, model), ask(second, model)
    assert fake_provider.calls == 1
    assert [hit_of(cold), hit_of(warm), hit_of(last)] == [None, "exact", "exact"]
    assert warm.text == cold.text
    assert warm.usage_metadata["output_tokens"] == cold.usage_metadata["output_tokens"]
    assert len({cold.id, warm.id, last.id}) == 3


@pytest.mark.parametrize("way", WAYS)
def test_escalation_hides_the_draft(way: str) -> None:
    ledger = Ledger()
    with FakeProvider(unsure_if_weak, keep_alive=False) as provider:
        answer = ask(way, CostAwareChatModel(tiers=tiers(provider), ledger=ledger))
        assert [one.model for one in provider.served] == [WEAK, STRONG]
        assert answer.text == provider.served[1].answer
    assert "sure" not in answer.text
    assert answer.response_metadata["model_name"].startswith(STRONG)
    assert ledger.totals().escalations == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_failed_tier_falls_back(fake_provider: FakeProvider, way: str) -> None:
    ledger = Ledger()
    fake_provider.fail(model=WEAK, status=503)
    answer = ask(way, CostAwareChatModel(tiers=tiers(fake_provider), ledger=ledger))
    assert answer.response_metadata["model_name"].startswith(STRONG)
    assert ledger.totals().fallbacks == 1


@pytest.mark.parametrize("way", WAYS)
def test_every_tier_failed(fake_provider: FakeProvider, way: str) -> None:
    model = CostAwareChatModel(tiers=tiers(fake_provider), cache=True)
    fake_provider.fail(times=6)
    with pytest.raises(NoTierAnswered) as raised:
        ask(way, model)
    assert len(raised.value.exceptions) == 6  # both tiers, three times
    assert model._cost_cache.turns_held == 0
    assert ask(way, model).text


@pytest.mark.parametrize("way", WAYS)
def test_a_single_tier_s_error_is_raised_as_it_is(fake_provider: FakeProvider, way: str) -> None:
    fake_provider.fail(times=9)
    with pytest.raises(Exception) as plain:
        ask(way, openai(fake_provider))
    with pytest.raises(Exception) as routed:
        ask(way, CostAwareChatModel(openai(fake_provider), cache=True))
    assert type(routed.value) is type(plain.value)
    assert str(routed.value) == str(plain.value)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_errors_of_the_request_s_own_are_not_retried(fake_provider: FakeProvider, way: str, status: int) -> None:
    fake_provider.fail(status=status)
    with pytest.raises(Exception, match=str(status)):
        ask(way, CostAwareChatModel(tiers=tiers(fake_provider), cache=True))
    assert len(fake_provider.served) == 1


def test_an_unauthorised_call_says_so(fake_provider: FakeProvider) -> None:
    fake_provider.fail(status=401)
    with pytest.raises(ModelAuthenticationError):
        CostAwareChatModel(tiers=tiers(fake_provider)).invoke(QUESTION)


FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {}}}


def named(provider: FakeProvider) -> list[Tier]:
    weak, strong = tiers(provider)
    return [Tier("small", weak), Tier("large", strong)]


# --- tenants


@pytest.mark.parametrize("way", WAYS[:6])
@pytest.mark.parametrize("how", ["metadata", "scope"])
def test_tenants_are_kept_apart(fake_provider: FakeProvider, way: str, how: str) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)

    def ask_for(tenant: str) -> str | None:
        if how == "metadata":
            return hit_of(ask(way, model, config={"metadata": {"tenant": tenant}}))
        with scope(tenant=tenant):
            return hit_of(ask(way, model))

    assert [ask_for(tenant) for tenant in ("A", "B", "A", "B", "C")] == [None, None, "exact", "exact", None]
    assert fake_provider.calls == 3


@pytest.mark.parametrize("way", WAYS[:6])
def test_the_model_s_own_metadata_names_a_tenant_too(fake_provider: FakeProvider, way: str) -> None:
    """`model.metadata` is LangChain's place for metadata of all calls; it must wall off as a call's own does."""
    shared = Cache()
    models = [CostAwareChatModel(openai(fake_provider), cache=shared, metadata={"tenant": t}) for t in "AB"]
    assert [hit_of(ask(way, model)) for model in [*models, *models]] == [None, None, "exact", "exact"]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "generate", "agenerate"])
def test_generate_inside_a_chain_sees_the_chain_s_tenant(fake_provider: FakeProvider, way: str) -> None:
    from langchain_core.runnables import RunnableLambda

    model = CostAwareChatModel(openai(fake_provider), cache=True)
    if way.startswith("a"):

        async def astep(text: str) -> AIMessage:
            return await aask(way, model, text)

        chain: Any = RunnableLambda(astep)
    else:
        chain = RunnableLambda(lambda text: ask(way, model, text))

    def ask_for(tenant: str) -> str | None:
        config: Any = {"metadata": {"tenant": tenant}}
        if way.startswith("a"):
            return hit_of(asyncio.run(chain.ainvoke(QUESTION, config)))
        return hit_of(chain.invoke(QUESTION, config))

    assert [ask_for(tenant) for tenant in ("A", "B", "A")] == [None, None, "exact"]


@pytest.mark.parametrize("way", ["generate", "agenerate"])
def test_generate_s_metadata_names_the_tenant(fake_provider: FakeProvider, way: str) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    hits = [hit_of(ask(way, model, config={"metadata": {"tenant": tenant}})) for tenant in ("A", "B", "A")]
    assert hits == [None, None, "exact"]


def test_a_shared_cache_keeps_models_apart(fake_provider: FakeProvider) -> None:
    cache = Cache()
    router = Router(named(fake_provider), threshold=0.4)
    made = [
        CostAwareChatModel(openai(fake_provider), cache=cache),
        CostAwareChatModel(openai(fake_provider, STRONG), cache=cache),
        CostAwareChatModel(openai(fake_provider, max_tokens=900), cache=cache),
        CostAwareChatModel(tiers=tiers(fake_provider), cache=cache),
        CostAwareChatModel(router=router, cache=cache),
    ]
    assert [hit_of(model.invoke(QUESTION)) for model in made] == [None] * len(made)
    assert [hit_of(model.invoke(QUESTION)) for model in made] == ["exact"] * len(made)


def test_a_tier_changed_after_its_first_call_is_another_model(fake_provider: FakeProvider) -> None:
    inner = openai(fake_provider, "gpt-4.1")
    inner.invoke("warm up its cached description")
    hot = inner.model_copy(update={"temperature": 0.9})
    cache = Cache()
    assert hit_of(CostAwareChatModel(inner, cache=cache).invoke(QUESTION)) is None
    assert hit_of(CostAwareChatModel(hot, cache=cache).invoke(QUESTION)) is None


@pytest.mark.parametrize(
    "kwargs",
    [{"temperature": 0.1}, {"stop": ["\n\n"]}, {"max_tokens": 400}, {"tools": [FUNCTION]}],
)
def test_a_call_s_own_settings_are_a_part_of_the_key(fake_provider: FakeProvider, kwargs: dict[str, Any]) -> None:
    model = CostAwareChatModel(openai(fake_provider, "gpt-4.1"), cache=True)
    model.invoke(QUESTION)
    assert hit_of(model.invoke(QUESTION, **kwargs)) is None
    assert hit_of(model.invoke(QUESTION, **kwargs)) == "exact"


# --- single-flight


class Gate:
    """An answer function that tells when a request has reached the provider."""

    def __init__(self) -> None:
        self.reached = threading.Event()

    def __call__(self, model: str, messages: list[dict[str, Any]]) -> str:
        self.reached.set()
        return default_answer(model, messages)


@pytest.mark.parametrize("way", ["invoke", "stream", "batch"])
def test_identical_misses_in_threads_are_one_call(fake_provider: FakeProvider, way: str) -> None:
    ledger = Ledger()
    model = CostAwareChatModel(openai(fake_provider), cache=True, ledger=ledger)
    barrier = threading.Barrier(64)

    def work(_: int) -> AIMessage:
        barrier.wait()
        return ask(way, model)

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(work, range(64)))
    assert fake_provider.calls == 1
    assert len({answer.text for answer in answers}) == 1
    assert len({answer.id for answer in answers}) == 64
    assert model._cost_cache.turns_held == 0
    totals = ledger.totals()
    assert (totals.requests, totals.paid, totals.hits) == (64, 1, 63)
    assert totals.cache_saved == 63 * totals.cost


@pytest.mark.parametrize("way", ["ainvoke", "astream", "abatch", "agenerate"])
def test_identical_misses_in_tasks_are_one_call(fake_provider: FakeProvider, way: str) -> None:
    ledger = Ledger()
    model = CostAwareChatModel(openai(fake_provider), cache=True, ledger=ledger)

    async def gather() -> list[AIMessage]:
        return await asyncio.gather(*(aask(way, model) for _ in range(64)))

    answers = asyncio.run(gather())
    assert fake_provider.calls == 1
    assert len({answer.text for answer in answers}) == 1
    assert len({answer.id for answer in answers}) == 64
    assert model._cost_cache.turns_held == 0
    assert (ledger.totals().requests, ledger.totals().hits) == (64, 63)


def test_one_batch_of_the_same_question_is_one_call(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    assert len({message.id for message in model.batch([QUESTION] * 32)}) == 32
    assert fake_provider.calls == 1


def test_threads_and_loops_wait_for_each_other(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    barrier = threading.Barrier(16)

    def work(number: int) -> AIMessage:
        barrier.wait()
        return ask(("invoke", "ainvoke", "stream", "astream")[number % 4], model)

    with ThreadPoolExecutor(16) as pool:
        assert len({answer.text for answer in pool.map(work, range(16))}) == 1
    assert fake_provider.calls == 1


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_when_the_leader_fails_the_next_leads(fake_provider: FakeProvider, way: str) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    fake_provider.fail(status=400, times=3)
    barrier = threading.Barrier(16)

    def work(_: int) -> str:
        barrier.wait()
        try:
            return ask(way, model).text
        except Exception:
            return "failed"

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(work, range(16)))
    assert answers.count("failed") == 3
    assert len(set(answers)) == 2
    assert fake_provider.calls == 1
    assert model._cost_cache.turns_held == 0


@pytest.mark.parametrize("way", ["ainvoke", "astream"])
def test_when_the_leading_task_fails_the_next_leads(fake_provider: FakeProvider, way: str) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    fake_provider.fail(status=400, times=3)

    async def gather() -> list[Any]:
        return await asyncio.gather(*(aask(way, model) for _ in range(16)), return_exceptions=True)

    answers = asyncio.run(gather())
    assert sum(isinstance(answer, Exception) for answer in answers) == 3
    assert fake_provider.calls == 1
    assert model._cost_cache.turns_held == 0


def test_tenants_do_not_wait_for_each_other_s_answers(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)

    async def gather() -> list[AIMessage]:
        configs: list[Any] = [{"metadata": {"tenant": str(n % 4)}} for n in range(32)]
        return await asyncio.gather(*(model.ainvoke(QUESTION, config) for config in configs))

    asyncio.run(gather())
    assert fake_provider.calls == 4


# --- readers that leave


def test_a_broken_off_stream_holds_nothing(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    with closing(model.stream(QUESTION)) as chunks:
        next(chunks)
        next(chunks)
        assert model._cost_cache.turns_held == 1
    assert model._cost_cache.turns_held == 0
    fake_provider.wait_idle()
    assert hit_of(model.invoke(QUESTION)) is None
    assert hit_of(model.invoke(QUESTION)) == "exact"


def test_a_stream_that_is_never_begun_holds_nothing(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    model.stream(QUESTION).close()
    assert fake_provider.served == []
    assert model._cost_cache.turns_held == 0


async def test_aclose_in_mid_stream_holds_nothing(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    async with aclosing(model.astream(QUESTION)) as chunks:
        await anext(chunks)
        await anext(chunks)
        assert model._cost_cache.turns_held == 1
    assert model._cost_cache.turns_held == 0
    assert hit_of(await model.ainvoke(QUESTION)) is None
    assert hit_of(await model.ainvoke(QUESTION)) == "exact"


async def test_the_next_in_line_takes_over_from_a_reader_that_left(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    async with aclosing(model.astream(QUESTION)) as chunks:
        await anext(chunks)
        followers = [asyncio.ensure_future(aask(way, model)) for way in ("ainvoke", "astream", "abatch")]
        for _ in range(50):
            await asyncio.sleep(0)
        assert not any(follower.done() for follower in followers)
    answers = await asyncio.gather(*followers)
    assert len({answer.text for answer in answers}) == 1
    assert fake_provider.calls == 2
    assert model._cost_cache.turns_held == 0


@pytest.mark.parametrize("way", ["ainvoke", "astream", "abatch", "agenerate"])
def test_a_task_cancelled_in_mid_call_holds_nothing(way: str) -> None:
    gate = Gate()

    async def cancel(model: CostAwareChatModel) -> None:
        task = asyncio.ensure_future(aask(way, model))
        assert await asyncio.to_thread(gate.reached.wait, 10)
        assert model._cost_cache.turns_held == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model._cost_cache.turns_held == 0

    with FakeProvider(gate, latency=Latency(60.0, sigma=0), keep_alive=False) as slow:
        asyncio.run(cancel(CostAwareChatModel(openai(slow), cache=True)))


@pytest.mark.parametrize("inside", [False, True])
def test_a_task_cancelled_in_mid_stream_holds_nothing(inside: bool) -> None:
    """Cancelled while it waits for the next chunk, or while its reader does something else with the last one."""

    async def cancel(model: CostAwareChatModel) -> None:
        reading = asyncio.Event()

        async def read() -> None:
            async for _ in model.astream(QUESTION):
                reading.set()
                if not inside:
                    await asyncio.Event().wait()

        task = asyncio.ensure_future(read())
        await reading.wait()
        assert model._cost_cache.turns_held == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        del task
        for _ in range(100):  # an abandoned generator is closed by the loop, in its own time
            await asyncio.sleep(0)
        assert model._cost_cache.turns_held == 0

    with FakeProvider(latency=Latency(60.0, sigma=0, first_token=0.0), keep_alive=False) as provider:
        asyncio.run(cancel(CostAwareChatModel(openai(provider), cache=True)))


async def test_a_cancelled_follower_ends_nobody_s_turn() -> None:
    gate = Gate()
    with FakeProvider(gate, latency=Latency(0.3, sigma=0), keep_alive=False) as provider:
        model = CostAwareChatModel(openai(provider), cache=True)
        leader = asyncio.ensure_future(model.ainvoke(QUESTION))
        assert await asyncio.to_thread(gate.reached.wait, 10)
        follower, other = (asyncio.ensure_future(model.ainvoke(QUESTION)) for _ in range(2))
        for _ in range(20):
            await asyncio.sleep(0)
        follower.cancel()
        with pytest.raises(asyncio.CancelledError):
            await follower
        assert (await leader).text == (await other).text
        assert provider.calls == 1
    assert model._cost_cache.turns_held == 0


def finishes(work: Callable[[], Any]) -> bool:
    """Run something that may wait for itself forever in a thread, and tell whether it came to an end."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(3)
    return not thread.is_alive()


def test_a_reader_may_ask_the_same_again_in_mid_stream(fake_provider: FakeProvider) -> None:
    """The thread that holds the turn is the one that would wait for it."""
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    answers: list[str] = []

    def work() -> None:
        with closing(model.stream(QUESTION)) as chunks:
            next(chunks)
            answers.append(model.invoke(QUESTION).text)

    assert finishes(work)
    assert answers[0]


def test_a_task_may_ask_the_same_again_in_mid_stream(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    answers: list[str] = []

    async def ask_twice() -> None:
        async with aclosing(model.astream(QUESTION)) as chunks:
            await anext(chunks)
            answers.append((await model.ainvoke(QUESTION)).text)

    assert finishes(lambda: asyncio.run(ask_twice()))
    assert answers[0]


def test_a_blocking_call_beside_a_leading_task_ends(fake_provider: FakeProvider) -> None:
    """A synchronous call in async code blocks the very loop that the leader needs."""
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    answers: list[str] = []

    async def ask_both_ways() -> None:
        leader = asyncio.ensure_future(model.ainvoke(QUESTION))
        while not model._cost_cache.turns_held:  # noqa: ASYNC110 - a turn tells nobody that it was taken
            await asyncio.sleep(0)
        answers.append(model.invoke(QUESTION).text)
        await leader

    assert finishes(lambda: asyncio.run(ask_both_ways()))
    assert answers[0]


def test_a_follower_whose_loop_is_gone_troubles_nobody(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    with FakeProvider(gate, latency=Latency(0.3, sigma=0), keep_alive=False) as provider:
        model = CostAwareChatModel(openai(provider), cache=True)

        async def follow() -> None:
            follower = asyncio.ensure_future(model.ainvoke(QUESTION))
            for _ in range(20):
                await asyncio.sleep(0)
            follower.cancel()
            await asyncio.gather(follower, return_exceptions=True)

        with ThreadPoolExecutor(1) as pool:
            leader = pool.submit(model.invoke, QUESTION)
            assert gate.reached.wait(10)
            asyncio.run(follow())
            assert leader.result().text
    assert [record.getMessage() for record in caplog.records] == []


# --- fallback ends where the reader's view begins


@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("cache", [None, True])
def test_no_second_model_is_spliced_into_a_stream(fake_provider: FakeProvider, way: str, cache: Any) -> None:
    ledger = Ledger()
    model = CostAwareChatModel(router=Router(named(fake_provider), escalate=False), cache=cache, ledger=ledger)
    shown: list[str] = []
    fake_provider.drop_stream(after_chunks=4, mode="abort")

    async def aread() -> None:
        async for chunk in model.astream(QUESTION):
            shown.append(chunk.text)  # noqa: PERF401 - what came before the error counts

    def read() -> None:
        shown.extend(chunk.text for chunk in model.stream(QUESTION))

    with pytest.raises(Exception, match=r"(?i)incomplete|connection|closed"):
        read() if way == "stream" else asyncio.run(aread())
    assert [one.model for one in fake_provider.served] == [WEAK]
    assert fake_provider.served[0].answer.startswith("".join(shown))
    totals = ledger.totals()
    assert (totals.cut, totals.fallbacks, totals.paid) == (1, 0, 1)
    if cache:
        assert model._cost_cache.turns_held == 0
        assert hit_of(model.invoke(QUESTION)) is None


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_draft_that_breaks_off_falls_back(fake_provider: FakeProvider, way: str) -> None:
    """A held draft was never shown, and so may be replaced; it is not streamed from the provider at all."""
    fake_provider.drop_stream(after_chunks=4, mode="abort", model=WEAK)
    answer = ask(way, CostAwareChatModel(tiers=tiers(fake_provider)))
    assert answer.text == fake_provider.served[-1].answer


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_stream_cut_cleanly_is_not_kept(fake_provider: FakeProvider, way: str) -> None:
    model = CostAwareChatModel(openai(fake_provider), cache=True)
    fake_provider.drop_stream(after_chunks=4, mode="clean")
    ask(way, model)
    assert hit_of(ask(way, model)) is None
    assert hit_of(ask(way, model)) == "exact"
    assert model._cost_cache.turns_held == 0


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_plain_tier_streams_word_by_word(fake_provider: FakeProvider, way: str) -> None:
    model = CostAwareChatModel(openai(fake_provider))
    plain = openai(fake_provider)

    async def acount(one: Any) -> int:
        return len([chunk async for chunk in one.astream(QUESTION)])

    def count(one: Any) -> int:
        return len(list(one.stream(QUESTION))) if way == "stream" else asyncio.run(acount(one))

    assert count(model) == count(plain) > 5


def test_a_failed_strong_tier_gives_the_draft() -> None:
    with FakeProvider(unsure_if_weak, keep_alive=False) as provider:
        provider.fail(model=STRONG)
        assert CostAwareChatModel(tiers=tiers(provider)).invoke(QUESTION).text == "I'm not sure."


# --- tools, schemas, LangGraph


@tool
def opening_hours(city: str) -> str:
    """Return the opening hours of the shop in a city."""
    return f"In {city} from 9 to 5."


class Hours(BaseModel):
    """When a shop is open."""

    opens: int
    closes: int


@pytest.mark.parametrize("way", WAYS[:6])
@pytest.mark.parametrize("cache", [None, True])
def test_bound_tools(fake_provider: FakeProvider, way: str, cache: Any) -> None:
    bound = CostAwareChatModel(tiers=tiers(fake_provider), cache=cache).bind_tools([opening_hours])
    assert isinstance(bound, RunnableBinding)
    first, second = ask(way, bound, "When do you open?"), ask(way, bound, "When do you open?")
    assert [call["name"] for call in first.tool_calls] == ["opening_hours"]
    assert [call["args"] for call in first.tool_calls] == [call["args"] for call in second.tool_calls]
    assert first.tool_calls[0]["id"] != second.tool_calls[0]["id"]
    assert fake_provider.calls == (1 if cache else 2)
    told = [HumanMessage("When do you open?"), first, ToolMessage("9 to 5", tool_call_id=first.tool_calls[0]["id"])]
    assert ask(way, bound, told).text


NAMED = {"type": "function", "function": {"name": "opening_hours"}}


@pytest.mark.parametrize("choice", ["opening_hours", "any", "required", NAMED])
def test_tool_choice(fake_provider: FakeProvider, choice: Any) -> None:
    model = CostAwareChatModel(openai(fake_provider)).bind_tools([opening_hours], tool_choice=choice)
    assert model.invoke([HumanMessage("Hi"), AIMessage("Hi")]).tool_calls


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output(fake_provider: FakeProvider, way: str, method: str) -> None:
    model = CostAwareChatModel(tiers=tiers(fake_provider), cache=True)
    structured = model.with_structured_output(Hours, method=method)
    if way == "stream":
        answers = [list(structured.stream("Tell me about shop 7."))[-1] for _ in range(2)]
    elif way == "ainvoke":
        answers = [asyncio.run(structured.ainvoke("Tell me about shop 7.")) for _ in range(2)]
    else:
        answers = [structured.invoke("Tell me about shop 7.") for _ in range(2)]
    assert all(isinstance(answer, Hours) for answer in answers)
    assert answers[0] == answers[1]
    assert fake_provider.calls == 1


def test_structured_output_with_the_raw_answer(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider)).with_structured_output(Hours, include_raw=True)
    answer = model.invoke("Tell me about shop 7.")
    assert answer["parsed"] == Hours(**answer["raw"].tool_calls[0]["args"])


class State(TypedDict):
    messages: Annotated[list, add_messages]


def graph_of(model: Any) -> Any:
    graph = StateGraph(State)
    graph.add_node("answer", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "answer")
    return graph.compile()


@pytest.mark.parametrize(
    "build", [lambda p: CostAwareChatModel(openai(p)), lambda p: CostAwareChatModel(tiers=tiers(p))]
)
@pytest.mark.parametrize("answer", [default_answer, unsure_if_weak])
def test_langgraph_streams_each_token_once(build: Callable[..., Any], answer: Any) -> None:
    with FakeProvider(answer, keep_alive=False) as provider:
        graph = graph_of(build(provider))
        shown = [part[0] for part in graph.stream({"messages": [("user", QUESTION)]}, stream_mode="messages")]
        final = provider.served[-1].answer
    assert "".join(message.text for message in shown) == final
    assert len({message.id for message in shown}) == 1


@pytest.mark.parametrize("cache", [None, True])
def test_langgraph_streams_an_agent_s_turns_once(fake_provider: FakeProvider, cache: Any) -> None:
    agent = create_agent(CostAwareChatModel(openai(fake_provider), cache=cache), [opening_hours])
    for _ in range(2):
        parts = list(agent.stream({"messages": [("user", "When do you open?")]}, stream_mode="messages"))
        told = [message.text for message, about in parts if about["langgraph_node"] == "model"]
        assert "".join(told) == fake_provider.served[-1].answer
    assert fake_provider.calls == (2 if cache else 4)


async def test_langgraph_streams_each_token_once_in_async_code(fake_provider: FakeProvider) -> None:
    agent = create_agent(CostAwareChatModel(openai(fake_provider)), [])
    parts = [part async for part in agent.astream({"messages": [("user", QUESTION)]}, stream_mode="messages")]
    assert "".join(message.text for message, _ in parts) == fake_provider.served[-1].answer


@pytest.mark.parametrize("way", WAYS[:6])
def test_langchain_counts_each_call_once(way: str) -> None:
    with FakeProvider(unsure_if_weak, keep_alive=False) as provider:
        model = CostAwareChatModel(tiers=tiers(provider))
        handler = UsageMetadataCallbackHandler()
        with get_usage_metadata_callback() as counted:
            ask(way, model, config={"callbacks": [handler]})
        for usage in (counted.usage_metadata, handler.usage_metadata):
            assert sum(one["input_tokens"] for one in usage.values()) == provider.billed().input_tokens
            assert sum(one["output_tokens"] for one in usage.values()) == provider.billed().output_tokens
            assert len(usage) == 2


@pytest.mark.parametrize("way", ["generate", "agenerate"])
def test_langchain_counts_a_generated_answer_once(fake_provider: FakeProvider, way: str) -> None:
    handler = UsageMetadataCallbackHandler()
    ask(way, CostAwareChatModel(openai(fake_provider)), config={"callbacks": [handler]})
    (usage,) = handler.usage_metadata.values()
    assert usage["input_tokens"] == fake_provider.billed().input_tokens


@pytest.mark.parametrize("way", WAYS)
def test_a_handler_with_books_of_its_own_sees_every_call(fake_provider: FakeProvider, way: str) -> None:
    door, own = Ledger(), Ledger()
    model = CostAwareChatModel(openai(fake_provider), ledger=door)
    ask(way, model, config={"callbacks": [CostCallbackHandler(ledger=own)]})
    for ledger in (door, own):
        assert (ledger.totals().paid, ledger.totals().input_tokens) == (1, fake_provider.billed().input_tokens)


# --- the object itself


def test_it_needs_exactly_one_source_of_models(fake_provider: FakeProvider) -> None:
    model = openai(fake_provider)
    for given in ({}, {"model": model, "tiers": [model]}):
        with pytest.raises(ConfigurationError, match="one of `model` and `tiers`"):
            CostAwareChatModel(**given)
    assert CostAwareChatModel(tiers=[model], router=Router([Tier("other", model)])).tiers[0].name != "other"
    for unknown in ({"budget": "0.50"}, {"cahce": True}, {"mode": "shadow"}):
        with pytest.raises(ConfigurationError, match="not a setting"):
            CostAwareChatModel(model, **unknown)
    with pytest.raises(ConfigurationError, match="empty"):
        CostAwareChatModel(tiers=[])
    with pytest.raises(ConfigurationError, match="not a LangChain chat model"):
        CostAwareChatModel(tiers=["gpt-5.4"])
    with pytest.raises(ConfigurationError, match="cache"):
        CostAwareChatModel(model, cache="yes")


def test_the_tiers_given_stay_as_they_were(fake_provider: FakeProvider) -> None:
    inner = openai(fake_provider)
    CostAwareChatModel(inner, cache=True).invoke(QUESTION)
    assert inner.cache is None


def test_two_tiers_of_one_model_need_names(fake_provider: FakeProvider) -> None:
    with pytest.raises(ConfigurationError, match="name"):
        CostAwareChatModel(tiers=[openai(fake_provider), openai(fake_provider)])


async def test_version_2_events(fake_provider: FakeProvider) -> None:
    ledger = Ledger()
    model = CostAwareChatModel(openai(fake_provider), ledger=ledger)
    events = [event async for event in model.astream_events(QUESTION, version="v2")]
    words = [event["data"]["chunk"].text for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(words) == fake_provider.served[0].answer
    assert ledger.totals().paid == 1


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
@pytest.mark.parametrize("way", ["stream_events", "astream_events"])
def test_version_3_events(fake_provider: FakeProvider, way: str) -> None:
    ledger = Ledger()
    model = CostAwareChatModel(openai(fake_provider), ledger=ledger)

    async def aread() -> str:
        stream = await model.astream_events(QUESTION, version="v3")
        return str((await stream.output).text)

    text = (
        asyncio.run(aread())
        if way == "astream_events"
        else str(model.stream_events(QUESTION, version="v3").output.text)
    )
    assert text == fake_provider.served[0].answer
    assert ledger.totals().input_tokens == fake_provider.billed().input_tokens
    assert ledger.totals().paid == 1


def test_token_counts_need_no_network(fake_provider: FakeProvider) -> None:
    model = CostAwareChatModel(openai(fake_provider))
    assert model.get_num_tokens("a few words here") > 2
    assert model.get_num_tokens_from_messages([HumanMessage("a few words here")]) > 4
