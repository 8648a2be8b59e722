"""From where answers are escalated: thresholds that keep the quality asked for, by bounds and not by estimates."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.routing.economics import SURE, interval

Floats = NDArray[np.float64]

_CANDIDATES = 50


@dataclass(frozen=True, slots=True)
class Chosen:
    """A threshold and what to expect of it; shares are of the always-strong way, rates of the requests.

    `cascade` False means: ask the strong model at once, at a cost of exactly 1; `threshold` is 0 then. Bounds hold at
    the `confidence` for other traffic of the same kind, as many requests as in the sample.
    """

    cascade: bool
    threshold: float
    escalation_rate: float
    escalation_low: float
    escalation_high: float
    kept: float
    kept_bound: float
    cost: float
    cost_bound: float
    confidence: float
    why: str

    def __str__(self) -> str:
        if not self.cascade:
            return f"no cascade: {self.why}"
        return (
            f"escalate from {self.threshold:.3f}: {self.escalation_rate:.1%} of the drafts, {self.kept:.1%} of the "
            f"strong model's quality (at least {self.kept_bound:.1%}) at {self.cost:.3f} of its cost (at most "
            f"{self.cost_bound:.3f}): {self.why}"
        )


def choose_threshold(
    scores: ArrayLike,
    weak: ArrayLike,
    strong: ArrayLike,
    weak_cost: ArrayLike,
    strong_cost: ArrayLike,
    *,
    quality: float | None = None,
    budget: float | None = None,
    confidence: float = 0.95,
) -> Chosen:
    """Choose the score from which drafts are escalated, on a graded sample that the scorer did not learn from.

    Asked for is either a share of the strong model's quality that is kept, at the least cost, or a share of its cost
    that is not exceeded, with the most kept. Both are held by bounds, never by estimates: going through the thresholds
    from the safest on this sample towards cheaper ones, the last before the first that misses (after the fixed-sequence
    test, which looks at many without a correction). Bounds are those of a normal prediction for as many further
    requests, with one lost answer more than the sample shows. A cascade must cost less than always-strong with 99.9 %
    confidence, whatever is asked for.

    Args:
        scores: Higher for drafts that are to be escalated first; one for each request, as all that follow.
        weak: Grades of the drafts, from 0 to 1.
        strong: Grades of the strong model's answers.
        weak_cost: Costs of the drafts, in any unit.
        strong_cost: Costs of the strong answers, in the same.
        quality: The share to be kept; 0.98 where no budget is given.
        budget: The share of the strong model's cost that may be spent.
        confidence: Of the bounds, one-sided.

    Raises:
        ConfigurationError: The sample is empty or uneven, or the target is none.
    """
    target = _target(quality, budget, confidence)
    sample = _sample(scores, weak, strong, weak_cost, strong_cost)
    points = _curve(sample, confidence)
    paying = [point for point in points if point.sure_cost < 1]
    if not paying:
        share = sample.weak_cost.sum() / sample.strong_cost.sum()
        return _no_cascade(sample, confidence, f"no threshold costs less; a draft costs {share:.0%} of a strong answer")
    if quality is None and budget is not None:
        return _within_budget(sample, paying, target, confidence)
    return _with_quality(sample, paying, target, confidence)


class _Sample(NamedTuple):
    """A graded sample, the first to be escalated in front."""

    scores: Floats
    weak: Floats
    strong: Floats
    weak_cost: Floats
    strong_cost: Floats


class _Point(NamedTuple):
    """What escalating the first `escalated` of a sample does."""

    escalated: int
    kept: float
    kept_bound: float
    cost: float
    cost_bound: float
    sure_cost: float


def _target(quality: float | None, budget: float | None, confidence: float) -> float:
    if quality is not None and budget is not None:
        raise ConfigurationError("`quality` and `budget` are both given; ask for one of them")
    target = budget if budget is not None else 0.98 if quality is None else quality
    if not 0 < target <= 1:
        raise ConfigurationError(f"`quality` or `budget` is {target!r}; expected a share above 0, at most 1")
    if not 0.5 <= confidence < 1:
        raise ConfigurationError(f"`confidence` is {confidence!r}; expected 0.5 to below 1, such as 0.95")
    return target


def _sample(*columns: ArrayLike) -> _Sample:
    arrays = [np.asarray(column, dtype=float) for column in columns]
    if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 1 or not len(arrays[0]):
        raise ConfigurationError("the sample is empty or uneven; pass one score, two grades and two costs a request")
    if not all(np.isfinite(array).all() for array in arrays):
        raise ConfigurationError("the sample has values that are no finite numbers; leave such requests out")
    order = np.argsort(-arrays[0], kind="stable")
    sample = _Sample(*(array[order] for array in arrays))
    if min(map(np.min, sample[1:])) < 0 or max(map(np.max, sample[1:3])) > 1:
        raise ConfigurationError("grades must lie between 0 and 1, costs must not be negative")
    if not sample.strong.any() or not sample.strong_cost.any():
        raise ConfigurationError(
            "the strong model has no right answer, or no cost, in the sample; nothing to compare with"
        )
    return sample


def _curve(sample: _Sample, confidence: float) -> list[_Point]:
    """Return some fifty points from few escalations to many."""
    return [_point(sample, int(count), _reach(confidence), _reach(SURE)) for count in _counts(sample.scores)]


def _reach(confidence: float) -> float:
    """Return the standard errors from what a sample shows to what as large another may show."""
    return NormalDist().inv_cdf(confidence) * math.sqrt(2)


def _counts(scores: Floats) -> NDArray[np.intp]:
    """Return how many are escalated at the candidates; equal scores are never parted."""
    ends = np.flatnonzero(np.append(scores[:-1] != scores[1:], True)) + 1
    ends = np.insert(ends, 0, 0)
    chosen = np.round(np.linspace(0, len(ends) - 1, min(_CANDIDATES, len(ends)))).astype(int)
    counts: NDArray[np.intp] = ends[chosen]
    return counts


def _point(sample: _Sample, count: int, reach: float, sure_reach: float) -> _Point:
    """Return the ratios to always-strong and their bounds, by the variance of a ratio's residuals (delta method).

    One draft that was kept and lost is added to the losses: without it, a sample in which nothing was lost yet would
    promise that nothing ever is.
    """
    escalated = np.arange(len(sample.scores)) < count
    got = np.where(escalated, sample.strong, sample.weak)
    paid = sample.weak_cost + np.where(escalated, sample.strong_cost, 0.0)
    kept, cost = got.sum() / sample.strong.sum(), paid.sum() / sample.strong_cost.sum()
    lost = np.sum((got - kept * sample.strong) ** 2) + 1
    kept_bound = kept - (1 + reach * math.sqrt(lost)) / sample.strong.sum()
    spread = math.sqrt(np.sum((paid - cost * sample.strong_cost) ** 2)) / sample.strong_cost.sum()
    return _Point(count, *map(float, (kept, kept_bound, cost, cost + reach * spread, cost + sure_reach * spread)))


def _with_quality(sample: _Sample, points: Sequence[_Point], quality: float, confidence: float) -> Chosen:
    safest = max(range(len(points)), key=lambda n: (points[n].kept_bound, n))
    if points[safest].kept_bound < quality:
        best = points[safest]
        why = f"of the thresholds that save, the best keeps {best.kept:.1%} (at least {best.kept_bound:.1%})"
        return _no_cascade(sample, confidence, f"{why}, {quality:.1%} was asked for")
    cheapest = safest
    while cheapest > 0 and points[cheapest - 1].kept_bound >= quality:
        cheapest -= 1
    return _chosen(sample, points[cheapest], confidence, f"the cheapest that keeps {quality:.1%}")


def _within_budget(sample: _Sample, points: Sequence[_Point], budget: float, confidence: float) -> Chosen:
    within = [point for point in points if point.cost_bound <= budget]
    if not within:
        return _chosen(sample, points[0], confidence, f"the cheapest; nothing keeps to a budget of {budget:.1%}")
    best = max(within, key=lambda point: (point.kept_bound, -point.cost))
    return _chosen(sample, best, confidence, f"the best within a budget of {budget:.1%}")


def _chosen(sample: _Sample, point: _Point, confidence: float, why: str) -> Chosen:
    scores, count = sample.scores, point.escalated
    threshold = float(scores[count - 1]) if count else math.nextafter(float(scores[0]), math.inf)
    low, high = interval(count, len(scores), confidence)
    return Chosen(True, threshold, count / len(scores), low, high, *point[1:5], confidence, why)


def _no_cascade(sample: _Sample, confidence: float, why: str) -> Chosen:
    return Chosen(False, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, confidence, why)
