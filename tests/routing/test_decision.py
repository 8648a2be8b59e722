"""What is decided before any model is asked: thresholds, wishes, goals, the guard, and bad settings."""

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.plan import Plan, Step, drive
from llmcost_plugins.routing import Choice, Decision, Router, RoutingPolicy, Shadow
from llmcost_plugins.routing.decision import lifted, named, order
from llmcost_plugins.routing.health import places_of
from llmcost_plugins.routing.thresholds import Chosen
from llmcost_plugins.types import Fault, Overrides, Reply, Request, Tier, Usage

NANO, MINI, LARGE = (
    Tier("nano", None, "openai", "gpt-5.4-nano"),
    Tier("mini", None, "openai", "gpt-5.4-mini"),
    Tier("large", None, "openai", "gpt-5.4"),
)
THREE = (NANO, MINI, LARGE)
REQUEST = Request(({"role": "user", "content": "What is tea?"},))
NO_CASCADE = Chosen(False, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.95, "it does not pay")


def easy(_: Request) -> Choice:
    return Choice(0.0, "easy")


def decide(router: Router, **wishes: Any) -> Decision:
    return drive(router.decide(Request(REQUEST.messages, overrides=Overrides(**wishes))))


def first(router: Router, **wishes: Any) -> str:
    decision = decide(router, **wishes)
    return decision.tiers[decision.first].name


# --- Order


@given(st.sets(st.integers(0, 6), min_size=1), st.integers(0, 6))
def test_every_eligible_tier_has_its_turn_once_the_stronger_first(eligible: set[int], wanted: int) -> None:
    ranked = sorted(eligible)
    begin = lifted(wanted, ranked)
    hops = order(begin, ranked)
    assert sorted(hops) == ranked
    assert hops[0] == begin
    assert begin >= wanted or begin == ranked[-1]
    up = [index for index in hops if index >= begin]
    down = [index for index in hops if index < begin]
    assert list(hops) == sorted(up) + sorted(down, reverse=True)


@pytest.mark.parametrize(
    ("difficulty", "tier"), [(0.0, "nano"), (0.29, "nano"), (0.3, "mini"), (0.7, "large"), (1.0, "large")]
)
def test_several_thresholds_part_several_tiers(difficulty: float, tier: str) -> None:
    router = Router(THREE, scorer=lambda _: Choice(difficulty, ""), threshold=[0.3, 0.7])
    assert first(router) == tier


def test_a_decision_can_be_read() -> None:
    tiers = [Tier("nano", None, tools=False), MINI, LARGE]
    router = Router(tiers, scorer=easy)
    request = Request(REQUEST.messages, params={"tools": [{"type": "web_search"}]})
    assert str(drive(router.decide(request))) == (
        "mini: easy (difficulty 0.00, threshold 0.50)\n  not nano: takes no tools"
    )


# --- Wishes


def test_a_tier_is_asked_for_by_its_name_or_its_model_s() -> None:
    assert [first(Router(THREE), tier=name) for name in ("large", "gpt-5.4")] == ["large", "large"]
    assert decide(Router(THREE), force_model="mini").hops == (1,)
    assert decide(Router(THREE), tier="mini").hops == (1, 2, 0)


def test_a_tier_s_own_name_goes_before_another_s_model() -> None:
    tiers = [Tier("a", None, model_name="b"), Tier("b", None, model_name="a")]
    assert [named(tiers, name, "tier") for name in "ab"] == [0, 1]


@pytest.mark.parametrize("name", ["", "gpt-9"])
def test_a_tier_that_there_is_not_is_an_error_that_names_those_that_are(name: str) -> None:
    with pytest.raises(ConfigurationError, match="expected one of: x, y"):
        first(Router([Tier("x", None), Tier("y", None)]), force_model=name)


@pytest.mark.parametrize(("threshold", "tier"), [(0.0, "large"), (0.4, "large"), (0.41, "nano"), (1.0, "nano")])
def test_a_threshold_of_its_own(threshold: float, tier: str) -> None:
    assert first(Router(THREE, scorer=lambda _: Choice(0.4, "")), threshold=threshold) == tier


# --- Goals


def timed(router: Router, **seconds: float) -> Router:
    for tier in router.tiers:
        if tier.name in seconds:
            router.health.succeeded(places_of(tier)[0], seconds[tier.name])
    return router


def test_the_fastest_of_those_strong_enough() -> None:
    router = timed(Router(THREE, scorer=easy, optimise="latency"), nano=3.0, mini=1.0, large=2.0)
    assert first(router) == "mini"
    hard = timed(Router(THREE, scorer=lambda _: Choice(1.0, ""), optimise="latency"), nano=0.1, mini=0.1, large=9.0)
    assert first(hard) == "large"


def test_balanced_weighs_seconds_with_dollars() -> None:
    assert first(timed(Router(THREE, scorer=easy, optimise="balanced"), nano=3.0, mini=2.9, large=2.8)) == "nano"
    assert first(timed(Router(THREE, scorer=easy, optimise="balanced"), nano=300.0, mini=1.0, large=1.0)) == "mini"


def test_a_tier_without_a_price_does_not_pass_for_a_free_one() -> None:
    tiers = (NANO, Tier("unpriced", None, "nobody", "none"), LARGE)
    assert first(timed(Router(tiers, scorer=easy, optimise="balanced"), nano=1.0, unpriced=1.0, large=1.0)) == "nano"


# --- The guard


class Desk:
    """Tiers that answer with a usage and a cost; drafts of nano cost as much as the large tier's answers."""

    def __init__(self, router: Router, draft_cost: int = 10**9) -> None:
        self.router, self.draft_cost = router, draft_cost
        self.asked: list[str] = []

    def __call__(self, tier: Tier, *, shown: bool) -> Plan[Reply]:
        self.asked.append(tier.name)
        cost = 10**9 if tier is LARGE else self.draft_cost
        return (yield Step(lambda: Reply({}, "Tea is a drink.", usage=Usage(100, 10), cost=cost)))

    def ask(self, **wishes: Any) -> Reply:
        request = Request(REQUEST.messages, overrides=Overrides(**wishes))
        return drive(self.router.route(request, self, lambda _: Fault("fatal"), lambda _: None))


def test_drafts_that_cost_more_than_they_save_are_stopped_and_tried_again_later() -> None:
    now = [0.0]
    desk = Desk(Router([NANO, LARGE], scorer=easy, clock=lambda: now[0]))
    for _ in range(60):
        desk.ask()
    stopped = desk.asked.index("large")
    assert 5 <= stopped <= 50
    assert set(desk.asked[stopped:]) == {"large"}
    assert "stopped" in str(desk.router.report())
    now[0] += 3_600
    desk.ask()
    assert desk.asked[-1] == "nano"


def test_drafts_that_pay_go_on() -> None:
    desk = Desk(Router([NANO, LARGE], scorer=easy), draft_cost=10)
    for _ in range(60):
        desk.ask()
    assert desk.asked == ["nano"] * 60


def test_the_cost_of_second_opinions_counts() -> None:
    policy = RoutingPolicy(easy, second_opinion="mini")
    price = 100 * 2_500_000 + 10 * 15_000_000  # pico-USD, gpt-5.4
    desk = Desk(Router(THREE, policy=policy), draft_cost=price * 6 // 10)
    for _ in range(60):
        desk.ask()
    assert "nano" not in desk.asked[-10:]


@pytest.mark.parametrize("tiers", [(NANO, LARGE), THREE])
def test_a_calibration_that_says_no_never_drafts(tiers: tuple[Tier, ...]) -> None:
    desk = Desk(Router(tiers, policy=RoutingPolicy(easy, calibration=NO_CASCADE)))
    for _ in range(5):
        assert desk.ask().text
    assert set(desk.asked) == {"large"}


def test_nor_does_it_judge_the_answer_of_a_tier_that_was_asked_for() -> None:
    policy = RoutingPolicy(easy, answer_scorer=lambda *_: 1.0, calibration=NO_CASCADE)
    desk = Desk(Router([NANO, LARGE], policy=policy))
    desk.ask(tier="nano")
    assert desk.asked == ["nano"]


# --- Settings


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"threshold": "0.5"}, "expected 0 to 1"),
        ({"threshold": []}, "expected 0 to 1"),
        ({"threshold": [0.7, 0.3]}, "rising"),
        ({"threshold": [0.1, 0.2, 0.3]}, "pass one number, or 2"),
        ({"answer_threshold": 1.5}, "expected 0 to 1"),
        ({"answer_threshold": "x"}, "expected 0 to 1"),
        ({"scorer": "rules"}, "callable"),
        ({"answer_scorer": 0.5}, "callable"),
        ({"policy": RoutingPolicy(), "threshold": 0.4}, "change the policy instead"),
        ({"policy": RoutingPolicy(second_opinion="none")}, "expected one of: nano, mini, large"),
        ({"policy": RoutingPolicy(second_opinion="large")}, "strongest"),
        ({"split": {"a": RoutingPolicy()}, "threshold": 0.4}, "pass no other policy"),
        ({"max_bad": 0}, "such as 0.05"),
        ({"max_bad": "few"}, "such as 0.05"),
        ({"optimise": "speed"}, "'cost', 'latency' or 'balanced'"),
        ({"retries": -1}, "0 or more"),
        ({"retries": 0.5}, "whole number"),
        ({"patience": float("nan")}, "0 or more"),
        ({"deadline": "2"}, "0 or more"),
        ({"output_reserve": -5}, "0 or more"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        Router(THREE, **settings)


@pytest.mark.parametrize("tiers", [["model"], [None], [NANO, "model"]])
def test_tiers_must_be_tiers(tiers: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected such as Tier"):
        Router(tiers)


@pytest.mark.parametrize("share", [0, -1, 1.1])
def test_a_shadow_needs_a_share(share: float) -> None:
    with pytest.raises(ConfigurationError, match="more than 0"):
        Shadow(share, path="unused")


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda router: pickle.loads(pickle.dumps(router))])
def test_a_router_can_be_copied(copied: Any) -> None:
    router = Router(THREE, threshold=[0.2, 0.6], shadow=Shadow(0.5, path="unused"), split=None)
    assert copied(router).describe() == router.describe()
    assert first(copied(router)) == first(router)
