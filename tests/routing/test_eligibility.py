"""Which tiers can answer at all, and what the user is told where none can."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.errors import ConfigurationError, NoEligibleTier
from llmcost_plugins.events import Event, Refused
from llmcost_plugins.plan import drive
from llmcost_plugins.pricing import default_prices, pico
from llmcost_plugins.routing import Choice, Router, RoutingPolicy
from llmcost_plugins.routing.eligibility import needs_of, unfit
from llmcost_plugins.types import Deployment, Overrides, Request, Scope, Tier

PRICES = default_prices()
NOW = 1.79e9
TOOL = {"type": "function", "function": {"name": "search", "parameters": {"type": "object", "properties": {}}}}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}


def ask(content: Any = "What is tea?", *, before: tuple[Any, ...] = (), **params: Any) -> Request:
    return Request((*before, {"role": "user", "content": content}), params=params)


def why(tier: Tier, request: Request, reserve: int = 1_024) -> str | None:
    return unfit(tier, needs_of(request, reserve), PRICES, NOW)


def decide(tiers: list[Tier], request: Request, **settings: Any) -> str:
    decision = drive(Router(tiers, clock=lambda: NOW, **settings).decide(request))
    return decision.tiers[decision.first].name


# --- Windows


def test_a_window_holds_prompt_and_answer() -> None:
    request = ask("tea " * 100, max_tokens=50)
    tokens = needs_of(request, 0).tokens("gpt-5.4")
    assert why(Tier("t", None, "openai", "gpt-5.4", context_window=tokens + 50), request) is None
    assert why(Tier("t", None, "openai", "gpt-5.4", context_window=tokens + 49), request) == (
        f"a window of {tokens + 49:,} tokens for {tokens:,} and 50 of output"
    )


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens", "num_predict"])
def test_the_limit_of_the_answer_is_known_by_many_names(name: str) -> None:
    assert needs_of(ask(**{name: 77}), 5).output == 77
    assert needs_of(ask(settings={name: 77}), 5).output == 77
    assert needs_of(ask(**{name: None}), 5).output == 5


def test_no_more_is_kept_free_than_the_model_can_write() -> None:
    tier = Tier("t", None, context_window=1_000, max_output_tokens=100)
    assert why(tier, ask(), reserve=5_000) is None
    assert why(Tier("t", None, context_window=1_000), ask(), reserve=5_000) is not None


def test_earlier_calls_of_tools_fill_the_window_too() -> None:
    call = {"role": "assistant", "content": "", "tool_calls": [{"name": "write", "args": {"text": "word " * 3_000}}]}
    assert why(Tier("t", None, context_window=2_000), ask(before=(call,))) is not None
    assert why(Tier("t", None, context_window=2_000), ask()) is None


def test_offered_tools_fill_the_window_too() -> None:
    tool = {**TOOL, "description": "word " * 3_000}
    assert why(Tier("t", None, context_window=2_000), ask(tools=[tool])) is not None


def test_the_data_of_a_picture_does_not_count_as_text() -> None:
    content = [{"type": "text", "text": "What is this?"}, PICTURE]
    assert why(Tier("t", None, context_window=5_000), ask(content)) is None
    assert why(Tier("t", None, context_window=5_000), ask([*content, PICTURE, PICTURE])) is not None


part = st.text(max_size=40) | st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=40))
content = st.text(max_size=200) | st.lists(part | st.just(PICTURE), max_size=30) | st.none()
calls = st.lists(st.fixed_dictionaries({"name": st.text(max_size=9), "args": st.text(max_size=40)}), max_size=3)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool"]), "content": content}, optional={"tool_calls": calls}
)


@given(st.lists(message, max_size=5), st.booleans())
def test_the_fast_path_never_admits_what_the_exact_count_refuses(messages: list[Any], with_tools: bool) -> None:
    needs = needs_of(Request(tuple(messages), params={"tools": [TOOL]} if with_tools else {}), 0)
    for model in ("gpt-5.4", "gpt-4", "claude-sonnet-4-5"):
        assert needs.tokens(model) <= needs.at_most


# --- What a model can do


@pytest.mark.parametrize(
    ("request_", "lacking", "reason"),
    [
        (ask(tools=[TOOL]), "tools", "takes no tools"),
        (ask([PICTURE]), "vision", "takes no images"),
        (ask([{"block_type": "image"}]), "vision", "takes no images"),
        (ask(response_format={"type": "json_schema"}), "json_schema", "takes no JSON schemas"),
        (ask(settings={"response_format": {"type": "json_object"}}), "json_schema", "takes no JSON schemas"),
    ],
)
def test_what_a_model_is_known_not_to_do_rules_it_out(request_: Request, lacking: str, reason: str) -> None:
    assert why(Tier("t", None, **{lacking: False}), request_) == reason
    assert why(Tier("t", None, **{lacking: True}), request_) is None
    assert why(Tier("t", None), request_) is None
    assert why(Tier("t", None, **{lacking: False}), ask()) is None


def test_pictures_earlier_in_the_conversation_count() -> None:
    seen = {"role": "user", "content": [PICTURE]}
    assert why(Tier("t", None, vision=False), ask("And now?", before=(seen,))) == "takes no images"


# --- Users


@pytest.mark.parametrize(("user_tier", "open_to"), [(None, False), ("free", False), ("pro", True), ("", False)])
def test_a_restricted_tier_is_open_to_its_users_alone(user_tier: str | None, open_to: bool) -> None:
    request = Request(ask().messages, scope=Scope(user_tier=user_tier))
    assert (why(Tier("t", None, user_tiers=frozenset({"pro"})), request) is None) is open_to
    assert why(Tier("t", None), request) is None


def test_nobody_gets_around_a_restriction_by_asking_for_the_tier() -> None:
    tiers = [Tier("weak", None), Tier("strong", None, user_tiers=frozenset({"pro"}))]
    for name in ("tier", "force_model"):
        request = Request(ask().messages, overrides=Overrides(**{name: "strong"}))
        if name == "tier":
            assert decide(tiers, request) == "weak"
        else:
            with pytest.raises(NoEligibleTier, match="strong: not open to user tier None"):
                decide(tiers, request)


def test_who_may_use_what_is_a_part_of_an_answer_s_identity() -> None:
    router = Router([Tier("weak", None), Tier("strong", None, user_tiers=frozenset({"pro"}))])
    pro, nobody, free = (Request((), scope=Scope(user_tier=tier)) for tier in ("pro", None, "free"))
    assert router.variant(pro) == ""
    assert router.variant(nobody) == router.variant(free) != ""
    wishes = [Overrides(0.5), Overrides(tier="weak"), Overrides(force_model="weak"), Overrides(budget=5)]
    assert len({router.variant(Request((), overrides=wish)) for wish in wishes}) == 4


def test_the_arms_of_a_split_share_no_answers() -> None:
    router = Router([Tier("weak", None), Tier("strong", None)], split={"a": RoutingPolicy(), "b": RoutingPolicy()})
    variants = {router.variant(Request((), scope=Scope(user=f"u{number}"))) for number in range(50)}
    assert variants == {"arm: a", "arm: b"}


# --- Budgets


def test_a_budget_rules_out_what_may_cost_more() -> None:
    tiers = [Tier("small", None, "openai", "gpt-5.4-mini"), Tier("large", None, "openai", "gpt-5.4")]
    request = Request(ask().messages, overrides=Overrides(budget=pico("0.010")))
    assert decide(tiers, request, scorer=lambda _: Choice(1.0, "")) == "small"
    poor = Request(ask().messages, overrides=Overrides(budget=0))
    with pytest.raises(NoEligibleTier, match=r"small: may cost \$0\.00.* of a budget of \$0\.000000; large: may cost"):
        decide(tiers, poor)


def test_what_has_no_price_is_not_within_a_budget() -> None:
    request = Request(ask().messages, overrides=Overrides(budget=pico("100")))
    assert why(Tier("t", None, "nobody", "none"), request) == "no known price, and the request has a budget"
    assert why(Tier("t", None, "nobody", "none"), ask()) is None


# --- None


def test_every_tier_and_why_not_is_told() -> None:
    tiers = [
        Tier("blind", None, vision=False),
        Tier("tiny", None, context_window=100),
        Tier("closed", None, user_tiers=frozenset({"pro"})),
    ]
    events: list[Event] = []
    with pytest.raises(NoEligibleTier) as raised:
        drive(Router(tiers).decide(ask([PICTURE]), sink=events.append))
    for name in ("blind: takes no images", "tiny: a window of 100 tokens", "closed: not open to user tier None"):
        assert name in str(raised.value)
    (refused,) = events
    assert isinstance(refused, Refused)
    assert [name for name, _ in refused.reasons] == ["blind", "tiny", "closed"]


# --- Settings


@pytest.mark.parametrize(
    ("make", "remedy"),
    [
        (lambda: Tier("t", "m", deployments=("n",)), "pass one of them"),
        (lambda: Tier("t", user_tiers="pro"), "such as"),
        (lambda: Tier("t", context_window=0), "number of tokens"),
        (lambda: Tier("t", max_output_tokens=-1), "number of tokens"),
        (lambda: Deployment("m", weight=0), "more than 0"),
        (lambda: Deployment("m", weight=float("nan")), "more than 0"),
        (lambda: Deployment("m", requests_per_minute=0), "more than 0"),
        (lambda: Deployment("m", tokens_per_minute=-1), "more than 0"),
        (lambda: Router([Tier("t", deployments=(Deployment("m", "a"), Deployment("n", "a")))]), "name of its own"),
    ],
)
def test_tiers_that_cannot_work_are_refused(make: Any, remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        make()


def test_deployments_may_be_plain_models() -> None:
    tier = Tier("t", deployments=["m", Deployment("n", "east")])
    assert tier.models == ("m", "n")
    assert Router([tier]).tiers == (tier,)
