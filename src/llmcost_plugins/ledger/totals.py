"""Sums over many calls, exact integers throughout."""

from collections.abc import Iterable
from dataclasses import dataclass, fields

from llmcost_plugins.events import CacheHit, CacheMissed, CallFinished, ComponentFailed, Escalated, Event, FellBack


@dataclass(slots=True)
class Totals:
    """What a set of events adds up to; amounts are pico-USD.

    `requests` counts what was asked once, however many calls it took; `calls` counts model calls, `paid` those that
    were billed. `answered` are the calls whose answer was used.
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

    def add_call(self, call: CallFinished, sign: int = 1) -> None:
        """Add a call, or take one away again with a `sign` of -1."""
        usage, status = call.usage, call.status
        self.calls += sign
        if call.attempt == 1:
            self.requests += sign
        else:
            self.retries += sign
        if status == "ok":
            self.answered += sign
        elif status == "error":
            self.failed += sign
        elif status == "cut":
            self.cut += sign
        else:
            self.abandoned += sign
        if usage.input_tokens or usage.output_tokens:
            self._add_usage(call, sign)
        if call.cost is None:
            self.unpriced += sign
        else:
            self._add_cost(call, call.cost, sign)

    def _add_usage(self, call: CallFinished, sign: int) -> None:
        usage = call.usage
        self.paid += sign
        self.input_tokens += sign * usage.input_tokens
        self.output_tokens += sign * usage.output_tokens
        self.cached_tokens += sign * usage.cached_tokens
        self.cache_write_tokens += sign * usage.cache_write_tokens
        self.reasoning_tokens += sign * usage.reasoning_tokens
        self.audio_tokens += sign * (usage.input_audio_tokens + usage.output_audio_tokens)
        if usage.estimated:
            self.estimated += sign

    def _add_cost(self, call: CallFinished, cost: int, sign: int) -> None:
        self.cost += sign * cost
        self.input_cost += sign * call.input_cost
        self.provider_cache_saved += sign * call.provider_cache_saving
        if call.approximate:
            self.approximate += sign
        if call.attempt > 1:
            self.retry_cost += sign * cost
        if call.status != "ok":
            self.failed_cost += sign * cost
        elif call.baseline is not None:
            self.routing_saved += sign * (call.baseline - cost)

    def add_hit(self, hit: CacheHit, saved: int | None) -> None:
        """Add a cache hit and what its stored usage would cost now, None where that has no price."""
        self.requests += 1
        self.hits += 1
        self.foreign_hits += hit.hit.tier == "foreign"
        if saved is None:
            self.unpriced_hits += 1
        else:
            self.cache_saved += saved

    def add_decision(self, event: Event, escalated: CallFinished | None = None) -> None:
        """Count an event that carries no money; `escalated` is the call that an `Escalated` gave up."""
        if isinstance(event, CacheMissed):
            self.misses += 1
        elif isinstance(event, FellBack):
            self.fallbacks += 1
        elif isinstance(event, ComponentFailed):
            self.component_failures += 1
        elif isinstance(event, Escalated):
            self.escalations += 1
            if escalated is not None and escalated.status == "ok":
                self._give_up(escalated)

    def _give_up(self, call: CallFinished) -> None:
        self.answered -= 1
        if call.cost is not None:
            self.escalated_cost += call.cost
            if call.baseline is not None:
                self.routing_saved -= call.baseline - call.cost

    @property
    def saved(self) -> int:
        """What the layers saved, net of what they spent on answers that were not used."""
        return self.cache_saved + self.routing_saved - self.escalated_cost

    def __iadd__(self, other: "Totals") -> "Totals":
        for name in _NAMES:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


_NAMES = tuple(f.name for f in fields(Totals))


def total(parts: Iterable[Totals]) -> Totals:
    """Return the sum of many."""
    result = Totals()
    for part in parts:
        result += part
    return result
