"""`CostAwareLLM` as a router of real clients: who is asked, why, what it says of it, and what is billed."""

import asyncio
import copy
import json
import pickle
import socket
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    LLMMetadata,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation.dispatcher import instrument_tags

from llmcost_plugins import Deployment, Ledger, Router, Tier, scope
from llmcost_plugins.errors import ConfigurationError, NoEligibleTier, NoTierAnswered
from llmcost_plugins.llamaindex import CostAwareLLM
from llmcost_plugins.pricing import usd
from llmcost_plugins.routing import RoutingPolicy, Shadow
from llmcost_plugins.testing import FakeProvider
from llmcost_plugins.testing.generation import default_answer
from llmcost_plugins.testing.records import Latency, Limits

pytestmark = [  # what LlamaIndex itself does when it is first used with LangChain beside it, and with agents
    pytest.mark.filterwarnings("ignore:.*langchain-community:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pydantic.warnings.PydanticDeprecationWarning"),
]
SMALL, LARGE = "gpt-5.4-mini", "gpt-5.4"
QUESTION = "Which colours does the sofa come in?"
HARD = "There is smoke coming from the lamp, what do I do?"
WHOLE = ("chat", "achat", "complete", "acomplete")
STREAMS = ("stream_chat", "astream_chat", "stream_complete", "astream_complete")
WAYS = WHOLE + STREAMS


class ClientLLM(FunctionCallingLLM):
    """An integration that keeps its clients and has them retry, as the published ones do."""

    model: str = SMALL
    base_url: str = ""
    api_key: str = "any"
    max_retries: int = 3
    timeout: float = 60.0
    context_window: int = 128_000

    _client: Any = PrivateAttr(default=None)
    _aclient: Any = PrivateAttr(default=None)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            model_name=self.model,
            context_window=self.context_window,
            is_chat_model=True,
            is_function_calling_model=True,
        )

    def _given(self) -> dict[str, Any]:
        names = ("base_url", "api_key", "max_retries", "timeout")
        return {name: getattr(self, name) for name in names}

    def _completions(self) -> Any:
        self._client = self._client or openai.OpenAI(**self._given())
        return self._client.chat.completions

    def _acompletions(self) -> Any:
        self._aclient = self._aclient or openai.AsyncOpenAI(**self._given())
        return self._aclient.chat.completions

    def _body(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> dict[str, Any]:
        return {"model": self.model, "messages": [wire(message) for message in messages], **kwargs}

    def _streamed(self, messages: Sequence[ChatMessage], kwargs: dict[str, Any]) -> dict[str, Any]:
        return {**self._body(messages, kwargs), "stream": True, "stream_options": {"include_usage": True}}

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _response(self._completions().create(**self._body(messages, kwargs)))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _response(await self._acompletions().create(**self._body(messages, kwargs)))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> Generator[ChatResponse, None, None]:
        def gen() -> Generator[ChatResponse, None, None]:
            text = ""
            with self._completions().create(**self._streamed(messages, kwargs)) as chunks:
                for raw in chunks:
                    text += (delta := _delta(raw))
                    yield ChatResponse(message=ChatMessage(text, role="assistant"), delta=delta, raw=raw)

        return gen()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> AsyncGenerator[ChatResponse, None]:
        async def gen() -> AsyncGenerator[ChatResponse, None]:
            text = ""
            async with await self._acompletions().create(**self._streamed(messages, kwargs)) as chunks:
                async for raw in chunks:
                    text += (delta := _delta(raw))
                    yield ChatResponse(message=ChatMessage(text, role="assistant"), delta=delta, raw=raw)

        return gen()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(self.chat([ChatMessage(prompt)], **kwargs))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(await self.achat([ChatMessage(prompt)], **kwargs))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        def gen() -> Generator[CompletionResponse, None, None]:
            for chunk in self.stream_chat([ChatMessage(prompt)], **kwargs):
                yield _completion(chunk)

        return gen()

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        async def gen() -> AsyncGenerator[CompletionResponse, None]:
            async for chunk in await self.astream_chat([ChatMessage(prompt)], **kwargs):
                yield _completion(chunk)

        return gen()

    def _prepare_chat_with_tools(
        self, tools: Sequence[Any], user_msg: Any = None, chat_history: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        for setting in ("verbose", "allow_parallel_tool_calls", "tool_required"):
            kwargs.pop(setting, None)
        asked = [ChatMessage(user_msg)] if isinstance(user_msg, str) else []
        return {
            "messages": [*(chat_history or []), *asked],
            "tools": [tool.metadata.to_openai_tool() for tool in tools],
            **kwargs,
        }


def _response(raw: Any) -> ChatResponse:
    message = raw.choices[0].message
    blocks: list[Any] = [TextBlock(text=message.content or "")]
    blocks += [
        ToolCallBlock(tool_call_id=call.id, tool_name=call.function.name, tool_kwargs=call.function.arguments)
        for call in message.tool_calls or ()
    ]
    return ChatResponse(message=ChatMessage(role="assistant", blocks=blocks), raw=raw)


def _completion(response: ChatResponse) -> CompletionResponse:
    return CompletionResponse(text=response.message.content or "", delta=response.delta, raw=response.raw)


def _delta(raw: Any) -> str:
    return (raw.choices[0].delta if raw.choices else SimpleNamespace(content="")).content or ""


def wire(message: ChatMessage) -> dict[str, Any]:
    body: dict[str, Any] = {"role": message.role.value, "content": message.content or ""}
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if calls:
        body["tool_calls"] = [
            {
                "id": call.tool_call_id,
                "type": "function",
                "function": {"name": call.tool_name, "arguments": call.tool_kwargs},
            }
            for call in calls
        ]
    if "tool_call_id" in message.additional_kwargs:
        body["tool_call_id"] = message.additional_kwargs["tool_call_id"]
    return body


def llm(provider: FakeProvider, model: str = SMALL, **given: Any) -> ClientLLM:
    return ClientLLM(model=model, **{"base_url": provider.url, **given})


def named(provider: FakeProvider, **given: Any) -> list[Tier]:
    """Return two tiers, which name their provider as the module of a published integration would."""
    small = Tier("small", llm(provider), provider="openai", **given)
    return [small, Tier("large", llm(provider, LARGE), provider="openai")]


def unsure_if_small(model: str, messages: list[dict[str, Any]]) -> str:
    return "I'm not sure." if model == SMALL else default_answer(model, messages)


def easy(request: Any) -> float:
    return 0.0


def ask(way: str, model: Any, question: str = QUESTION, **tags: Any) -> Any:
    """Ask in one of the eight ways, with instrument tags; of a stream return the last chunk."""
    with instrument_tags(tags):
        if way.startswith("a"):
            return asyncio.run(aask(way, model, question))
        given: Any = question if "complete" in way else [ChatMessage(question)]
        answer = getattr(model, way)(given)
        return list(answer)[-1] if way in STREAMS else answer


async def aask(way: str, model: Any, question: str = QUESTION) -> Any:
    given: Any = question if "complete" in way else [ChatMessage(question)]
    answer = await getattr(model, way)(given)
    return [chunk async for chunk in answer][-1] if way in STREAMS else answer


def text_of(answer: Any) -> str:
    return answer.text if isinstance(answer, CompletionResponse) else answer.message.content


def routing(answer: Any) -> dict[str, Any]:
    return answer.additional_kwargs["routing"]


def hit_of(answer: Any) -> str | None:
    return answer.additional_kwargs.get("llmcost", {}).get("cache")


def asked_of(provider: FakeProvider) -> list[str]:
    return [one.model for one in provider.served]


@pytest.fixture
def unsure() -> Iterator[FakeProvider]:
    with FakeProvider(unsure_if_small, keep_alive=False) as provider:
        yield provider


@pytest.fixture
def closed_port() -> Iterator[str]:
    """A URL at which nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}/v1"


# --- what an answer says of its way


@pytest.mark.parametrize("way", WHOLE)
def test_an_answer_says_how_it_came_about(unsure: FakeProvider, way: str) -> None:
    ledger = Ledger()
    answer = ask(way, CostAwareLLM(tiers=named(unsure), ledger=ledger))
    said = routing(answer)
    assert (said["tier"], said["difficulty"]) == ("large", 0.0)
    assert said["candidates"] == [{"tier": "small", "refused": None}, {"tier": "large", "refused": None}]
    outcomes = [attempt["outcome"] for attempt in said["attempts"]]
    assert outcomes == ["escalated: the answer says that it does not know", "answered"]
    assert said["cost"] == pytest.approx(float(usd(ledger.totals().cost)))
    assert json.loads(json.dumps(said)) == said
    assert json.loads(answer.model_dump_json(exclude={"raw"}))["additional_kwargs"]["routing"] == said


@pytest.mark.parametrize("way", WAYS)
def test_a_single_plain_llm_has_nothing_to_say(fake_provider: FakeProvider, way: str) -> None:
    assert "routing" not in ask(way, CostAwareLLM(llm(fake_provider))).additional_kwargs


@pytest.mark.parametrize("way", WHOLE)
def test_a_hit_was_not_routed(fake_provider: FakeProvider, way: str) -> None:
    model = CostAwareLLM(tiers=named(fake_provider), cache=True)
    first, second = ask(way, model), ask(way, model)
    assert "routing" in first.additional_kwargs
    assert (hit_of(second), "routing" in second.additional_kwargs) == ("exact", False)


# --- wishes of one request


@pytest.mark.parametrize("way", ["chat", "acomplete", "astream_chat", "stream_complete"])
@pytest.mark.parametrize(
    ("wishes", "models"),
    [
        ({"threshold": 0.0}, [LARGE]),
        ({"tier": LARGE}, [LARGE]),
        ({"force_model": "small"}, [SMALL]),
        ({"budget": "0.01"}, [SMALL]),
        ({"user_tier": "free"}, [SMALL]),
        ({"user_tier": "pro"}, [SMALL, LARGE]),
    ],
)
def test_a_request_may_say_what_it_wants(
    unsure: FakeProvider, way: str, wishes: dict[str, Any], models: list[str]
) -> None:
    small, large = named(unsure)
    pro = Tier("large", large.model, "openai", user_tiers={"pro"}) if "user_tier" in wishes else large
    ask(way, CostAwareLLM(tiers=[small, pro]), **wishes)
    assert asked_of(unsure) == models


@pytest.mark.parametrize(
    ("wishes", "remedy"),
    [({"threshold": 1.5}, "0 to 1"), ({"tier": "medium"}, "small, large"), ({"budget": "cheap"}, "US dollars")],
)
@pytest.mark.parametrize("way", ["chat", "astream_complete"])
def test_a_wish_that_cannot_be_met_names_the_remedy(
    fake_provider: FakeProvider, way: str, wishes: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        ask(way, CostAwareLLM(tiers=named(fake_provider), cache=True), **wishes)
    assert fake_provider.served == []


def test_an_answer_to_one_wish_is_never_given_to_another(fake_provider: FakeProvider) -> None:
    small, large = named(fake_provider)
    model = CostAwareLLM(tiers=[small, Tier("large", large.model, "openai", user_tiers={"pro"})], cache=True)
    wishes: list[dict[str, Any]] = [
        {},
        {"user_tier": "pro"},
        {"force_model": "small"},
        {"user_tier": "pro", "force_model": "large"},
        {"threshold": 0.1},
        {"budget": "0.5"},
    ]
    assert [hit_of(ask("chat", model, **one)) for one in wishes] == [None] * len(wishes)
    assert [hit_of(ask("chat", model, **one)) for one in wishes] == ["exact"] * len(wishes)


# --- who can answer at all


def opening_hours(city: str) -> str:
    """Return the opening hours of the shop in a city."""
    return f"In {city} from 9 to 5."


HOURS = FunctionTool.from_defaults(opening_hours)


@pytest.mark.parametrize("way", ["chat_with_tools", "achat_with_tools"])
def test_tools_go_to_a_tier_that_takes_them(fake_provider: FakeProvider, way: str) -> None:
    model = CostAwareLLM(tiers=named(fake_provider, tools=False))
    answer = getattr(model, way)([HOURS], "When do you open?")
    answer = asyncio.run(answer) if way.startswith("a") else answer
    assert [call.tool_name for call in model.get_tool_calls_from_response(answer)] == ["opening_hours"]
    assert routing(answer)["candidates"][0] == {"tier": "small", "refused": "takes no tools"}


def test_images_go_to_a_tier_that_sees(fake_provider: FakeProvider) -> None:
    model = CostAwareLLM(tiers=named(fake_provider, vision=False))
    blocks = [TextBlock(text="What is this?"), ImageBlock(image=b"\x89PNG" * 9, image_mimetype="image/png")]
    answer = model.chat([ChatMessage(role="user", blocks=blocks)])
    assert routing(answer)["candidates"][0]["refused"] == "takes no images"


def test_long_prompts_go_to_a_larger_window(fake_provider: FakeProvider) -> None:
    tiers = [Tier("small", llm(fake_provider, context_window=3_000)), named(fake_provider)[1]]
    model = CostAwareLLM(router=Router(tiers, scorer=easy))
    assert routing(ask("chat", model, "word " * 1_500))["tier"] == "small"
    answer = ask("chat", model, "word " * 2_500)
    assert "window of 3,000 tokens" in routing(answer)["candidates"][0]["refused"]


def test_a_window_that_is_llamaindex_s_default_is_not_known(fake_provider: FakeProvider) -> None:
    model = CostAwareLLM(llm(fake_provider, context_window=DEFAULT_CONTEXT_WINDOW))
    assert ask("chat", model, "word " * 6_000)


def test_when_nobody_can_answer_the_error_says_why_of_each(fake_provider: FakeProvider) -> None:
    paid = Tier("paid", llm(fake_provider, LARGE), user_tiers={"pro"})
    model = CostAwareLLM(tiers=[Tier("small", llm(fake_provider), context_window=100), paid])
    for way in WAYS:
        with pytest.raises(NoEligibleTier, match=r"small: a window of 100 .*; paid: not open to user tier 'free'"):
            ask(way, model, user_tier="free")
    assert fake_provider.served == []


# --- when providers fail


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("status", "used"), [(429, False), (503, True)])
def test_each_failed_call_is_one_request(fake_provider: FakeProvider, way: str, status: int, used: bool) -> None:
    ledger = Ledger()
    tiers = named(fake_provider)
    if used:
        ask(way, tiers[0].model)
        fake_provider.reset()
    fake_provider.fail(model=SMALL, status=status, retry_after=7)
    answer = ask(way, CostAwareLLM(tiers=tiers, ledger=ledger))
    assert asked_of(fake_provider) == [SMALL, LARGE]
    assert text_of(answer) == fake_provider.served[1].answer
    totals = ledger.totals()
    assert (totals.fallbacks, totals.failed, totals.paid) == (1, 1, 1)
    assert totals.output_tokens == fake_provider.billed().output_tokens


@pytest.mark.parametrize("way", WAYS)
def test_what_would_fail_anywhere_is_raised_at_once(fake_provider: FakeProvider, way: str) -> None:
    model = CostAwareLLM(tiers=named(fake_provider), cache=True)
    for status in (400, 401, 403, 404):
        fake_provider.reset()
        fake_provider.fail(status=status)
        with pytest.raises(openai.APIStatusError):
            ask(way, model)
        assert len(fake_provider.served) == 1


@pytest.mark.parametrize("way", WAYS)
def test_nobody_at_home_is_passing(fake_provider: FakeProvider, closed_port: str, way: str) -> None:
    tiers = [Tier("away", llm(fake_provider, base_url=closed_port)), named(fake_provider)[1]]
    assert text_of(ask(way, CostAwareLLM(tiers=tiers))) == fake_provider.served[0].answer


@pytest.mark.parametrize("way", ["chat", "astream_chat"])
def test_who_takes_too_long_is_given_up_once(fake_provider: FakeProvider, way: str) -> None:
    with FakeProvider(latency=Latency(30.0, sigma=0, first_token=1.0), keep_alive=False) as slow:
        tiers = [Tier("slow", llm(slow, timeout=0.15)), named(fake_provider)[1]]
        assert text_of(ask(way, CostAwareLLM(tiers=tiers))) == fake_provider.served[0].answer
        slow.wait_idle()
        assert len(slow.served) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_prompt_too_long_moves_only_to_a_larger_window(way: str) -> None:
    with FakeProvider(context_windows={SMALL: 300}, keep_alive=False) as provider:
        tiers = [
            Tier("tight", llm(provider)),
            Tier("as tight", llm(provider, "gpt-4.1-mini")),
            Tier("wide", llm(provider, LARGE, context_window=200_000)),
        ]
        model = CostAwareLLM(router=Router(tiers, scorer=easy))
        assert text_of(ask(way, model, "word " * 600))
        assert asked_of(provider) == [SMALL, LARGE]


def test_every_tier_failed(fake_provider: FakeProvider, waits: list[float]) -> None:
    fake_provider.fail(status=503, times=9)
    with pytest.raises(NoTierAnswered):
        ask("chat", CostAwareLLM(tiers=named(fake_provider)))
    assert len(fake_provider.served) == 6
    assert len(waits) == 2


def test_the_user_s_own_llm_is_left_as_it_was(fake_provider: FakeProvider) -> None:
    own = llm(fake_provider)
    ask("chat", own)
    client = own._client
    model = CostAwareLLM(own)
    assert model.tiers[0].model.max_retries == 0
    fake_provider.fail(status=503)
    ask("chat", model)
    assert len(fake_provider.served) == 3
    assert (own.max_retries, own._client, client.max_retries) == (3, client, 3)


@pytest.mark.parametrize("way", ["chat", "astream_chat"])
def test_a_failing_deployment_fails_no_call(fake_provider: FakeProvider, way: str) -> None:
    ledger = Ledger()
    with FakeProvider(limits=Limits(requests_per_minute=2), keep_alive=False) as limited:
        deployments = [Deployment(llm(limited), "limited", weight=1e6), llm(fake_provider)]
        model = CostAwareLLM(tiers=[Tier("small", deployments=deployments, provider="openai")], ledger=ledger)
        for number in range(10):
            assert text_of(ask(way, model, f"{QUESTION} {number}"))
        assert (limited.calls, fake_provider.calls) == (2, 8)
    assert ledger.totals().paid == 10


def test_a_deployment_says_that_it_answered(fake_provider: FakeProvider) -> None:
    deployments = [Deployment(llm(fake_provider), name) for name in ("east", "west")]
    answer = ask("chat", CostAwareLLM(tiers=[Tier("small", deployments=deployments)]))
    assert routing(answer)["attempts"][0]["deployment"] in ("east", "west")


@pytest.mark.parametrize("way", STREAMS)
@pytest.mark.parametrize("chunks", [0, 4])
def test_streams_fall_back_before_the_first_chunk_only(fake_provider: FakeProvider, way: str, chunks: int) -> None:
    ledger = Ledger()
    model = CostAwareLLM(router=Router(named(fake_provider), escalate=False), ledger=ledger)
    fake_provider.drop_stream(after_chunks=chunks)
    if chunks:
        with pytest.raises(Exception, match=r"(?i)incomplete|connection|closed|peer"):
            ask(way, model)
        assert (asked_of(fake_provider), ledger.totals().cut) == ([SMALL], 1)
    else:
        assert text_of(ask(way, model)) == fake_provider.served[1].answer


# --- every token is counted once


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("event", ["escalated", "second opinion", "shadow"])
def test_the_ledger_agrees_with_the_provider(way: str, event: str, tmp_path: Any) -> None:
    ledger = Ledger()
    answer = unsure_if_small if event == "escalated" else default_answer
    policy = RoutingPolicy(second_opinion="other" if event == "second opinion" else None)
    shadow = Shadow(1.0, path=tmp_path / "shadow.jsonl") if event == "shadow" else None
    with FakeProvider(answer, reasoning_tokens=5, keep_alive=False) as provider:
        small, large = named(provider)
        tiers = [small, Tier("other", llm(provider, "gpt-4.1-mini")), large]
        ask(way, CostAwareLLM(router=Router(tiers, policy=policy, shadow=shadow), ledger=ledger))
        for thread in threading.enumerate():
            if thread.name == "llmcost-routing":
                thread.join(10)
        totals, billed = ledger.totals(), provider.billed()
        assert provider.calls >= 2
        assert (totals.input_tokens, totals.output_tokens) == (billed.input_tokens, billed.output_tokens)


def test_threads_and_tasks_each_get_their_own_answer(fake_provider: FakeProvider) -> None:
    model = CostAwareLLM(tiers=named(fake_provider))

    def work(number: int) -> bool:
        name = ("small", "large")[number % 2]
        answer = ask("chat", model, f"{QUESTION} {number}", force_model=name)
        return f"{QUESTION} {number}" in text_of(answer) and routing(answer)["tier"] == name

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(24)))

    async def gather() -> list[Any]:
        return await asyncio.gather(*(aask("achat", model, f"{QUESTION} {n}") for n in range(16)))

    assert all(f"{QUESTION} {n}" in text_of(one) for n, one in enumerate(asyncio.run(gather())))


# --- conversations and feedback


def by_turn(*difficulties: float) -> Callable[..., float]:
    given = iter(difficulties)
    return lambda request: next(given)


def test_an_agent_s_tools_stay_with_one_tier(fake_provider: FakeProvider) -> None:
    router = Router(named(fake_provider), scorer=by_turn(0.9, 0.0, 0.0, 0.0))
    agent = FunctionAgent(tools=[HOURS], llm=CostAwareLLM(router=router), streaming=False)

    async def run() -> str:
        return str(await agent.run("When do you open?"))

    assert asyncio.run(run()) == fake_provider.served[1].answer
    assert asked_of(fake_provider) == [LARGE, LARGE]


def test_feedback_finds_an_answer(fake_provider: FakeProvider) -> None:
    model = CostAwareLLM(tiers=named(fake_provider))
    assert model.router.feedback(routing(ask("chat", model))["id"], good=False)
    assert not model.router.feedback("unknown", good=True)


# --- the object itself


def test_a_router_within_a_router_is_refused(fake_provider: FakeProvider) -> None:
    inner = CostAwareLLM(llm(fake_provider))
    for tiers in ([inner], [Tier("a", inner)], [Tier("a", deployments=[llm(fake_provider), Deployment(inner)])]):
        with pytest.raises(ConfigurationError, match="CostAwareLLM"):
            CostAwareLLM(tiers=tiers)


def test_what_is_no_llm_is_refused(fake_provider: FakeProvider) -> None:
    for unfit in ("gpt-5.4", None, ClientLLM):
        for tier in (unfit, Tier("a", unfit), Tier("a", deployments=[unfit])):
            with pytest.raises(ConfigurationError, match="not a LlamaIndex LLM"):
                CostAwareLLM(tiers=[tier])


def test_names_that_mean_two_things_are_refused(fake_provider: FakeProvider) -> None:
    one = llm(fake_provider)
    with pytest.raises(ConfigurationError, match="name of its own"):
        CostAwareLLM(tiers=[Tier("a", one), Tier("a", llm(fake_provider, LARGE))])
    with pytest.raises(ConfigurationError, match="name of its own"):
        CostAwareLLM(tiers=[Tier("a", deployments=[Deployment(one, "x"), Deployment(one, "x")])])


def test_copies_and_pickles_route_as_the_original_does(fake_provider: FakeProvider) -> None:
    deployments = [llm(fake_provider), llm(fake_provider)]
    tiers = [Tier("small", deployments=deployments), named(fake_provider)[1]]
    model = CostAwareLLM(router=Router(tiers, policy=RoutingPolicy(threshold=0.3)))
    twins = [copy.copy(model), model.model_copy(), pickle.loads(pickle.dumps(model))]
    ask("chat", model)
    for twin in (*twins, copy.copy(model), pickle.loads(pickle.dumps(model))):
        answer = ask("chat", twin)
        assert (routing(answer)["tier"], routing(answer)["threshold"]) == ("small", 0.3)
        assert twin.tiers[0].model is None
        fake_provider.fail(model=SMALL, status=503, times=1)
        assert text_of(ask("chat", twin))


def test_who_may_not_ask_a_tier_gets_none_of_its_answers(fake_provider: FakeProvider) -> None:
    small, large = named(fake_provider)
    model = CostAwareLLM(tiers=[small, Tier("large", large.model, user_tiers={"pro"})], cache=True)
    with scope(user_tier="pro"):
        assert routing(ask("chat", model, HARD))["tier"] == "large"
    answer = ask("chat", model, HARD)
    assert (routing(answer)["tier"], hit_of(answer)) == ("small", None)
