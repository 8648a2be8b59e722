"""Bounds against exact values: the binomial's sum in fractions, which no rounding touches."""

from fractions import Fraction
from math import comb

import pytest

from llmcost_plugins.cache.bounds import lower_bound, upper_bound


def at_most(count: int, total: int, share: float) -> float:
    exact = Fraction(share)
    return float(sum(comb(total, k) * exact**k * (1 - exact) ** (total - k) for k in range(count + 1)))


@pytest.mark.parametrize(("count", "total"), [(0, 1), (0, 300), (1, 10), (5, 100), (9, 10), (17, 240), (3, 1_000)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_at_the_bound_so_few_are_as_rare_as_said(count: int, total: int, confidence: float) -> None:
    bound = upper_bound(count, total, confidence)
    assert at_most(count, total, bound) == pytest.approx(1 - confidence, rel=1e-6)
    assert lower_bound(total - count, total, confidence) == pytest.approx(1 - bound)


def test_known_values() -> None:
    assert upper_bound(0, 299) == pytest.approx(1 - 0.05 ** (1 / 299))
    assert upper_bound(1, 10) == pytest.approx(0.39416, abs=1e-5)
    assert upper_bound(5, 100) == pytest.approx(0.10225, abs=1e-5)
    assert (upper_bound(10, 10), upper_bound(0, 0), lower_bound(0, 10)) == (1.0, 1.0, 0.0)
    assert upper_bound(500, 100_000) == pytest.approx(0.005392, abs=2e-5)
