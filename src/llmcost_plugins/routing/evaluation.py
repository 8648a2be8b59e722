"""How well scores tell which requests need the strong model, whatever made the scores.

The performance gap recovered (PGR) is the share of the quality between always weak and always strong that a router
keeps; APGR is the area under PGR against the share of calls sent to the strong model (Ong et al. 2024, RouteLLM). Here
it is taken over every cut point rather than ten. A random order has 0.5 in expectation, the best one may exceed 1.
"""

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.tokens import message_text
from llmcost_plugins.types import Request

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

_KEYWORDS = re.compile(
    r"\b(?:analy[sz]e|architect\w*|compare|complex|compute|debug|derive|design|evaluate|explain|implement|optimi[sz]e|"
    r"prove|reason\w*|refactor|solve|step by step|theorem|why)\b",
    re.IGNORECASE,
)
_ROWS_AT_ONCE = 100


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """PGR over the share of calls sent to the strong model, from none to all; equal scores are a straight line."""

    strong_share: Floats
    recovered: Floats

    @property
    def apgr(self) -> float:
        """The area under the curve."""
        return float(_area(self.strong_share, self.recovered))

    def cpt(self, recovered: float) -> float:
        """Return the smallest share of strong calls that recovers so much of the gap, both from 0 to 1."""
        reached = int(np.argmax(self.recovered >= recovered))
        if reached == 0:
            return 0.0
        span = slice(reached - 1, reached + 1)
        return float(np.interp(recovered, self.recovered[span], self.strong_share[span]))


@dataclass(frozen=True, slots=True)
class Point:
    """What a threshold comes to: calls sent to the strong model, mean quality, and its share of always strong's."""

    threshold: float
    strong_share: float
    quality: float
    kept: float

    def cost(self, weak_price: float) -> float:
        """Return what the calls cost, always strong being 1, where a weak one costs `weak_price` of a strong one."""
        return self.strong_share + (1 - self.strong_share) * weak_price


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the bounds that hold it with 95 % confidence."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def curve(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> Curve:
    """Send the highest scores to the strong model, at every cut point.

    Args:
        scores: A higher one asks for the strong model more.
        weak: Quality of the weak model's answers.
        strong: Quality of the strong model's answers.

    Raises:
        ConfigurationError: The strong model is no better on the whole, so that there is no gap to recover.
    """
    gain = _gain(weak, strong)
    order, cuts = _cuts(np.asarray(scores, np.float64))
    share, recovered = _recovered(np.ones((1, len(gain))), gain, order, cuts)
    return Curve(share[0], recovered[0])


def apgr(scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> float:
    """Return the area under the curve of the scores."""
    return curve(scores, weak, strong).apgr


def at(threshold: float, scores: ArrayLike, weak: ArrayLike, strong: ArrayLike) -> Point:
    """Send scores of at least the threshold to the strong model."""
    weak, strong = np.asarray(weak, np.float64), np.asarray(strong, np.float64)
    sent = np.asarray(scores, np.float64) >= threshold
    quality = float(np.where(sent, strong, weak).mean())
    return Point(threshold, float(sent.mean()), quality, quality / float(strong.mean()))


def interval(
    scores: ArrayLike,
    weak: ArrayLike,
    strong: ArrayLike,
    groups: Sequence[Hashable],
    *,
    against: ArrayLike | None = None,
    rounds: int = 1000,
    seed: int = 0,
) -> Interval:
    """Return the APGR of the scores, or what it exceeds that of other scores by, with its bootstrap interval.

    Groups are drawn whole, and both scores meet the same draws. Draws without a gap between the models have no APGR
    and are left out.
    """
    gain = _gain(weak, strong)
    rival = None if against is None else np.asarray(against, np.float64)
    draws = resample(groups, rounds, seed)
    member = codes(groups)
    figures = _areas(np.asarray(scores, np.float64), gain, draws, member)
    value = apgr(scores, weak, strong)
    if rival is not None:
        figures = figures - _areas(rival, gain, draws, member)
        value -= apgr(rival, weak, strong)
    low, high = np.nanpercentile(figures, [2.5, 97.5])
    return Interval(value, float(low), float(high))


def resample(groups: Sequence[Hashable], rounds: int, seed: int) -> Floats:
    """Return how often each group, in the order of `codes`, is in each bootstrap draw: one row a draw."""
    count = len(set(groups))
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=rounds)
    return drawn.astype(np.float64)


def codes(groups: Sequence[Hashable]) -> Integers:
    """Number the groups in the order of their first mention."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups], np.int64)


def folds(groups: Sequence[Hashable], count: int = 5, seed: int = 0) -> Integers:
    """Deal the groups at random into folds of about as many groups each; return each record's fold.

    Give questions as groups to judge on new questions, and subjects to judge on new subjects.

    Raises:
        ConfigurationError: There are fewer than two groups.
    """
    member = codes(groups)
    found = int(member.max(initial=-1)) + 1
    if found < 2:
        raise ConfigurationError(f"the records have {found} group; give `group` at least two values to hold some out")
    dealt = np.random.default_rng(seed).permutation(found) % min(count, found)
    return np.asarray(dealt[member], np.int64)


def word_count(request: Request) -> float:
    """Score by length alone, the baseline that learned routers have to beat."""
    return float(sum(len(message_text(message).split()) for message in request.messages))


def keyword_count(request: Request) -> float:
    """Score as keyword routers do: by words such as "analyze", "prove" or "step by step"."""
    return float(sum(len(_KEYWORDS.findall(message_text(message))) for message in request.messages))


def _gain(weak: ArrayLike, strong: ArrayLike) -> Floats:
    gain = np.asarray(strong, np.float64) - np.asarray(weak, np.float64)
    if not gain.sum() > 0:
        raise ConfigurationError(
            f"the strong model's answers are better by {gain.sum():g} over {len(gain)} records: "
            "there is no gap to recover, always ask the weak one"
        )
    return gain


def _cuts(scores: Floats) -> tuple[Integers, Integers]:
    """Return the order from the highest score down, and the places in it where the score changes."""
    if not np.isfinite(scores).all():
        raise ConfigurationError("a score is not finite")
    order = np.argsort(-scores, kind="stable")
    changes = np.flatnonzero(np.diff(scores[order])) + 1
    return order, np.concatenate([[0], changes, [len(scores)]]).astype(np.int64)


def _recovered(weights: Floats, gain: Floats, order: Integers, cuts: Integers) -> tuple[Floats, Floats]:
    """Return share and PGR at the cuts; each row of weights says how often each record counts."""
    weights = weights[:, order]
    start = np.zeros((len(weights), 1))
    share = np.concatenate([start, np.cumsum(weights, axis=1)], axis=1)[:, cuts]
    gained = np.concatenate([start, np.cumsum(weights * gain[order], axis=1)], axis=1)[:, cuts]
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.where(gained[:, -1:] > 0, gained[:, -1:], np.nan)
        return share / share[:, -1:], gained / total


def _areas(scores: Floats, gain: Floats, draws: Floats, member: Integers) -> Floats:
    order, cuts = _cuts(scores)
    areas = []
    for start in range(0, len(draws), _ROWS_AT_ONCE):  # all at once would take gigabytes
        share, recovered = _recovered(draws[start : start + _ROWS_AT_ONCE, member], gain, order, cuts)
        areas.append(_area(share, recovered))
    return np.concatenate(areas)


def _area(share: Floats, recovered: Floats) -> Floats:
    """Return the area under straight lines between the points; `numpy.trapezoid` is not in numpy 1."""
    middle = (recovered[..., 1:] + recovered[..., :-1]) / 2
    return np.asarray((middle * np.diff(share)).sum(axis=-1))
