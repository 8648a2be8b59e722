"""The one book of costs and savings."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import uuid4

from llmcost_plugins.errors import ConfigurationError, InvalidUsage
from llmcost_plugins.events import CacheHit, CallFinished, Escalated, Event
from llmcost_plugins.ledger.summary import Summary, summarise
from llmcost_plugins.ledger.totals import Totals, total
from llmcost_plugins.pricing import PriceBook, default_prices, usd
from llmcost_plugins.types import Scope, Usage

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_OTHER = "(other)"


class Key(NamedTuple):
    """What totals are kept apart by."""

    provider: str
    model: str
    tier: str
    scope: Scope


class Ledger:
    """Keeps what was spent and what was saved, by model, tier and scope.

    Totals cover everything ever recorded. `summary(last=...)`, `to_records` and latencies cover the newest `keep`
    events. Recording one call twice (its `call_id` is the key) corrects the first: reported usage replaces
    estimates, so that a callback handler and a routing model may both report it. Beyond `max_keys` combinations of
    model and scope, further users and tenants are summed under `(other)`.
    """

    def __init__(
        self,
        *,
        prices: PriceBook | None = None,
        keep: int = 20_000,
        max_keys: int = 20_000,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if keep < 1 or max_keys < 1:
            raise ConfigurationError("`keep` and `max_keys` count events and combinations; expected at least 1")
        self.id = uuid4().hex
        self._prices = prices
        self._keep = keep
        self._max_keys = max_keys
        self._clock = clock
        self._lock = threading.Lock()
        self._by_key: dict[Key, Totals] = {}
        self._paid: dict[str, CallFinished] = {}
        self._hits: dict[str, tuple[CacheHit, int | None]] = {}
        self._decisions: deque[tuple[Event, CallFinished | None]] = deque(maxlen=keep)
        self._merged: dict[str, Mapping[str, Any]] = {}

    def __repr__(self) -> str:
        return f"<Ledger: {self.summary().line()}>"

    def __str__(self) -> str:
        return str(self.summary())

    def __rich__(self) -> Any:
        return self.summary().__rich__()

    def _repr_html_(self) -> str:
        return self.summary()._repr_html_()

    @property
    def prices(self) -> PriceBook:
        """The prices that savings are valued at."""
        return self._prices or default_prices()

    @property
    def spent(self) -> int:
        """What was spent so far, in pico-USD, merged ledgers not counted."""
        with self._lock:
            return sum(totals.cost for totals in self._by_key.values())

    def record(self, event: Event) -> None:
        """Take in one event; safe to call from any thread, never blocks on I/O."""
        if isinstance(event, CallFinished):
            with self._lock:
                self._record_call(event)
        elif isinstance(event, CacheHit):
            saved = self._worth(event)
            with self._lock:
                self._record_hit(event, saved)
        else:
            with self._lock:
                self._record_decision(event)

    def summary(self, *, last: str | float | timedelta | None = None) -> Summary:
        """Sum up everything, or the `last` while: `"15m"`, `"24h"`, `"7d"`, seconds or a `timedelta`."""
        with self._lock:
            calls, hits = list(self._paid.values()), list(self._hits.values())
            decisions = list(self._decisions)
            by_key = {key: replace(totals) for key, totals in self._by_key.items()}
        if last is not None:
            since = self._clock() - _seconds(last)
            calls = [call for call in calls if call.time >= since]
            hits = [pair for pair in hits if pair[0].time >= since]
            by_key = _rebuild(calls, hits, [pair for pair in decisions if pair[0].time >= since])
        else:
            for state in self._merged.values():
                _add_state(by_key, state)
        return summarise(by_key, calls, [hit for hit, _ in hits])

    def totals(self) -> Totals:
        """Return the sums over everything recorded and merged."""
        return self.summary().totals

    def to_records(self) -> list[dict[str, Any]]:
        """Return the newest calls and hits as flat rows for a data frame, oldest first; amounts in US dollars."""
        with self._lock:
            rows = [_call_row(call) for call in self._paid.values()]
            rows += [_hit_row(hit, saved) for hit, saved in self._hits.values()]
        for state in self._merged.values():
            rows += state["records"]
        return sorted(rows, key=lambda row: row["time"])

    def to_dict(self) -> dict[str, Any]:
        """Return the whole state in plain JSON, to be merged into the ledger of another process."""
        records = self.to_records()
        with self._lock:
            by_key = {key: replace(totals) for key, totals in self._by_key.items()}
        for state in self._merged.values():
            _add_state(by_key, state)
        rows = [{**asdict(key.scope), **key._asdict(), "scope": None, **asdict(sums)} for key, sums in by_key.items()]
        return {"id": self.id, "totals": rows, "records": records}

    def merge(self, other: "Ledger | Mapping[str, Any]") -> None:
        """Add what another process recorded; merging a later state of the same ledger replaces the earlier one."""
        state = other.to_dict() if isinstance(other, Ledger) else other
        if not {"id", "totals", "records"} <= state.keys():
            raise ConfigurationError("`merge` takes a `Ledger` or what `Ledger.to_dict()` returned")
        if state["id"] == self.id:
            raise ConfigurationError("`merge` was given this very ledger")
        with self._lock:
            self._merged = {**self._merged, state["id"]: state}

    def _record_call(self, call: CallFinished) -> None:
        before = self._paid.get(call.call_id)
        if before is not None:
            self._totals(before.provider, before.model, before.tier, before.scope).add_call(before, -1)
            call = _corrected(before, call)
        elif len(self._paid) >= self._keep:
            del self._paid[next(iter(self._paid))]
        self._paid[call.call_id] = call
        self._totals(call.provider, call.model, call.tier, call.scope).add_call(call)

    def _record_hit(self, hit: CacheHit, saved: int | None) -> None:
        if hit.call_id in self._hits:
            return
        if len(self._hits) >= self._keep:
            del self._hits[next(iter(self._hits))]
        self._hits[hit.call_id] = hit, saved
        self._totals(hit.provider, hit.model, "cache", hit.scope).add_hit(hit, saved)

    def _record_decision(self, event: Event) -> None:
        call = self._paid.get(event.call_id) if isinstance(event, Escalated) else None
        self._decisions.append((event, call))
        if call is not None:
            self._totals(call.provider, call.model, call.tier, call.scope).add_decision(event, call)
        else:
            self._totals("", "", "", event.scope).add_decision(event)

    def _totals(self, provider: str, model: str, tier: str, scope: Scope) -> Totals:
        key = Key(provider, model, tier, scope)
        try:
            return self._by_key[key]
        except KeyError:
            if len(self._by_key) >= self._max_keys:
                key = Key(provider, model, tier, Scope(_OTHER, _OTHER, scope.feature, scope.user_tier))
            return self._by_key.setdefault(key, Totals())

    def _worth(self, hit: CacheHit) -> int | None:
        try:
            cost = self.prices.cost(hit.provider, hit.model, hit.usage, at=hit.time, tenant=hit.scope.tenant)
        except InvalidUsage:
            return None
        return None if cost is None else cost.total


def _corrected(before: CallFinished, after: CallFinished) -> CallFinished:
    """Join two reports of one call: reported usage beats estimates, and what one lacks the other fills in."""
    better, other = (before, after) if _rank(before) >= _rank(after) else (after, before)
    return replace(
        better,
        baseline=better.baseline if better.baseline is not None else other.baseline,
        attempt=max(better.attempt, other.attempt),
        tier=better.tier or other.tier,
        scope=better.scope if better.scope != Scope() else other.scope,
        tags=better.tags or other.tags,
        error=better.error or other.error,
    )


def _rank(call: CallFinished) -> tuple[bool, bool, bool]:
    reported = not call.usage.estimated and call.usage != Usage()
    return reported, call.status != "abandoned", call.cost is not None


def _rebuild(
    calls: list[CallFinished],
    hits: list[tuple[CacheHit, int | None]],
    decisions: list[tuple[Event, CallFinished | None]],
) -> dict[Key, Totals]:
    by_key: dict[Key, Totals] = {}
    for call in calls:
        by_key.setdefault(Key(call.provider, call.model, call.tier, call.scope), Totals()).add_call(call)
    for hit, saved in hits:
        by_key.setdefault(Key(hit.provider, hit.model, "cache", hit.scope), Totals()).add_hit(hit, saved)
    for event, given_up in decisions:
        provider, model, tier = (given_up.provider, given_up.model, given_up.tier) if given_up else ("", "", "")
        by_key.setdefault(Key(provider, model, tier, event.scope), Totals()).add_decision(event, given_up)
    return by_key


def _add_state(by_key: dict[Key, Totals], state: Mapping[str, Any]) -> None:
    for row in state["totals"]:
        scope = Scope(row["tenant"], row["user"], row["feature"], row["user_tier"])
        key = Key(row["provider"], row["model"], row["tier"], scope)
        sums = Totals(**{name: row[name] for name in Totals.__dataclass_fields__})
        by_key[key] = total([by_key[key], sums]) if key in by_key else sums


def _seconds(last: str | float | timedelta) -> float:
    if isinstance(last, timedelta):
        return last.total_seconds()
    if isinstance(last, int | float):
        return float(last)
    try:
        return float(last[:-1]) * _UNITS[last[-1]]
    except (KeyError, ValueError, IndexError):
        raise ConfigurationError(f"`last` is {last!r}; expected such as '15m', '24h', '7d' or seconds") from None


def _call_row(call: CallFinished) -> dict[str, Any]:
    row = asdict(call)
    scope, usage = row.pop("scope"), row.pop("usage")
    for money in ("cost", "baseline", "provider_cache_saving", "input_cost"):
        row[money] = None if row[money] is None else float(usd(row[money]))
    return {"kind": "call", **row, **usage, **scope, "tags": list(call.tags)}


def _hit_row(hit: CacheHit, saved: int | None) -> dict[str, Any]:
    row = asdict(hit)
    scope, usage, how = row.pop("scope"), row.pop("usage"), row.pop("hit")
    del row["question"]
    worth = None if saved is None else float(usd(saved))
    return {"kind": "hit", **row, **usage, **scope, "cache_tier": how["tier"], "age": how["age"], "saved": worth}
