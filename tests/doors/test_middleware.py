"""`CostAwareMiddleware`: an agent's model calls through cache, tiers and ledger, and its thread left whole."""

import asyncio
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, get_type_hints

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, wrap_model_call
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

import llmcost_plugins.langchain
from llmcost_plugins import Cache, Ledger, Router, Tier, scope, track
from llmcost_plugins.errors import ConfigurationError, NoTierAnswered
from llmcost_plugins.langchain import CostAwareChatModel, CostAwareMiddleware, SemanticCache
from llmcost_plugins.testing import FakeProvider
from llmcost_plugins.testing.generation import default_answer

WEAK, STRONG = "gpt-5.4-mini", "gpt-5.4"
ASKED = "When do you open?"


def openai(provider: FakeProvider, model: str = WEAK, **given: Any) -> ChatOpenAI:
    settings = {"base_url": provider.url, "api_key": "any", "max_retries": 0, "stream_usage": True, **given}
    return ChatOpenAI(model=model, **settings)


def tiers(provider: FakeProvider) -> list[ChatOpenAI]:
    return [openai(provider, WEAK), openai(provider, STRONG)]


@tool
def opening_hours(city: str) -> str:
    """Return the opening hours of the shop in a city."""
    return f"In {city} from 9 to 5."


class Hours(BaseModel):
    """When a shop is open."""

    opens: int
    closes: int


def unsure_if_weak(model: str, messages: list[dict[str, Any]]) -> str:
    return "I'm not sure." if model == WEAK else default_answer(model, messages)


def thread(name: str) -> Any:
    return {"configurable": {"thread_id": name}}


def run(agent: Any, way: str, asked: str = ASKED, config: Any = None) -> list[Any]:
    """Run an agent and return the messages of its state."""
    given = {"messages": [("user", asked)]}
    state = asyncio.run(agent.ainvoke(given, config)) if way == "ainvoke" else agent.invoke(given, config)
    return state["messages"]


def shown(agent: Any, way: str, config: Any = None, asked: str = ASKED) -> list[Any]:
    """Return what an agent streams as messages."""
    given = {"messages": [("user", asked)]}

    async def astream() -> list[Any]:
        return [part async for part in agent.astream(given, config, stream_mode="messages")]

    parts = asyncio.run(astream()) if way == "astream" else agent.stream(given, config, stream_mode="messages")
    return [message for message, about in parts if about["langgraph_node"] == "model"]


def hits(messages: list[Any]) -> list[str | None]:
    return [m.response_metadata.get("llmcost", {}).get("cache") for m in messages if isinstance(m, AIMessage)]


# --- the cache in an agent


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("many", [False, True])
def test_a_second_thread_is_answered_from_the_cache(fake_provider: FakeProvider, way: str, many: bool) -> None:
    ledger = Ledger()
    middleware = CostAwareMiddleware(tiers=tiers(fake_provider) if many else None, cache=True, ledger=ledger)
    agent = create_agent(openai(fake_provider), [opening_hours], middleware=[middleware])
    first, second = run(agent, way), run(agent, way)
    assert [message.text for message in first] == [message.text for message in second]
    assert (hits(first), hits(second)) == ([None, None], ["exact", "exact"])
    totals, billed = ledger.totals(), fake_provider.billed()
    assert (totals.requests, totals.paid, totals.hits, billed.requests) == (4, 2, 2, 2)
    assert (totals.input_tokens, totals.output_tokens) == (billed.input_tokens, billed.output_tokens)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_checkpointed_thread_keeps_every_turn(fake_provider: FakeProvider, way: str) -> None:
    """A message with an id that is known would take the earlier one's place."""
    middleware, saver = CostAwareMiddleware(cache=True), InMemorySaver()
    agent = create_agent(openai(fake_provider), [opening_hours], middleware=[middleware], checkpointer=saver)
    before: list[Any] = []
    for turn in range(1, 4):
        run(agent, way, config=thread("other"))
        messages = run(agent, way, config=thread("one"))
        assert [message.type for message in messages] == ["human", "ai", "tool", "ai"] * turn
        assert messages[: len(before)] == before
        assert len({message.id for message in messages}) == len(messages)
        before = messages
    assert hits(before) == ["exact"] * 6
    assert fake_provider.calls == 6
    calls = [call["id"] for message in before if isinstance(message, AIMessage) for call in message.tool_calls]
    results = [message.tool_call_id for message in before if isinstance(message, ToolMessage)]
    assert len(set(calls)) == 3
    assert calls == results


def without_history(provider: FakeProvider, **given: Any) -> Any:
    """Return a checkpointed agent whose model sees each question alone, so that a thread's turns are hits."""

    @wrap_model_call
    def alone(request: ModelRequest, handler: Callable[[ModelRequest], Any]) -> Any:
        return handler(request.override(messages=request.messages[-1:]))

    middleware = [alone, CostAwareMiddleware(cache=True)]
    return create_agent(openai(provider), [], middleware=middleware, checkpointer=InMemorySaver(), **given)


@pytest.mark.parametrize("given", [{}, {"name": "helper"}])
def test_a_hit_within_a_thread_is_a_message_of_its_own(fake_provider: FakeProvider, given: dict[str, Any]) -> None:
    agent = without_history(fake_provider, **given)
    for turn in range(1, 4):
        messages = run(agent, "invoke", "Which colours does the sofa come in?", thread("one"))
        assert [message.type for message in messages] == ["human", "ai"] * turn
        assert len({message.id for message in messages}) == 2 * turn
        assert len({message.text for message in messages if message.type == "ai"}) == 1
    assert hits(messages) == [None, "exact", "exact"]
    assert fake_provider.calls == 1


def test_a_hit_within_a_thread_is_streamed(fake_provider: FakeProvider) -> None:
    agent = without_history(fake_provider)
    told = [shown(agent, "stream", thread("one"), "Which colours does the sofa come in?") for _ in range(3)]
    texts = ["".join(message.text for message in messages) for messages in told]
    assert texts == [fake_provider.served[0].answer] * 3
    assert len(told[0]) > 5
    assert len({message.id for messages in told for message in messages}) == 3
    assert fake_provider.calls == 1


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_messages_are_streamed_once_and_hits_too(fake_provider: FakeProvider, way: str) -> None:
    middleware = [CostAwareMiddleware(cache=True)]
    agent = create_agent(openai(fake_provider), [opening_hours], middleware=middleware, checkpointer=InMemorySaver())
    cold, warm = (shown(agent, way, thread(name)) for name in ("one", "two"))
    answer = fake_provider.served[-1].answer
    for messages in (cold, warm):
        assert "".join(message.text for message in messages) == answer
    assert len(cold) > 5
    assert len(warm) == 2
    assert warm[0].tool_calls
    assert not {message.id for message in cold} & {message.id for message in warm}
    assert fake_provider.calls == 2


def test_tool_calls_are_given_again_to_the_same_words_only(fake_provider: FakeProvider) -> None:
    agent = create_agent(openai(fake_provider), [opening_hours], middleware=[CostAwareMiddleware(cache=True)])
    assert hits(run(agent, "invoke"))[0] is None
    assert hits(run(agent, "invoke", "when do you open"))[0] is None
    assert fake_provider.calls == 4
    assert hits(run(agent, "invoke", "when do you open"))[0] == "exact"


def test_answers_in_other_forms_are_given_again(fake_provider: FakeProvider) -> None:
    agent = create_agent(openai(fake_provider), [], middleware=[CostAwareMiddleware(cache=True)])
    found = [hits(run(agent, "invoke", asked))[0] for asked in ("Is the sofa blue?", "is the sofa blue")]
    assert found == [None, "normalised"]


def test_what_differs_is_asked_anew(fake_provider: FakeProvider) -> None:
    shared = CostAwareMiddleware(cache=True)
    model = openai(fake_provider)
    made = [
        create_agent(model, [], middleware=[shared]),
        create_agent(model, [opening_hours], middleware=[shared]),
        create_agent(model, [], middleware=[shared], system_prompt="Be brief."),
        create_agent(openai(fake_provider, STRONG), [], middleware=[shared]),
        create_agent(openai(fake_provider, "gpt-4.1", temperature=0.4), [], middleware=[shared]),
        create_agent(model, [], middleware=[shared], response_format=ToolStrategy(Hours)),
        create_agent(model, [], middleware=[shared], response_format=ProviderStrategy(Hours)),
    ]
    assert [hits(run(agent, "invoke"))[0] for agent in made] == [None] * len(made)
    assert [hits(run(agent, "invoke"))[0] for agent in made] == ["exact"] * len(made)


def test_tenants_are_kept_apart(fake_provider: FakeProvider) -> None:
    agent = create_agent(openai(fake_provider), [], middleware=[CostAwareMiddleware(cache=True)])

    def by_scope(tenant: str) -> str | None:
        with scope(tenant=tenant):
            return hits(run(agent, "invoke"))[0]

    def by_metadata(tenant: str) -> str | None:
        return hits(run(agent, "invoke", config={"metadata": {"tenant": tenant}}))[0]

    assert [by_scope(tenant) for tenant in "ABA"] == [None, None, "exact"]
    assert [by_metadata(tenant) for tenant in "ABC"] == ["exact", "exact", None]


def test_identical_misses_are_one_call(fake_provider: FakeProvider) -> None:
    agent = create_agent(openai(fake_provider), [], middleware=[CostAwareMiddleware(cache=True)])

    async def gather() -> list[Any]:
        return await asyncio.gather(*(agent.ainvoke({"messages": [("user", ASKED)]}) for _ in range(64)))

    states = asyncio.run(gather())
    assert fake_provider.calls == 1
    assert len({state["messages"][-1].id for state in states}) == 64
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: run(agent, "invoke", "Where are you?"), range(16)))
    assert fake_provider.calls == 2


def test_an_error_leaves_the_turn(fake_provider: FakeProvider) -> None:
    cache = Cache()
    agent = create_agent(openai(fake_provider), [], middleware=[CostAwareMiddleware(cache=cache)])
    fake_provider.fail(times=3)
    with pytest.raises(Exception, match="500"):
        run(agent, "invoke")
    assert cache.turns_held == 0
    assert hits(run(agent, "invoke")) == [None]


def test_a_reader_who_leaves_holds_nothing(fake_provider: FakeProvider) -> None:
    cache = Cache()
    agent = create_agent(openai(fake_provider), [], middleware=[CostAwareMiddleware(cache=cache)])
    with closing(agent.stream({"messages": [("user", ASKED)]}, stream_mode="messages")) as parts:
        next(parts)
    assert cache.turns_held == 0


# --- tiers in an agent


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_the_tiers_take_the_place_of_the_agent_s_model(way: str) -> None:
    ledger = Ledger()
    with FakeProvider(unsure_if_weak, keep_alive=False) as provider:
        middleware = CostAwareMiddleware(tiers=tiers(provider), ledger=ledger)
        messages = run(create_agent(openai(provider, "gpt-4.1"), [], middleware=[middleware]), way, "Why?")
        assert [one.model for one in provider.served] == [WEAK, STRONG]
        assert messages[-1].text == provider.served[1].answer
    assert ledger.totals().escalations == 1


def test_a_router_with_tiers(fake_provider: FakeProvider) -> None:
    router = Router([Tier(name, openai(fake_provider, name)) for name in (WEAK, STRONG)], escalate=False)
    run(create_agent(openai(fake_provider, "gpt-4.1"), [], middleware=[CostAwareMiddleware(router=router)]), "invoke")
    assert [one.model for one in fake_provider.served] == [WEAK]


def test_every_tier_failed(fake_provider: FakeProvider) -> None:
    agent = create_agent(openai(fake_provider), [], middleware=[CostAwareMiddleware(tiers=tiers(fake_provider))])
    fake_provider.fail(times=9)
    with pytest.raises(NoTierAnswered):
        run(agent, "invoke")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("form", [Hours, ToolStrategy(Hours), ProviderStrategy(Hours)])
@pytest.mark.parametrize("many", [False, True])
def test_structured_output(fake_provider: FakeProvider, way: str, form: Any, many: bool) -> None:
    middleware = CostAwareMiddleware(tiers=tiers(fake_provider) if many else None, cache=True)
    agent = create_agent(openai(fake_provider), [], response_format=form, middleware=[middleware])
    given = {"messages": [("user", "Tell me about shop 7.")]}
    states = [asyncio.run(agent.ainvoke(given)) if way == "ainvoke" else agent.invoke(given) for _ in range(2)]
    assert isinstance(states[0]["structured_response"], Hours)
    assert states[0]["structured_response"] == states[1]["structured_response"]
    assert fake_provider.calls == 1


def test_track_and_langchain_count_each_call_once(fake_provider: FakeProvider) -> None:
    handler = UsageMetadataCallbackHandler()
    agent = create_agent(openai(fake_provider), [opening_hours], middleware=[CostAwareMiddleware(cache=True)])
    with track() as costs, scope(tenant="acme", user="u7"):
        for _ in range(2):
            run(agent, "invoke", config={"callbacks": [handler]})
    totals, billed = costs.totals(), fake_provider.billed()
    assert (totals.requests, totals.paid, totals.hits) == (4, 2, 2)
    assert (totals.input_tokens, totals.output_tokens) == (billed.input_tokens, billed.output_tokens)
    assert sum(usage["input_tokens"] for usage in handler.usage_metadata.values()) == billed.input_tokens
    assert {row["tenant"] for row in costs.to_records()} == {"acme"}


# --- beside other middleware


def test_models_that_other_middleware_puts_in_are_wrapped_once_each(fake_provider: FakeProvider) -> None:
    models = [openai(fake_provider, name) for name in (WEAK, STRONG)]
    turn = iter([0, 1, 0, 1])

    @wrap_model_call
    def pick(request: ModelRequest, handler: Callable[[ModelRequest], Any]) -> Any:
        return handler(request.override(model=models[next(turn)]))

    middleware = CostAwareMiddleware(cache=True)
    agent = create_agent(openai(fake_provider, "gpt-4.1"), [], middleware=[pick, middleware])
    assert [hits(run(agent, "invoke"))[0] for _ in range(4)] == [None, None, "exact", "exact"]
    assert len(middleware._wrapped) == 2


def test_models_made_anew_for_each_call_do_not_pile_up(fake_provider: FakeProvider) -> None:
    middleware = CostAwareMiddleware(cache=True)
    for _ in range(100):
        middleware._model_for(openai(fake_provider))
    assert len(middleware._wrapped) <= 32


@pytest.mark.parametrize(("cache", "calls"), [(None, 1), (False, 2)])
def test_langchain_s_own_cache_applies_unless_told_otherwise(
    fake_provider: FakeProvider, cache: Any, calls: int
) -> None:
    set_llm_cache(SemanticCache())
    agent = create_agent(openai(fake_provider), [], middleware=[CostAwareMiddleware(cache=cache)])
    for _ in range(2):
        run(agent, "invoke")
    assert fake_provider.calls == calls


# --- the object itself


def test_settings_that_cannot_work(fake_provider: FakeProvider) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        CostAwareMiddleware(tiers=[])
    with pytest.raises(ConfigurationError, match="cache"):
        CostAwareMiddleware(cache="yes")
    with pytest.raises(ConfigurationError, match="not a LangChain chat model"):
        CostAwareMiddleware(tiers=["gpt-5.4"])
    with pytest.raises(TypeError, match="budget"):
        CostAwareMiddleware(budget="0.50")
    model = openai(fake_provider)
    for unfit in (CostAwareChatModel(model), model.bind(stop=["x"])):
        agent = create_agent(unfit, [], middleware=[CostAwareMiddleware(cache=True)])
        with pytest.raises(ConfigurationError, match="tiers="):
            run(agent, "invoke")


def test_it_is_found_where_it_is_looked_for() -> None:
    assert issubclass(CostAwareMiddleware, AgentMiddleware)
    assert "CostAwareMiddleware" in dir(llmcost_plugins.langchain)
    for member in (CostAwareMiddleware.__init__, CostAwareMiddleware.wrap_model_call):
        assert get_type_hints(member)
    with pytest.raises(AttributeError, match="CostAwareMiddlewear"):
        _ = llmcost_plugins.langchain.CostAwareMiddlewear


def test_without_langchain_s_agents_the_rest_works() -> None:
    code = """
import sys
sys.modules["langchain"] = None
import llmcost_plugins.langchain as door
from llmcost_plugins.langchain import *
from llmcost_plugins.errors import MissingExtra
try:
    door.CostAwareMiddleware
except MissingExtra as error:
    print(error)
"""
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.strip() == '`langchain` is not installed. Run: pip install "llmcost-plugins[agents]"'


def test_importing_the_door_loads_no_agents() -> None:
    code = "import sys, llmcost_plugins.langchain; print('langchain' in sys.modules, 'langgraph' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert told.split() == ["False", "False"]
