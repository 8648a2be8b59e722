"""`SemanticCache` under LangChain: its contract, its walls, and what it may never answer."""

import asyncio
import contextvars
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain_core.caches import BaseCache
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests.cache import AsyncCacheTestSuite, SyncCacheTestSuite
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from llmcost_plugins import Cache, Ledger, Memory, scope, track
from llmcost_plugins.cache import Policy
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.langchain import ChatJudge, CostAwareChatModel, SemanticCache
from llmcost_plugins.plan import Plan, drive
from llmcost_plugins.testing import FakeProvider
from llmcost_plugins.types import Entry, Neighbour

QUESTION = "How do I reset my password?"


@pytest.fixture(autouse=True)
def _no_global_cache() -> Iterator[None]:
    set_llm_cache(None)
    yield
    set_llm_cache(None)


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def cache(ledger: Ledger) -> SemanticCache:
    made = SemanticCache(ledger=ledger)
    set_llm_cache(made)
    return made


def openai(provider: FakeProvider, **given: Any) -> ChatOpenAI:
    return ChatOpenAI(
        **{"model": "gpt-5.4-mini", "base_url": provider.url, "api_key": "any", "max_retries": 0, **given}
    )


class TestSyncSuite(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self) -> BaseCache:
        return SemanticCache()


class TestAsyncSuite(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self) -> BaseCache:
        return SemanticCache()


# --- tenants


def ask_in_tenant(model: BaseChatModel, tenant: str) -> AIMessage:
    with scope(tenant=tenant):
        return model.invoke(QUESTION)


async def aask_in_tenant(model: BaseChatModel, tenant: str) -> AIMessage:
    with scope(tenant=tenant):
        return await model.ainvoke(QUESTION)


def hit_of(message: AIMessage) -> str | None:
    return message.response_metadata.get("llmcost", {}).get("cache")


def test_tenants_are_kept_apart(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    model = openai(fake_provider)
    assert [hit_of(ask_in_tenant(model, tenant)) for tenant in "ABABA"] == [None, None, "exact", "exact", "exact"]
    assert hit_of(model.invoke(QUESTION)) is None
    assert fake_provider.calls == 3


def test_tenants_are_kept_apart_in_async_code(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    async def ask() -> None:
        model = openai(fake_provider)
        first = await asyncio.gather(*(aask_in_tenant(model, f"tenant {n}") for n in range(8)))
        second = await asyncio.gather(*(aask_in_tenant(model, f"tenant {n}") for n in range(10)))
        assert [hit_of(message) for message in first] == [None] * 8
        assert [hit_of(message) for message in second] == ["exact"] * 8 + [None] * 2

    asyncio.run(ask())
    assert fake_provider.calls == 10


def test_tenants_are_kept_apart_in_threads(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    model = openai(fake_provider)
    tenants = [f"tenant {n}" for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda tenant: ask_in_tenant(model, tenant), tenants))
        hits = list(pool.map(lambda tenant: hit_of(ask_in_tenant(model, tenant)), [*tenants, "another"]))
        with scope(tenant="tenant 0"):  # a thread inherits nothing by itself
            bare = pool.submit(model.invoke, QUESTION).result()
            copied = pool.submit(contextvars.copy_context().run, model.invoke, QUESTION).result()
    assert hits == ["exact"] * 8 + [None]
    assert hit_of(bare) is None
    assert hit_of(copied) == "exact"


def test_batches_inherit_the_tenant(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    model = openai(fake_provider)
    with scope(tenant="A"):
        model.batch([QUESTION, "Another question?"])
    with scope(tenant="B"):
        assert [hit_of(m) for m in model.batch([QUESTION, "Another question?"])] == [None, None]
    with scope(tenant="A"):
        assert [hit_of(m) for m in model.batch([QUESTION, "Another question?"])] == ["exact", "exact"]


@pytest.mark.parametrize(
    "names", [("a", "A"), ("a", "a "), ("", None), ("1", "01"), ('a"', "a'"), ("\u00e9", "e\u0301")]
)
def test_tenants_that_look_alike_are_two(cache: SemanticCache, fake_provider: FakeProvider, names: Any) -> None:
    model = openai(fake_provider)
    for tenant in names:
        assert hit_of(ask_in_tenant(model, tenant)) is None


def test_require_scope(fake_provider: FakeProvider, ledger: Ledger) -> None:
    set_llm_cache(SemanticCache(require_scope=True, ledger=ledger))
    model = openai(fake_provider)
    assert [hit_of(model.invoke(QUESTION)) for _ in range(2)] == [None, None]
    with scope(user="u7"):
        assert [hit_of(model.invoke(QUESTION)) for _ in range(2)] == [None, None]
    assert [hit_of(ask_in_tenant(model, "A")) for _ in range(2)] == [None, "exact"]
    assert hit_of(model.invoke(QUESTION)) is None
    assert ledger.totals().hits == 1


def test_namespace_and_version_share_a_store_but_no_answers(fake_provider: FakeProvider) -> None:
    store, model = Memory(), openai(fake_provider)
    settings_ = [{}, {"namespace": "shop"}, {"version": "2"}, {"namespace": "shop", "version": "2"}]
    for given_ in settings_:
        set_llm_cache(SemanticCache(store=store, **given_))
        assert hit_of(model.invoke(QUESTION)) is None
        assert hit_of(model.invoke(QUESTION)) == "exact"


def test_a_cache_or_its_keywords_not_both() -> None:
    with pytest.raises(ConfigurationError, match="namespace"):
        SemanticCache(Cache(), namespace="shop")


# --- what a hit is


@tool
def opening_hours(city: str) -> str:
    """Return the opening hours of the shop in a city."""
    return f"In {city} from 9 to 5."


def test_a_hit_is_a_list_of_copies(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    model = openai(fake_provider, n=3)
    cold = model.generate([[HumanMessage(QUESTION)]]).generations[0]
    warm = model.generate([[HumanMessage(QUESTION)]]).generations[0]
    assert isinstance(warm, list)
    assert [g.text for g in warm] == [g.text for g in cold]
    assert len({g.text for g in cold}) == 3
    ids = [g.message.id for g in [*cold, *warm]]
    assert len(set(ids[3:])) == 3
    assert not set(ids[3:]) & set(ids[:3])


def test_hits_have_fresh_ids(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    model = openai(fake_provider).bind_tools([opening_hours])
    answers = [model.invoke("When do you open?") for _ in range(4)]
    assert [hit_of(answer) for answer in answers] == [None, "exact", "exact", "exact"]
    assert len({answer.id for answer in answers}) == 4
    assert len({answer.tool_calls[0]["id"] for answer in answers}) == 4
    assert all(answer.tool_calls[0]["args"] == answers[0].tool_calls[0]["args"] for answer in answers)
    assert fake_provider.calls == 1


def test_content_blocks_of_tool_calls_are_renamed_with_them(cache: SemanticCache) -> None:
    """Anthropic's answers name a call twice: in `tool_calls` and in the content."""
    content = [{"type": "text", "text": "Wait."}, {"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}}]
    call = {"name": "f", "args": {"a": 1}, "id": "toolu_1", "type": "tool_call"}
    cache.update("a prompt", "a model", [ChatGeneration(message=AIMessage(content, tool_calls=[call]))])
    (found,) = cache.lookup("a prompt", "a model") or []
    message = found.message
    assert message.tool_calls[0]["id"] == message.content[1]["id"] != "toolu_1"


def test_changing_a_hit_changes_no_later_one(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    model = openai(fake_provider).bind_tools([opening_hours])
    cold = model.invoke("When do you open?")
    city = cold.tool_calls[0]["args"]["city"]
    cold.tool_calls[0]["args"]["city"] = "changed"
    for _ in range(3):
        hit = model.invoke("When do you open?")
        assert hit_of(hit) == "exact"
        assert hit.tool_calls[0]["args"] == {"city": city}
        assert hit.usage_metadata["input_tokens"] > 0
        hit.content = "changed"
        hit.name = "changed"
        hit.tool_calls[0]["args"]["city"] = "changed"
        hit.response_metadata.clear()
        hit.additional_kwargs["changed"] = True
        hit.usage_metadata["input_tokens"] = 10**6


def test_a_hit_keeps_what_the_answer_had(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    model = openai(fake_provider)
    cold, warm = model.invoke(QUESTION), model.invoke(QUESTION)
    assert warm.content == cold.content
    lasting = {name: value for name, value in warm.response_metadata.items() if name != "llmcost"}
    assert lasting == cold.response_metadata
    tokens = ("input_tokens", "output_tokens", "total_tokens")
    assert [warm.usage_metadata[name] for name in tokens] == [cold.usage_metadata[name] for name in tokens]
    assert warm.usage_metadata["total_cost"] == 0


def test_plain_generations_come_back_as_they_were(cache: SemanticCache) -> None:
    answers = [Generation(text="one", generation_info={"finish_reason": "stop"}), Generation(text="two")]
    cache.update("a prompt", "a model", answers)
    assert cache.lookup("a prompt", "a model") == answers


@pytest.mark.parametrize("streamed", [False, True])
def test_an_agent_in_one_thread_overwrites_no_message(
    cache: SemanticCache, fake_provider: FakeProvider, streamed: bool
) -> None:
    agent = create_agent(openai(fake_provider), [opening_hours], checkpointer=InMemorySaver(), name="desk")
    config: Any = {"configurable": {"thread_id": "t1"}}
    other: Any = {"configurable": {"thread_id": "t2"}}
    question = {"messages": [("user", "When do you open?")]}

    def ask(config: Any) -> list[BaseMessage]:
        if streamed:
            list(agent.stream(question, config, stream_mode="messages"))
        else:
            agent.invoke(question, config)
        return agent.get_state(config).values["messages"]

    first = ask(config)
    grown = ask(config)
    again = ask(other)
    assert [m.type for m in first] == ["human", "ai", "tool", "ai"]
    assert [m.type for m in grown] == [m.type for m in first] * 2
    assert [m.id for m in grown[:4]] == [m.id for m in first]
    assert len({m.id for m in grown}) == 8
    assert [m.type for m in again] == [m.type for m in first]
    assert not {m.id for m in again} & {m.id for m in grown}
    assert [m.content for m in again] == [m.content for m in first]


def test_an_agent_s_run_is_answered_whole_in_fresh_threads(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    """Each hit changes ids and usage in the history; the next step's key must not notice."""
    agent = create_agent(openai(fake_provider), [opening_hours], checkpointer=InMemorySaver())
    for thread in range(4):
        config: Any = {"configurable": {"thread_id": str(thread)}}
        agent.invoke({"messages": [("user", "When do you open?")]}, config)
    assert fake_provider.calls == 2


# --- structured output


class Hours(BaseModel):
    """When a shop is open."""

    opens: int
    closes: int


class Address(BaseModel):
    """Where a shop is."""

    street: str


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
def test_structured_output(cache: SemanticCache, fake_provider: FakeProvider, method: Any) -> None:
    hours = openai(fake_provider).with_structured_output(Hours, method=method)
    address = openai(fake_provider).with_structured_output(Address, method=method)
    first = [hours.invoke("Tell me about shop 7."), address.invoke("Tell me about shop 7.")]
    second = [hours.invoke("Tell me about shop 7."), address.invoke("Tell me about shop 7.")]
    assert first == second
    assert [type(answer) for answer in second] == [Hours, Address]
    assert fake_provider.calls == (2 if method == "function_calling" else 4)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
def test_structured_output_from_a_json_schema_is_answered_again(
    cache: SemanticCache, fake_provider: FakeProvider
) -> None:
    schema = {"title": "Hours", "description": "When", **Hours.model_json_schema()}
    model = openai(fake_provider).with_structured_output(schema, method="json_schema")
    assert model.invoke("Tell me about shop 7.") == model.invoke("Tell me about shop 7.")
    assert fake_provider.calls == 1


@pytest.mark.parametrize(
    "described", ["[('response_format', <class 'app.Answer'>)]", "<function add at 0x7f12ab>", "<object at 0x1>"]
)
def test_descriptions_that_do_not_last_are_refused(cache: SemanticCache, ledger: Ledger, described: str) -> None:
    cache.update("a prompt", described, [Generation(text="an answer")])
    assert cache.lookup("a prompt", described) is None
    assert ledger.totals().misses == 1
    assert ledger.totals().component_failures == 0


# --- what may never be shared


SYSTEM, EARLIER = SystemMessage("Be brief."), [HumanMessage("Hello"), AIMessage("Hello!")]
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {}}}
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], list[BaseMessage]]] = {
    "plain": ({}, {}, [HumanMessage(QUESTION)]),
    "cold": ({"model": "gpt-4.1", "temperature": 0.0}, {}, [HumanMessage(QUESTION)]),
    "warm": ({"model": "gpt-4.1", "temperature": 0.9}, {}, [HumanMessage(QUESTION)]),
    "model": ({"model": "gpt-5.4"}, {}, [HumanMessage(QUESTION)]),
    "max_tokens": ({"max_tokens": 500}, {}, [HumanMessage(QUESTION)]),
    "seed": ({"seed": 7}, {}, [HumanMessage(QUESTION)]),
    "n": ({"n": 2}, {}, [HumanMessage(QUESTION)]),
    "stop": ({}, {"stop": ["\n\n"]}, [HumanMessage(QUESTION)]),
    "tools": ({}, {"tools": [FUNCTION]}, [HumanMessage(QUESTION)]),
    "bound model": ({}, {"model": "gpt-5.4-nano"}, [HumanMessage(QUESTION)]),
    "system prompt": ({}, {}, [SYSTEM, HumanMessage(QUESTION)]),
    "another system prompt": ({}, {}, [SystemMessage("Be brief!"), HumanMessage(QUESTION)]),
    "history": ({}, {}, [*EARLIER, HumanMessage(QUESTION)]),
    "another history": ({}, {}, [HumanMessage("hello"), AIMessage("Hello!"), HumanMessage(QUESTION)]),
    "system and history": ({}, {}, [SYSTEM, *EARLIER, HumanMessage(QUESTION)]),
    "name": ({}, {}, [HumanMessage(QUESTION, name="anna")]),
    "question": ({}, {}, [HumanMessage("How do I delete my account?")]),
    "system as user": ({}, {}, [HumanMessage("Be brief."), HumanMessage(QUESTION)]),
    "answer as user": ({}, {}, [HumanMessage("Hello"), HumanMessage("Hello!"), HumanMessage(QUESTION)]),
    "all in one": ({}, {}, [HumanMessage(f"Be brief.\n{QUESTION}")]),
}  # fmt: skip


def test_no_two_variants_share(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    shared = [
        name
        for name, (made, called, messages) in VARIANTS.items()
        if hit_of(openai(fake_provider, **made).invoke(messages, **called))
    ]
    assert shared == []
    for made, called, messages in VARIANTS.values():
        assert hit_of(openai(fake_provider, **made).invoke(messages, **called)) == "exact"


def test_images_are_a_part_of_the_question(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    def question(image: str) -> list[BaseMessage]:
        url = {"url": f"data:image/png;base64,{image}"}
        return [HumanMessage([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": url}])]

    model = openai(fake_provider)
    assert [hit_of(model.invoke(question(image))) for image in ("aaaa", "bbbb", "aaaa")] == [None, None, "exact"]


WORDS = st.sampled_from(["reset", "the", "password", "Rome", "not", "5", "50", "order", "a", "opening", "hours", "x-1"])
TEXTS = st.lists(WORDS, min_size=1, max_size=5).map(" ".join)
DRAWN = st.fixed_dictionaries(
    {
        "tenant": st.sampled_from([None, "A", "B"]),
        "system": st.none() | TEXTS,
        "history": st.lists(st.tuples(TEXTS, TEXTS), max_size=2),
        "question": TEXTS,
        "described": st.sampled_from(
            ["model one---[('stop', None)]", "model two---[('stop', None)]", "model one---[]"]
        ),
    }
)


def prompt_of(request: dict[str, Any]) -> str:
    from langchain_core.load import dumps

    messages: list[BaseMessage] = [SystemMessage(request["system"])] if request["system"] is not None else []
    for asked, answered in request["history"]:
        messages += [HumanMessage(asked), AIMessage(answered)]
    return dumps([*messages, HumanMessage(request["question"])])


@given(first=DRAWN, second=DRAWN, mixed=st.data())
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
def test_only_the_form_of_the_last_question_may_differ(first: Any, second: Any, mixed: Any) -> None:
    if mixed.draw(st.booleans()):  # else nearly every pair differs in nearly everything
        changed = mixed.draw(st.sampled_from(sorted(first)))
        second = {**first, changed: second[changed]}
    assume(first != second)
    cache = SemanticCache(ledger=Ledger())
    with scope(tenant=first["tenant"]):
        cache.update(prompt_of(first), first["described"], [ChatGeneration(message=AIMessage("An answer."))])
        assert cache.lookup(prompt_of(first), first["described"]) is not None
    with scope(tenant=second["tenant"]):
        assert cache.lookup(prompt_of(second), second["described"]) is None


@given(
    words=st.lists(st.sampled_from(["reset", "the", "password", "opening", "hours", "now"]), min_size=1), form=st.data()
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_the_form_of_the_last_question_never_matters(words: list[str], form: Any) -> None:
    shaped = [form.draw(st.sampled_from([word, word.capitalize()])) for word in words]
    gap = form.draw(st.sampled_from([" ", "  ", "\n", "\t "]))
    end = form.draw(st.sampled_from(["", "?", " ?", "...", "!"]))
    spaced = gap.join(shaped) + end
    cache = SemanticCache(ledger=Ledger())
    described = {"system": None, "history": [], "question": " ".join(words)}
    cache.update(prompt_of(described), "a model", [ChatGeneration(message=AIMessage("An answer."))])
    assert cache.lookup(prompt_of({**described, "question": spaced}), "a model") is not None


# --- how loosely questions are compared


@pytest.mark.parametrize(
    "other",
    [
        "how do i reset my password",
        "How do I reset my password",
        "  How   do I reset\nmy password ??",
        "How do I reset my password...",
        "HOW DO I RESET MY PASSWORD?",
        "How do I reset my password!",
    ],
)
def test_the_same_question_in_another_form(cache: SemanticCache, fake_provider: FakeProvider, other: str) -> None:
    model = openai(fake_provider)
    cold = model.invoke(QUESTION)
    warm = model.invoke(other)
    assert hit_of(warm) == "normalised"
    assert warm.content == cold.content


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What does x = y do in C?", "what does x = y do in c?"),
        ('Translate "Hello"', 'translate "hello"'),
        ("Translate “Hello”", "Translate “hello”"),
        ("Is 'Go' a word?", "Is 'go' a word?"),
        ("What is IT?", "What is it?"),
        ("Who runs the WHO?", "Who runs the who?"),
        ("Can US citizens apply?", "Can us citizens apply?"),
        ("What is `Foo`?", "What is `foo`?"),
        ("Open https://example.com/A", "open https://example.com/a"),
        ("Run make -B now", "run make -b now"),
        ("Explain print(X)", "explain print(x)"),
        ("Explain this:\n    if a:\n        b", "Explain this:\n    if a:\n    b"),
        ("What is a 5 m cable?", "What is a 5 M cable?"),
        ("Is 3! a factorial", "Is 3 a factorial"),
        ("What is 3!", "What is 3?"),
        ("Do you sell size M shirts?", "Do you sell size m shirts?"),
        ("Is order A1b2 the same as A1B2?", "Is order a1b2 the same as a1b2?"),
        ("What does the password aB3x mean?", "What does the password ab3x mean?"),
        ("Reset the password", "Reset the pass word"),
        ("What costs 1.5?", "What costs 15?"),
    ],
)
def test_form_that_may_matter_is_kept(cache: SemanticCache, fake_provider: FakeProvider, one: str, other: str) -> None:
    model = openai(fake_provider)
    model.invoke(one)
    assert hit_of(model.invoke(other)) is None
    assert hit_of(model.invoke(one)) == "exact"


@pytest.mark.parametrize(
    "question",
    [
        "Where is my order?",
        "What's the status of my claim?",
        "How much is my bill?",
        "Cancel my subscription",
        "When will our parcel arrive?",
        "Have I paid?",
        "Has my refund been sent?",
        "Write a poem about the sea",
        "Tell me, can you suggest a name for a cat?",
        "Give me 5 ideas for a slogan",
        "Please draft a tweet about us",
    ],
)
@pytest.mark.parametrize("blocks", [False, True])
def test_personal_and_creative_questions_are_asked_anew(
    cache: SemanticCache, fake_provider: FakeProvider, question: str, blocks: bool
) -> None:
    content: Any = [{"type": "text", "text": question}] if blocks else question
    model = openai(fake_provider)
    assert [hit_of(model.invoke([HumanMessage(content)])) for _ in range(2)] == [None, None]
    assert fake_provider.calls == 2


def test_live_questions_are_kept_for_a_short_while(fake_provider: FakeProvider) -> None:
    now = [1_000.0]
    set_llm_cache(SemanticCache(policies={"live": Policy(mode="exact", ttl=60)}, ttl=600, clock=lambda: now[0]))
    model = openai(fake_provider)

    def hits() -> list[str | None]:
        return [hit_of(model.invoke(text)) for text in ("Is the shop open right now?", "Which lamps are there?")]

    assert hits() == [None, None]
    now[0] += 59
    assert hits() == ["exact", "exact"]
    now[0] += 2
    assert hits() == [None, "exact"]
    now[0] += 600
    assert hits() == [None, None]


@pytest.mark.parametrize("info", [{"finish_reason": "length"}, {"finish_reason": "content_filter"}])
def test_broken_answers_are_not_kept(cache: SemanticCache, info: dict[str, Any]) -> None:
    cache.update("a prompt", "a model", [ChatGeneration(message=AIMessage("Half an"), generation_info=info)])
    assert cache.lookup("a prompt", "a model") is None


def test_truncated_answers_are_not_kept(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    model = openai(fake_provider, max_tokens=4)
    assert [model.invoke(QUESTION).response_metadata["finish_reason"] for _ in range(2)] == ["length"] * 2
    assert fake_provider.calls == 2


def test_empty_answers_are_not_kept(cache: SemanticCache) -> None:
    cache.update("a prompt", "a model", [ChatGeneration(message=AIMessage(""))])
    assert cache.lookup("a prompt", "a model") is None


@pytest.mark.parametrize("mode", ["clean", "abort"])
def test_broken_off_streams_are_not_kept(cache: SemanticCache, fake_provider: FakeProvider, mode: Any) -> None:
    model = openai(fake_provider, streaming=True)
    fake_provider.drop_stream(mode=mode)
    with pytest.raises(Exception) if mode == "abort" else nullcontext():
        model.invoke(QUESTION)
    assert hit_of(model.invoke(QUESTION)) is None
    assert hit_of(model.invoke(QUESTION)) == "exact"


def test_errors_are_not_kept(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    model = openai(fake_provider)
    fake_provider.fail()
    with pytest.raises(Exception, match="500"):
        model.invoke(QUESTION)
    assert hit_of(model.invoke(QUESTION)) is None


def test_tool_calls_answer_the_same_words_only(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    model = openai(fake_provider).bind_tools([opening_hours])
    model.invoke("When do you open in Rome?")
    assert hit_of(model.invoke("when do you open in rome")) is None
    assert hit_of(model.invoke("when do you open in rome")) == "exact"


def test_tool_results_are_a_part_of_the_key(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    def turn(result: str, call_id: str) -> list[BaseMessage]:
        call = {"name": "opening_hours", "args": {"city": "Rome"}, "id": call_id, "type": "tool_call"}
        told = ToolMessage(result, tool_call_id=call_id)
        return [HumanMessage("When do you open?"), AIMessage("", tool_calls=[call]), told]

    model = openai(fake_provider).bind_tools([opening_hours])
    assert hit_of(model.invoke(turn("9 to 5", "c1"))) is None
    assert hit_of(model.invoke(turn("9 to 6", "c2"))) is None
    assert hit_of(model.invoke(turn("9 to 5", "c3"))) == "exact"


# --- failures of the cache are misses


class Broken:
    """A store that fails, wholly or in one of its methods."""

    def __init__(self, *methods: str) -> None:
        self._methods = methods
        self._good = Memory().entries()

    def entries(self, namespace: str = "") -> "Broken":
        return self

    def _work(self, method: str, *given_: Any) -> Plan[Any]:
        if method in self._methods:
            raise ConnectionError("the store is away")
        return (yield from getattr(self._good, method)(*given_))

    def get(self, key: str) -> Plan[Entry | None]:
        return self._work("get", key)

    def put(self, entry: Entry) -> Plan[None]:
        return self._work("put", entry)

    def delete(self, key: str) -> Plan[bool]:
        return self._work("delete", key)

    def clear(self) -> Plan[None]:
        return self._work("clear")

    def near(self, *given_: Any) -> Plan[list[Neighbour]]:
        return self._good.near(*given_)

    def touch(self, *given_: Any) -> Plan[None]:
        return self._good.touch(*given_)


@pytest.mark.parametrize("methods", [("get",), ("put",), ("get", "put")])
@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_store_that_fails_costs_no_call(fake_provider: FakeProvider, methods: tuple[str, ...], way: str) -> None:
    ledger = Ledger()
    set_llm_cache(SemanticCache(store=Broken(*methods), ledger=ledger, recent=0))
    model = openai(fake_provider)
    for _ in range(2):
        answer = model.invoke(QUESTION) if way == "sync" else asyncio.run(model.ainvoke(QUESTION))
        assert answer.content
    assert fake_provider.calls == 2
    assert ledger.totals().component_failures >= 2 * len(methods)


def corrupted(payload: bytes) -> Iterator[bytes]:
    yield payload[:-5]
    yield b""
    yield b"9" + payload
    yield payload.replace(b"answer", b"forged")
    yield b"\xff\xfe"
    version, _, _ = payload.split(b":", 2)
    yield version + b":" + b"0" * 64 + b":{}"
    yield b"null"


def test_corrupt_entries_are_misses_and_go(fake_provider: FakeProvider) -> None:
    store, ledger = Memory(), Ledger()
    set_llm_cache(SemanticCache(store=store, ledger=ledger, recent=0))
    model = openai(fake_provider)
    model.invoke(QUESTION)
    (good,) = drive(store.entries().page(None, 9))
    for count, payload in enumerate(corrupted(good.payload), 1):
        drive(store.entries().put(replace(good, payload=payload, space="", vector=None)))
        before = len(fake_provider.served)
        assert hit_of(model.invoke(QUESTION)) is None
        assert len(fake_provider.served) == before + 1
        assert ledger.totals().component_failures == count
        assert hit_of(model.invoke(QUESTION)) == "exact"


def test_a_body_of_another_form_under_a_true_checksum_is_a_miss(fake_provider: FakeProvider) -> None:
    from llmcost_plugins.cache.codec import encode
    from llmcost_plugins.types import Reply

    store, ledger = Memory(), Ledger()
    set_llm_cache(SemanticCache(store=store, ledger=ledger, recent=0))
    model = openai(fake_provider)
    model.invoke(QUESTION)
    (good,) = drive(store.entries().page(None, 9))
    for body in (
        None,
        [],
        {},
        {"generations": []},
        {"generations": [{}]},
        {"generations": [{"message": 7, "text": ""}]},
    ):
        payload = encode(Reply(body, "text"), key=good.key, exact="exact", question=good.question)
        drive(store.entries().put(replace(good, payload=payload, space="", vector=None)))
        assert model.invoke(QUESTION).content
        assert fake_provider.served[-1].answer
    assert fake_provider.calls == 7
    assert ledger.totals().component_failures == 6
    assert ledger.totals().hits == 0


def test_with_a_secret_entries_of_others_are_misses(fake_provider: FakeProvider) -> None:
    store, ledger = Memory(), Ledger()
    set_llm_cache(SemanticCache(store=store, secret=b"one"))
    model = openai(fake_provider)
    model.invoke(QUESTION)
    (of_one,) = drive(store.entries().page(None, 9))
    set_llm_cache(SemanticCache(store=store, secret=b"two", ledger=ledger, recent=0))
    assert hit_of(model.invoke(QUESTION)) is None
    assert len(store.entries()) == 2
    (of_two,) = (entry for entry in drive(store.entries().page(None, 9)) if entry.key != of_one.key)
    drive(store.entries().put(replace(of_one, key=of_two.key)))
    assert hit_of(model.invoke(QUESTION)) is None
    assert ledger.totals().component_failures == 1


def test_answers_that_cannot_be_written_down_cost_no_call(cache: SemanticCache, ledger: Ledger) -> None:
    odd = AIMessage("An answer.", additional_kwargs={"raw": object()})
    cache.update("a prompt", "a model", [ChatGeneration(message=odd)])
    assert cache.lookup("a prompt", "a model") is None
    assert ledger.totals().component_failures == 1


@pytest.mark.parametrize(
    "prompt", ["", "[", "[]", "[1]", "null", '[{"kwargs": 1}]', '[{"kwargs": {}, "id": []}]', "[{}]"]
)
def test_any_prompt_is_taken(cache: SemanticCache, ledger: Ledger, prompt: str) -> None:
    assert cache.lookup(prompt, "a model") is None
    cache.update(prompt, "a model", [Generation(text="an answer")])
    assert cache.lookup(prompt, "a model") == [Generation(text="an answer")]
    assert ledger.totals().component_failures == 0


def test_an_empty_list_of_answers_costs_no_call(cache: SemanticCache) -> None:
    cache.update("a prompt", "a model", [])
    assert cache.lookup("a prompt", "a model") is None


@pytest.mark.parametrize("text", ["\ud800 alone", "null \0 byte", "😀", "“", "a\u2028b", "\u202eevil"])
def test_any_text_survives(cache: SemanticCache, ledger: Ledger, text: str) -> None:
    prompt = json.dumps([{"kwargs": {"type": "human", "content": text}, "id": ["x"]}])
    cache.update(prompt, "a model", [ChatGeneration(message=AIMessage(text))])
    (found,) = cache.lookup(prompt, "a model") or []
    assert found.text == text
    assert ledger.totals().component_failures == 0


# --- accounts and clearing


def test_clear_forgets(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    model = openai(fake_provider)
    model.invoke(QUESTION)
    cache.clear()
    assert hit_of(model.invoke(QUESTION)) is None
    asyncio.run(cache.aclear())
    assert hit_of(model.invoke(QUESTION)) is None


def test_readme_s_first_snippet(fake_provider: FakeProvider) -> None:
    set_llm_cache(SemanticCache())
    model = openai(fake_provider)
    with track() as costs:
        model.invoke("How do I reset my password?")
        model.invoke("how do i reset my password")
    totals = costs.totals()
    assert (totals.requests, totals.paid, totals.hits, totals.misses) == (2, 1, 1, 1)
    assert totals.cache_saved == totals.cost > 0
    assert "2 requests, 1 paid" in str(costs)
    assert "but for case" in str(costs)


def test_langchain_s_own_counter_sees_a_hit_s_full_usage(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    """A documented limit of LangChain: its counter bills hits; ours does not."""
    model = openai(fake_provider)
    with get_usage_metadata_callback() as counted, track() as costs:
        model.invoke(QUESTION)
        model.invoke(QUESTION)
    (usage,) = counted.usage_metadata.values()
    assert usage["input_tokens"] == 2 * costs.totals().input_tokens


# --- answers found by meaning

REWORDED = "How can I reset my password?"


def cost_aware(provider: FakeProvider, ledger: Ledger, **options: Any) -> CostAwareChatModel:
    return CostAwareChatModel(openai(provider), cache=Cache(**options), ledger=ledger)


def test_a_reworded_question_is_answered_and_says_how(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    cold, warm = openai(fake_provider).invoke(QUESTION), openai(fake_provider).invoke(REWORDED)
    assert warm.content == cold.content
    mark = warm.response_metadata["llmcost"]
    assert mark["cache"] == "semantic"
    assert 0.9 < mark["similarity"] < 1
    assert mark["age"] >= 0
    assert cache.cache.report_bad(mark["entry_id"])
    assert hit_of(openai(fake_provider).invoke(REWORDED)) is None


def test_tools_of_a_reworded_question_are_called_anew(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    tool = {"type": "function", "function": {"name": "reset", "description": "Reset it", "parameters": {}}}
    model = openai(fake_provider).bind_tools([tool], tool_choice="any")
    assert model.invoke(QUESTION).tool_calls
    assert hit_of(model.invoke(REWORDED)) is None
    assert hit_of(model.invoke(QUESTION)) == "exact"


def test_langchains_hook_compares_what_was_asked_anew(fake_provider: FakeProvider) -> None:
    cache = SemanticCache(check=1.0, lot=lambda: 0.0)
    set_llm_cache(cache)
    model = openai(fake_provider)
    model.invoke(QUESTION)
    assert hit_of(model.invoke(REWORDED)) is None
    assert fake_provider.calls == 2
    assert not cache.cache._unresolved


def test_warmed_answers_are_found(cache: SemanticCache, fake_provider: FakeProvider) -> None:
    assert cache.warm(openai(fake_provider), [(QUESTION, "Click it.")]) == 1
    warm = openai(fake_provider).invoke(REWORDED)
    assert (warm.content, hit_of(warm), fake_provider.calls) == ("Click it.", "semantic", 0)


@pytest.mark.parametrize("way", ["invoke", "stream", "ainvoke", "astream"])
def test_a_flow_door_streams_what_it_found_by_meaning(fake_provider: FakeProvider, ledger: Ledger, way: str) -> None:
    model = cost_aware(fake_provider, ledger)
    cold = model.invoke(QUESTION)

    async def acollect() -> Any:
        if way == "ainvoke":
            return await model.ainvoke(REWORDED)
        chunks = [chunk async for chunk in model.astream(REWORDED)]
        return sum(chunks[1:], start=chunks[0])

    if way.startswith("a"):
        warm = asyncio.run(acollect())
    else:
        chunks = list(model.stream(REWORDED)) if way == "stream" else [model.invoke(REWORDED)]
        warm = chunks[0] if len(chunks) == 1 else sum(chunks[1:], start=chunks[0])
    assert (warm.content, hit_of(warm), fake_provider.calls) == (cold.content, "semantic", 1)
    assert warm.response_metadata["llmcost"]["similarity"] < 1
    assert ledger.totals().cache_saved > 0


def test_metadata_names_the_question_and_tags(fake_provider: FakeProvider, ledger: Ledger) -> None:
    model = cost_aware(fake_provider, ledger)

    def ask(question: str, passage: str = "Passwords live in the settings.") -> AIMessage:
        metadata = {"llmcost_query": question, "llmcost_tags": ["passwords"]}
        return model.invoke(f"Use this: {passage}\n\nQuestion: {question}", {"metadata": metadata})

    ask(QUESTION)
    assert hit_of(ask(REWORDED)) == "semantic"
    assert hit_of(ask(REWORDED, "Another passage.")) is None
    assert model._cost_cache is not None
    assert model._cost_cache.invalidate("passwords") == 2
    assert hit_of(ask(QUESTION)) is None


def test_a_flow_door_is_warmed(fake_provider: FakeProvider, ledger: Ledger) -> None:
    model = cost_aware(fake_provider, ledger)
    assert model.warm([(QUESTION, "Click it.")]) == 1
    assert (model.invoke(REWORDED).content, fake_provider.calls) == ("Click it.", 0)


@pytest.mark.parametrize("way", ["invoke", "ainvoke"])
@pytest.mark.parametrize(("verdict", "tier"), [("yes", "semantic"), ("No.", None), ("Perhaps, yes", None)])
def test_a_chat_model_judges_and_its_cost_is_booked(
    fake_provider: FakeProvider, ledger: Ledger, way: str, verdict: str, tier: str | None
) -> None:
    judging = FakeListChatModel(responses=[verdict])
    model = cost_aware(fake_provider, ledger, judge=ChatJudge(judging, ledger=ledger))
    model.invoke(QUESTION)
    warm = model.invoke(REWORDED) if way == "invoke" else asyncio.run(model.ainvoke(REWORDED))
    assert hit_of(warm) == tier
    assert ledger.totals().calls == 2 + (tier is None)


MALICIOUS = {
    "constructor": {"lc": 1, "type": "constructor", "id": ["langchain_core", "load", "load", "Reviver"], "kwargs": {}},
    "secret": {"lc": 1, "type": "secret", "id": ["OPENAI_API_KEY"]},
    "list": ["x"],
    "text": "x",
    "number": 5,
    "nothing": None,
}


@pytest.mark.parametrize("body", MALICIOUS.values(), ids=MALICIOUS)
@pytest.mark.parametrize("door", ["hook", "flow"])
@pytest.mark.parametrize("asked", [QUESTION, REWORDED])
def test_a_malicious_body_under_a_true_checksum_instantiates_nothing(
    fake_provider: FakeProvider, ledger: Ledger, body: Any, door: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmcost_plugins.cache.codec import decode, encode

    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    if door == "hook":
        hook = SemanticCache(ledger=ledger, recent=0)
        set_llm_cache(hook)
        cache, model = hook.cache, openai(fake_provider)
    else:
        cache = Cache(recent=0)
        model = CostAwareChatModel(openai(fake_provider), cache=cache, ledger=ledger)
    model.invoke(QUESTION)
    (entry,) = cache._all()
    stored = decode(entry.payload, key=entry.key)
    bodies = [body, {"generations": body}, {"generations": [body]}, {"content": {"lc": 1}, "tool_calls": body}]
    for forged in bodies:
        reply = replace(stored.reply(), body=forged)
        payload = encode(reply, key=entry.key, exact=stored.exact, question=stored.question)
        drive(cache._entries.put(replace(entry, payload=payload)))
        answer = model.invoke(asked)
        assert type(answer) is AIMessage
        assert "sk-secret" not in repr(answer)
        assert isinstance(answer.content, str)
        cache.clear()
