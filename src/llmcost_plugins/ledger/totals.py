"""Sums over many calls, exact integers throughout."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from llmcost_plugins.events import CacheHit, CacheMissed, CallFinished, ComponentFailed, Compressed, Escalated, Event
from llmcost_plugins.pricing import Cost
from llmcost_plugins.types import Scope

_MOST_NAMES = 32  # that counts are kept apart by; applications choose the names of categories and vetoes
_LONGEST_NAME = 60
_OTHERS = "(other)"


class Key(NamedTuple):
    """What totals are kept apart by."""

    provider: str
    model: str
    tier: str
    scope: Scope


@dataclass(slots=True)
class Totals:
    """What a set of events adds up to; amounts are pico-USD.

    `requests` counts what was asked once, however many calls it took; `calls` counts model calls, `paid` those that
    were billed. `answered` are the calls whose answer was used. `hits_by_tier` parts `hits`, `misses_by_reason` parts
    `misses`, and `vetoes` counts the misses that a veto was the reason of; beyond 32 names they count `(other)`.
    `tokens_left_out` are those that compressors of retrieved passages left out, as the target model counts them.
    """

    requests: int = 0
    calls: int = 0
    paid: int = 0
    answered: int = 0
    failed: int = 0
    cut: int = 0
    abandoned: int = 0
    retries: int = 0
    unpriced: int = 0
    estimated: int = 0
    approximate: int = 0
    hits: int = 0
    foreign_hits: int = 0
    misses: int = 0
    escalations: int = 0
    fallbacks: int = 0
    component_failures: int = 0
    compressions: int = 0
    tokens_left_out: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    audio_tokens: int = 0
    cost: int = 0
    input_cost: int = 0
    retry_cost: int = 0
    escalated_cost: int = 0
    failed_cost: int = 0
    cache_saved: int = 0
    routing_saved: int = 0
    provider_cache_saved: int = 0
    unpriced_hits: int = 0
    hits_by_tier: dict[str, int] = field(default_factory=dict)
    misses_by_reason: dict[str, int] = field(default_factory=dict)
    vetoes: dict[str, int] = field(default_factory=dict)

    def add_call(self, call: CallFinished, *, given_up: bool = False) -> None:
        """Add a call; `given_up` says that a stronger tier was asked in its place."""
        status, usage = call.status, call.usage
        self.calls += 1
        self.requests += call.attempt == 1
        self.retries += _is_retry(call)
        self.fallbacks += call.fallback
        self.answered += status == "ok" and not given_up
        self.failed += status == "error"
        self.cut += status == "cut"
        self.abandoned += status == "abandoned"
        self.paid += usage.total_tokens > 0 or bool(call.cost and call.cost.total)
        self.estimated += usage.estimated
        self.input_tokens += usage.input_tokens
        self.output_tokens += usage.output_tokens
        self.cached_tokens += usage.cached_tokens
        self.cache_write_tokens += usage.cache_write_tokens
        self.reasoning_tokens += usage.reasoning_tokens
        self.audio_tokens += usage.input_audio_tokens + usage.output_audio_tokens
        if call.cost is not None:
            self._add_cost(call, call.cost, given_up)
        elif status == "ok" or usage.total_tokens:
            self.unpriced += 1

    def _add_cost(self, call: CallFinished, cost: Cost, given_up: bool) -> None:
        self.cost += cost.total
        self.input_cost += cost.input
        self.provider_cache_saved += cost.provider_cache_saving
        self.approximate += cost.source == "approximate"
        if _is_retry(call):
            self.retry_cost += cost.total
        if given_up:
            self.escalated_cost += cost.total
        elif call.status != "ok":
            self.failed_cost += cost.total
        elif call.baseline is not None:
            self.routing_saved += call.baseline - cost.total

    def add_hit(self, hit: CacheHit, saved: int | None) -> None:
        """Add a cache hit and what its stored usage would cost now, None where that has no price."""
        self.requests += hit.attempt == 1
        self.hits += 1
        _count(self.hits_by_tier, hit.hit.tier)
        self.foreign_hits += hit.hit.tier == "foreign"
        if saved is None:
            self.unpriced_hits += 1
        else:
            self.cache_saved += saved

    def add_decision(self, event: Event) -> None:
        """Count an event that carries no money."""
        if isinstance(event, CacheMissed):
            self._add_miss(event)
        self.escalations += isinstance(event, Escalated)
        self.component_failures += isinstance(event, ComponentFailed)
        if isinstance(event, Compressed):
            self.compressions += event.tokens_after < event.tokens_before
            self.tokens_left_out += event.tokens_before - event.tokens_after

    def _add_miss(self, missed: CacheMissed) -> None:
        self.misses += 1
        _count(self.misses_by_reason, missed.reason.partition(":")[0])
        if missed.veto:
            _count(self.vetoes, missed.veto)

    @property
    def saved(self) -> int:
        """What the layers saved, net of what they spent on answers that were not used."""
        return self.cache_saved + self.routing_saved - self.escalated_cost

    def __iadd__(self, other: "Totals") -> "Totals":
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in COUNTS:
            mine: dict[str, int] = getattr(self, name)
            for counted, times in getattr(other, name).items():
                _count(mine, counted, times)
        return self


COUNTS = ("hits_by_tier", "misses_by_reason", "vetoes")
SUMS = tuple(f.name for f in fields(Totals) if f.name not in COUNTS)


def counts(given: Mapping[str, int]) -> dict[str, int]:
    """Return counts by name, of a bounded number of names."""
    result: dict[str, int] = {}
    for name, times in given.items():
        _count(result, str(name), int(times))
    return result


def _count(by_name: dict[str, int], name: str, times: int = 1) -> None:
    name = name[:_LONGEST_NAME]
    if name not in by_name and len(by_name) >= _MOST_NAMES:
        name = _OTHERS
    by_name[name] = by_name.get(name, 0) + times


def _is_retry(call: CallFinished) -> bool:
    """Tell whether a call repeats one that failed; a router's later call without a failure is an escalation."""
    return call.attempt > 1 and (call.fallback or not call.tier)


def total(parts: Iterable[Totals]) -> Totals:
    """Return the sum of many."""
    result = Totals()
    for part in parts:
        result += part
    return result
