"""What a cache counts of itself: look-ups, hits and refusals by category."""

import json
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

from llmcost_plugins.events import CacheMissed
from llmcost_plugins.forks import after_fork
from llmcost_plugins.plan import Plan, in_thread
from llmcost_plugins.pricing import usd

_KEPT_MISSES = 1_000
_LOGGED = ("time", "category", "reason", "veto", "question", "nearest", "similarity")


@dataclass(slots=True)
class CategoryStatistics:
    """The counts of one category; `saved` is in pico-USD, at today's prices of the stored usage."""

    lookups: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    vetoes: Counter[str] = field(default_factory=Counter)
    saved: int = 0

    @property
    def hit_rate(self) -> float:
        """Hits of any tier as a share of the look-ups."""
        return self.hits.total() / self.lookups if self.lookups else 0.0

    @property
    def saved_dollars(self) -> Decimal:
        """What the hits would have cost."""
        return usd(self.saved)


class Statistics:
    """Counts by category, and the newest misses with what came nearest; in this process only.

    With a `miss_log` every miss is written there as a line of JSON, the question in clear text.
    """

    def __init__(self, miss_log: Path | None = None) -> None:
        self._miss_log = miss_log
        self._begin()
        after_fork(self, Statistics._begin)

    def _begin(self) -> None:
        self.by_category: dict[str, CategoryStatistics] = {}
        self.misses: deque[CacheMissed] = deque(maxlen=_KEPT_MISSES)
        self._lock = threading.Lock()

    def hit(self, category: str, tier: str, saved: int) -> None:
        """Count an answer given."""
        with self._lock:
            counts = self.by_category.setdefault(category, CategoryStatistics())
            counts.lookups += 1
            counts.hits[tier] += 1
            counts.saved += saved

    def miss(self, missed: CacheMissed) -> None:
        """Count a miss, and keep it for `misses`."""
        with self._lock:
            counts = self.by_category.setdefault(missed.category, CategoryStatistics())
            counts.lookups += 1
            if missed.veto:
                counts.vetoes[missed.veto] += 1
            self.misses.append(missed)

    def log(self, missed: CacheMissed) -> Plan[None]:
        """Write a miss to the `miss_log`, if there is one."""
        if self._miss_log is not None:
            write = partial(self._write, self._miss_log, json_line({name: getattr(missed, name) for name in _LOGGED}))
            yield from in_thread(write)

    def _write(self, path: Path, line: str) -> None:
        with self._lock, path.open("a", encoding="utf-8") as file:
            file.write(line)


def json_line(row: Mapping[str, Any]) -> str:
    """Return a line of JSON that a UTF-8 file can hold: half a surrogate pair is escaped."""
    return f"{json.dumps(row, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace").decode()
