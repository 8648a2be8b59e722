"""Bounds on a share that was estimated from a count."""

import math
from functools import lru_cache

_HALVINGS = 40


@lru_cache(maxsize=4_096)
def upper_bound(count: int, total: int, confidence: float = 0.95) -> float:
    """Return the share that `count` of `total` does not exceed, at a one-sided confidence.

    The exact bound of Clopper and Pearson (1934): the share at which so few would be seen with a probability of
    1 - confidence.
    """
    if total <= 0 or count >= total:
        return 1.0
    low, high = count / total, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(count, total, middle) > 1 - confidence else (low, middle)
    return high


def lower_bound(count: int, total: int, confidence: float = 0.95) -> float:
    """Return the share that `count` of `total` does not fall below, at a one-sided confidence."""
    return 1.0 - upper_bound(total - count, total, confidence)


def _at_most(count: int, total: int, share: float) -> float:
    """Return the probability of seeing at most `count` of `total`, each with the probability `share`."""
    if share <= 0 or share >= 1:
        return 1.0 if share <= 0 else 0.0
    log_share, log_rest = math.log(share), math.log1p(-share)
    log_choices = [
        math.lgamma(total + 1)
        - math.lgamma(k + 1)
        - math.lgamma(total - k + 1)
        + k * log_share
        + (total - k) * log_rest
        for k in range(count + 1)
    ]
    highest = max(log_choices)
    return min(1.0, math.exp(highest) * sum(math.exp(value - highest) for value in log_choices))
