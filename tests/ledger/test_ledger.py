"""The ledger: exact sums however the events come, each call once, and figures that people can read."""

import json
import random
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from threading import Barrier
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.events import (
    CacheHit,
    CacheMissed,
    CallFinished,
    ComponentFailed,
    Compressed,
    Escalated,
    Event,
    FellBack,
    Routed,
    emit,
)
from llmcost_plugins.flow import Account, serve
from llmcost_plugins.ledger import Ledger, Totals, process_ledger, track
from llmcost_plugins.ledger.billing import bill
from llmcost_plugins.ledger.totals import total
from llmcost_plugins.plan import Ask, drive
from llmcost_plugins.pricing import Cost, PriceBook, pico
from llmcost_plugins.routing import Router
from llmcost_plugins.types import Fault, Hit, Reply, Request, Scope, Tier, Usage

NOW = 1_790_000_000.0
DAY = 86_400.0
USAGE = Usage(1_000, 200, 400)
ESTIMATE = Usage(900, 150, estimated=True)
COST = Cost(1_000, 700, 50, "genai-prices")
ACME, GLOBEX = Scope("acme", "u1", "chat"), Scope("globex", "u2", "search")


def call(call_id: str = "c1", **changes: Any) -> CallFinished:
    event = CallFinished(call_id, NOW, "openai", "gpt-5.4", USAGE, COST, latency=0.5)
    return event._replace(**changes)


def hit(call_id: str = "h1", tier: Any = "exact", **changes: Any) -> CacheHit:
    event = CacheHit(
        call_id=call_id, time=NOW, hit=Hit(tier, "e1", age=3.0), provider="openai", model="m", usage=Usage(10, 10)
    )
    return replace(event, **changes)


def escalated(call_id: str, **changes: Any) -> Escalated:
    return replace(Escalated(time=NOW, call_id=call_id, tier="weak", to="strong", reason="empty answer"), **changes)


def prices() -> PriceBook:
    book = PriceBook()
    book.set("m", input=1, output=2)
    return book


def filled(*events: Event, **options: Any) -> Ledger:
    ledger = Ledger(prices=prices(), clock=lambda: NOW, **options)
    for event in events:
        ledger.record(event)
    return ledger


def totals_of(*events: Event, **options: Any) -> Totals:
    return filled(*events, **options).totals()


# --- Sums


def test_an_empty_ledger_has_zeros_and_no_latencies() -> None:
    ledger = filled()
    summary = ledger.summary()
    assert summary.totals == Totals()
    assert ledger.spent == 0
    assert (summary.hit_rate, summary.escalation_rate, summary.cost_per_answer) == (0, 0, 0)
    assert set(summary.shares.values()) == set(summary.savings.values()) == {0.0}
    assert (summary.latency_p50, summary.latency_p99, summary.newest_hits) == (None, None, ())
    assert ledger.to_records() == []
    assert "0 requests" in str(ledger)


def test_one_call() -> None:
    sums = totals_of(call())
    assert (sums.requests, sums.calls, sums.paid, sums.answered, sums.retries) == (1, 1, 1, 1, 0)
    assert (sums.input_tokens, sums.output_tokens, sums.cached_tokens) == (1_000, 200, 400)
    assert (sums.cost, sums.input_cost, sums.provider_cache_saved) == (1_000, 700, 50)
    assert sums.unpriced == sums.failed == sums.hits == 0


def test_all_kinds_of_tokens_are_summed() -> None:
    usage = Usage(100, 50, 10, 20, 5, 7, 3, 2)
    sums = totals_of(call("a", usage=usage), call("b", usage=usage))
    assert (sums.cache_write_tokens, sums.reasoning_tokens, sums.audio_tokens) == (40, 14, 10)


def test_sums_by_model_tier_tenant_user_and_feature() -> None:
    summary = filled(
        call("1", scope=ACME, tier="weak", model="small"),
        call("2", scope=ACME, tier="strong", cost=COST._replace(total=5_000)),
        call("3", scope=GLOBEX, tier="strong"),
        call("4"),
        hit(scope=GLOBEX),
    ).summary()
    costs = {
        name: {key: sums.cost for key, sums in getattr(summary, name).items()}
        for name in ("by_model", "by_tier", "by_tenant", "by_user", "by_feature")
    }
    assert costs == {
        "by_model": {"gpt-5.4": 7_000, "small": 1_000, "m": 0},
        "by_tier": {"strong": 6_000, "weak": 1_000, "cache": 0},
        "by_tenant": {"acme": 6_000, "globex": 1_000},
        "by_user": {"u1": 6_000, "u2": 1_000},
        "by_feature": {"chat": 6_000, "search": 1_000},
    }
    assert next(iter(summary.by_model)) == "gpt-5.4"
    assert summary.by_tenant["globex"].hits == 1
    assert summary.totals.cost == 8_000


def test_spent_is_the_cost_without_merged_ledgers() -> None:
    ledger = filled(*(call(str(n)) for n in range(25)), keep=3)
    ledger.merge(filled(call("x")))
    assert ledger.spent == 25_000
    assert ledger.totals().cost == 26_000


def test_latencies_are_of_answered_calls() -> None:
    calls = [call(str(n), latency=n / 100) for n in range(1, 101)]
    summary = filled(*calls, call("bad", latency=99.0, status="error", usage=Usage())).summary()
    assert (summary.latency_p50, summary.latency_p99) == (0.5, 0.99)


def test_unpriced_calls_are_counted_and_shown() -> None:
    ledger = filled(call("1", cost=None), call("2", cost=None, status="cut"), call("3"))
    assert ledger.totals().unpriced == 2
    assert "UNPRICED" in str(ledger)
    assert ledger.totals().cost == 1_000


def test_failed_calls_without_tokens_are_not_unpriced() -> None:
    sums = totals_of(call(cost=None, usage=Usage(), status="error"))
    assert (sums.unpriced, sums.failed, sums.paid, sums.answered) == (0, 1, 0, 0)


def test_an_answer_whose_counts_were_refused_is_unpriced() -> None:
    sums = totals_of(call(cost=None, usage=Usage(), error="`cached_tokens` exceeds"))
    assert (sums.unpriced, sums.paid, sums.answered) == (1, 0, 1)


def test_how_calls_ended() -> None:
    statuses = ("ok", "error", "cut", "abandoned")
    sums = totals_of(*(call(status, status=status) for status in statuses))
    assert (sums.answered, sums.failed, sums.cut, sums.abandoned, sums.calls) == (1, 1, 1, 1, 4)
    assert sums.failed_cost == 3 * COST.total


def test_estimates_and_approximate_prices_are_counted() -> None:
    sums = totals_of(call("1", usage=ESTIMATE), call("2", cost=COST._replace(source="approximate")), call("3"))
    assert (sums.estimated, sums.approximate) == (1, 1)


def test_retries_are_calls_but_no_requests() -> None:
    sums = totals_of(call("1", status="error", usage=Usage(), cost=None), call("2", attempt=2), call("3", attempt=3))
    assert (sums.requests, sums.calls, sums.retries) == (1, 3, 2)
    assert sums.retry_cost == 2_000


def test_decisions_are_counted_and_routing_choices_are_not_money() -> None:
    ledger = filled(
        CacheMissed(time=NOW, reason="not asked before", scope=ACME),
        Routed(time=NOW, tier="weak", reason="", scope=ACME),
        FellBack(time=NOW, tier="weak", to="strong", error="TimeoutError: "),
        ComponentFailed(time=NOW, component="cache", error="OSError: "),
        escalated("none"),
    )
    sums = ledger.totals()
    assert (sums.misses, sums.component_failures, sums.escalations) == (1, 1, 1)
    assert (sums.calls, sums.requests, sums.cost) == (0, 0, 0)
    assert ledger.to_records() == []


def missed(veto: str = "", reason: str = "nothing near enough", **changes: Any) -> CacheMissed:
    return replace(CacheMissed(time=NOW, reason=f"vetoed: {veto}" if veto else reason, veto=veto), **changes)


def test_hits_are_counted_by_tier_and_misses_by_reason_and_veto() -> None:
    hits = [hit("h1"), hit("h2", "semantic"), hit("h3", "semantic", scope=ACME), hit("h4", "normalised")]
    misses = [missed(), missed("numbers"), missed("numbers", scope=ACME), missed("negation")]
    sums = totals_of(*hits, *misses)
    assert sums.hits_by_tier == {"exact": 1, "semantic": 2, "normalised": 1}
    assert sums.misses_by_reason == {"nothing near enough": 1, "vetoed": 3}
    assert sums.vetoes == {"numbers": 2, "negation": 1}


def test_a_reason_is_counted_without_what_follows_it() -> None:
    assert totals_of(missed(reason="no lasting form: <object 1>")).misses_by_reason == {"no lasting form": 1}


def test_a_draft_from_the_cache_that_is_given_up_is_no_hit_of_any_tier() -> None:
    assert totals_of(hit("h1", "semantic"), escalated("h1")).hits_by_tier == {}


def test_the_names_of_vetoes_are_bounded() -> None:
    parts = [filled(*(missed(f"{part}-{n}" * 40) for n in range(100))) for part in "ab"]
    whole = filled(keep=1)
    for part in parts:
        assert len(part.totals().vetoes) == 33
        assert max(map(len, part.totals().vetoes)) <= 60
        whole.merge(json.loads(json.dumps(part.to_dict())))
    sums = whole.totals()
    assert len(sums.vetoes) == 33
    assert sum(sums.vetoes.values()) == sums.misses == 200


def test_a_summary_is_not_changed_by_what_is_recorded_later() -> None:
    ledger = filled(*(missed("numbers") for _ in range(20)), keep=1)
    before = ledger.totals()
    for _ in range(20):
        ledger.record(missed("numbers"))
    assert before.vetoes == {"numbers": 20}
    assert ledger.totals().vetoes == {"numbers": 40}


def test_a_state_without_counts_by_name_is_read() -> None:
    state = filled(hit(), missed("numbers")).to_dict()
    for row in state["totals"]:
        for name in ("hits_by_tier", "misses_by_reason", "vetoes"):
            del row[name]
    whole = filled()
    whole.merge(state)
    assert (whole.totals().hits, whole.totals().misses, whole.totals().vetoes) == (1, 1, {})


# --- A while


def at_ages(*ages: float) -> Ledger:
    ledger = filled(*(call(f"c{age}", time=NOW - age) for age in ages))
    for age in ages:
        ledger.record(hit(f"h{age}", time=NOW - age))
        ledger.record(CacheMissed(time=NOW - age, reason=""))
    return ledger


@pytest.mark.parametrize(
    ("last", "events"),
    [
        ("15m", 2),
        ("24h", 3),
        ("1d", 3),
        ("2w", 4),
        ("900s", 2),
        ("1.5h", 2),
        (900, 2),
        (0.5, 1),
        (timedelta(minutes=15), 2),
        (timedelta(days=400), 5),
        (None, 5),
    ],
)
def test_summary_of_a_while(last: Any, events: int) -> None:
    sums = at_ages(0, 899, DAY - 1, 10 * DAY, 300 * DAY).summary(last=last).totals
    assert (sums.calls, sums.hits, sums.misses) == (events, events, events)


def test_a_while_includes_its_first_moment() -> None:
    assert at_ages(900).summary(last="15m").totals.calls == 1


@pytest.mark.parametrize("last", ["", "m", "15", "15x", "15M", "fifteen minutes", "nanm", "-5m", -5, float("nan"), [5]])
def test_a_while_that_is_none_is_refused(last: Any) -> None:
    with pytest.raises(ConfigurationError, match="`last`"):
        filled(call()).summary(last=last)


def test_a_while_leaves_out_merged_ledgers() -> None:
    ledger = filled(call("1"))
    ledger.merge(filled(call("2")))
    assert ledger.summary(last="1h").totals.calls == 1
    assert ledger.summary().totals.calls == 2


# --- Two reports of one call


def both_orders(first: Event, second: Event) -> list[Ledger]:
    return [filled(first, second), filled(second, first)]


def test_reported_usage_replaces_an_estimate_in_either_order() -> None:
    for ledger in both_orders(call(usage=ESTIMATE, cost=COST._replace(total=999)), call()):
        sums = ledger.totals()
        assert (sums.calls, sums.requests, sums.cost, sums.input_tokens, sums.estimated) == (1, 1, 1_000, 1_000, 0)


def test_the_flow_adds_tier_and_baseline_to_what_a_handler_reports_in_either_order() -> None:
    of_flow = call(tier="weak", baseline=4_000, attempt=2, scope=ACME)
    of_handler = call(tags=("prod",))
    for ledger in both_orders(of_flow, of_handler):
        (row,) = ledger.to_records()
        assert (row["tier"], row["attempt"], row["tenant"], row["tags"]) == ("weak", 2, "acme", ["prod"])
        assert ledger.totals().routing_saved == 3_000
        assert set(ledger.summary().by_tier) == {"weak"}


def test_a_call_that_was_swept_and_ended_after_all_counts_as_ended() -> None:
    for ledger in both_orders(call(status="abandoned", usage=ESTIMATE), call()):
        sums = ledger.totals()
        assert (sums.abandoned, sums.answered, sums.calls, sums.failed_cost) == (0, 1, 1, 0)


def test_a_swept_estimate_gives_way_to_an_estimate_of_the_end() -> None:
    for ledger in both_orders(call(status="abandoned", usage=ESTIMATE), call(usage=ESTIMATE)):
        assert (ledger.totals().abandoned, ledger.totals().answered) == (0, 1)


def test_a_priced_report_beats_an_unpriced_one() -> None:
    for ledger in both_orders(call(cost=None), call()):
        assert (ledger.totals().unpriced, ledger.totals().cost) == (0, 1_000)


def test_the_same_report_thrice_is_one_call() -> None:
    assert totals_of(call(), call(), call()) == totals_of(call())


# --- Hits


def test_a_hit_saves_what_its_answer_would_cost_now() -> None:
    sums = totals_of(hit(usage=Usage(1_000_000, 1_000_000)))
    assert (sums.hits, sums.requests, sums.calls, sums.cost) == (1, 1, 0, 0)
    assert sums.cache_saved == sums.saved == pico(3)


def test_a_hit_that_two_report_is_one() -> None:
    sums = totals_of(hit("h1"), hit("h1", tier="foreign"), hit("h2"))
    assert (sums.hits, sums.requests, sums.foreign_hits) == (2, 2, 0)


def test_foreign_hits_count_among_the_hits() -> None:
    sums = totals_of(hit(tier="foreign"))
    assert (sums.hits, sums.foreign_hits) == (1, 1)


@pytest.mark.parametrize("changes", [{"model": "nobody-knows"}, {"usage": Usage(1, 0, 5)}])
def test_hits_without_a_price_save_nothing_and_are_counted(changes: dict[str, Any]) -> None:
    sums = totals_of(hit(**changes))
    assert (sums.hits, sums.unpriced_hits, sums.cache_saved) == (1, 1, 0)


def test_a_tenants_mark_up_counts_in_what_a_hit_saves() -> None:
    book = prices()
    book.mark_up(2, tenant="acme")
    ledger = Ledger(prices=book)
    ledger.record(hit(usage=Usage(1_000_000), scope=ACME))
    assert ledger.totals().cache_saved == pico(2)


def test_hit_rate() -> None:
    assert filled(call("1"), call("2", attempt=2), hit("a"), hit("b"), hit("c")).summary().hit_rate == 0.75


# --- Routing


def test_routing_saves_against_the_strongest_tier() -> None:
    sums = totals_of(call("1", baseline=4_000), call("2", baseline=500), call("3"))
    assert sums.routing_saved == 3_000 - 500
    assert sums.saved == 2_500


@pytest.mark.parametrize("early", [False, True], ids=["after the call", "before the call"])
def test_an_escalation_takes_back_what_routing_saved(early: bool) -> None:
    draft, answer = call("1", baseline=4_000, tier="weak"), call("2", attempt=2, baseline=1_000, tier="strong")
    events: list[Event] = [escalated("1"), draft] if early else [draft, escalated("1")]
    ledger = filled(*events, answer)
    sums = ledger.totals()
    assert (sums.escalations, sums.escalated_cost, sums.routing_saved) == (1, 1_000, 0)
    assert sums.saved == -1_000
    assert (sums.requests, sums.answered) == (1, 1)
    assert ledger.summary().escalation_rate == 1
    assert [row["given_up"] for row in ledger.to_records()] == [True, False]


def test_escalation_rate_is_of_what_was_asked() -> None:
    summary = filled(call("1"), escalated("1"), call("2", attempt=2), call("3"), hit()).summary()
    assert summary.escalation_rate == 0.5


def test_failed_calls_save_nothing_by_routing() -> None:
    assert totals_of(call(baseline=4_000, status="cut")).routing_saved == 0


# --- Rates and shares


def test_cost_per_answer_counts_failures_and_drafts() -> None:
    summary = filled(
        call("1", cost=COST._replace(total=pico(1))),
        call("2", cost=COST._replace(total=pico(1)), status="cut"),
        hit("a"),
        hit("b"),
        hit("c"),
    ).summary()
    assert summary.cost_per_answer == pytest.approx(2 / 4)


def test_shares_of_the_money() -> None:
    shares = filled(call("1"), call("2", attempt=2)).summary().shares
    assert shares == pytest.approx({"input": 0.7, "output": 0.3, "retries": 0.5})


def test_savings_by_layer_add_up() -> None:
    savings = (
        filled(
            hit(usage=Usage(1_000_000)),
            call("1", baseline=COST.total + pico(3)),
            call("2", cost=COST._replace(total=pico("0.5"))),
            escalated("2"),
        )
        .summary()
        .savings
    )
    assert savings["cache"] == 1
    assert savings["routing"] == 3
    assert savings["overhead"] == -0.5
    assert savings["total"] == pytest.approx(savings["cache"] + savings["routing"] + savings["overhead"])


# --- Bounds


def test_older_events_are_folded_and_nothing_is_lost() -> None:
    events: list[Event] = []
    for n in range(1_000):
        events += [call(f"c{n}", time=NOW + n, scope=ACME if n % 2 else GLOBEX), hit(f"h{n}", time=NOW + n)]
        events.append(CacheMissed(time=NOW + n, reason=""))
    small, large = filled(*events, keep=10), filled(*events)
    assert small.totals() == large.totals()
    assert small.summary().by_tenant == large.summary().by_tenant
    assert small.spent == large.spent == 1_000_000
    rows = small.to_records()
    assert 20 <= len(rows) < 2 * 20
    assert rows[-1]["call_id"] in ("c999", "h999")
    assert len(large.to_records()) == 2_000


def test_more_users_than_keys_are_summed_as_others() -> None:
    calls = [call(str(n), scope=Scope("acme", f"u{n}", "chat")) for n in range(200)]
    ledger = filled(*calls, keep=5, max_keys=10)
    summary = ledger.summary()
    assert summary.totals == totals_of(*calls)
    assert summary.by_user["(other)"].calls > 100
    assert len(summary.by_user) <= 10 + 1 + 2 * 5
    assert summary.by_feature["chat"].calls == 200
    assert sum(sums.cost for sums in summary.by_tenant.values()) == summary.totals.cost


@pytest.mark.parametrize("options", [{"keep": 0}, {"max_keys": 0}, {"keep": -1}])
def test_bounds_must_be_at_least_one(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        Ledger(**options)


# --- Merging


def snapshot(ledger: Ledger) -> tuple[Totals, dict[str, Totals], int]:
    return ledger.totals(), dict(ledger.summary().by_model), len(ledger.to_records())


def test_merging_adds_several_ledgers() -> None:
    parts = [filled(*(call(f"{n}-{k}") for k in range(n)), hit(f"h{n}")) for n in range(1, 5)]
    whole = filled(call("own"))
    for part in parts:
        whole.merge(part)
    assert whole.totals() == total([totals_of(call("own")), *(part.totals() for part in parts)])
    assert len(whole.to_records()) == 1 + 10 + 4


def test_merging_the_same_state_again_changes_nothing() -> None:
    whole, part = filled(call("own")), filled(call("1"), hit())
    whole.merge(part)
    before = snapshot(whole)
    whole.merge(part)
    whole.merge(part.to_dict())
    assert snapshot(whole) == before


def test_a_newer_state_replaces_the_older() -> None:
    whole, part = filled(), filled(call("1"))
    whole.merge(part.to_dict())
    part.record(call("2"))
    whole.merge(part.to_dict())
    assert whole.totals() == part.totals()


def test_an_older_state_does_not_replace_the_newer() -> None:
    whole, part = filled(), filled(call("1"))
    older = part.to_dict()
    part.record(call("2"))
    whole.merge(part)
    whole.merge(older)
    assert whole.totals() == part.totals()


def test_a_ledger_merged_by_two_ways_counts_once() -> None:
    shared, left, right = filled(call("s")), filled(call("l")), filled(call("r"))
    for side in (left, right):
        side.merge(shared)
    whole = filled()
    whole.merge(left)
    whole.merge(right)
    assert whole.totals().calls == 3


def test_two_ledgers_that_merge_each_other_count_once() -> None:
    one, other = filled(call("1")), filled(call("2"))
    one.merge(other)
    other.merge(one)
    assert one.totals().calls == other.totals().calls == 2


def test_merging_itself_is_refused() -> None:
    ledger = filled(call())
    for state in (ledger, ledger.to_dict(), json.loads(json.dumps(ledger.to_dict()))):
        with pytest.raises(ConfigurationError, match="very ledger"):
            ledger.merge(state)
    assert ledger.totals().calls == 1


@pytest.mark.parametrize(
    "garbage",
    [
        {},
        {"id": "x"},
        {"totals": [], "records": []},
        {"id": "x", "totals": "much", "records": []},
        {"id": "x", "totals": [{"model": "m"}], "records": []},
        {"id": "x", "totals": [], "records": [{"kind": "call"}]},
        {"id": "x", "totals": [], "records": None},
        [],
        "state",
        None,
    ],
)
def test_garbage_is_refused_and_harms_nothing(garbage: Any) -> None:
    ledger = filled(call())
    with pytest.raises(ConfigurationError, match="to_dict"):
        ledger.merge(garbage)
    assert ledger.totals().calls == 1
    assert len(ledger.to_records()) == 1


def test_the_state_is_plain_json() -> None:
    events = [call(str(n), scope=ACME, tags=("a", "b"), time=NOW + n) for n in range(50)]
    ledger = filled(*events, hit(question="why?"), escalated("3"), keep=4)
    copy = filled()
    copy.merge(json.loads(json.dumps(ledger.to_dict())))
    assert copy.totals() == ledger.totals()
    assert copy.to_records() == ledger.to_records()
    assert copy.summary().by_tenant == ledger.summary().by_tenant


def test_a_state_is_a_snapshot() -> None:
    part = filled(call("1"))
    state = part.to_dict()
    part.record(call("2"))
    whole = filled()
    whole.merge(state)
    assert whole.totals().calls == 1


def test_records_are_plain_rows_oldest_first() -> None:
    rows = filled(
        call("late", time=NOW + 2, scope=ACME, tags=("t",)),
        hit("mid", time=NOW + 1),
        call("early", cost=None, baseline=None),
    ).to_records()
    assert [row["call_id"] for row in rows] == ["early", "mid", "late"]
    assert json.loads(json.dumps(rows)) == rows
    early, mid, late = rows
    assert (early["cost"], early["price"]) == (None, "unpriced")
    assert (late["cost"], late["price"], late["tenant"]) == (1e-9, "genai-prices", "acme")
    assert (late["input_tokens"], late["tags"], late["kind"]) == (1_000, ["t"], "call")
    assert (mid["kind"], mid["cache_tier"], mid["age"]) == ("hit", "exact", 3.0)
    assert Decimal(str(mid["saved"])) == Decimal("0.00003")


# --- What people see

NASTY = "<script>alert('x')</script> [bold]loud[/bold] [/red] & more"


def test_a_summary_reads_as_text() -> None:
    ledger = filled(call(), hit(question="How do I pay?"), hit("h2", tier="foreign"))
    text = str(ledger)
    assert text == str(ledger.summary())
    assert "3 requests, 1 paid, 2 from cache" in text
    assert "gpt-5.4: 1 paid" in text
    assert "'How do I pay?': the same request, answered 3.0 s before" in text
    assert "a hit of another cache" in text
    assert repr(ledger).startswith("<Ledger: 3 requests")


def test_hits_by_tier_and_vetoes_by_name_are_a_line_each_where_there_are_any() -> None:
    misses = [missed("numbers"), missed("numbers"), missed("negation"), missed()]
    lines = [line.split() for line in str(filled(hit("h1"), hit("h2", "semantic"), *misses)).splitlines()]
    assert ["hits", "1", "exact,", "1", "semantic"] in lines
    assert ["vetoed", "2", "numbers,", "1", "negation"] in lines
    assert "vetoed" not in str(filled(hit()))
    assert "hits" not in [line.split()[0] for line in str(filled(call())).splitlines()]


def test_rare_vetoes_are_shown_together() -> None:
    text = str(filled(*(missed(f"v{n}") for n in range(9)), missed("v8")))
    assert "2 v8, 1 v0, 1 v1, 1 v2, 1 v3, 1 v4, 3 more" in text
    assert "1 v5, 1 v6\n" in str(filled(*(missed(f"v{n}") for n in range(7))))


def test_a_hit_by_meaning_says_how_near_it_was() -> None:
    found = CacheHit(
        call_id="h",
        time=NOW,
        hit=Hit("semantic", "e", 3.0, 0.9412),
        provider="",
        model="",
        usage=Usage(),
        question="A?",
    )
    (line,) = filled(found).summary().hit_lines()
    assert line == "'A?': means the same as a question answered before, cosine 0.94, answered 3.0 s before"


def test_every_kind_of_hit_is_explained() -> None:
    tiers: Sequence[Any] = ("exact", "normalised", "semantic", "coalesced", "foreign")
    lines = filled(*(hit(tier, tier=tier) for tier in tiers)).summary().hit_lines()
    assert len(set(lines)) == len(tiers)


def test_html_is_escaped() -> None:
    ledger = filled(call(model=NASTY), hit(question=NASTY))
    page = ledger._repr_html_()
    assert page == ledger.summary()._repr_html_()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("question", ["How do I pay?", NASTY, "[/]", "[link=x]", "\\[a"])
def test_rich_shows_questions_as_they_are(question: str) -> None:
    shown = StringIO()
    Console(width=300, file=shown).print(filled(call(), hit(question=question)))
    assert "2 requests" in shown.getvalue()
    assert repr(question[:60]) in shown.getvalue()


@pytest.mark.parametrize(
    ("cost", "text"), [(pico(1234.5), "$1,234.50"), (pico("0.05"), "$0.0500"), (pico("0.00005"), "$0.000050")]
)
def test_small_amounts_have_more_digits(cost: int, text: str) -> None:
    assert f"spent {text}" in filled(call(cost=COST._replace(total=cost))).summary().line()


def test_negative_savings_are_shown_as_such() -> None:
    assert "saved -$1.00" in filled(call(baseline=COST.total - pico(1))).summary().line().replace("-$1.0000", "-$1.00")


# --- Threads, tracking


def test_threads_record_exactly() -> None:
    ledger, barrier = filled(keep=50), Barrier(16)

    def work(worker: int) -> None:
        barrier.wait()
        for n in range(300):
            ledger.record(call(f"{worker}-{n}", scope=Scope("acme", f"u{worker}")))
            ledger.record(hit(f"{worker}-{n}"))
            ledger.record(CacheMissed(time=NOW, reason=""))
            if n % 100 == 0:
                ledger.summary()

    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(work, worker) for worker in range(16)]:
            done.result()
    sums = ledger.totals()
    assert (sums.calls, sums.hits, sums.misses, sums.cost) == (4_800, 4_800, 4_800, 4_800_000)
    assert ledger.spent == 4_800_000
    assert {sums.calls for sums in ledger.summary().by_user.values()} == {300}


def test_tracking_records_beside_the_process() -> None:
    before = process_ledger().totals().calls
    with track() as outer:
        emit(call("tracked-1"))
        with track() as inner:
            emit(call("tracked-2"))
        emit(call("tracked-3"))
    emit(call("tracked-4"))
    assert (outer.totals().calls, inner.totals().calls) == (3, 1)
    assert process_ledger().totals().calls == before + 4


def test_events_for_a_ledger_of_its_own_reach_the_block_around_and_not_the_process() -> None:
    before, own = process_ledger().totals().calls, Ledger()
    with track() as around:
        emit(call("own-1"), own.record)
    assert (own.totals().calls, around.totals().calls) == (1, 1)
    assert process_ledger().totals().calls == before


# --- Bills


def billed(book: PriceBook, model: str, requested: str, usage: Usage = Usage(1_000_000)) -> CallFinished:
    return bill(book, usage, "c", NOW, "openai", model, requested)


def test_the_price_of_what_answered_is_preferred() -> None:
    event = billed(PriceBook(), "gpt-5.4-mini", "gpt-5.4")
    assert event.model == "gpt-5.4-mini"
    assert event.cost == PriceBook().cost("openai", "gpt-5.4-mini", Usage(1_000_000), at=NOW)


def test_ones_own_price_holds_for_the_dated_name_that_the_provider_reports() -> None:
    book = PriceBook()
    book.set("gpt-5.4", input="0.1")
    event = billed(book, "gpt-5.4-2026-03-05", "gpt-5.4")
    assert event.cost is not None
    assert (event.cost.source, event.cost.total) == ("override", pico("0.1"))


def test_the_requested_model_prices_an_unknown_answer() -> None:
    event = billed(PriceBook(), "proxy-7", "gpt-5.4")
    assert (event.model, event.cost) == ("proxy-7", PriceBook().cost("openai", "gpt-5.4", Usage(1_000_000), at=NOW))


@pytest.mark.parametrize("usage", [Usage(1, 1, 5), Usage(-1), Usage(1.5), Usage(None)])  # type: ignore[arg-type]
@pytest.mark.parametrize("model", ["gpt-5.4", "nobody-knows"])
def test_counts_that_cannot_be_true_leave_a_call_unpriced(usage: Usage, model: str) -> None:
    event = billed(PriceBook(), "", model, usage)
    assert (event.cost, event.usage) == (None, Usage())
    assert event.error
    assert totals_of(event).unpriced == 1


# --- What the flow reports


class Desk:
    """Tiers that answer by a script: a reply is given, an error raised."""

    def __init__(self, **answers: Reply | Exception) -> None:
        self.answers = answers

    def ask(self, tier: Tier, call_id: str, *, shown: bool) -> Ask[Any, Reply]:
        answer = self.answers[tier.name]

        def run() -> Reply:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return Ask(run)

    def fault(self, error: Exception) -> Fault:
        return Fault("unavailable" if isinstance(error, TimeoutError) else "fatal")

    def estimate(self, tier: Tier, reply: Reply | None) -> Usage:
        return ESTIMATE


TIERS = [Tier("weak", None, "openai", "gpt-5.4-mini"), Tier("strong", None, "openai", "gpt-5.4")]


def served(**answers: Reply | Exception) -> Ledger:
    ledger = filled()
    request = Request(({"role": "user", "content": "What is tea?"},))
    drive(serve(request, cache=None, router=Router(TIERS), caller=Desk(**answers), account=Account(sink=ledger.record)))
    return ledger


def test_a_draft_that_is_given_after_all_is_an_answer() -> None:
    draft = Reply({}, "I don't know.", USAGE, "openai", "gpt-5.4-mini")
    sums = served(weak=draft, strong=TimeoutError()).totals()
    assert (sums.requests, sums.answered, sums.failed) == (1, 1, 1)
    assert sums.escalated_cost == 0


def test_a_hit_in_place_of_a_tier_that_failed_is_the_same_request() -> None:
    hit_ = Reply({}, "A drink.", USAGE, "openai", "gpt-5.4", hit=Hit("foreign", ""))
    sums = served(weak=TimeoutError(), strong=hit_).totals()
    assert (sums.requests, sums.hits, sums.failed) == (1, 1, 1)


# --- Any sequence of events

names = st.sampled_from(["acme", "globex", "initech", None])
scopes = st.builds(Scope, names, st.sampled_from(["u1", "u2", "u3", None]), st.just("chat"))
kinds = st.tuples(
    st.sampled_from(["call", "draft", "error", "unpriced", "hit", "foreign", "miss", "failure"]),
    scopes,
    st.integers(0, 10**9),
    st.integers(1, 3),
)


def count(by_name: dict[str, int], name: str) -> None:
    by_name[name] = by_name.get(name, 0) + 1


def naive(steps: Sequence[tuple[str, Scope, int, int]]) -> tuple[list[Event], Totals]:
    """Return events, and what they add up to by the plainest of means."""
    events: list[Event] = []
    sums = Totals()
    for n, (kind, scope, amount, attempt) in enumerate(steps):
        at, usage = NOW + n, Usage(amount % 1000, amount % 77)
        if kind in ("call", "draft", "error", "unpriced"):
            cost = None if kind == "unpriced" else Cost(amount, amount // 2, amount % 10, "genai-prices")
            status: Any = "error" if kind == "error" else "ok"
            events.append(
                call(str(n), time=at, scope=scope, usage=usage, cost=cost, attempt=attempt, status=status, baseline=7)
            )
            if kind == "draft":
                events.append(escalated(str(n), time=at, scope=scope))
            sums.calls += 1
            sums.requests += attempt == 1
            sums.retries += attempt != 1
            sums.paid += usage.total_tokens > 0
            sums.answered += kind in ("call", "unpriced")
            sums.failed += kind == "error"
            sums.unpriced += kind == "unpriced"
            sums.escalations += kind == "draft"
            sums.input_tokens += usage.input_tokens
            sums.output_tokens += usage.output_tokens
            if cost is not None:
                sums.cost += amount
                sums.input_cost += amount // 2
                sums.provider_cache_saved += amount % 10
                sums.retry_cost += amount if attempt != 1 else 0
                sums.escalated_cost += amount if kind == "draft" else 0
                sums.failed_cost += amount if kind == "error" else 0
                sums.routing_saved += 7 - amount if kind == "call" else 0
        elif kind in ("hit", "foreign"):
            tier: Any = "exact" if kind == "hit" else "foreign"
            events.append(hit(str(n), tier, time=at, scope=scope, usage=usage))
            sums.requests += 1
            sums.hits += 1
            sums.foreign_hits += kind == "foreign"
            count(sums.hits_by_tier, tier)
            sums.cache_saved += usage.input_tokens * 10**6 + usage.output_tokens * 2 * 10**6
        elif kind == "miss":
            veto = ("", "numbers", "negation")[amount % 3]
            reason = f"vetoed: {veto}" if veto else "not asked before"
            events.append(CacheMissed(time=at, reason=reason, veto=veto, scope=scope))
            sums.misses += 1
            count(sums.misses_by_reason, "vetoed" if veto else reason)
            if veto:
                count(sums.vetoes, veto)
        else:
            events.append(ComponentFailed(time=at, component="cache", error="", scope=scope))
            sums.component_failures += 1
    return events, sums


@settings(deadline=None, max_examples=100)
@given(st.lists(kinds, max_size=60), st.integers(1, 12), st.integers(1, 6))
def test_totals_are_the_naive_sum_whatever_is_kept(
    steps: list[tuple[str, Scope, int, int]], keep: int, max_keys: int
) -> None:
    events, expected = naive(steps)
    ledger = filled(*events, keep=keep, max_keys=max_keys)
    assert asdict(ledger.totals()) == asdict(expected)
    assert ledger.spent == expected.cost
    copy = filled()
    copy.merge(json.loads(json.dumps(ledger.to_dict())))
    assert copy.totals() == expected


@settings(deadline=None, max_examples=50)
@given(st.lists(kinds, max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_events_makes_no_difference(steps: list[tuple[str, Scope, int, int]], rnd: random.Random) -> None:
    events, expected = naive(steps)
    shuffled: Iterable[Event] = rnd.sample(events, len(events))
    assert totals_of(*shuffled) == expected


def test_what_compressors_leave_out_is_counted() -> None:
    ledger = Ledger()
    for before, after in ((400, 100), (50, 50)):
        ledger.record(Compressed(time=1.0, tokens_before=before, tokens_after=after, scorer="bm25"))
    totals = ledger.totals()
    assert (totals.compressions, totals.tokens_left_out) == (1, 300)
    assert "1 contexts, 300 tokens out" in str(ledger)
