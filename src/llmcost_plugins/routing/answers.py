"""How likely an answer is to be wrong, judged by what shows in it: calibrated, and better than going by its length.

A cascade learns P(wrong) from the *answer*. Signs of the prompt alone, or of the gain of a stronger model, do worse on
kinds of questions that were not learned from.
"""

import hashlib
import json
import math
import random
import re
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Self, cast

import numpy as np
from numpy.typing import NDArray

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.routing.records import Record
from llmcost_plugins.routing.signs import SIGNS, signs, stated_results
from llmcost_plugins.routing.validators import task
from llmcost_plugins.types import Finish, Reply, Request

Floats = NDArray[np.float64]

_FEWEST = 100  # records, and a tenth of that many of right and of wrong answers
_FOLDS = 5
_BINS = 8
_RIDGE = 10.0  # the score is the same from 3 to 30
_DRAWS = 500
_CONFIDENCE = 0.95
_STEPS = 30
_STEEP = 500.0  # log-odds beyond which `exp` overflows
_SHORT = 12  # words of answers that are compared word by word
_WORD_OR_NUMBER = re.compile(r"\w+")
_VERSION = 1
_ADOPTED = "adopted"
_AGREES, _DISAGREES = -0.8, 0.4  # log-odds: gemini-1.5-flash's MMLU-Pro answers beside those of Llama-3.1-8B

# -------------------------------------------------------------------------------------------------------------- scorer


class Curve(NamedTuple):
    """What a sign adds to the log-odds of a wrong answer: `values[n]` between the edges n - 1 and n."""

    edges: tuple[float, ...]
    values: tuple[float, ...]

    def at(self, sign: float) -> float:
        """Return the addition for one value of the sign."""
        return self.values[bisect_left(self.edges, sign)]


@dataclass(frozen=True)
class LearnedAnswerScorer:
    """Tells the probability that an answer is wrong: a sum of one curve a sign, as log-odds.

    Made by `fit_answers`; `to_dict` and `from_dict` keep it exactly.
    """

    intercept: float
    curves: Mapping[str, Curve]

    quick = True  # microseconds: nothing that needs a deadline

    def __call__(
        self, request: Request, reply: Reply, *, second: str | None = None, logprobs: Sequence[float] = ()
    ) -> float:
        """Return P(wrong).

        `second` is the text of another cheap model's answer to the same request. `logprobs` are those of the answer's
        tokens, natural logarithms; they can only raise the probability.
        """
        shown = signs(request, reply)
        odds = self.intercept + sum(curve.at(shown[name]) for name, curve in self.curves.items())
        same = None if second is None else agreement(reply.text, second)
        if same is not None:
            odds += _AGREES if same else _DISAGREES
        return max(_probability(odds), surprise(logprobs))

    @cached_property
    def id(self) -> str:
        """A name for what it decides by, the same in every process."""
        content = json.dumps(self.to_dict(), sort_keys=True)
        return f"answers-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def to_dict(self) -> dict[str, Any]:
        """Return the scorer as plain JSON."""
        curves = {name: {"edges": [*curve.edges], "values": [*curve.values]} for name, curve in self.curves.items()}
        return {"version": _VERSION, "intercept": self.intercept, "curves": curves}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Read a scorer that `to_dict` wrote.

        Raises:
            ConfigurationError: It is none, or reads signs that this version does not know.
        """
        try:
            curves = {str(name): _curve(curve) for name, curve in content["curves"].items()}
            intercept = _finite(content["intercept"])
            known = content["version"] == _VERSION and set(curves) <= set(SIGNS)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ConfigurationError(
                f"this is no answer scorer ({error!r}); make one with fit_answers(records)"
            ) from error
        if not known:
            raise ConfigurationError("the answer scorer is of another version; make it anew with fit_answers(records)")
        return cls(intercept, curves)


def agreement(answer: str, second: str) -> bool | None:
    """Tell whether two answers come to the same result; None where that cannot be told.

    Compared are the last letter or number that each states; where neither states one, short answers word by word.
    """
    results = _result(answer), _result(second)
    if results != (None, None):
        return None if None in results else results[0] == results[1]
    texts = [_WORD_OR_NUMBER.findall(text.casefold()) for text in (answer, second)]
    return texts[0] == texts[1] if all(0 < len(text) <= _SHORT for text in texts) else None


def surprise(logprobs: Sequence[float]) -> float:
    """Return how improbable a model found its own tokens on the whole: 1 less their geometric mean, 0 for none."""
    told = [min(0.0, each) for each in logprobs if not math.isnan(each)]
    return 1.0 - math.exp(math.fsum(told) / len(told)) if told else 0.0


def by_surprise(request: Request, reply: Reply) -> float | None:
    """Judge an answer by its token log-probabilities, as `Router(..., answer_scorer=by_surprise)`; None without them.

    They are where LangChain puts those of OpenAI's models with `logprobs=True`. What share of improbable tokens means a
    wrong answer differs from model to model: set `answer_threshold` by graded answers.
    """
    body = reply.body if isinstance(reply.body, Mapping) else {}
    tokens = ((body.get("response_metadata") or {}).get("logprobs") or {}).get("content") or ()
    return surprise([token["logprob"] for token in tokens]) if tokens else None


by_surprise.quick = True  # type: ignore[attr-defined]


def _result(text: str) -> str | float | None:
    stated = stated_results(text)
    if not stated:
        return None
    digits = stated[-1].replace(",", "")
    try:
        return float(digits)
    except ValueError:
        return stated[-1]


def _curve(content: Mapping[str, Any]) -> Curve:
    edges, values = (tuple(map(_finite, content[key])) for key in ("edges", "values"))
    if len(values) != len(edges) + 1 or list(edges) != sorted(edges):
        raise ValueError("a curve needs rising edges and one value more than those")
    return Curve(edges, values)


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a finite number")
    return number


def _probability(odds: float) -> float:
    return 1 / (1 + math.exp(-odds)) if odds > -_STEEP else 0.0


# ----------------------------------------------------------------------------------------------------------------- fit


@dataclass(frozen=True, slots=True)
class AnswerFit:
    """A scorer, None where none was worth it, and what that rests on.

    `separation` is how often a wrong answer is given the higher probability of a wrong and a right one, on groups that
    were not learned from; `by_length` the same for the answer's length alone. `over_random` and `over_length` are
    lower bounds (95 %, bootstrap over groups) of what the scorer has on chance and on length.
    """

    scorer: LearnedAnswerScorer | None
    records: int
    separation: float
    by_length: float
    over_random: float
    over_length: float
    why: str

    def __str__(self) -> str:
        return (
            f"answers judged on {self.records:,} records: {self.separation:.3f} (length {self.by_length:.3f}, chance "
            f"0.500; at least {self.over_random:+.3f} on chance, {self.over_length:+.3f} on length): {self.why}"
        )


def fit_answers(records: Sequence[Record]) -> AnswerFit:
    """Learn from graded answers of the weak model what wrong ones look like.

    Each sign is cut at its octiles and weighed by a logistic regression with a ridge; the probabilities are calibrated
    on held-out groups (Platt 1999). Groups stay together; a record without one is its own.

    Raises:
        ConfigurationError: Records have no `weak_answer`, or grades beyond 0 and 1.
    """
    wrong = _checked(records)
    held = _held_out(records)
    if (lack := _lack(records, wrong, held)) is not None:
        return AnswerFit(None, len(records), 0.5, 0.5, 0.0, 0.0, lack)
    table = _table(records)
    ours, length = _out_of_fold(table, wrong, held), _out_of_fold(table[:, :1], wrong, held)
    over_random, over_length = _lower_bounds(ours, length, wrong, held)
    why = _verdict(over_random, over_length)
    scorer = _calibrated(_fit(table, wrong), ours, wrong) if why == _ADOPTED else None
    found = _separation(ours, wrong), _separation(length, wrong)
    return AnswerFit(scorer, len(records), *found, over_random, over_length, why)


def _checked(records: Sequence[Record]) -> Floats:
    if any(record.weak_answer is None for record in records):
        raise ConfigurationError("records lack `weak_answer`; pass the text of the weak model's answer with each")
    if not all(0 <= record.weak <= 1 for record in records):
        raise ConfigurationError("`weak` is beyond 0 and 1 in some records; scale the grades to 0 (wrong) to 1 (right)")
    return np.array([1 - record.weak for record in records], dtype=float)


def _held_out(records: Sequence[Record]) -> NDArray[np.intp]:
    """Return a number for each record's group, shuffled, by which groups are dealt to folds."""
    names = [record.group or task(record.request) for record in records]
    shuffled = sorted(set(names))
    random.Random(0).shuffle(shuffled)  # noqa: S311 - folds, not secrets
    number = {name: n for n, name in enumerate(shuffled)}
    return np.array([number[name] for name in names], dtype=np.intp)


def _lack(records: Sequence[Record], wrong: Floats, groups: NDArray[np.intp]) -> str | None:
    if len(records) < _FEWEST:
        return f"too few: {len(records)} records, at least {_FEWEST} are needed"
    if min(wrong.sum(), len(wrong) - wrong.sum()) < _FEWEST / 10:
        return f"too one-sided: at least {_FEWEST // 10} right and as many wrong answers are needed"
    return None if groups.max() >= 1 else "one group: at least two are needed to learn on one and judge on the other"


def _table(records: Sequence[Record]) -> Floats:
    rows = [
        signs(r.request, Reply(None, r.weak_answer or "", finish=cast("Finish | None", r.weak_finish))) for r in records
    ]
    return np.array([[row[name] for name in SIGNS] for row in rows])


def _verdict(over_random: float, over_length: float) -> str:
    if over_random <= 0:
        return "not adopted: no better than chance on held-out groups"
    return _ADOPTED if over_length > 0 else "not adopted: no better than the answer's length on held-out groups"


class _Sum(NamedTuple):
    """An intercept and one curve a column of a table."""

    intercept: float
    curves: list[Curve]

    def odds(self, table: Floats) -> Floats:
        """Return the log-odds of each row."""
        odds = np.full(len(table), self.intercept)
        for column, curve in zip(table.T, self.curves, strict=True):
            odds += np.array(curve.values)[_bins(column, curve.edges)]
        return odds


def _bins(column: Floats, edges: Sequence[float]) -> NDArray[np.intp]:
    return np.searchsorted(np.array(edges), column, side="left")


def _fit(table: Floats, wrong: Floats) -> _Sum:
    """Return the ridge logistic regression on steps at each column's edges: the ridge holds neighbouring bins close."""
    edges = [_edges(column) for column in table.T]
    bins = [_bins(column, cut) for column, cut in zip(table.T, edges, strict=True)]
    steps = [index[:, None] > np.arange(len(cut)) for index, cut in zip(bins, edges, strict=True)]
    intercept, weights = _logistic(np.concatenate(steps, axis=1).astype(float), wrong, _RIDGE)
    parts = np.split(weights, np.cumsum([len(cut) for cut in edges])[:-1])
    curves = [Curve(cut, (0.0, *np.cumsum(part).tolist())) for cut, part in zip(edges, parts, strict=True)]
    return _Sum(intercept, curves)


def _edges(column: Floats) -> tuple[float, ...]:
    """Return where a column is cut: between its values where those are few, else at its quantiles."""
    values = np.unique(column)
    if len(values) <= _BINS:
        return tuple(((values[1:] + values[:-1]) / 2).tolist())
    return tuple(np.unique(np.quantile(column, np.linspace(0, 1, _BINS + 1)[1:-1])).tolist())


def _logistic(table: Floats, wrong: Floats, ridge: float) -> tuple[float, Floats]:
    """Return intercept and weights, by Newton's method; the intercept is not held back."""
    centre = table.mean(axis=0)
    design = np.column_stack([np.ones(len(table)), table - centre])
    penalty = np.diag([1e-9, *[ridge] * table.shape[1]])
    weights = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(design @ weights, -_STEEP, _STEEP)))
        slope = design.T @ (chance - wrong) + penalty @ weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + penalty
        step = np.linalg.solve(curvature, slope)
        weights -= step
        if np.abs(step).max() < 1e-9:
            break
    return float(weights[0] - centre @ weights[1:]), weights[1:]


def _out_of_fold(table: Floats, wrong: Floats, groups: NDArray[np.intp]) -> Floats:
    """Return log-odds for each row by a fit on rows of other groups."""
    folds = groups % _FOLDS
    odds = np.zeros(len(wrong))
    for fold in np.unique(folds):
        held = folds == fold
        odds[held] = _fit(table[~held], wrong[~held]).odds(table[held])
    return odds


def _calibrated(fitted: _Sum, odds: Floats, wrong: Floats) -> LearnedAnswerScorer:
    """Return the scorer, its log-odds stretched as those on held-out groups should have been."""
    shift, (stretch,) = _logistic(odds[:, None], wrong, 1.0)
    curves = {
        name: Curve(curve.edges, tuple(float(stretch * value) for value in curve.values))
        for name, curve in zip(SIGNS, fitted.curves, strict=True)
    }
    return LearnedAnswerScorer(float(shift + stretch * fitted.intercept), curves)


def _separation(odds: Floats, wrong: Floats, weights: Floats | None = None) -> float:
    """Return how often a wrong answer has higher odds than a right one (the area under the ROC curve)."""
    order = np.unique(odds, return_inverse=True)[1]
    counts = np.ones(len(odds)) if weights is None else weights
    bad, good = (np.bincount(order, counts * share) for share in (wrong, 1 - wrong))
    below = np.cumsum(good) - good / 2
    pairs = bad.sum() * good.sum()
    return float(bad @ below / pairs) if pairs else 0.5


def _lower_bounds(ours: Floats, length: Floats, wrong: Floats, groups: NDArray[np.intp]) -> tuple[float, float]:
    """Return what our odds have at least on chance and on length, when groups are drawn anew (paired bootstrap)."""
    dice, count = np.random.default_rng(0), int(groups.max()) + 1
    draws = [np.bincount(dice.integers(0, count, count), minlength=count)[groups].astype(float) for _ in range(_DRAWS)]
    found = np.array([[_separation(odds, wrong, draw) for odds in (ours, length)] for draw in draws])
    low = np.quantile(np.column_stack([found[:, 0] - 0.5, found[:, 0] - found[:, 1]]), 1 - _CONFIDENCE, axis=0)
    return float(low[0]), float(low[1])
