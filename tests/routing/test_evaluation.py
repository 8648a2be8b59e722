"""Figures of scores: what must hold for any scores and qualities."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.routing import evaluation
from llmcost_plugins.routing.evaluation import Floats, Point
from llmcost_plugins.types import Request

QUALITY = st.integers(0, 4).map(lambda quarter: quarter / 4)
ROWS = st.lists(st.tuples(st.integers(-5, 5), QUALITY, QUALITY), min_size=1, max_size=40).filter(
    lambda rows: sum(strong - weak for _, weak, strong in rows) > 0
)


def columns(rows: list[tuple[int, float, float]]) -> tuple[Floats, Floats, Floats]:
    scores, weak, strong = (np.array(column, float) for column in zip(*rows, strict=True))
    return scores, weak, strong


@given(ROWS)
def test_a_constant_score_is_random(rows: list[tuple[int, float, float]]) -> None:
    _, weak, strong = columns(rows)
    assert evaluation.apgr(np.zeros(len(rows)), weak, strong) == pytest.approx(0.5)
    assert evaluation.curve(np.zeros(len(rows)), weak, strong).cpt(0.8) == pytest.approx(0.8)


@given(ROWS)
def test_only_the_order_of_scores_matters(rows: list[tuple[int, float, float]]) -> None:
    scores, weak, strong = columns(rows)
    assert evaluation.apgr(np.exp(scores) + 3, weak, strong) == pytest.approx(evaluation.apgr(scores, weak, strong))


@given(ROWS)
def test_an_order_and_its_reverse_are_one_together(rows: list[tuple[int, float, float]]) -> None:
    scores, weak, strong = columns(rows)
    both = evaluation.apgr(scores, weak, strong) + evaluation.apgr(-scores, weak, strong)
    assert both == pytest.approx(1)


@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(rows: list[tuple[int, float, float]], random: np.random.Generator) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert evaluation.apgr(*columns(shuffled)) == pytest.approx(evaluation.apgr(*columns(rows)))


@given(ROWS)
def test_nothing_beats_the_oracle(rows: list[tuple[int, float, float]]) -> None:
    scores, weak, strong = columns(rows)
    assert evaluation.apgr(scores, weak, strong) <= evaluation.apgr(strong - weak, weak, strong) + 1e-9


@given(ROWS)
def test_a_curve_begins_at_nothing_and_ends_at_all(rows: list[tuple[int, float, float]]) -> None:
    curve = evaluation.curve(*columns(rows))
    assert (curve.strong_share[0], curve.recovered[0]) == (0, 0)
    assert (curve.strong_share[-1], curve.recovered[-1]) == pytest.approx((1, 1))
    assert (np.diff(curve.strong_share) > 0).all()


def test_a_curve_by_hand() -> None:
    curve = evaluation.curve([3, 2, 1, 0], weak=[0, 1, 0, 1], strong=[1, 1, 1, 1])
    assert curve.recovered.tolist() == [0, 0.5, 0.5, 1, 1]
    assert curve.apgr == pytest.approx(0.625)
    assert curve.cpt(0.5) == pytest.approx(0.25)
    assert curve.cpt(0.75) == pytest.approx(0.625)


def test_quality_and_cost_at_a_threshold() -> None:
    point = evaluation.at(2, [3, 2, 1, 0], weak=[0, 1, 0, 1], strong=[1, 1, 1, 0.2])
    assert point == Point(2, 0.5, 0.75, pytest.approx(0.75 / 0.8))
    assert point.cost(weak_price=0.1) == pytest.approx(0.55)


def test_without_a_gap_there_is_nothing_to_recover() -> None:
    with pytest.raises(ConfigurationError, match="always ask the weak one"):
        evaluation.apgr([1, 2], [1, 1], [1, 1])


def test_a_score_must_be_finite() -> None:
    with pytest.raises(ConfigurationError, match="not finite"):
        evaluation.apgr([1, float("nan")], [0, 0], [1, 1])


def test_intervals_hold_the_value_and_tell_good_scores_from_noise() -> None:
    random = np.random.default_rng(0)
    strong, weak = np.ones(400), (random.random(400) < 0.5).astype(float)
    good, noise = (1 - weak) + random.random(400), random.random(400)
    groups = [str(n // 2) for n in range(400)]
    alone = evaluation.interval(good, weak, strong, groups)
    assert alone.low < alone.value < alone.high
    assert evaluation.interval(good, weak, strong, groups, against=noise).low > 0
    assert evaluation.interval(noise, weak, strong, groups, against=noise).high == 0


def test_groups_are_drawn_whole() -> None:
    weak, strong = np.tile([0.0, 1.0, 1.0], 30), np.ones(90)
    scores = np.tile([1.0, 0.0, 0.0], 30)
    whole = evaluation.interval(scores, weak, strong, [str(n // 3) for n in range(90)])
    assert whole.high - whole.low < 1e-9  # every group is like every other


@given(st.lists(st.integers(0, 12), min_size=2, max_size=60).filter(lambda groups: len(set(groups)) > 1))
def test_folds_keep_groups_together(groups: list[int]) -> None:
    fold = evaluation.folds(groups, 5, seed=1)
    assert all(len({int(f) for f, g in zip(fold, groups, strict=True) if g == group}) == 1 for group in groups)
    assert sorted(set(fold.tolist())) == list(range(min(5, len(set(groups)))))


def test_one_group_cannot_be_held_out() -> None:
    with pytest.raises(ConfigurationError, match="1 group"):
        evaluation.folds(["a", "a"])


def test_baselines() -> None:
    request = Request(({"role": "user", "content": "Prove it step by step, then refactor."},))
    assert evaluation.word_count(request) == 7
    assert evaluation.keyword_count(request) == 3
