"""Whether a cascade pays: thresholds that keep the quality asked for, and a watch on what it really costs."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork
from llmcost_plugins.types import Reply, Request

Floats = NDArray[np.float64]

_CANDIDATES = 50
_SURE = 0.999  # that a cascade saves, and of an alarm: the escalation rate is looked at after every request


def break_even(weak_cost: float, strong_cost: float) -> float:
    """Return the escalation rate from which on a cascade costs as much as asking the strong model at once.

    Every request pays the draft, and the share `p` the strong answer too: C_w + p C_s < C_s holds below 1 - C_w / C_s.
    It is below 0 where the draft alone costs more.

    Raises:
        ConfigurationError: A cost is negative, or the strong model is free.
    """
    if not (0 <= weak_cost < math.inf and 0 < strong_cost < math.inf):
        raise ConfigurationError(f"costs are {weak_cost!r} and {strong_cost!r}; expected amounts, the second above 0")
    return 1 - weak_cost / strong_cost


def urgency(wrong: float, cost: float, usual_cost: float) -> float:
    """Return how much a draft asks to be escalated, from 0 to 1: P(wrong) against what escalating it will cost.

    A draft that cost the usual has its P(wrong). The strong answer's cost is not known beforehand; it is taken to lie
    half-way between the usual and the draft's share of it, since a long draft promises a long answer. Escalating in the
    order of gain per cost is the greedy solution of the knapsack problem that a budget poses.
    """
    if cost < 0 or usual_cost <= 0:
        return wrong
    return min(1.0, wrong * 2 * usual_cost / (usual_cost + cost))


@dataclass(frozen=True)
class UrgencyScorer:
    """Scores drafts by their urgency: what a scorer tells, against what escalating will cost.

    `usual_cost` is the mean cost of drafts, in pico-USD, of the sample that the threshold was chosen on. Drafts without
    a known price are taken to cost the usual.
    """

    scorer: Callable[[Request, Reply], float]
    usual_cost: int

    quick = True

    def __call__(self, request: Request, reply: Reply) -> float:
        """Return the urgency of a draft, from 0 to 1."""
        wrong = self.scorer(request, reply)
        return wrong if reply.cost is None else urgency(wrong, reply.cost, self.usual_cost)

    @property
    def id(self) -> str:
        """A name for what it decides by."""
        return f"urgency-{getattr(self.scorer, 'id', self.scorer)}-{self.usual_cost}"


# ----------------------------------------------------------------------------------------------------------- threshold


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
    return [_point(sample, int(count), _reach(confidence), _reach(_SURE)) for count in _counts(sample.scores)]


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


# --------------------------------------------------------------------------------------------------------------- watch


def interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided interval of a share seen as `count` of `total` (Wilson 1927); 0 to 1 for none seen."""
    if total <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = count / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / total / 4)
    return max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach))


class Draft(NamedTuple):
    """What a draft cost, what a strong answer costs in its place (both in pico-USD), and whether it came to that."""

    cost: int
    strong_cost: int
    escalated: bool


@dataclass(frozen=True, slots=True)
class CascadeReport:
    """What a cascade from one tier to another costs, over its newest drafts.

    `break_even` is the escalation rate from which it loses, at the mean costs; `cost_ratio` what it really cost, as a
    share of asking the strong tier at once; both None before the first draft. `low` and `high` are the 95 % interval of
    the rate. `drifted` tells that the rate has left the band that was calibrated.
    """

    drafts: int
    escalated: int
    low: float
    high: float
    break_even: float | None
    cost_ratio: float | None
    allowed: bool
    drifted: bool

    @property
    def escalation_rate(self) -> float:
        """The share of drafts that were escalated."""
        return self.escalated / self.drafts if self.drafts else 0.0


class Guard:
    """Stops a cascade that costs no less than asking the strong tier at once, for each pair of tiers.

    A pair is judged by its newest drafts once there are `fewest`; from a fifth of that on, it is stopped if the drafts
    alone cost as much as strong answers. A pair that was stopped is tried anew after `pause` seconds, with nothing held
    against it. A calibration that said "no cascade" stops every pair for good.

    Args:
        chosen: What a calibration expects, for the verdict and for the band of the escalation rate.
        window: How many of the newest drafts count.
        fewest: How many there must be.
        pause: Seconds until a stopped pair is tried anew.
        clock: Seconds since any fixed moment.
    """

    def __init__(
        self,
        chosen: Chosen | None = None,
        *,
        window: int = 500,
        fewest: int = 50,
        pause: float = 3_600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not (1 <= fewest <= window and pause > 0):
            raise ConfigurationError(
                f"`fewest` is {fewest!r}, `window` {window!r}, `pause` {pause!r}; expected 1 <= fewest <= window, "
                "and a pause above 0"
            )
        self.chosen = chosen
        self._settings: dict[str, Any] = {"window": window, "fewest": fewest, "pause": pause, "clock": clock}
        self._window, self._fewest, self._pause, self._clock = window, fewest, pause, clock
        self._begin()
        after_fork(self, Guard._begin)

    def __reduce__(self) -> tuple[Callable[[], "Guard"], tuple[()]]:
        """Return a guard with the same settings that has seen nothing, as copies begin."""
        return partial(Guard, self.chosen, **self._settings), ()

    def _begin(self) -> None:
        self._pairs: dict[tuple[str, str], _Pair] = {}
        self._lock = threading.Lock()

    def note(self, weak: str, strong: str, draft: Draft) -> None:
        """Count a draft between two tiers; where it stood, `strong_cost` is its usage at the strong tier's prices."""
        if draft.cost < 0 or draft.strong_cost < 0:
            return
        with self._lock:
            pair = self._pairs.setdefault((weak, strong), _Pair())
            pair.add(draft, self._window)
            if pair.stopped is None and self._loses(pair):
                pair.stopped = self._clock()

    def allows(self, weak: str, strong: str) -> bool:
        """Tell whether the weak tier is to be asked for a draft."""
        with self._lock:
            pair = self._pairs.get((weak, strong))
            if pair is not None and pair.stopped is not None and self._clock() - pair.stopped >= self._pause:
                del self._pairs[weak, strong]
                pair = None
            return self._allowed(pair)

    def report(self) -> dict[tuple[str, str], CascadeReport]:
        """Return the state of every pair of tiers that has seen drafts."""
        with self._lock:
            return {names: self._reported(pair) for names, pair in self._pairs.items()}

    def _allowed(self, pair: "_Pair | None") -> bool:
        calibrated = self.chosen is None or self.chosen.cascade
        return calibrated and (pair is None or pair.stopped is None)

    def _loses(self, pair: "_Pair") -> bool:
        drafts = len(pair.drafts)
        cost = pair.spent if drafts >= self._fewest else pair.drafted
        return drafts >= self._fewest / 5 and cost >= max(1, pair.always)

    def _reported(self, pair: "_Pair") -> CascadeReport:
        drafts, always = len(pair.drafts), pair.always
        return CascadeReport(
            drafts,
            pair.escalated,
            *interval(pair.escalated, drafts),
            break_even=1 - pair.drafted / always if always else None,
            cost_ratio=pair.spent / always if always else None,
            allowed=self._allowed(pair),
            drifted=self._drifted(pair),
        )

    def _drifted(self, pair: "_Pair") -> bool:
        """Tell whether the rate's interval and the calibrated band lie apart."""
        if self.chosen is None or not self.chosen.cascade or len(pair.drafts) < self._fewest:
            return False
        low, high = interval(pair.escalated, len(pair.drafts), _SURE)
        return high < self.chosen.escalation_low or low > self.chosen.escalation_high


class _Pair:
    """The newest drafts of a pair of tiers and their sums, exact in integers."""

    __slots__ = ("always", "drafted", "drafts", "escalated", "spent", "stopped")

    def __init__(self) -> None:
        self.drafts: deque[Draft] = deque()
        self.drafted = self.spent = self.always = self.escalated = 0
        self.stopped: float | None = None

    def add(self, draft: Draft, window: int) -> None:
        self.drafts.append(draft)
        self._count(draft, 1)
        if len(self.drafts) > window:
            self._count(self.drafts.popleft(), -1)

    def _count(self, draft: Draft, sign: int) -> None:
        self.drafted += sign * draft.cost
        self.spent += sign * (draft.cost + draft.strong_cost * draft.escalated)
        self.always += sign * draft.strong_cost
        self.escalated += sign * draft.escalated
