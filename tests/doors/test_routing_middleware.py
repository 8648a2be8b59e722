"""Routing inside agents: wishes, tools, structured output, streams, checkpoints and bills of `CostAwareMiddleware`."""

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, wrap_model_call
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_anthropic import ChatAnthropic
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_core.tracers.context import collect_runs
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from pydantic import BaseModel

from llmcost_plugins import Deployment, Ledger, Router, Tier, scope
from llmcost_plugins.errors import ConfigurationError, NoEligibleTier
from llmcost_plugins.langchain import ChatClassifier, CostAwareChatModel, CostAwareMiddleware, CostCallbackHandler
from llmcost_plugins.testing import FakeProvider
from llmcost_plugins.testing.generation import default_answer
from llmcost_plugins.testing.records import Limits

SMALL, LARGE, CLAUDE = "gpt-5.4-mini", "gpt-5.4", "claude-sonnet-4-6"
ASKED = "When do you open?"
HARD = "There is smoke coming from the lamp, what do I do?"


def openai(provider: FakeProvider, model: str = SMALL, **given: Any) -> ChatOpenAI:
    return ChatOpenAI(model=model, **{"base_url": provider.url, "api_key": "any", "stream_usage": True, **given})


def anthropic(provider: FakeProvider, model: str = CLAUDE, **given: Any) -> ChatAnthropic:
    return ChatAnthropic(model=model, **{"base_url": provider.root_url, "api_key": "any", **given})


def mixed(provider: FakeProvider, **given: Any) -> list[Tier]:
    """Return two tiers; `given` holds settings of the strong one."""
    return [Tier("small", openai(provider)), Tier("large", anthropic(provider), **given)]


def unsure_if_small(model: str, messages: list[dict[str, Any]]) -> str:
    return "I'm not sure." if model == SMALL else default_answer(model, messages)


@tool
def opening_hours(city: str) -> str:
    """Return the opening hours of the shop in a city."""
    return f"In {city} from 9 to 5."


class Hours(BaseModel):
    """When a shop is open."""

    opens: int
    closes: int


def agent_of(provider: FakeProvider, tools: Any = (), *, door: str = "middleware", **given: Any) -> Any:
    """Return an agent that routes, by the middleware or by the model that it is given."""
    agent = {name: given.pop(name) for name in ("checkpointer", "response_format") if name in given}
    if door == "model":
        return create_agent(CostAwareChatModel(**given), list(tools), **agent)
    return create_agent(openai(provider, "gpt-4.1"), list(tools), middleware=[CostAwareMiddleware(**given)], **agent)


def run(agent: Any, way: str = "invoke", asked: str = ASKED, config: Any = None) -> list[Any]:
    """Run an agent and return its answers."""
    given = {"messages": [("user", asked)]}
    state = asyncio.run(agent.ainvoke(given, config)) if way == "ainvoke" else agent.invoke(given, config)
    return [message for message in state["messages"] if isinstance(message, AIMessage)]


def shown(agent: Any, way: str, asked: str = ASKED, config: Any = None) -> list[Any]:
    """Return what an agent streams as messages of its model."""
    given = {"messages": [("user", asked)]}

    async def astream() -> list[Any]:
        return [part async for part in agent.astream(given, config, stream_mode="messages")]

    parts = asyncio.run(astream()) if way == "astream" else agent.stream(given, config, stream_mode="messages")
    return [message for message, about in parts if about["langgraph_node"] == "model"]


def routing(message: AIMessage) -> dict[str, Any]:
    return message.response_metadata["routing"]


def wish(**wishes: Any) -> Any:
    return {"configurable": wishes}


def asked_of(provider: FakeProvider) -> list[str]:
    return [one.model for one in provider.served]


def by_turn(*difficulties: float) -> Callable[..., float]:
    given = iter(difficulties)
    return lambda request: next(given)


@pytest.fixture(scope="module")
def providers() -> Iterator[list[FakeProvider]]:
    """Two that stay: clients are made once for each URL, and that takes longer than most tests."""
    with FakeProvider(keep_alive=False) as sure, FakeProvider(unsure_if_small, keep_alive=False) as unsure:
        yield [sure, unsure]


@pytest.fixture
def fake_provider(providers: list[FakeProvider]) -> FakeProvider:
    providers[0].wait_idle()
    providers[0].reset()
    return providers[0]


@pytest.fixture
def unsure(providers: list[FakeProvider]) -> FakeProvider:
    providers[1].wait_idle()
    providers[1].reset()
    return providers[1]


@pytest.mark.parametrize("door", ["middleware", "model"])
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize(
    ("wishes", "models"),
    [
        ({}, [SMALL]),
        ({"threshold": 0.0}, [CLAUDE]),
        ({"tier": "large"}, [CLAUDE]),
        ({"force_model": CLAUDE}, [CLAUDE]),
        ({"budget": "0.01"}, [SMALL]),
        ({"user_tier": "pro", "threshold": 0.0}, [CLAUDE]),
    ],
)
def test_wishes_reach_the_router_inside_an_agent(
    fake_provider: FakeProvider, door: str, way: str, wishes: dict[str, Any], models: list[str]
) -> None:
    pro = {"user_tiers": {"pro"}} if "user_tier" in wishes else {}
    agent = agent_of(fake_provider, door=door, tiers=mixed(fake_provider, **pro))
    (answer,) = run(agent, way, config=wish(thread_id="t", **wishes))
    assert asked_of(fake_provider) == models
    assert answer.response_metadata["model_name"].startswith(models[0])


def test_an_agent_with_config_has_its_wishes(fake_provider: FakeProvider) -> None:
    agent = agent_of(fake_provider, tiers=mixed(fake_provider)).with_config(wish(force_model="large"))
    assert routing(run(agent)[0])["reason"] == "forced"


def test_a_wish_that_cannot_be_met_names_the_remedy(fake_provider: FakeProvider) -> None:
    agent = agent_of(fake_provider, tiers=mixed(fake_provider))
    with pytest.raises(ConfigurationError, match="small, large"):
        run(agent, config=wish(tier="medium"))
    assert fake_provider.served == []


def test_answers_to_one_wish_are_never_given_to_another_inside_an_agent(fake_provider: FakeProvider) -> None:
    agent = agent_of(fake_provider, tiers=mixed(fake_provider, user_tiers={"pro"}), cache=True)
    configs = [None, wish(user_tier="pro"), wish(force_model="small"), wish(threshold=0.3)]
    found = [run(agent, config=config)[0].response_metadata.get("llmcost") for config in (*configs, *configs)]
    assert [hit is None for hit in found] == [True] * 4 + [False] * 4


def test_a_user_s_tier_is_taken_from_the_scope(fake_provider: FakeProvider) -> None:
    agent = agent_of(fake_provider, tiers=mixed(fake_provider, user_tiers={"pro"}))
    with scope(user_tier="pro"):
        assert routing(run(agent, asked=HARD)[0])["tier"] == "large"
    assert routing(run(agent, asked=HARD)[0])["tier"] == "small"


@pytest.mark.parametrize("door", ["middleware", "model"])
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_the_tier_that_called_tools_gets_their_results(fake_provider: FakeProvider, door: str, way: str) -> None:
    router = Router(mixed(fake_provider), scorer=by_turn(0.9, 0.0, 0.0, 0.0))
    agent = agent_of(fake_provider, [opening_hours], door=door, router=router, checkpointer=InMemorySaver())
    first, second = run(agent, way, config=wish(thread_id="t"))
    assert first.tool_calls
    assert asked_of(fake_provider) == [CLAUDE, CLAUDE]
    assert routing(second)["reason"] == "its tools are under way"


def test_threads_do_not_hold_each_other_s_tiers(fake_provider: FakeProvider) -> None:
    router = Router(mixed(fake_provider), scorer=by_turn(0.9, 0.0, 0.0, 0.0))
    agent = agent_of(fake_provider, [opening_hours], router=router, checkpointer=InMemorySaver())
    run(agent, config=wish(thread_id="one"))
    run(agent, config=wish(thread_id="two"))
    assert asked_of(fake_provider) == [CLAUDE, CLAUDE, SMALL, SMALL]


def test_tools_of_one_provider_s_call_are_read_by_the_other(fake_provider: FakeProvider) -> None:
    """A failure amid a tool loop moves the whole loop to another provider."""

    @wrap_model_call
    def fail_second(request: ModelRequest, handler: Callable[[ModelRequest], Any]) -> Any:
        if len(request.messages) > 1:
            fake_provider.fail(model=SMALL, status=503)
        return handler(request)

    middleware = [fail_second, CostAwareMiddleware(tiers=mixed(fake_provider))]
    agent = create_agent(openai(fake_provider), [opening_hours], middleware=middleware)
    answers = run(agent)
    assert asked_of(fake_provider) == [SMALL, SMALL, CLAUDE]
    assert answers[-1].text == fake_provider.served[-1].answer


def test_tools_leave_out_tiers_without_them(fake_provider: FakeProvider) -> None:
    small = Tier("small", openai(fake_provider), tools=False)
    agent = agent_of(fake_provider, [opening_hours], tiers=[small, mixed(fake_provider)[1]])
    assert [routing(answer)["candidates"][0]["refused"] for answer in run(agent)] == ["takes no tools"] * 2
    with pytest.raises(NoEligibleTier, match="small: takes no tools"):
        run(agent_of(fake_provider, [opening_hours], tiers=[small]))


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize("door", ["middleware", "model"])
@pytest.mark.parametrize("form", [Hours, ToolStrategy(Hours), ProviderStrategy(Hours)])
@pytest.mark.parametrize("tier", ["small", "large"])
def test_structured_output_over_two_providers(
    fake_provider: FakeProvider, way: str, door: str, form: Any, tier: str
) -> None:
    agent = agent_of(fake_provider, door=door, tiers=mixed(fake_provider), response_format=form)
    given = {"messages": [("user", "Tell me about shop 7.")]}
    config = wish(force_model=tier)
    state = asyncio.run(agent.ainvoke(given, config)) if way == "ainvoke" else agent.invoke(given, config)
    assert isinstance(state["structured_response"], Hours)
    assert asked_of(fake_provider) == [SMALL if tier == "small" else CLAUDE]


def test_a_schema_leaves_out_tiers_without_them(fake_provider: FakeProvider) -> None:
    small = Tier("small", openai(fake_provider), json_schema=False)
    form = ProviderStrategy(Hours)
    agent = agent_of(fake_provider, tiers=[small, mixed(fake_provider)[1]], response_format=form)
    assert routing(run(agent)[0])["candidates"][0]["refused"] == "takes no JSON schemas"


# --- streams


@pytest.mark.parametrize("door", ["middleware", "model"])
@pytest.mark.parametrize("way", ["stream", "astream"])
@pytest.mark.parametrize("tier", ["small", "large"])
def test_messages_are_streamed_once(fake_provider: FakeProvider, door: str, way: str, tier: str) -> None:
    saver = InMemorySaver()
    agent = agent_of(fake_provider, door=door, tiers=mixed(fake_provider), checkpointer=saver)
    config = wish(thread_id="t", force_model=tier)
    told = shown(agent, way, config=config)
    assert "".join(message.text for message in told) == fake_provider.served[0].answer
    assert len({message.id for message in told}) == 1
    kept = agent.get_state(config).values["messages"][-1]
    assert kept.id == told[0].id
    assert routing(kept)["tier"] == tier


@pytest.mark.parametrize("way", ["stream", "astream"])
def test_a_draft_is_not_streamed(unsure: FakeProvider, way: str) -> None:
    told = shown(agent_of(unsure, tiers=mixed(unsure)), way, asked="Why?")
    assert asked_of(unsure) == [SMALL, CLAUDE]
    assert "".join(message.text for message in told) == unsure.served[1].answer


# --- what is kept


def test_a_checkpoint_keeps_how_an_answer_came_about(unsure: FakeProvider) -> None:
    saver = InMemorySaver(serde=JsonPlusSerializer(pickle_fallback=False))
    agent = agent_of(unsure, tiers=mixed(unsure), checkpointer=saver)
    (answer,) = run(agent, asked="Why?", config=wish(thread_id="t"))
    kept = agent.get_state(wish(thread_id="t")).values["messages"][-1]
    assert routing(kept) == routing(answer)
    assert json.loads(json.dumps(routing(kept))) == routing(answer)
    run(agent, asked="And then?", config=wish(thread_id="t"))
    assert all("routing" not in json.dumps(dict(one.request)) for one in unsure.served)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_all_books_agree_with_the_provider(unsure: FakeProvider, way: str) -> None:
    ledger, own, usage = Ledger(), Ledger(), UsageMetadataCallbackHandler()
    agent = agent_of(unsure, [opening_hours], tiers=mixed(unsure), ledger=ledger)
    unsure.fail(model=SMALL, status=503)
    run(agent, way, config={"callbacks": [usage, CostCallbackHandler(ledger=own)]})
    billed = unsure.billed()
    assert billed.requests >= 2
    for totals in (ledger.totals(), own.totals()):
        assert (totals.input_tokens, totals.output_tokens) == (billed.input_tokens, billed.output_tokens)
    assert sum(one["input_tokens"] for one in usage.usage_metadata.values()) == billed.input_tokens


def test_feedback_by_the_run_of_the_model_inside_an_agent(fake_provider: FakeProvider) -> None:
    middleware = CostAwareMiddleware(tiers=mixed(fake_provider))
    agent = create_agent(openai(fake_provider), [], middleware=[middleware])
    with collect_runs() as runs:
        run(agent)

    def named(run_: Any) -> Iterator[Any]:
        yield from [run_] if run_.name == "CostAwareChatModel" else []
        for child in run_.child_runs:
            yield from named(child)

    (found,) = named(runs.traced_runs[0])
    assert middleware.router is not None
    assert middleware.router.feedback(str(found.id), good=True)


# --- deployments, judges, limits


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
def test_a_rate_limit_of_one_deployment_fails_no_turn(fake_provider: FakeProvider, way: str) -> None:
    with FakeProvider(limits=Limits(requests_per_minute=1), keep_alive=False) as limited:
        deployments = [Deployment(openai(limited), "limited", weight=1e6), openai(fake_provider)]
        agent = agent_of(fake_provider, [opening_hours], tiers=[Tier("small", deployments=deployments)])
        for number in range(3):
            assert run(agent, way, f"{ASKED} {number}")[-1].text
        assert (limited.calls, fake_provider.calls) == (1, 5)


def test_a_classifier_inside_an_agent_is_neither_heard_nor_kept() -> None:
    def answer(model: str, messages: list[dict[str, Any]]) -> str:
        return "8" if model == "gpt-4.1-nano" else default_answer(model, messages)

    with FakeProvider(answer, keep_alive=False) as provider:
        judge: BaseChatModel = openai(provider, "gpt-4.1-nano")
        router = Router(mixed(provider), scorer=ChatClassifier(judge))
        agent = agent_of(provider, router=router, checkpointer=InMemorySaver())
        told = shown(agent, "stream", config=wish(thread_id="t"))
        assert asked_of(provider) == ["gpt-4.1-nano", CLAUDE]
        assert "".join(message.text for message in told) == provider.served[1].answer
        assert len(agent.get_state(wish(thread_id="t")).values["messages"]) == 2
