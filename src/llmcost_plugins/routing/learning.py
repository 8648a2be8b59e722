"""What a router learns from its own traffic: feedback that moves thresholds, and what each arm of a split came to."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from llmcost_plugins.forks import after_fork
from llmcost_plugins.pricing import usd
from llmcost_plugins.routing.guard import CascadeReport

_KEPT = 30_000  # names: an answer has three at most
_STEP = 0.02  # how far one bad answer moves a threshold, at most


@dataclass(slots=True)
class ArmReport:
    """What came of the requests of one arm; `cost` is in pico-USD, of those answers whose price is known.

    `moved` is what feedback has added to the thresholds.
    """

    requests: int = 0
    strongest: int = 0
    escalated: int = 0
    cost: int = 0
    unpriced: int = 0
    good: int = 0
    bad: int = 0
    moved: float = 0.0
    by_tier: dict[str, int] = field(default_factory=dict)

    @property
    def mean_cost(self) -> Decimal | None:
        """US dollars a request, drafts that were not shown included; None before the first priced one."""
        priced = self.requests - self.unpriced
        return usd(self.cost) / priced if priced else None

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {count / self.requests:.0%}" for name, count in sorted(self.by_tier.items()))
        cost = "no known price" if self.mean_cost is None else f"${self.mean_cost:.6f} a request"
        judged = f"; {self.good} good and {self.bad} bad by feedback" if self.good or self.bad else ""
        return f"{self.requests} requests ({shares}), {self.escalated} escalated, {cost}{judged}"


@dataclass(frozen=True, slots=True)
class RouterReport:
    """What came of a router's requests in this process, for each arm of a split; "" is the only one without a split.

    `cascades` holds for each arm and pair of tiers whether drafts pay, and whether the escalation rate has drifted.
    """

    arms: Mapping[str, ArmReport]
    cascades: Mapping[str, Mapping[tuple[str, str], CascadeReport]]

    def __str__(self) -> str:
        lines = [f"{arm or 'all'}: {report}" for arm, report in self.arms.items()]
        for arm, pairs in self.cascades.items():
            lines += [f"{arm or 'all'}: {_said(names, report)}" for names, report in pairs.items()]
        return "\n".join(lines) or "no requests yet"


@dataclass(slots=True)
class _Known:
    arm: str
    weaker: bool
    judged: bool = False


class Learning:
    """Keeps the newest 10,000 decisions of this process, to match feedback with.

    Feedback moves the thresholds of an arm by adaptive conformal inference (Gibbs and Candès 2021, equation 2), which
    holds the long-run share of bad answers among those of weaker tiers to `max_bad`, whatever the traffic does.
    """

    def __init__(self, max_bad: float) -> None:
        self._max_bad = max_bad
        self._begin()
        after_fork(self, Learning._begin)

    def __reduce__(self) -> "tuple[Callable[[float], Learning], tuple[float]]":
        return Learning, (self._max_bad,)

    def _begin(self) -> None:
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._arms: dict[str, ArmReport] = {}
        self._lock = threading.Lock()

    def moved(self, arm: str) -> float:
        """Return what is added to an arm's thresholds."""
        report = self._arms.get(arm)
        return 0.0 if report is None else report.moved

    def note(
        self, arm: str, ids: tuple[str, ...], tier: str, *, strongest: bool, escalated: bool, cost: int | None
    ) -> None:
        """Count an answer; `ids` are the names by which feedback may come."""
        with self._lock:
            report = self._arms.setdefault(arm, ArmReport())
            report.requests += 1
            report.strongest += strongest
            report.escalated += escalated
            report.cost += cost or 0
            report.unpriced += cost is None
            report.by_tier[tier] = report.by_tier.get(tier, 0) + 1
            known = _Known(arm, weaker=not strongest)
            for name in filter(None, ids):
                self._known[name] = known
                self._known.move_to_end(name)
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)

    def feedback(self, name: str, *, good: bool) -> bool:
        """Take in whether an answer was good, once for each; False where it is not known, or no more."""
        with self._lock:
            known = self._known.get(name)
            if known is None:
                return False
            if known.judged:
                return True
            known.judged = True
            report = self._arms[known.arm]
            report.good += good
            report.bad += not good
            if known.weaker:  # at the strongest tier there is nothing to move
                step = _STEP * (self._max_bad - (not good))
                report.moved = min(1.0, max(-1.0, report.moved + step))
            return True

    def report(self) -> Mapping[str, ArmReport]:
        """Return what came of each arm."""
        with self._lock:
            return {arm: replace(report, by_tier=dict(report.by_tier)) for arm, report in self._arms.items()}


def arm_of(arms: tuple[str, ...], name: str) -> str:
    """Return the arm that a user or conversation belongs to: always the same one, and all arms alike often."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return arms[int.from_bytes(digest, "big") % len(arms)]


def _said(names: tuple[str, str], report: CascadeReport) -> str:
    """Say in a line what a cascade between two tiers comes to."""
    weak, strong = names
    line = f"{weak} -> {strong}: {report.escalated} of {report.drafts} drafts escalated"
    if report.break_even is not None:
        line += f", loses from {report.break_even:.0%}"
    if report.cost_ratio is not None:
        line += f", cost {report.cost_ratio:.2f} of always asking {strong}"
    line += "" if report.allowed else "; stopped"
    return line + ("; the rate has left its calibrated band" if report.drifted else "")
