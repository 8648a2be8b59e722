"""Staying with a tier: within a tool loop always, else where its prompt cache is worth more than a cheaper tier."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.plan import Plan, Step, drive
from llmcost_plugins.routing import Choice, Router, RoutingPolicy
from llmcost_plugins.routing.conversations import Conversations, Served, conversation_of
from llmcost_plugins.types import Fault, Overrides, Reply, Request, Scope, Tier, Usage

SMALL = Tier("small", None, "openai", "gpt-5.4-mini")
LARGE = Tier("large", None, "openai", "gpt-5.4")
LONG = "word " * 4_000
USER, CALL, RESULT, ANSWER = (
    {"role": "user", "content": "Book a flight."},
    {"role": "assistant", "content": "", "tool_calls": [{"name": "book", "args": {}}]},
    {"role": "tool", "content": "booked", "tool_call_id": "1"},
    {"role": "assistant", "content": "It is booked."},
)
BEGUN = Request((USER,), scope=Scope("acme", "ann"))


def going_on(*messages: Any, request: Request = BEGUN) -> Request:
    return replace(request, messages=(*request.messages, *messages))


class Desk:
    """A router whose scorer says what it is told to, and tiers that answer well."""

    def __init__(self, tiers: tuple[Tier, ...] = (SMALL, LARGE), usage: Usage | None = None, **settings: Any) -> None:
        self.now = 1.79e9
        self.difficulty = 1.0
        self.usage = usage
        self.router = Router(tiers, scorer=lambda _: Choice(self.difficulty, ""), clock=lambda: self.now, **settings)

    def __call__(self, tier: Tier, *, shown: bool) -> Plan[Reply]:
        return (yield Step(lambda: Reply({}, "It is done.", usage=self.usage)))

    def ask(self, request: Request, difficulty: float) -> str:
        self.difficulty = difficulty
        reply = drive(self.router.route(request, self, lambda _: Fault("fatal"), lambda _: None))
        assert reply.routing is not None
        return str(reply.routing["tier"])


@pytest.mark.parametrize(("first", "then"), [(0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("sticky", [True, False])
def test_a_tier_is_never_left_while_its_tools_are_under_way(first: float, then: float, sticky: bool) -> None:
    desk = Desk(sticky=sticky)
    began = desk.ask(BEGUN, first)
    assert desk.ask(going_on(CALL, RESULT), then) == began
    desk.now += 10_000
    assert desk.ask(going_on(CALL, RESULT, CALL, RESULT), then) == began


def test_neither_the_fastest_tier_nor_the_guard_breaks_into_a_tool_loop() -> None:
    desk = Desk(optimise="latency", escalate=False)
    desk.router.health.succeeded(desk.router.health.places(SMALL)[0], 9.0)
    desk.router.health.succeeded(desk.router.health.places(LARGE)[0], 10.0)
    assert desk.ask(BEGUN, 0.0) == "small"
    for _ in range(50):
        desk.router.health.succeeded(desk.router.health.places(LARGE)[0], 1.0)
    assert desk.ask(BEGUN, 0.0) == "large"
    desk.router.conversations.remember(BEGUN, Served("small", desk.now, Usage()), Reply(None))
    assert desk.ask(going_on(CALL, RESULT), 0.0) == "small"


def test_a_loop_goes_on_elsewhere_only_if_its_tier_can_no_longer_answer() -> None:
    desk = Desk((replace(SMALL, context_window=2_000), LARGE))
    assert desk.ask(BEGUN, 0.0) == "small"
    assert desk.ask(going_on(CALL, {**RESULT, "content": LONG}), 0.0) == "large"


def test_moves_upward_are_free() -> None:
    desk = Desk(usage=Usage(5_000, 500))
    assert desk.ask(BEGUN, 0.0) == "small"
    assert desk.ask(going_on(ANSWER, USER), 1.0) == "large"


def dear_to_leave(**settings: Any) -> Desk:
    """Return a desk whose large tier costs little more than the small one, if its prompt is cached."""
    near = Tier("small", None, "openai", "gpt-5.1")
    return Desk((near, LARGE), Usage(4_010, 5), **settings)


def test_a_conversation_stays_where_its_cached_prompt_costs_less_than_a_cheaper_tier() -> None:
    desk, begun = dear_to_leave(), replace(BEGUN, messages=({"role": "user", "content": LONG},))
    assert desk.ask(begun, 1.0) == "large"
    assert desk.ask(going_on(ANSWER, USER, request=begun), 0.0) == "large"


@pytest.mark.parametrize("change", ["cold", "careless", "cheap"])
def test_else_it_moves_down(change: str) -> None:
    desk = dear_to_leave(sticky=change != "careless")
    if change == "cheap":
        desk = Desk((Tier("small", None, "openai", "gpt-5.4-nano"), LARGE), Usage(4_010, 5))
    begun = replace(BEGUN, messages=({"role": "user", "content": LONG},))
    desk.ask(begun, 1.0)
    desk.now += 301 if change == "cold" else 1
    assert desk.ask(going_on(ANSWER, USER, request=begun), 0.0) == "small"


def test_what_the_user_asks_for_goes_before_everything() -> None:
    desk = Desk()
    desk.ask(BEGUN, 1.0)
    wish = replace(going_on(CALL, RESULT), overrides=Overrides(tier="small"))
    assert desk.ask(wish, 1.0) == "small"
    desk = dear_to_leave()
    begun = replace(BEGUN, messages=({"role": "user", "content": LONG},))
    desk.ask(begun, 1.0)
    forced = replace(going_on(ANSWER, USER, request=begun), overrides=Overrides(force_model="gpt-5.1"))
    assert desk.ask(forced, 1.0) == "small"


@pytest.mark.parametrize("other", [Scope("acme", "bob"), Scope("other", "ann"), Scope(None, "ann"), Scope("acme")])
def test_conversations_of_others_that_began_alike_are_others(other: Scope) -> None:
    desk = Desk()
    desk.ask(BEGUN, 1.0)
    assert desk.ask(replace(going_on(CALL, RESULT), scope=other), 0.0) == "small"
    assert desk.ask(going_on(CALL, RESULT), 0.0) == "large"


def test_a_thread_names_the_conversation_however_it_began() -> None:
    desk = Desk()
    desk.ask(replace(BEGUN, thread="t1"), 1.0)
    pruned = Request((CALL, RESULT), scope=BEGUN.scope, thread="t1")
    assert desk.ask(pruned, 0.0) == "large"
    assert desk.ask(replace(pruned, thread="t2"), 0.0) == "small"


def test_a_conversation_that_begins_is_held_by_none_before_it() -> None:
    desk = Desk()
    desk.ask(BEGUN, 1.0)
    assert desk.ask(BEGUN, 0.0) == "small"


name = st.text(st.sampled_from("ab\0 "), max_size=4)
whose = st.tuples(name, st.none() | name, st.none() | name, name)


@given(whose, whose)
def test_two_conversations_have_one_name_only_if_they_are_one(one: Any, other: Any) -> None:
    def named(thread: str, tenant: str | None, user: str | None, text: str) -> str:
        return conversation_of(Request(({"role": "user", "content": text},), scope=Scope(tenant, user), thread=thread))

    same = one[:3] == other[:3] and (bool(one[0]) or one[3] == other[3])
    assert (named(*one) == named(*other)) == same


def test_a_draft_that_stood_after_all_goes_on_with_its_tier() -> None:
    router = Router([SMALL, LARGE], policy=RoutingPolicy(lambda _: Choice(0.0, "")), retries=0)
    body = {"tool_calls": [{"name": "unknown", "args": {}}]}
    tools = [{"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}]

    def paid(tier: Tier, *, shown: bool) -> Plan[Reply]:
        def run() -> Reply:
            if tier.name == "large":
                raise TimeoutError
            return Reply(body, "", calls_tools=True, finish="tool_calls")

        return (yield Step(run))

    request = replace(BEGUN, params={"tools": tools})
    assert drive(router.route(request, paid, lambda _: Fault("unavailable"), lambda _: None)).degraded
    router.policies[""] = RoutingPolicy(lambda _: Choice(1.0, ""))
    decision = drive(router.decide(replace(going_on(CALL, RESULT), params={"tools": tools})))
    assert decision.tiers[decision.first] is SMALL


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_has_seen_nothing(copied: Callable[[Conversations], Conversations]) -> None:
    conversations = Conversations()
    conversations.remember(BEGUN, Served("small", 0.0, Usage()), Reply(None))
    assert conversations.last(going_on(ANSWER)) is not None
    assert copied(conversations).last(going_on(ANSWER)) is None


def test_agents_that_share_a_thread_each_get_the_results_of_their_own_tools() -> None:
    conversations = Conversations()
    begun = [Request(({"role": "user", "content": text},), thread="t") for text in ("one", "two")]
    for request, tier, body in (
        (begun[0], "strong", {"tool_calls": [{"name": "f", "args": {}, "id": "a"}]}),
        (begun[1], "small", {"tools": [{"tool_name": "f", "tool_kwargs": {}, "tool_id": "b"}]}),
    ):
        conversations.remember(request, Served(tier, 0.0, Usage()), Reply(body))
    for call_id, tier in (("a", "strong"), ("b", "small")):
        results = Request((*begun[0].messages, {"role": "tool", "content": "42", "tool_call_id": call_id}), thread="t")
        assert conversations.last(results) == Served(tier, 0.0, Usage())
