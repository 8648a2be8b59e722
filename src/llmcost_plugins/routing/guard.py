"""A watch on what a cascade really costs, which stops it where it does not pay."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork
from llmcost_plugins.routing.economics import SURE, interval
from llmcost_plugins.routing.thresholds import Chosen


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
        low, high = interval(pair.escalated, len(pair.drafts), SURE)
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
