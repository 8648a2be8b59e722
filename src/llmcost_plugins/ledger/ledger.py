"""The one book of costs and savings."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import timedelta
from itertools import islice
from typing import Any, NamedTuple

from llmcost_plugins.errors import ConfigurationError, InvalidUsage
from llmcost_plugins.events import CacheHit, CallFinished, Compared, Escalated, Event
from llmcost_plugins.forks import after_fork
from llmcost_plugins.ledger.state import State, add, parse
from llmcost_plugins.ledger.summary import Summary, summarise
from llmcost_plugins.ledger.totals import Key, Totals, total
from llmcost_plugins.pricing import PriceBook, default_prices, usd
from llmcost_plugins.types import Scope, Usage, new_id

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_OTHER = "(other)"
_FOLDED_AT_ONCE = 512


class Ledger:
    """Keeps what was spent and what was saved, by model, tier and scope.

    Totals cover everything ever recorded. `summary(last=...)`, `to_records` and latencies cover the newest `keep`
    events at least. Recording one call twice (its `call_id` is the key) corrects the first: reported usage replaces
    estimates, so that a callback handler and a routing model may both report it. Beyond `max_keys` combinations of
    model and scope, older calls of further users and tenants are summed under `(other)`.
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
        self.id = new_id()
        self._prices = prices
        self._keep = keep
        self._kept_at_most = keep + min(keep, _FOLDED_AT_ONCE)
        self._max_keys = max_keys
        self._clock = clock
        self._renew_lock()
        after_fork(self, Ledger._renew_lock)
        self._calls: dict[str, CallFinished] = {}
        self._hits: dict[str, _Valued] = {}
        self._decisions: deque[Event] = deque()
        self._given_up: set[str] = set()
        self._folded: dict[Key, Totals] = {}
        self._merged: dict[str, State] = {}
        self._count = 0

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

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
        """What was spent so far in pico-USD, merged ledgers not counted."""
        with self._lock:
            kept = sum(call.cost.total for call in self._calls.values() if call.cost is not None)
            return kept + sum(totals.cost for totals in self._folded.values())

    def record(self, event: Event) -> None:
        """Take in one event; safe to call from any thread, never blocks on I/O."""
        if isinstance(event, CallFinished):
            with self._lock:
                self._count += 1
                before = self._calls.get(event.call_id)
                self._calls[event.call_id] = event if before is None else _corrected(before, event)
                if len(self._calls) >= self._kept_at_most:
                    self._fold()
        elif isinstance(event, CacheHit):
            self._record_hit(_Valued(event, self._worth(event)))
        else:
            self._record_decision(event)

    def summary(self, *, last: str | float | timedelta | None = None) -> Summary:
        """Sum up everything, or the `last` while: `"15m"`, `"24h"`, `"7d"`, seconds or a `timedelta`.

        A while is counted over what this ledger holds itself, without merged ones.
        """
        since = None if last is None else self._clock() - _seconds(last)
        with self._lock:
            calls = [call for call in self._calls.values() if since is None or call.time >= since]
            hits = [valued for valued in self._hits.values() if since is None or valued.hit.time >= since]
            decisions = [event for event in self._decisions if since is None or event.time >= since]
            sums = self._copy_of_folded() if since is None else {}
            given_up = frozenset(self._given_up)
        _add(sums, calls, hits, decisions, given_up)
        for state in self._merged.values() if since is None else ():
            add(sums, state)
        return summarise(sums, calls, [valued.hit for valued in hits])

    def totals(self) -> Totals:
        """Return the sums over everything recorded and merged."""
        return self.summary().totals

    def to_records(self) -> list[dict[str, Any]]:
        """Return the newest calls and hits as flat rows for a data frame, oldest first; amounts in US dollars."""
        with self._lock:
            rows = self._own_records()
        for state in self._merged.values():
            rows += state.records
        return sorted(rows, key=lambda row: row["time"])

    def to_dict(self) -> dict[str, Any]:
        """Return the whole state in plain JSON, to be merged into the ledger of another process."""
        with self._lock:
            sums = self._copy_of_folded()
            _add(sums, self._calls.values(), self._hits.values(), self._decisions, self._given_up)
            own = State(self.id, self._count, sums, self._own_records())
        return {**own.to_dict(), "merged": [state.to_dict() for state in self._merged.values()]}

    def merge(self, other: "Ledger | Mapping[str, Any]") -> None:
        """Add what other processes recorded.

        Each ledger counts once, by its newest state, however often and by whatever way it is merged.
        """
        states = parse(other.to_dict() if isinstance(other, Ledger) else other)
        if states[0].id == self.id:
            raise ConfigurationError("`merge` was given this very ledger")
        with self._lock:
            known = dict(self._merged)
            for state in states:
                if state.id != self.id and (state.id not in known or known[state.id].count < state.count):
                    known[state.id] = state
            self._merged = known

    def _own_records(self) -> list[dict[str, Any]]:
        calls = [_call_row(call, call.call_id in self._given_up) for call in self._calls.values()]
        return calls + [_hit_row(valued) for valued in self._hits.values()]

    def _record_hit(self, valued: "_Valued") -> None:
        with self._lock:
            self._count += 1
            before = self._hits.get(valued.hit.call_id)
            if before is None or before.hit.attempt < valued.hit.attempt:
                self._hits[valued.hit.call_id] = valued
            if len(self._hits) >= self._kept_at_most:
                self._fold()

    def _record_decision(self, event: Event) -> None:
        with self._lock:
            self._count += 1
            self._decisions.append(event)
            if isinstance(event, Escalated | Compared):
                self._given_up.add(event.call_id)
            if len(self._decisions) >= self._kept_at_most:
                self._fold()

    def _fold(self) -> None:
        """Move all but the newest `keep` of each kind into the sums; called with the lock held."""
        calls = [self._calls.pop(name) for name in list(islice(self._calls, max(0, len(self._calls) - self._keep)))]
        hits = [self._hits.pop(name) for name in list(islice(self._hits, max(0, len(self._hits) - self._keep)))]
        decisions = [self._decisions.popleft() for _ in range(len(self._decisions) - self._keep)]
        _add(self._folded, calls, hits, decisions, self._given_up, max_keys=self._max_keys)
        self._given_up.difference_update(call.call_id for call in calls)
        self._given_up.difference_update(valued.hit.call_id for valued in hits)

    def _copy_of_folded(self) -> dict[Key, Totals]:
        return {key: total([totals]) for key, totals in self._folded.items()}

    def _worth(self, hit: CacheHit) -> int | None:
        try:
            cost = self.prices.cost(hit.provider, hit.model, hit.usage, at=hit.time, tenant=hit.scope.tenant)
        except InvalidUsage:
            return None
        return None if cost is None else cost.total


class _Valued(NamedTuple):
    """A hit, and what its answer would cost now in pico-USD, None where it has no price."""

    hit: CacheHit
    saved: int | None


def _corrected(before: CallFinished, after: CallFinished) -> CallFinished:
    """Join two reports of one call: reported usage beats estimates, and what one lacks the other fills in."""
    better, other = (before, after) if _rank(before) >= _rank(after) else (after, before)
    return better._replace(
        baseline=better.baseline if better.baseline is not None else other.baseline,
        attempt=max(better.attempt, other.attempt),
        tier=better.tier or other.tier,
        scope=better.scope if better.scope != Scope() else other.scope,
        tags=better.tags or other.tags,
        fallback=better.fallback or other.fallback,
        error=better.error or other.error,
    )


def _rank(call: CallFinished) -> tuple[bool, bool, bool, bool]:
    reported = not call.usage.estimated and call.usage != Usage()
    return reported, call.status != "abandoned", call.cost is not None, bool(call.tier)


def _add(
    sums: dict[Key, Totals],
    calls: Iterable[CallFinished],
    hits: Iterable[_Valued],
    decisions: Iterable[Event],
    given_up: Container[str],
    *,
    max_keys: int | None = None,
) -> None:
    """Add events to the sums that they belong to."""

    def at(provider: str, model: str, tier: str, scope: Scope) -> Totals:
        key = Key(provider, model, tier, scope)
        if max_keys is not None and len(sums) >= max_keys and key not in sums:
            key = key._replace(scope=scope._replace(tenant=scope.tenant and _OTHER, user=scope.user and _OTHER))
        return sums.setdefault(key, Totals())

    for call in calls:
        sums_of_call = at(call.provider, call.model, call.tier, call.scope)
        sums_of_call.add_call(call, given_up=call.call_id in given_up)
    for hit, saved in hits:
        if hit.call_id in given_up:  # a draft that cost nothing and was not shown
            at(hit.provider, hit.model, "cache", hit.scope).requests += hit.attempt == 1
            continue
        at(hit.provider, hit.model, "cache", hit.scope).add_hit(hit, saved)
    for event in decisions:
        at("", "", "", event.scope).add_decision(event)


def _seconds(last: str | float | timedelta) -> float:
    try:
        if isinstance(last, timedelta):
            seconds = last.total_seconds()
        else:
            seconds = float(last[:-1]) * _UNITS[last[-1]] if isinstance(last, str) else float(last)
    except (KeyError, ValueError, IndexError, TypeError):
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise ConfigurationError(f"`last` is {last!r}; expected such as '15m', '24h', '7d' or seconds")
    return seconds


def _call_row(call: CallFinished, given_up: bool) -> dict[str, Any]:
    row = call._asdict()
    scope, usage = row.pop("scope")._asdict(), row.pop("usage")._asdict()
    row |= {"cost": None, "input_cost": None, "provider_cache_saving": None, "price": "unpriced"}
    if (cost := call.cost) is not None:
        row |= {"cost": float(usd(cost.total)), "input_cost": float(usd(cost.input)), "price": cost.source}
        row["provider_cache_saving"] = float(usd(cost.provider_cache_saving))
    row["baseline"] = None if call.baseline is None else float(usd(call.baseline))
    return {"kind": "call", **row, **usage, **scope, "tags": list(call.tags), "given_up": given_up}


def _hit_row(valued: _Valued) -> dict[str, Any]:
    hit, saved = valued
    row = {"call_id": hit.call_id, "time": hit.time, "provider": hit.provider, "model": hit.model}
    worth = None if saved is None else float(usd(saved))
    found = {"cache_tier": hit.hit.tier, "age": hit.hit.age, "saved": worth}
    return {"kind": "hit", **row, **hit.usage._asdict(), **hit.scope._asdict(), **found}
