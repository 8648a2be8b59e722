"""What the ledger bills is what the provider served, whichever way a call is made and whatever befalls it."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, closing, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_anthropic import ChatAnthropic
from langchain_core.caches import BaseCache, InMemoryCache
from langchain_core.callbacks import CallbackManager
from langchain_core.exceptions import ModelConnectionError
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_openai import ChatOpenAI

from llmcost_plugins import Ledger, PriceBook, Router, Tier, scope, track
from llmcost_plugins.langchain import CostAwareChatModel, CostCallbackHandler, SemanticCache
from llmcost_plugins.ledger.totals import Totals
from llmcost_plugins.testing import FakeProvider
from llmcost_plugins.testing.generation import default_answer
from llmcost_plugins.testing.records import Latency, Served
from llmcost_plugins.types import Usage

WEAK, STRONG = "gpt-5.4-mini", "gpt-5.4"
MANUAL = SystemMessage("The opening hours stand in the manual. " * 200)
QUESTIONS = ["Which colours does the sofa come in?", "Which woods are the tables of?", "Which lamps hang?"]
PROMPTS = [[MANUAL, HumanMessage(question)] for question in QUESTIONS]
ALL = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")
WHOLE = ("invoke", "ainvoke", "batch", "abatch")
STREAMS = ("stream", "astream")


@pytest.fixture(autouse=True)
def _no_global_cache() -> Iterator[None]:
    set_llm_cache(None)
    yield
    set_llm_cache(None)


def unsure_if_weak(model: str, messages: list[dict[str, Any]]) -> str:
    return "I'm not sure." if model == WEAK else default_answer(model, messages)


def openai(provider: FakeProvider, model: str = WEAK, **settings: Any) -> ChatOpenAI:
    given = {"max_retries": 0, "stream_usage": True, **settings}
    return ChatOpenAI(model=model, base_url=provider.url, api_key="any", **given)


def run(mode: str, model: Runnable, config: dict[str, Any]) -> list[Any]:
    """Ask in one of the six ways, for batches all questions, else the first."""
    return asyncio.run(_arun(mode, model, config)) if mode.startswith("a") else _run(mode, model, config)


def _run(mode: str, model: Runnable, config: dict[str, Any]) -> list[Any]:
    if mode == "batch":
        return model.batch(PROMPTS, config)
    return [model.invoke(PROMPTS[0], config)] if mode == "invoke" else list(model.stream(PROMPTS[0], config))


async def _arun(mode: str, model: Runnable, config: dict[str, Any]) -> list[Any]:
    if mode == "abatch":
        return await model.abatch(PROMPTS, config)
    if mode == "ainvoke":
        return [await model.ainvoke(PROMPTS[0], config)]
    return [chunk async for chunk in model.astream(PROMPTS[0], config)]


def asked(mode: str) -> int:
    return len(PROMPTS) if "batch" in mode else 1


def usage_of(served: Served) -> Usage:
    return Usage(
        served.input_tokens,
        served.output_tokens,
        served.cached_tokens,
        served.cache_write_tokens,
        served.cache_write_1h_tokens,
        served.reasoning_tokens,
    )


def price(served: Sequence[Served], provider: str = "openai") -> int:
    """What the provider would ask for, in pico-USD."""
    book = PriceBook()
    costs = [book.cost(provider, one.model, usage_of(one), at=1.8e9) for one in served if one.paid]
    return sum(cost.total for cost in costs if cost is not None)


def bill_of(served: Sequence[Served]) -> tuple[int, ...]:
    paid = [usage_of(one) for one in served if one.paid]
    counted = ("input_tokens", "cached_tokens", "cache_write_tokens", "output_tokens", "reasoning_tokens")
    return (len(paid), *(sum(getattr(usage, name) for usage in paid) for name in counted))


def billed(totals: Totals) -> tuple[int, ...]:
    read = totals.paid, totals.input_tokens, totals.cached_tokens, totals.cache_write_tokens
    return *read, totals.output_tokens, totals.reasoning_tokens


@dataclass
class Books:
    """Who keeps account of a cell: `track()`, a handler in the config, or both, and a door that reports as well."""

    kind: str
    ledgers: list[Ledger] = field(default_factory=list)
    handler: CostCallbackHandler | None = None

    def __post_init__(self) -> None:
        if self.kind != "track":
            self.ledgers.append(Ledger())
            self.handler = CostCallbackHandler(ledger=self.ledgers[0])

    @property
    def of_doors(self) -> Ledger | None:
        return self.ledgers[0] if self.handler else None

    def watch(self, ask: Callable[[dict[str, Any]], Any]) -> None:
        config = {"callbacks": [self.handler]} if self.handler else {}
        if self.kind == "handler":
            ask(config)
            return
        with track() as costs:
            ask(config)
        self.ledgers.append(costs)


BOOKS = ("track", "handler", "both")
Build = Callable[[FakeProvider, Books], Runnable]


@dataclass(frozen=True)
class Case:
    """One thing that may befall a call; `then` holds totals besides those that follow from what was served."""

    name: str
    build: Build
    modes: tuple[str, ...] = ALL
    script: Callable[[FakeProvider], None] = lambda provider: None
    cache: Callable[[Books], BaseCache] | None = None
    warm: bool = False
    answer: Callable[..., str] | None = None
    then: dict[str, int] = field(default_factory=dict)


def aware(provider: FakeProvider, books: Books, **settings: Any) -> CostAwareChatModel:
    return CostAwareChatModel(tiers=[openai(provider), openai(provider, STRONG)], ledger=books.of_doors, **settings)


def own_cache(books: Books) -> SemanticCache:
    return SemanticCache(ledger=books.of_doors)


def fails_once(provider: FakeProvider) -> None:
    provider.fail(model=WEAK)


CASES = [
    Case("plain", lambda p, _: openai(p)),
    Case(
        "with_retry",
        lambda p, _: openai(p).with_retry(stop_after_attempt=2, wait_exponential_jitter=False),
        WHOLE,
        fails_once,
        then={"failed": 1, "retries": 1},
    ),
    Case(
        "with_fallbacks",
        lambda p, _: openai(p).with_fallbacks([openai(p, STRONG)]),
        script=fails_once,
        then={"failed": 1, "retries": 1, "fallbacks": 1},
    ),
    Case("SemanticCache hit", lambda p, _: openai(p), WHOLE, cache=own_cache, warm=True),
    Case("foreign cache hit", lambda p, _: openai(p), WHOLE, cache=lambda _: InMemoryCache(), warm=True),
    Case("CostAwareChatModel", lambda p, b: aware(p, b)),
    Case("CostAwareChatModel escalates", aware, answer=unsure_if_weak),
    Case("CostAwareChatModel falls back", aware, script=fails_once, then={"failed": 1, "retries": 1, "fallbacks": 1}),
    Case("CostAwareChatModel cache hit", lambda p, b: aware(p, b, cache=True), warm=True),
    Case("n=3", lambda p, _: openai(p, n=3), WHOLE),
    Case("SDK retries", lambda p, _: openai(p, max_retries=2), script=lambda p: p.fail(retry_after=0.001)),
    Case("reasoning", lambda p, _: openai(p)),
]
CELLS = [pytest.param(case, mode, id=f"{case.name}-{mode}") for case in CASES for mode in case.modes]


def prime(provider: FakeProvider) -> None:
    """Put the system prompt in the provider's prompt cache, so that bills hold cached tokens."""
    for model in (WEAK, STRONG):
        openai(provider, model).invoke([MANUAL, HumanMessage("Is there a sofa?")])


@pytest.mark.parametrize("kind", BOOKS)
@pytest.mark.parametrize(("case", "mode"), CELLS)
def test_billed_is_served(case: Case, mode: str, kind: str) -> None:
    books = Books(kind)
    with FakeProvider(case.answer, keep_alive=False, reasoning_tokens=7 if case.name == "reasoning" else 0) as provider:
        prime(provider)
        model = case.build(provider, books)
        if case.cache is not None:
            set_llm_cache(case.cache(books))
        bought: list[Served] = []
        if case.warm:
            before = len(provider.served)
            model.batch(PROMPTS) if "batch" in mode else model.invoke(PROMPTS[0])
            bought = provider.served[before:]
        before_door = books.of_doors.totals() if books.of_doors else Totals()
        case.script(provider)
        start = len(provider.served)
        books.watch(lambda config: run(mode, model, config))
        served = provider.served[start:]

    for ledger in books.ledgers:
        totals = ledger.totals()
        warmed = before_door if ledger is books.of_doors else Totals()
        since = tuple(now - then for now, then in zip(billed(totals), billed(warmed), strict=True))
        assert since == bill_of(served)
        assert totals.cost - warmed.cost == price(served)
        assert totals.requests - warmed.requests == asked(mode)
        assert totals.unpriced == totals.estimated == totals.component_failures == 0
        assert {name: getattr(totals, name) for name in case.then} == case.then
        assert totals.hits == (asked(mode) if case.warm else 0)
        assert totals.cache_saved == price(bought)
    if case.warm:
        assert not served
    else:
        assert sum(one.cached_tokens for one in served) > 0


def test_an_escalation_is_one_request_with_one_draft() -> None:
    books = Books("both")
    with FakeProvider(unsure_if_weak, keep_alive=False) as provider:
        books.watch(lambda config: run("invoke", aware(provider, books), config))
        draft = price([one for one in provider.served if one.model == WEAK])

    for ledger in books.ledgers:
        totals = ledger.totals()
        assert (totals.requests, totals.paid, totals.escalations, totals.answered) == (1, 2, 1, 1)
        assert totals.escalated_cost == draft


# --- where the provider reports nothing


@dataclass(frozen=True)
class Silent:
    """A stream whose end, and with it the usage, never comes."""

    name: str
    build: Build
    script: Callable[[FakeProvider], None] = lambda provider: None
    status: str = "cut"


def drops(mode: str) -> Callable[[FakeProvider], None]:
    return lambda provider: provider.drop_stream(after_chunks=4, mode=mode)


def bare(provider: FakeProvider, books: Books) -> Runnable:
    return CostAwareChatModel(openai(provider), ledger=books.of_doors)


def mute(provider: FakeProvider, books: Books) -> Runnable:
    return CostAwareChatModel(openai(provider, stream_usage=False), ledger=books.of_doors)


SILENT = [
    Silent("no usage", lambda p, _: openai(p, stream_usage=False), status="answered"),
    Silent("clean drop", lambda p, _: openai(p), drops("clean")),
    Silent("abort", lambda p, _: openai(p), drops("abort")),
    Silent("CostAwareChatModel no usage", mute, status="answered"),
    Silent("CostAwareChatModel clean drop", bare, drops("clean")),
    Silent("CostAwareChatModel abort", bare, drops("abort")),
]


@pytest.mark.parametrize("kind", BOOKS)
@pytest.mark.parametrize("mode", STREAMS)
@pytest.mark.parametrize("silent", SILENT, ids=lambda silent: silent.name)
def test_unreported_usage_is_estimated(silent: Silent, mode: str, kind: str) -> None:
    books = Books(kind)
    with FakeProvider(keep_alive=False) as provider:
        model = silent.build(provider, books)
        silent.script(provider)
        books.watch(lambda config: ask_and_bear_it(mode, model, config))
        provider.wait_idle()
        served = provider.served

    assert len(served) == 1
    assert not served[0].usage_reported
    for ledger in books.ledgers:
        totals = ledger.totals()
        assert (totals.requests, totals.paid, totals.estimated, totals.unpriced) == (1, 1, 1, 0)
        assert getattr(totals, silent.status) == 1
        assert_near(totals, served)


def ask_and_bear_it(mode: str, model: Runnable, config: dict[str, Any]) -> None:
    with suppress(ModelConnectionError):
        run(mode, model, config)


def assert_near(totals: Totals, served: Sequence[Served]) -> None:
    """Estimates are of the right size: the prompt within a third, the answer no more than what was sent and a bit."""
    read = sum(one.input_tokens for one in served)
    assert 0.5 * read < totals.input_tokens < 1.5 * read
    assert totals.output_tokens <= 2 * sum(one.output_tokens for one in served) + 8


# --- readers that leave


class Arrivals:
    """An answer function that tells when requests have reached the provider."""

    def __init__(self) -> None:
        self._seen = threading.Semaphore(0)

    def __call__(self, model: str, messages: list[dict[str, Any]]) -> str:
        self._seen.release()
        return default_answer(model, messages)

    async def wait(self, count: int) -> None:
        for _ in range(count):
            assert await asyncio.to_thread(self._seen.acquire, timeout=10)


def plain(provider: FakeProvider, books: Books) -> Runnable:
    return openai(provider)


def door(provider: FakeProvider, books: Books) -> Runnable:
    return CostAwareChatModel(openai(provider), ledger=books.of_doors, cache=True)


@pytest.mark.parametrize("kind", BOOKS)
@pytest.mark.parametrize("mode", STREAMS)
@pytest.mark.parametrize("build", [plain, door])
def test_a_reader_that_leaves_pays_an_estimate(build: Build, mode: str, kind: str) -> None:
    books = Books(kind)
    with FakeProvider(keep_alive=False) as provider:
        model = build(provider, books)
        leave = leave_stream if mode == "stream" else lambda m, c: asyncio.run(leave_astream(m, c))
        books.watch(lambda config: leave(model, config))
        provider.wait_idle()
        served = provider.served

    assert len(served) == 1
    for ledger in books.ledgers:
        totals = ledger.totals()
        assert (totals.requests, totals.paid, totals.estimated, totals.cut) == (1, 1, 1, 1)
        assert totals.cost > 0
        assert_near(totals, served)


def leave_stream(model: Runnable, config: dict[str, Any]) -> None:
    with closing(model.stream(PROMPTS[0], config)) as chunks:
        for _, _ in zip(range(4), chunks, strict=False):
            pass


async def leave_astream(model: Runnable, config: dict[str, Any]) -> None:
    seen = 0
    async with aclosing(model.astream(PROMPTS[0], config)) as chunks:
        async for _ in chunks:
            seen += 1
            if seen == 4:
                break


@pytest.mark.parametrize("kind", ["handler", "both"])
@pytest.mark.parametrize("mode", ["ainvoke", "abatch", "astream"])
@pytest.mark.parametrize("build", [plain, door])
def test_a_cancelled_task_pays_an_estimate(build: Build, mode: str, kind: str) -> None:
    books, arrivals = Books(kind), Arrivals()

    async def cancel(model: Runnable, config: dict[str, Any]) -> None:
        task = asyncio.ensure_future(_arun(mode, model, config))
        await arrivals.wait(asked(mode))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert books.handler is not None
        books.handler.sweep(older_than=0)
        assert books.handler.open_runs == 0

    with FakeProvider(arrivals, latency=Latency(60.0, sigma=0), keep_alive=False) as provider:
        model = build(provider, books)
        books.watch(lambda config: asyncio.run(cancel(model, config)))
        provider.wait_idle()
        assert provider.calls == asked(mode)

    for ledger in books.ledgers:
        totals = ledger.totals()
        assert (totals.paid, totals.estimated, totals.requests) == (asked(mode),) * 3
        assert totals.abandoned + totals.cut == asked(mode)
        assert totals.cost > 0


def test_track_alone_accounts_for_a_cancelled_task() -> None:
    """Nobody holds the handler of `track()`, so the block's end must close what its tasks left open."""
    arrivals = Arrivals()

    async def cancel(model: Runnable) -> None:
        task = asyncio.ensure_future(model.ainvoke(PROMPTS[0]))
        await arrivals.wait(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with FakeProvider(arrivals, latency=Latency(60.0, sigma=0), keep_alive=False) as provider:
        with track() as costs:
            asyncio.run(cancel(openai(provider)))
        provider.wait_idle()

    totals = costs.totals()
    assert (totals.paid, totals.estimated, totals.abandoned) == (1, 1, 1)


# --- Anthropic


CACHED_MANUAL = SystemMessage([{"type": "text", "text": str(MANUAL.content), "cache_control": {"type": "ephemeral"}}])
HOUR_MANUAL = SystemMessage(
    [{"type": "text", "text": str(MANUAL.content), "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "stream", "astream"])
@pytest.mark.parametrize("manual", [CACHED_MANUAL, HOUR_MANUAL], ids=["5m", "1h"])
@pytest.mark.parametrize("kind", BOOKS)
def test_anthropic_cache_control(manual: SystemMessage, mode: str, kind: str) -> None:
    books = Books(kind)
    prompt = [manual, HumanMessage("Which lamps hang?")]

    async def aask(model: ChatAnthropic, config: dict[str, Any]) -> None:
        if mode == "ainvoke":
            await model.ainvoke(prompt, config)
        else:
            async for _ in model.astream(prompt, config):
                pass

    def ask(model: ChatAnthropic, config: dict[str, Any]) -> None:
        for _ in range(2):  # writes the provider's cache, then reads it
            if mode.startswith("a"):
                asyncio.run(aask(model, config))
            else:
                model.invoke(prompt, config) if mode == "invoke" else list(model.stream(prompt, config))

    with FakeProvider(keep_alive=False) as provider:
        model = ChatAnthropic(
            model="claude-haiku-4-5", base_url=provider.root_url, api_key="any", max_retries=0, max_tokens=500
        )
        books.watch(lambda config: ask(model, config))
        served = provider.served

    assert served[0].cache_write_tokens > 0
    assert served[1].cached_tokens > 0
    for ledger in books.ledgers:
        assert billed(ledger.totals()) == bill_of(served)
        assert ledger.totals().cost == price(served, "anthropic")


def test_anthropic_tiers_of_the_door() -> None:
    ledger = Ledger()
    with FakeProvider(keep_alive=False) as provider:
        model = ChatAnthropic(model="claude-haiku-4-5", base_url=provider.root_url, api_key="any", max_retries=0)
        aware_model = CostAwareChatModel(model, ledger=ledger, cache=True)
        config = {"callbacks": [CostCallbackHandler(ledger=ledger)]}
        aware_model.invoke(PROMPTS[0], config)
        list(aware_model.stream(PROMPTS[1], config))
        aware_model.invoke(PROMPTS[0], config)
        served = provider.served

    assert billed(ledger.totals()) == bill_of(served)
    assert ledger.totals().cost == price(served, "anthropic")
    assert ledger.totals().cache_saved == price(served[:1], "anthropic")


# --- models inside models


class Wrapper(BaseChatModel):
    """Calls another model inside its own run, with a child manager made by hand as LangChain offers none."""

    inner: Any
    through_chain: bool = False

    @property
    def _llm_type(self) -> str:
        return "wrapper"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        child = CallbackManager(
            handlers=list(run_manager.inheritable_handlers),
            inheritable_handlers=list(run_manager.inheritable_handlers),
            parent_run_id=run_manager.run_id,
        )
        inner = RunnableLambda(self.inner.invoke) if self.through_chain else self.inner
        answer = inner.invoke(messages, {"callbacks": child})
        return ChatResult(generations=[ChatGeneration(message=answer)])


@pytest.mark.parametrize("through_chain", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", BOOKS)
def test_nested_models_are_billed_once(kind: str, depth: int, through_chain: bool) -> None:
    books = Books(kind)
    with FakeProvider(keep_alive=False) as provider:
        model: BaseChatModel = openai(provider)
        for _ in range(depth):
            model = Wrapper(inner=model, through_chain=through_chain)
        books.watch(lambda config: model.invoke(PROMPTS[0], config))
        served = provider.served

    assert len(served) == 1
    for ledger in books.ledgers:
        assert billed(ledger.totals()) == bill_of(served)
        assert ledger.totals().cost == price(served)
        assert ledger.totals().requests == 1


def test_a_failing_inner_model_is_one_failed_call() -> None:
    books = Books("both")
    with FakeProvider(keep_alive=False) as provider:
        model = Wrapper(inner=openai(provider))
        provider.fail()

        def ask(config: dict[str, Any]) -> None:
            with pytest.raises(Exception, match="500"):
                model.invoke(PROMPTS[0], config)

        books.watch(ask)

    for ledger in books.ledgers:
        totals = ledger.totals()
        assert (totals.calls, totals.failed, totals.paid, totals.cost) == (1, 1, 0, 0)


def test_a_door_inside_a_chain_and_a_fallback() -> None:
    """The door's own runs lie between the reader's chain and the models', and change nothing."""
    ledger = Ledger()
    with FakeProvider(keep_alive=False) as provider:
        model = CostAwareChatModel(tiers=[openai(provider), openai(provider, STRONG)], ledger=ledger)
        chain = RunnableLambda(lambda text: text.upper()) | model.with_fallbacks([openai(provider)])
        chain.invoke("hello", {"callbacks": [CostCallbackHandler(ledger=ledger)]})
        list(chain.stream("hello", {"callbacks": [CostCallbackHandler(ledger=ledger)]}))
        served = provider.served

    assert billed(ledger.totals()) == bill_of(served)
    assert ledger.totals().requests == 2


@pytest.mark.parametrize("way", ["generate", "agenerate"])
def test_the_door_s_bare_generate_is_billed_once(way: str) -> None:
    books = Books("both")
    with FakeProvider(keep_alive=False) as provider:
        model = aware(provider, books, cache=True)

        def ask(config: dict[str, Any]) -> None:
            if way == "generate":
                model.generate(PROMPTS[:2], **config)
            else:
                asyncio.run(model.agenerate(PROMPTS[:2], **config))

        books.watch(ask)
        served = provider.served

    assert len(served) == 2
    for ledger in books.ledgers:
        assert billed(ledger.totals()) == bill_of(served)
        assert ledger.totals().requests == 2


@pytest.mark.parametrize("cached", [True, False])
def test_langchain_s_cache_under_the_door(cached: bool) -> None:
    """Without a cache of its own the door's tiers ask LangChain's, whose hits are free as well."""
    ledger = Ledger()
    set_llm_cache(InMemoryCache() if cached else SemanticCache(ledger=ledger))
    with FakeProvider(keep_alive=False) as provider:
        model = CostAwareChatModel(openai(provider), ledger=ledger)
        config = {"callbacks": [CostCallbackHandler(ledger=ledger)]}
        model.invoke(PROMPTS[0], config)
        model.invoke(PROMPTS[0], config)
        served = provider.served

    totals = ledger.totals()
    assert len(served) == 1
    assert billed(totals) == bill_of(served)
    assert (totals.requests, totals.hits, totals.cache_saved) == (2, 1, price(served))


# --- agents, and whose bill it is


def opening_hours(city: str) -> str:
    """Return the opening hours of the shop in a city."""
    return f"In {city} from 9 to 5."


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize("aware_model", [False, True])
def test_an_agent_with_a_tool(way: str, aware_model: bool) -> None:
    ledger, seen = Ledger(), Seen()
    with FakeProvider(keep_alive=False) as provider:
        model = CostAwareChatModel(openai(provider), ledger=ledger) if aware_model else openai(provider)
        agent = create_agent(model, [opening_hours])
        handler = CostCallbackHandler(ledger=ledger)
        config = {"callbacks": [handler, seen], "metadata": {"tenant": "acme", "user": "u7"}, "tags": ["desk"]}
        question = {"messages": [("user", "When is the shop in Rome open?")]}
        if way == "invoke":
            agent.invoke(question, config)
        elif way == "ainvoke":
            asyncio.run(agent.ainvoke(question, config))
        else:
            list(agent.stream(question, config, stream_mode="messages"))
        served = provider.served

    assert len(served) == 2
    assert billed(ledger.totals()) == bill_of(served)
    assert ledger.totals().cost == price(served)
    assert ledger.summary().by_tenant["acme"].cost == price(served)
    assert ledger.summary().by_user["u7"].paid == 2
    assert all("desk" in row["tags"] for row in ledger.to_records())
    assert seen.nodes == ["model", "model"]


class Seen(CostCallbackHandler):
    """Notes which graph nodes the model calls come from, as the metadata tells a handler."""

    def __init__(self) -> None:
        super().__init__(ledger=Ledger())
        self.nodes: list[str] = []

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.nodes.append(kwargs["metadata"]["langgraph_node"])
        super().on_chat_model_start(serialized, messages, **kwargs)


@pytest.mark.parametrize("given", ["metadata", "scope", "both"])
@pytest.mark.parametrize("build", [plain, door])
@pytest.mark.parametrize("mode", ALL)
def test_the_bill_goes_to_the_tenant(build: Build, mode: str, given: str) -> None:
    books = Books("both")
    with FakeProvider(keep_alive=False) as provider:
        model = build(provider, books)

        def ask(config: dict[str, Any]) -> None:
            metadata = {} if given == "scope" else {"metadata": {"tenant": "acme", "user": "u7"}}
            name = {"scope": "acme", "both": "overlaid", "metadata": None}[given]
            with scope(tenant=name, user="u7"):
                run(mode, model, {**config, **metadata})

        books.watch(ask)
        served = provider.served

    for ledger in books.ledgers:
        summary = ledger.summary()
        assert set(summary.by_tenant) == {"acme"}
        assert summary.by_tenant["acme"].cost == price(served)
        assert billed(summary.by_user["u7"]) == bill_of(served)


def test_a_router_with_named_tiers_keeps_them_apart() -> None:
    ledger = Ledger()
    with FakeProvider(unsure_if_weak, keep_alive=False) as provider:
        tiers = [Tier("small", openai(provider)), Tier("large", openai(provider, STRONG))]
        model = CostAwareChatModel(router=Router(tiers), ledger=ledger)
        model.invoke(PROMPTS[0], {"callbacks": [CostCallbackHandler(ledger=ledger)]})
        by_tier = {tier: billed(sums) for tier, sums in ledger.summary().by_tier.items()}
        served = provider.served

    assert by_tier == {"small": bill_of(served[:1]), "large": bill_of(served[1:])}
