"""A linear model of words and pairs of words: ridge regression on tf-idf, in numpy."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmcost_plugins.routing.evaluation import Floats, Integers

_RIDGE = 10.0  # texts have length 1, so this is about ten texts' worth of "no effect"
_STEPS = 60
_PRECISION = 1e-5


@dataclass(frozen=True, slots=True)
class Terms:
    """What each term adds to the expected gain: `weights` has its rarity (idf) and its coefficient."""

    weights: Mapping[str, tuple[float, float]]

    def __call__(self, words: Sequence[str]) -> float:
        """Return the expected gain of a text, less the average gain; unknown terms say nothing."""
        product = length = 0.0
        for term, count in Counter(_terms(words)).items():
            if (known := self.weights.get(term)) is not None:
                rarity, coefficient = known
                value = rarity * (1 + log(count))
                product += value * coefficient
                length += value * value
        return product / sqrt(length) if length else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return the weights in plain JSON."""
        return {term: list(pair) for term, pair in self.weights.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Terms":
        """Take what `to_dict` gave."""
        return cls({term: (rarity, coefficient) for term, (rarity, coefficient) in data.items()})


class TermCounts:
    """The terms of many texts, counted once so that models of several parts of them are cheap."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        numbers: dict[str, int] = {}
        rows: list[int] = []
        columns: list[int] = []
        counts: list[int] = []
        for row, words in enumerate(texts):
            counted = Counter(_terms(words))
            rows += [row] * len(counted)
            columns += [numbers.setdefault(term, len(numbers)) for term in counted]
            counts += counted.values()
        self._names = list(numbers)
        self._rows = np.array(rows, np.int64)
        self._columns = np.array(columns, np.int64)
        self._values = 1 + np.log(np.array(counts, np.float64))

    def fit(self, gain: Floats, used: NDArray[np.bool_]) -> tuple[Terms, Floats]:
        """Learn from the texts in use; return the model and what it expects of every text, used or not."""
        rarity = self._rarity(used)
        rows, columns, values = self._normalised(rarity, len(used))
        mine = used[rows]
        centred = np.where(used, gain - gain[used].mean(), 0.0)
        weights = _ridge(rows[mine], columns[mine], values[mine], centred, len(rarity))
        expected = _sums(rows, values * weights[columns], len(used))
        known = np.flatnonzero(rarity)
        return Terms({self._names[i]: (float(rarity[i]), float(weights[i])) for i in known}), expected

    def _rarity(self, used: NDArray[np.bool_]) -> Floats:
        """Return the idf of each term; 0 for those in fewer than two of the texts, which teach nothing."""
        texts = np.bincount(self._columns[used[self._rows]], minlength=len(self._names))
        return np.where(texts >= 2, 1 + np.log((1 + used.sum()) / (1 + texts)), 0.0)

    def _normalised(self, rarity: Floats, texts: int) -> tuple[Integers, Integers, Floats]:
        known = rarity[self._columns] > 0
        rows, columns = self._rows[known], self._columns[known]
        values = self._values[known] * rarity[columns]
        lengths = np.sqrt(_sums(rows, values**2, texts))
        return rows, columns, values / lengths[rows]


def _terms(words: Sequence[str]) -> Iterator[str]:
    yield from words
    for first, second in pairwise(words):
        yield f"{first} {second}"


def _ridge(rows: Integers, columns: Integers, values: Floats, target: Floats, width: int) -> Floats:
    """Solve the ridge equations by conjugate gradients, which needs only products with the sparse matrix."""
    weights = np.zeros(width)
    left = _sums(columns, values * target[rows], width)
    direction, error = left, float(left @ left)
    enough = error * _PRECISION**2
    for _ in range(_STEPS):
        if error <= enough:
            break
        across = _sums(rows, values * direction[columns], len(target))
        image = _sums(columns, values * across[rows], width) + _RIDGE * direction
        step = error / float(direction @ image)
        weights = weights + step * direction
        left = left - step * image
        before, error = error, float(left @ left)
        direction = left + error / before * direction
    return weights


def _sums(places: Integers, values: Floats, width: int) -> Floats:
    return np.bincount(places, values, width).astype(np.float64, copy=False)
