"""A logistic regression of what is worth keeping on the features, as plain numbers."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmcost_plugins.compression.features import FEATURES
from llmcost_plugins.errors import ConfigurationError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SHIPPED = Path(__file__).parent / "data" / "head.json"
_VERSION = 1
_LISTS = ("features", "means", "deviations", "weights")
_PENALTY = 0.02  # a row; towards zero, on standardised features
_ITERATIONS = 50


@dataclass(frozen=True)
class Head:
    """Weighs the features: `weights` are those of the standardised values, the log-odds begin at `intercept`.

    Raises:
        ConfigurationError: It was made for other features, or has other than as many finite numbers.
    """

    features: tuple[str, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    about: str = ""

    def __post_init__(self) -> None:
        from math import isfinite

        numbers = (self.means, self.deviations, self.weights)
        right = self.features == FEATURES and all(len(some) == len(FEATURES) for some in numbers)
        if not right or not all(isfinite(n) for some in numbers for n in some) or not all(self.deviations):
            raise ConfigurationError("the head is not made for the features of this version; train it again with `fit`")

    def score(self, matrix: "NDArray[np.float64]") -> "NDArray[np.float64]":
        """Return the log-odds that each row is worth keeping."""
        import numpy as np

        slopes = np.array(self.weights) / np.array(self.deviations)
        scores: NDArray[np.float64] = (matrix - np.array(self.means)) @ slopes + self.intercept
        return scores

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON; `from_dict` gives an equal one."""
        return {"version": _VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Head":
        """Return the head that `to_dict` wrote.

        Raises:
            ConfigurationError: It is of another version, or damaged.
        """
        if data.get("version") != _VERSION:
            raise ConfigurationError(f"a head of version {data.get('version')!r}; expected {_VERSION}. Train it again")
        try:
            features, means, deviations, weights = (tuple(data[name]) for name in _LISTS)
            return cls(features, means, deviations, weights, float(data["intercept"]), str(data.get("about", "")))
        except (KeyError, TypeError) as error:
            raise ConfigurationError(f"the head is damaged: {error!r}. Train it again with `fit`") from error


@cache
def shipped_head() -> Head:
    """Return the head that comes with the package, made by `scripts/train_compressor.py`."""
    return Head.from_dict(json.loads(_SHIPPED.read_text(encoding="utf-8")))


def train(
    matrices: "Sequence[NDArray[np.float64]]",
    labels: "Sequence[NDArray[np.float64]]",
    weights: Sequence[float] | None = None,
    about: str = "",
) -> Head:
    """Train a head on the units of some questions, each question's matrix and labels (0 to 1) by themselves.

    `weights` says how much a question's rows count, all alike by default. The penalty keeps few questions from
    swaying it far.
    """
    import numpy as np

    matrix, wanted = np.concatenate(matrices), np.concatenate(labels).astype(np.float64)
    each = np.ones(len(matrices)) if weights is None else np.asarray(weights, dtype=np.float64)
    rows = np.repeat(each, [len(some) for some in matrices])
    means, deviations = matrix.mean(0), matrix.std(0)
    deviations[deviations < 1e-9] = 1.0
    solved = _logistic((matrix - means) / deviations, wanted, rows / rows.mean())
    slopes, intercept = solved[:-1].tolist(), float(solved[-1])
    return Head(FEATURES, tuple(means.tolist()), tuple(deviations.tolist()), tuple(slopes), intercept, about)


def _logistic(
    matrix: "NDArray[np.float64]", wanted: "NDArray[np.float64]", weights: "NDArray[np.float64]"
) -> "NDArray[np.float64]":
    """Return the slopes and the intercept of a ridge-penalised logistic regression, by Newton's method."""
    import numpy as np

    rows = np.column_stack([matrix, np.ones(len(matrix))])
    penalty = np.full(rows.shape[1], _PENALTY * len(rows))
    penalty[-1] = 1e-6
    solved = np.zeros(rows.shape[1])
    for _ in range(_ITERATIONS):
        likely = 1 / (1 + np.exp(-np.clip(rows @ solved, -30, 30)))
        slope = rows.T @ (weights * (likely - wanted)) + penalty * solved
        bend = (rows * (weights * likely * (1 - likely))[:, None]).T @ rows + np.diag(penalty)
        step = np.linalg.solve(bend, slope)
        solved = solved - step
        if float(np.abs(step).max()) < 1e-9:
            break
    return solved
