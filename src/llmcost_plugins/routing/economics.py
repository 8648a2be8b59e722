"""What a cascade costs: its break-even, and how urgent it is to escalate an answer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.types import Reply, Request

SURE = 0.999  # confidence of what is looked at again and again


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


def interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the two-sided interval of a share seen as `count` of `total` (Wilson 1927); 0 to 1 for none seen."""
    if total <= 0:
        return 0.0, 1.0
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, weight = count / total, z * z / total
    middle = (share + weight / 2) / (1 + weight)
    reach = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / total / 4)
    return max(0.0, min(share, middle - reach)), min(1.0, max(share, middle + reach))
