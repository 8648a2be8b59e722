"""What a ledger shows: figures for people, in a terminal or a notebook."""

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmcost_plugins.events import CacheHit, CallFinished
from llmcost_plugins.ledger.totals import Key, Totals, total
from llmcost_plugins.pricing import usd

_SHOWN_HITS = 5
_SHOWN_NAMES = 6
_REASONS = {
    "exact": "the same request",
    "normalised": "the same question but for case, spacing or end marks",
    "semantic": "means the same as a question answered before, cosine {similarity:.2f}",
    "coalesced": "asked while the same question was being answered",
    "foreign": "a hit of another cache",
}


@dataclass(frozen=True, slots=True)
class Summary:
    """Totals with the rates and shares that follow from them. Latencies are seconds over the newest calls."""

    totals: Totals
    by_model: Mapping[str, Totals]
    by_tier: Mapping[str, Totals]
    by_tenant: Mapping[str, Totals]
    by_user: Mapping[str, Totals]
    by_feature: Mapping[str, Totals]
    latency_p50: float | None
    latency_p99: float | None
    newest_hits: tuple[CacheHit, ...]

    @property
    def hit_rate(self) -> float:
        """Share of requests that a cache answered."""
        return _ratio(self.totals.hits, self.totals.requests)

    @property
    def escalation_rate(self) -> float:
        """Share of asked requests whose first answer was given up for a stronger model's."""
        return _ratio(self.totals.escalations, self.totals.requests - self.totals.hits)

    @property
    def cost_per_answer(self) -> float:
        """US dollars spent, failures and drafts included, for each request that was answered."""
        return dollars(self.totals.cost) / max(1, self.totals.answered + self.totals.hits)

    @property
    def shares(self) -> dict[str, float]:
        """How the money divides: input tokens, output tokens, and what of both went to attempts after the first."""
        sums = self.totals
        return {
            "input": _ratio(sums.input_cost, sums.cost),
            "output": _ratio(sums.cost - sums.input_cost, sums.cost),
            "retries": _ratio(sums.retry_cost, sums.cost),
        }

    @property
    def savings(self) -> dict[str, float]:
        """US dollars by layer; `overhead` is negative. The provider's own prompt cache is not part of `total`."""
        sums = self.totals
        return {
            "cache": dollars(sums.cache_saved),
            "routing": dollars(sums.routing_saved),
            "overhead": -dollars(sums.escalated_cost),
            "total": dollars(sums.saved),
            "provider prompt cache": dollars(sums.provider_cache_saved),
        }

    def line(self) -> str:
        """Return the whole in one line."""
        sums = self.totals
        return (
            f"{sums.requests:,} requests, {sums.paid:,} paid, {sums.hits:,} from cache; "
            f"spent {money(sums.cost)}, saved {money(sums.saved)}"
        )

    def rows(self) -> list[tuple[str, str]]:
        """Return label and value of each figure, those that are zero by nature left out."""
        sums = self.totals
        rows = [
            ("requests", f"{sums.requests:,}"),
            ("paid calls", f"{sums.paid:,}"),
            ("spent", money(sums.cost)),
            ("saved", f"{money(sums.saved)} ({percent(_ratio(sums.saved, sums.cost + sums.saved))})"),
            ("  by cache", f"{money(sums.cache_saved)} in {sums.hits:,} hits ({percent(self.hit_rate)})"),
        ]
        rows += [row for row, wanted in self._rows_if_any() if wanted]
        rows.append(("tokens", f"{sums.input_tokens:,} in, {sums.output_tokens:,} out, {sums.cached_tokens:,} cached"))
        if self.latency_p50 is not None and self.latency_p99 is not None:
            rows.append(("latency", f"p50 {self.latency_p50 * 1e3:,.0f} ms, p99 {self.latency_p99 * 1e3:,.0f} ms"))
        return rows

    def _rows_if_any(self) -> list[tuple[tuple[str, str], int]]:
        sums = self.totals
        shares = self.shares
        escalated = f"{sums.escalations:,} ({percent(self.escalation_rate)}), {money(sums.escalated_cost)} of drafts"
        notes = f"{sums.estimated:,} with estimated usage, {sums.approximate:,} at an approximate price"
        return [
            (("  hits", by_name(sums.hits_by_tier)), len(sums.hits_by_tier)),
            (("  vetoed", by_name(sums.vetoes)), len(sums.vetoes)),
            (("  by routing", money(sums.routing_saved)), sums.routing_saved),
            (("escalated", escalated), sums.escalations),
            (("compressed", f"{sums.compressions:,} contexts, {sums.tokens_left_out:,} tokens out"), sums.compressions),
            (("provider prompt cache", money(sums.provider_cache_saved)), sums.provider_cache_saved),
            (("per answer", f"${self.cost_per_answer:.6f}"), sums.cost),
            (("shares", ", ".join(f"{k} {percent(v)}" for k, v in shares.items())), sums.cost),
            (("failed calls", f"{sums.failed:,} failed, {sums.cut:,} cut, {sums.abandoned:,} abandoned"),
             sums.failed + sums.cut + sums.abandoned),
            (("fallbacks", f"{sums.fallbacks:,}"), sums.fallbacks),
            (("UNPRICED hits", f"{sums.unpriced_hits:,} (what they saved is not known)"), sums.unpriced_hits),
            (("UNPRICED calls", f"{sums.unpriced:,} (set a price: PriceBook.set)"), sums.unpriced),
            (("estimates", notes), sums.estimated + sums.approximate),
            (("part failures", f"{sums.component_failures:,} (the calls went on)"), sums.component_failures),
        ]  # fmt: skip

    def hit_lines(self) -> list[str]:
        """Return why each of the newest hits was one."""
        return [_explain(hit) for hit in self.newest_hits]

    def __str__(self) -> str:
        rows = self.rows()
        width = max(len(label) for label, _ in rows)
        lines = [self.line(), *(f"  {label:<{width}}  {value}" for label, value in rows)]
        lines += [f"  {model}: {sums.paid:,} paid, {money(sums.cost)}" for model, sums in self.by_model.items()]
        return "\n".join([*lines, *(f"  hit: {line}" for line in self.hit_lines())])

    def __rich__(self) -> Any:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.line(), show_header=False)
        for label, value in [*self.rows(), *(("hit", line) for line in self.hit_lines())]:
            table.add_row(label, Text(value))
        return table

    def _repr_html_(self) -> str:
        rows = [*self.rows(), *(("hit", line) for line in self.hit_lines())]
        cells = "".join(f"<tr><th>{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in rows)
        return f"<table><caption>{html.escape(self.line())}</caption>{cells}</table>"


def summarise(by_key: Mapping[Key, Totals], calls: Sequence[CallFinished], hits: Sequence[CacheHit]) -> Summary:
    """Put totals kept by key, and the newest calls and hits, into a summary."""
    latencies = sorted(call.latency for call in calls if call.status == "ok")
    return Summary(
        totals=total(by_key.values()),
        by_model=_group(by_key, lambda key: key.model),
        by_tier=_group(by_key, lambda key: key.tier),
        by_tenant=_group(by_key, lambda key: key.scope.tenant or ""),
        by_user=_group(by_key, lambda key: key.scope.user or ""),
        by_feature=_group(by_key, lambda key: key.scope.feature or ""),
        latency_p50=percentile(latencies, 0.5),
        latency_p99=percentile(latencies, 0.99),
        newest_hits=tuple(hits[-_SHOWN_HITS:]),
    )


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile of ascending values, None of none."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


def _group(by_key: Mapping[Key, Totals], name: Callable[[Key], str]) -> dict[str, Totals]:
    groups: dict[str, list[Totals]] = {}
    for key, sums in by_key.items():
        if name(key):
            groups.setdefault(name(key), []).append(sums)
    return _by_cost({group: total(parts) for group, parts in groups.items()}.items())


def _by_cost(groups: Iterable[tuple[str, Totals]]) -> dict[str, Totals]:
    return dict(sorted(groups, key=lambda pair: -pair[1].cost))


def _explain(hit: CacheHit) -> str:
    reason = _REASONS.get(hit.hit.tier, hit.hit.tier).format(similarity=hit.hit.similarity)
    question = f"{hit.question[:60]!r}: " if hit.question else ""
    return f"{question}{reason}" + ("" if hit.hit.tier == "foreign" else f", answered {hit.hit.age:,.1f} s before")


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def dollars(pico: int) -> float:
    """Return pico-USD as US dollars, for showing."""
    return float(usd(pico))


def by_name(counts: Mapping[str, int]) -> str:
    """Return counts as people read them, the largest first, and the smallest together."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = _SHOWN_NAMES if len(ordered) > _SHOWN_NAMES + 1 else len(ordered)  # "1 more" is no shorter than its name
    parts = [f"{times:,} {name}" for name, times in ordered[:shown]]
    rest = sum(times for _, times in ordered[shown:])
    return ", ".join([*parts, *([f"{rest:,} more"] if rest else [])])


def percent(share: float) -> str:
    """Return a share as people read it."""
    return f"{share:.1%}"


def money(pico: int) -> str:
    """Return pico-USD as people read US dollars, with more digits the smaller the amount."""
    if pico == 0:
        return "$0"
    amount = dollars(pico)
    digits = 2 if abs(amount) >= 100 else 4 if abs(amount) >= 0.01 else 6
    return f"{'-' if amount < 0 else ''}${abs(amount):,.{digits}f}"
