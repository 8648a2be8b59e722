"""Learning on live traffic whether the answers given would have been given anew."""

import random
import re
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from llmcost_plugins.embeddings import Embedder
from llmcost_plugins.forks import after_fork
from llmcost_plugins.plan import Plan

_WINDOW = 5_000  # newest look-ups of a category that count
_MEMORY = 1_000  # newest comparisons among them
_ALIKE = 0.8  # the cosine from which two answers say the same, if their numbers are the same
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_ABOVE = 1e-6
_AGAIN = 25  # look-ups after which a threshold is worked out anew


@dataclass(frozen=True, slots=True)
class _Wrong:
    """A comparison that failed: its likeness, how many wrong answers it stands for, and the look-up it came with."""

    likeness: float
    weight: float
    at: int


@dataclass(slots=True)
class _Evidence:
    lookups: int = 0
    wrong: deque[_Wrong] = field(default_factory=lambda: deque(maxlen=_MEMORY))
    known: dict[float, float] = field(default_factory=dict)  # thresholds that were worked out, by base


class Checks:
    """Compares stored answers with fresh ones, and raises a category's threshold while too many differ.

    A share of the hits is asked anew. What a miss brought anyway is compared with the nearest stored answer that was
    not given, at no cost, so that a threshold that was raised comes down again.

    Args:
        share: The share of hits that is asked anew; 0 learns nothing.
        max_error: The share of requests that may get a wrong answer.
        lot: Draws a number from 0 to 1.
    """

    def __init__(self, *, share: float, max_error: float, lot: Callable[[], float] = random.random) -> None:
        self._share = share
        self._lot = lot
        self._max_error = max_error
        self._begin()
        after_fork(self, Checks._begin)

    def _begin(self) -> None:
        self._by_category: dict[str, _Evidence] = {}
        self._lock = threading.Lock()

    @property
    def learns(self) -> bool:
        """Whether answers are compared at all."""
        return self._share > 0

    def draws(self, share: float) -> bool:
        """Tell by lot whether this one is of the share."""
        return share >= 1 or self._lot() < share

    def wants(self) -> bool:
        """Tell by lot whether this hit is to be asked anew."""
        return self._share > 0 and self.draws(self._share)

    def saw(self, category: str) -> None:
        """Count a look-up: wrong answers are a share of these."""
        with self._lock:
            evidence = self._by_category.setdefault(category, _Evidence())
            evidence.lookups += 1
            if evidence.lookups % _AGAIN == 0:
                evidence.known.clear()

    def note(self, category: str, likeness: float, *, same: bool, given: bool) -> None:
        """Count a comparison; one of an answer that would have been `given` stands for all those not asked anew."""
        if not same:
            with self._lock:
                evidence = self._by_category.setdefault(category, _Evidence())
                evidence.wrong.append(_Wrong(likeness, 1 / self._share if given else 1.0, evidence.lookups))
                evidence.known.clear()

    def threshold(self, category: str, base: float) -> float:
        """Return the likeness from which answers are given: `base`, or more while too many above it are wrong."""
        evidence = self._by_category.get(category)
        if evidence is None or not evidence.wrong:
            return base
        with self._lock:
            if base not in evidence.known:
                evidence.known[base] = self._lowest_safe(evidence, base)
            return evidence.known[base]

    def agree(self, embedder: Embedder, stored: str, fresh: str) -> Plan[bool]:
        """Tell whether two answers say the same: the same numbers, and vectors that are near."""
        if " ".join(stored.split()).casefold() == " ".join(fresh.split()).casefold():
            return True
        if sorted(_NUMBER.findall(stored)) != sorted(_NUMBER.findall(fresh)):
            return False
        embedded = yield from embedder.embed([stored, fresh])
        return float(embedded.vectors[0] @ embedded.vectors[1]) >= _ALIKE

    def _lowest_safe(self, evidence: _Evidence, base: float) -> float:
        """Return the lowest likeness, `base` at least, above which the wrong answers are within `max_error`."""
        allowed = self._max_error * min(evidence.lookups, _WINDOW)
        oldest = evidence.lookups - _WINDOW
        for wrong in sorted(evidence.wrong, key=lambda wrong: -wrong.likeness):
            if wrong.likeness < base:
                return base
            if wrong.at > oldest:
                allowed -= wrong.weight
                if allowed < 0:
                    return wrong.likeness + _ABOVE
        return base
