"""Feedback that moves thresholds, splits, and what the report says."""

import copy
import random
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from llmcost_plugins.plan import Plan, Step, drive
from llmcost_plugins.routing import Choice, Router, RoutingPolicy
from llmcost_plugins.routing.learning import Learning, arm_of
from llmcost_plugins.types import Fault, Overrides, Reply, Request, Scope, Tier

WEAK, STRONG = Tier("weak", None), Tier("strong", None)


def ask(text: str = "What is tea?", user: str | None = None, **more: Any) -> Request:
    return Request(({"role": "user", "content": text},), scope=Scope(user=user), **more)


class Desk:
    """A router, and tiers that answer well; `judged` is what the scorers say."""

    def __init__(self, **settings: Any) -> None:
        self.judged = 0.0
        self.calls = 0
        if not settings.keys() & {"policy", "split", "scorer"}:
            settings["scorer"] = self.scorer
        self.router = Router([WEAK, STRONG], **settings)

    def scorer(self, *_: object) -> Choice:
        return Choice(self.judged, "")

    scorer.quick = True  # type: ignore[attr-defined]

    def __call__(self, tier: Tier, *, shown: bool) -> Plan[Reply]:
        self.calls += 1
        number, cost = self.calls, 1_000_000 if tier.name == "weak" else 9_000_000
        return (yield Step(lambda: Reply({}, "It is so.", call_id=f"call-{number}", cost=cost)))

    def ask(self, request: Request | None = None) -> dict[str, Any]:
        reply = drive(self.router.route(request or ask(), self, lambda _: Fault("fatal"), lambda _: None))
        assert reply.routing is not None
        return dict(reply.routing)


@pytest.mark.parametrize(("good", "moves"), [(True, 1), (False, -1)])
def test_bad_answers_lower_the_threshold_and_good_ones_raise_it(good: bool, moves: int) -> None:
    desk = Desk()
    assert desk.router.feedback(desk.ask()["id"], good=good)
    assert moves * desk.router.report().arms[""].moved > 0


def test_an_answer_is_known_by_each_of_its_names() -> None:
    for number in range(3):
        desk = Desk()
        routing = desk.ask(ask(run_id="run-1"))
        assert desk.router.feedback((routing["id"], "call-1", "run-1")[number], good=True)
        assert desk.router.report().arms[""].good == 1


@pytest.mark.parametrize("name", ["", "unknown"])
def test_unknown_answers_are_not_believed(name: str) -> None:
    desk = Desk()
    desk.ask()
    assert not desk.router.feedback(name, good=False)
    assert desk.router.report().arms[""].bad == 0


def test_answers_of_the_strongest_tier_move_nothing() -> None:
    desk = Desk()
    desk.judged = 1.0
    desk.router.feedback(desk.ask()["id"], good=False)
    assert (desk.router.report().arms[""].bad, desk.router.report().arms[""].moved) == (1, 0.0)


def test_the_newest_ten_thousand_answers_are_known() -> None:
    learning = Learning(0.05)
    for n in range(10_001):
        names = f"id-{n}", f"call-{n}", f"run-{n}"
        learning.note("", names, "weak", strongest=False, escalated=False, cost=None)
    assert [learning.feedback(f"{kind}-1", good=True) for kind in ("id", "call", "run")] == [True] * 3
    assert not learning.feedback("id-0", good=True)


def test_a_name_used_again_is_as_new_as_its_last_use() -> None:
    learning = Learning(0.05)
    for n in range(50_000):
        learning.note("", (str(n), "one run"), "weak", strongest=False, escalated=False, cost=None)
    assert learning.feedback("one run", good=True)


@pytest.mark.parametrize("max_bad", [0.05, 0.2])
def test_in_the_long_run_the_share_of_bad_weak_answers_is_what_was_asked_for(max_bad: float) -> None:
    dice, desk = random.Random(3), Desk(max_bad=max_bad)
    bad: list[bool] = []
    while len(bad) < 1_500:
        desk.judged = dice.random()
        routing = desk.ask()
        if routing["tier"] == "weak":
            bad.append(dice.random() < desk.judged)  # the scorer is right: this is how often weak answers are bad
            desk.router.feedback(routing["id"], good=not bad[-1])
    assert sum(bad[500:]) / len(bad[500:]) == pytest.approx(max_bad, abs=0.02)


def test_feedback_moves_the_threshold_of_answers_as_well() -> None:
    policy = RoutingPolicy(lambda _: Choice(0.0, ""), answer_scorer=lambda *_: 0.7, answer_threshold=0.8)
    desk = Desk(policy=policy)
    for _ in range(5):
        routing = desk.ask()
        assert routing["tier"] == "weak"
        desk.router.feedback(routing["id"], good=False)
    for _ in range(3):
        desk.router.feedback(desk.ask()["id"], good=False)
    assert desk.ask()["tier"] == "strong"


def test_a_wish_for_a_threshold_is_taken_as_it_is() -> None:
    desk = Desk()
    desk.judged = 0.45
    for _ in range(10):
        desk.router.learning.feedback(desk.ask(ask(overrides=Overrides(0.5)))["id"], good=False)
    assert desk.ask()["tier"] == "strong"
    assert desk.ask(ask(overrides=Overrides(0.5)))["tier"] == "weak"


# --- Splits


def split() -> dict[str, RoutingPolicy]:
    return {name: RoutingPolicy(lambda _: Choice(0.0, ""), threshold=0.5) for name in ("now", "new", "bold")}


def test_a_user_is_always_of_the_same_arm() -> None:
    for n in range(50):
        arms = {Desk(split=split()).ask(ask(f"question {k}", user=f"user-{n}"))["arm"] for k in range(4)}
        assert len(arms) == 1


def test_a_conversation_of_nobody_s_is_always_of_the_same_arm() -> None:
    desk = Desk(split=split())
    arms = {desk.ask(ask(f"question {n}", thread="t"))["arm"] for n in range(10)}
    assert len(arms) == 1
    assert len({desk.ask(ask(f"question {n}"))["arm"] for n in range(30)}) == 3


def test_all_arms_are_about_as_often() -> None:
    counts = Counter(arm_of(("a", "b", "c"), f"user-{n}") for n in range(3_000))
    assert all(900 < count < 1_100 for count in counts.values())


def test_arms_learn_apart_and_are_reported_apart() -> None:
    desk = Desk(split={"low": RoutingPolicy(lambda _: Choice(0.0, "")), "high": RoutingPolicy(lambda _: Choice(1, ""))})
    for n in range(40):
        routing = desk.ask(ask(user=f"user-{n}"))
        assert routing["tier"] == {"low": "weak", "high": "strong"}[routing["arm"]]
        desk.router.feedback(routing["id"], good=False)
    arms = desk.router.report().arms
    assert set(arms) == {"low", "high"}
    assert arms["low"].requests + arms["high"].requests == 40
    assert (arms["low"].moved < 0, arms["high"].moved) == (True, 0)


# --- Reports


def test_the_report_before_and_after() -> None:
    desk = Desk()
    assert str(desk.router.report()) == "no requests yet"
    desk.router.feedback(desk.ask()["id"], good=True)
    desk.judged = 1.0
    desk.ask()
    desk.ask()
    assert str(desk.router.report()).splitlines()[0] == (
        "all: 3 requests (strong 67%, weak 33%), 0 escalated, $0.000006 a request; 1 good and 0 bad by feedback"
    )
    assert desk.router.report().arms[""].mean_cost == Decimal(19) / 3 / 1_000_000


def test_a_report_is_not_changed_by_what_comes_after_it() -> None:
    desk = Desk()
    desk.ask()
    report = desk.router.report()
    before = str(report)
    desk.ask()
    assert str(report) == before


def test_unpriced_requests_do_not_lower_the_mean_cost() -> None:
    learning = Learning(0.05)
    for cost in (None, 4_000_000, None):
        learning.note("", ("a",), "weak", strongest=False, escalated=True, cost=cost)
    report = learning.report()[""]
    assert (report.mean_cost, report.unpriced, report.escalated) == (Decimal("0.000004"), 2, 3)
    assert "no known price" in str(_unpriced())


def _unpriced() -> Any:
    learning = Learning(0.05)
    learning.note("", ("a",), "weak", strongest=False, escalated=False, cost=None)
    return learning.report()[""]


def test_a_copy_has_learnt_nothing() -> None:
    desk = Desk()
    name = desk.ask()["id"]
    assert not copy.deepcopy(desk.router.learning).feedback(name, good=True)


def test_an_answer_is_judged_once_under_whichever_of_its_names() -> None:
    learning = Learning(0.1)
    learning.note("", ("routing", "call", "run"), "weak", strongest=False, escalated=False, cost=1)
    assert all(learning.feedback(name, good=False) for name in ("routing", "run", "call", "routing"))
    assert learning.report()[""].bad == 1
