"""Whether a cascade pays."""

import copy
import math
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.routing.economics import UrgencyScorer, break_even, interval, urgency
from llmcost_plugins.routing.guard import Draft, Guard
from llmcost_plugins.routing.thresholds import Chosen, choose_threshold
from llmcost_plugins.types import Reply, Request

PAIR = ("small", "large")
COSTS = st.floats(0.001, 1e6)


# --- Break-even and urgency


@pytest.mark.parametrize(("weak", "strong", "rate"), [(1, 10, 0.9), (0, 5, 1.0), (5, 5, 0.0), (10, 5, -1.0)])
def test_break_even(weak: float, strong: float, rate: float) -> None:
    assert break_even(weak, strong) == pytest.approx(rate)


@given(COSTS, COSTS, st.floats(0, 1))
def test_a_cascade_loses_above_break_even(weak: float, strong: float, rate: float) -> None:
    cost, even = weak + rate * strong, break_even(weak, strong)
    if abs(rate - even) > 1e-9:
        assert (cost < strong) == (rate < even)


@pytest.mark.parametrize(("weak", "strong"), [(-1, 1), (1, 0), (1, -1), (math.nan, 1), (1, math.inf)])
def test_costs_that_are_none(weak: float, strong: float) -> None:
    with pytest.raises(ConfigurationError, match="expected amounts"):
        break_even(weak, strong)


def test_urgency_is_the_probability_at_the_usual_cost() -> None:
    assert urgency(0.3, 100, 100) == pytest.approx(0.3)
    assert urgency(0.3, 300, 100) == pytest.approx(0.15)
    assert urgency(0.3, 0, 100) == pytest.approx(0.6)
    assert urgency(0.9, 0, 100) == 1.0
    assert urgency(0.3, 5, 0) == urgency(0.3, -1, 100) == 0.3


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1e12), st.floats(0, 1e12), st.floats(1, 1e12))
def test_urgency_rises_with_doubt_and_falls_with_cost(p: float, q: float, a: float, b: float, usual: float) -> None:
    assert 0 <= urgency(p, a, usual) <= 1
    assert urgency(min(p, q), a, usual) <= urgency(max(p, q), a, usual)
    assert urgency(p, max(a, b), usual) <= urgency(p, min(a, b), usual)


def test_a_scorer_of_urgency() -> None:
    scorer = UrgencyScorer(lambda request, reply: 0.4, 100)
    assert scorer(Request(()), Reply(None, "Tea.", cost=300)) == pytest.approx(0.2)
    assert scorer(Request(()), Reply(None, "Tea.")) == 0.4
    assert "100" in scorer.id


# --- Thresholds


def sample(n: int = 2_000, *, weak_cost: float = 1.0, strong_cost: float = 16.0, seed: int = 0) -> dict[str, Any]:
    """Return a sample whose scores tell well which drafts are wrong; the strong model is right in 80 %."""
    dice = np.random.default_rng(seed)
    score = dice.random(n)
    weak = (dice.random(n) > score).astype(float)
    strong = np.maximum(weak * (dice.random(n) < 0.95), (dice.random(n) < 0.6).astype(float))
    return {
        "scores": score,
        "weak": weak,
        "strong": strong,
        "weak_cost": np.full(n, weak_cost),
        "strong_cost": np.full(n, strong_cost),
    }


def test_a_cascade_that_pays() -> None:
    chosen = choose_threshold(**sample(), quality=0.95)
    assert chosen.cascade
    assert 0 < chosen.threshold < 1
    assert chosen.cost < chosen.cost_bound < 1
    assert 0.95 <= chosen.kept_bound < chosen.kept
    assert chosen.escalation_low < chosen.escalation_rate < chosen.escalation_high
    assert "cheapest that keeps 95.0%" in str(chosen)


def test_what_is_chosen_is_what_the_threshold_does() -> None:
    given_sample = sample()
    chosen = choose_threshold(**given_sample)
    escalated = given_sample["scores"] >= chosen.threshold
    kept = np.where(escalated, given_sample["strong"], given_sample["weak"]).sum() / given_sample["strong"].sum()
    assert chosen.kept == pytest.approx(kept)
    assert chosen.escalation_rate == pytest.approx(escalated.mean())
    assert chosen.cost == pytest.approx(1 / 16 + escalated.mean())


def test_no_cascade_where_the_draft_costs_as_much() -> None:
    chosen = choose_threshold(**sample(weak_cost=16.0))
    assert not chosen.cascade
    assert (chosen.cost, chosen.kept, chosen.escalation_rate) == (1.0, 1.0, 1.0)
    assert "a draft costs 100% of a strong answer" in str(chosen)


def test_no_cascade_where_the_scores_tell_nothing() -> None:
    blind = sample() | {"scores": np.random.default_rng(5).random(2_000)}
    chosen = choose_threshold(**blind, quality=1.0)
    assert not chosen.cascade
    assert "100.0% was asked for" in chosen.why


def test_no_cascade_on_a_handful_of_examples() -> None:
    assert not choose_threshold(**sample(40), quality=0.98).cascade


def test_a_sample_without_a_loss_promises_little_when_it_is_small() -> None:
    right = {"scores": np.linspace(0, 1, 50), "weak": np.ones(50), "strong": np.ones(50)}
    costs = {"weak_cost": np.ones(50), "strong_cost": np.full(50, 10.0)}
    assert not choose_threshold(**right, **costs, quality=0.98).cascade
    assert choose_threshold(**right, **costs, quality=0.9).cascade


def test_drafts_that_are_never_escalated() -> None:
    n = 2_000
    chosen = choose_threshold(np.full(n, 0.5), np.ones(n), np.ones(n), np.ones(n), np.full(n, 9.0))
    assert chosen.escalation_rate == 0
    assert chosen.threshold > 0.5
    assert chosen.cost == pytest.approx(1 / 9)


def test_equal_scores_are_escalated_together() -> None:
    given_sample = sample() | {"scores": np.round(sample()["scores"], 1)}
    chosen = choose_threshold(**given_sample, quality=0.9)
    assert chosen.escalation_rate == pytest.approx((given_sample["scores"] >= chosen.threshold).mean())


@pytest.mark.parametrize("budget", [0.2, 0.4, 0.7])
def test_a_budget_is_kept_by_its_bound(budget: float) -> None:
    chosen = choose_threshold(**sample(), budget=budget)
    assert chosen.cascade
    assert chosen.cost < chosen.cost_bound <= budget


def test_a_budget_that_nothing_keeps_to() -> None:
    chosen = choose_threshold(**sample(), budget=0.01)
    assert chosen.escalation_rate == 0
    assert "nothing keeps to a budget of 1.0%" in chosen.why


def test_a_larger_budget_keeps_more() -> None:
    kept = [choose_threshold(**sample(), budget=budget).kept_bound for budget in (0.1, 0.2, 0.4, 0.8)]
    assert kept == sorted(kept)


@settings(max_examples=40)
@given(st.integers(0, 1_000), st.floats(0.5, 1), st.floats(0.5, 1), st.floats(0.1, 20))
def test_more_quality_never_escalates_less(seed: int, one: float, other: float, strong_cost: float) -> None:
    low, high = sorted((one, other))
    given_sample = sample(400, strong_cost=strong_cost, seed=seed)
    less, more = (choose_threshold(**given_sample, quality=quality) for quality in (low, high))
    assert less.escalation_rate <= more.escalation_rate
    assert not (more.cascade and less.cascade) or less.threshold >= more.threshold
    for chosen in (less, more):
        assert chosen.kept_bound <= chosen.kept
        assert chosen.cost <= chosen.cost_bound <= 1
        assert chosen.cost < 1 or not chosen.cascade


def test_the_target_is_rarely_missed_on_other_traffic() -> None:
    missed = 0
    for seed in range(200):
        chosen = choose_threshold(**sample(600, seed=2 * seed), quality=0.95)
        fresh = sample(600, seed=2 * seed + 1)
        escalated = (fresh["scores"] >= chosen.threshold) | (not chosen.cascade)
        kept = np.where(escalated, fresh["strong"], fresh["weak"]).sum() / fresh["strong"].sum()
        missed += kept < 0.95
    assert missed <= 10


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"quality": 0.9, "budget": 0.4}, "ask for one"),
        ({"quality": 0}, "share above 0"),
        ({"budget": 1.2}, "share above 0"),
        ({"confidence": 1}, "such as 0.95"),
        ({"weak": []}, "empty or uneven"),
        ({"weak": np.full(2_000, 1.5)}, "between 0 and 1"),
        ({"weak_cost": np.full(2_000, -1.0)}, "must not be negative"),
        ({"scores": np.full(2_000, math.nan)}, "leave such requests out"),
        ({"strong": np.zeros(2_000)}, "nothing to compare with"),
        ({"strong_cost": np.zeros(2_000)}, "nothing to compare with"),
    ],
)
def test_bad_samples(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        choose_threshold(**(sample() | changes))


def test_an_empty_sample() -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        choose_threshold([], [], [], [], [])


@given(st.integers(0, 500), st.integers(0, 500))
def test_an_interval_holds_the_share(count: int, more: int) -> None:
    low, high = interval(count, count + more)
    assert 0 <= low <= high <= 1
    if count + more:
        assert low <= count / (count + more) <= high
        assert interval(count, count + more, 0.999)[0] <= low


# --- The guard

EXPECTED = Chosen(True, 0.4, 0.3, 0.27, 0.33, 0.99, 0.98, 0.4, 0.45, 0.95, "for tests")


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def watch(*drafts: Draft, **settings: Any) -> Guard:
    guard = Guard(**settings)
    for draft in drafts:
        guard.note(*PAIR, draft)
    return guard


KEPT, SENT_ON = Draft(10, 100, False), Draft(10, 100, True)


def test_a_guard_without_drafts_allows() -> None:
    guard = Guard()
    assert guard.allows(*PAIR)
    assert guard.report() == {}


def test_a_cascade_that_pays_goes_on() -> None:
    guard = watch(*[KEPT] * 70, *[SENT_ON] * 30)
    report = guard.report()[PAIR]
    assert guard.allows(*PAIR)
    assert report.break_even == pytest.approx(0.9)
    assert report.cost_ratio == pytest.approx(0.4)
    assert report.escalation_rate == 0.3
    assert report.low < 0.3 < report.high


def test_a_cascade_that_loses_is_stopped_once_there_are_enough_drafts() -> None:
    assert watch(*[SENT_ON] * 49).allows(*PAIR)
    guard = watch(*[SENT_ON] * 50)
    assert not guard.allows(*PAIR)
    assert guard.report()[PAIR].cost_ratio == pytest.approx(1.1)
    assert guard.allows("small", "middle")


def test_drafts_dearer_than_strong_answers_are_stopped_early() -> None:
    dear = Draft(100, 100, False)
    assert watch(*[dear] * 9).allows(*PAIR)
    assert not watch(*[dear] * 10).allows(*PAIR)


def test_models_that_cost_nothing_are_left_alone() -> None:
    guard = watch(*[Draft(0, 0, True)] * 100)
    assert guard.allows(*PAIR)
    assert guard.report()[PAIR].cost_ratio is guard.report()[PAIR].break_even is None


def test_negative_costs_do_not_count() -> None:
    assert watch(Draft(-1, 5, True), Draft(1, -5, True)).report() == {}


def test_only_the_newest_drafts_count() -> None:
    guard = watch(*[SENT_ON] * 40, *[KEPT] * 100, window=100)
    assert (guard.report()[PAIR].drafts, guard.report()[PAIR].escalated) == (100, 0)


def test_a_stopped_cascade_is_tried_anew_after_a_pause() -> None:
    clock = Clock()
    guard = watch(*[SENT_ON] * 50, clock=clock, pause=60)
    clock.now += 59
    guard.note(*PAIR, KEPT)
    assert not guard.allows(*PAIR)
    clock.now += 1
    assert guard.allows(*PAIR)
    assert guard.report() == {}


def test_a_calibration_that_said_no_stops_every_pair() -> None:
    refused = choose_threshold(**sample(weak_cost=16.0))
    assert not Guard(refused).allows(*PAIR)


@given(st.lists(st.builds(Draft, st.integers(0, 20), st.integers(1, 20), st.booleans()), min_size=5, max_size=40))
def test_a_guard_never_allows_what_costs_as_much(drafts: list[Draft]) -> None:
    guard = watch(*drafts, fewest=5, window=40, clock=Clock())
    report = guard.report()[PAIR]
    spent = sum(draft.cost + draft.strong_cost * draft.escalated for draft in drafts)
    always = sum(draft.strong_cost for draft in drafts)
    assert report.cost_ratio == pytest.approx(spent / always)
    if spent >= always:
        assert not guard.allows(*PAIR)


@pytest.mark.parametrize(("escalated", "drifted"), [(10, True), (24, False), (30, False), (38, False), (60, True)])
def test_a_rate_outside_its_band_is_told(escalated: int, drifted: bool) -> None:
    guard = watch(*[SENT_ON] * escalated, *[KEPT] * (100 - escalated), chosen=EXPECTED)
    assert guard.report()[PAIR].drifted is drifted


def test_a_few_drafts_are_no_drift() -> None:
    assert not watch(*[SENT_ON] * 20, chosen=EXPECTED).report()[PAIR].drifted


@pytest.mark.parametrize("settings_", [{"fewest": 0}, {"fewest": 9, "window": 8}, {"pause": 0}])
def test_settings_that_cannot_work(settings_: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="expected 1 <= fewest <= window"):
        Guard(**settings_)


def test_copies_keep_the_settings_and_begin_anew() -> None:
    guard = watch(*[SENT_ON] * 3, chosen=EXPECTED, fewest=2, window=4)
    for twin in (copy.deepcopy(guard), pickle.loads(pickle.dumps(guard))):
        assert twin.allows(*PAIR)
        assert twin.chosen == EXPECTED
        twin.note(*PAIR, SENT_ON)
        twin.note(*PAIR, SENT_ON)
        assert not twin.allows(*PAIR)


def test_threads_lose_no_draft() -> None:
    guard = Guard(window=10_000)
    threads = [threading.Thread(target=lambda: [guard.note(*PAIR, KEPT) for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert guard.report()[PAIR].drafts == 4_000
