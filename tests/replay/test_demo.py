"""The demo: two runs of the same traffic over real HTTP, and a page that shows both."""

import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.pricing import PICO, PriceBook
from llmcost_plugins.replay.demo import Demo, Endpoint, estimate, run_demo
from llmcost_plugins.replay.report import (
    check_writable,
    headline,
    html_report,
    table_rows,
    write_report,
    wrong_hit_lines,
)
from llmcost_plugins.replay.traffic import Row, Traffic, support_traffic
from llmcost_plugins.testing import FakeProvider

NASTY = "<script src='https://evil.example/x.js'></script> & \"quoted\""


def row(question: str, number: int, **labels: Any) -> Row:
    return Row(str(number), float(number), ({"role": "user", "content": question},), **labels)


def traffic_of(*rows: Row) -> Traffic:
    return Traffic("test traffic", rows)


def spread(count: int) -> Traffic:
    """Return rows from all over the traffic that ships, repeats of each among them."""
    whole = support_traffic()
    some = whole.rows[:: len(whole.rows) // count][:count]
    questions = {row_.question for row_ in some}
    repeats = [row_ for row_ in whole.rows if row_.question in questions and row_ not in some]
    rows = sorted([*some, *repeats[:10]], key=lambda row_: row_.at)
    return replace(whole, rows=tuple(rows))


@pytest.fixture(scope="module")
def demo() -> Demo:
    return run_demo(spread(30), latency=0)


def test_what_is_billed_is_what_was_served(demo: Demo) -> None:
    assert demo.plain.billed_is_served is True
    assert demo.layered.billed_is_served is True


def test_the_plain_run_asks_the_strong_model_alone(demo: Demo) -> None:
    count = len(demo.traffic.rows)
    sums = demo.plain.summary.totals
    assert (sums.requests, sums.paid, sums.hits, sums.escalations) == (count, count, 0, 0)
    assert all("gpt-5.4-mini" not in outcome.tier for outcome in demo.plain.outcomes)


def test_the_layers_answer_every_request_once(demo: Demo) -> None:
    sums = demo.layered.summary.totals
    hits = [outcome for outcome in demo.layered.outcomes if outcome.hit is not None]
    assert len(demo.layered.outcomes) == len(demo.traffic.rows) == sums.requests
    assert sums.answered + sums.hits == sums.requests
    assert len(hits) == sums.hits > 0
    assert all(outcome.tier == "cache" for outcome in hits)
    assert all(outcome.text for outcome in demo.layered.outcomes)


def test_the_saving_is_the_difference_of_the_two_bills(demo: Demo) -> None:
    before, after = demo.plain.summary.totals.cost, demo.layered.summary.totals.cost
    assert demo.saved == pytest.approx(1 - after / before)
    assert 0 < demo.saved < 1
    for run in (demo.plain, demo.layered):
        spent = [outcome.cost_so_far for outcome in run.outcomes]
        assert spent == sorted(spent)
        assert spent[-1] == run.summary.totals.cost


def test_quality_is_known_and_the_plain_run_is_right(demo: Demo) -> None:
    assert demo.plain.quality == 1
    assert demo.layered.quality is not None
    assert 0.5 < demo.layered.quality <= 1
    assert demo.layered.wrong_hits == []


def test_a_demo_repeats_itself(demo: Demo) -> None:
    again = run_demo(demo.traffic, latency=0)
    assert again.layered.summary.totals == demo.layered.summary.totals
    assert [o.text for o in again.layered.outcomes] == [o.text for o in demo.layered.outcomes]


def test_progress_is_told_after_each_request() -> None:
    told: list[tuple[str, int, int]] = []
    run_demo(traffic_of(row("What is tea?", 1), row("What is milk?", 2)), latency=0, progress=lambda *a: told.append(a))
    assert told == [("plain", 1, 2), ("plain", 2, 2), ("with layers", 1, 2), ("with layers", 2, 2)]


def labelled(*labels: str | None) -> Demo:
    return run_demo(traffic_of(*(row("What is tea?", n, answer_id=label) for n, label in enumerate(labels))), latency=0)


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [(("a", "a", "a"), 0), (("a", "b", "a"), 1), (("a", "b", "c", "b"), 3), ((None, None), 0), (("a", None, "b"), 1)],
)
def test_wrong_hits_are_hits_whose_answer_was_bought_for_another_label(labels: Sequence[Any], wrong: int) -> None:
    demo = labelled(*labels)
    assert demo.layered.summary.totals.hits == len(labels) - 1
    assert len(demo.layered.wrong_hits) == wrong
    assert all(outcome.right is False for outcome in demo.layered.wrong_hits)
    assert demo.plain.wrong_hits == []


@pytest.mark.parametrize(("asked", "tier"), [("What is tea?", "exact"), ("what is  tea", "normalised")])
def test_a_wrong_hit_names_the_request_whose_answer_was_given(asked: str, tier: str) -> None:
    answers = {"strong_answer": "Yes.", "weak_answer": "Yes.", "weak_right": True}
    rows = [
        row("What is milk?", 1, answer_id="b", **answers),
        row("What is tea?", 2, answer_id="b", **answers),
        row("What is salt?", 3, answer_id="b", **answers),
        row(asked, 4, answer_id="c", **answers),
    ]
    (wrong,) = run_demo(traffic_of(*rows), latency=0).layered.wrong_hits
    assert wrong.hit == tier
    assert wrong.bought_for == rows[1]


PAIR = ("What are the fees for top-ups?", "What are the fees for top ups?")


@pytest.fixture(scope="module")
def by_meaning() -> Demo:
    """Return a demo with a hit by meaning that its labels call wrong, and a veto."""
    questions = (*PAIR, "Who invented the zip?", "How do I withdraw 100 euros?", "How do I withdraw 1000 euros?")
    return run_demo(traffic_of(*(row(text, n, answer_id=str(n)) for n, text in enumerate(questions))), latency=0)


def test_hits_by_meaning_and_vetoes_are_in_the_table(by_meaning: Demo) -> None:
    figures = {name: (before, after) for name, before, after in table_rows(by_meaning)}
    assert figures["hits"] == ("0 (0.0%)", "1 (20.0%)")
    assert [figures[f"  {tier}"][1] for tier in ("exact", "normalised", "semantic")] == ["0", "0", "1"]
    assert figures["near, but vetoed"] == ("0", "1 numbers")
    assert figures["wrong hits"][1] == "1 of 1"


def test_hits_and_misses_by_name_are_all_requests(demo: Demo) -> None:
    sums = demo.layered.summary.totals
    assert sum(sums.hits_by_tier.values()) + sum(sums.misses_by_reason.values()) == len(demo.traffic.rows)
    assert len(demo.layered.misses) == sums.misses
    assert demo.plain.misses == ()


def test_a_wrong_hit_by_meaning_shows_both_questions_and_labels(by_meaning: Demo) -> None:
    (wrong,) = by_meaning.layered.wrong_hits
    assert wrong.bought_for is not None
    assert (wrong.bought_for.question, wrong.row.question) == PAIR
    assert 0.9 < wrong.similarity < 1
    (line,) = wrong_hit_lines(by_meaning)
    assert line == (
        f"wrong hit (semantic, cosine {wrong.similarity:.2f}): {PAIR[1]!r} [1] was given the answer to {PAIR[0]!r} [0]"
    )
    text = Page(html_report(by_meaning)).text
    assert "Wrong hits: 1" in text
    assert all(f"{question!r} [" in text for question in PAIR)


def test_the_page_shows_what_vetoes_refused(by_meaning: Demo) -> None:
    text = Page(html_report(by_meaning)).text
    for shown in ("numbers: 1", "How do I withdraw 1000 euros?", "cache, semantic", "model: vetoed"):
        assert shown in text


def test_many_wrong_hits_are_counted_after_the_first() -> None:
    demo = labelled("a", "b", "c", "d")
    assert [line.startswith("wrong hit (exact)") for line in wrong_hit_lines(demo, 2)] == [True, True, False]
    assert wrong_hit_lines(demo, 2)[-1] == "... and 1 more wrong hits, in the report"
    assert wrong_hit_lines(labelled("a", "a")) == []


def test_a_wrong_hit_lowers_the_quality() -> None:
    answers = {"strong_answer": "A drink, hot.", "weak_answer": "A drink.", "weak_right": True}
    rows = [row("What is tea?", n, answer_id=label, **answers) for n, label in enumerate("ab")]
    layered = run_demo(traffic_of(*rows), latency=0).layered
    assert layered.quality == 0.5


def test_without_labels_nothing_is_claimed() -> None:
    demo = labelled(None, None)
    assert demo.layered.quality is None
    assert [outcome.wrong_hit for outcome in demo.layered.outcomes] == [None, None]
    figures = {name: after for name, _, after in table_rows(demo)}
    assert figures["wrong hits"] == figures["right answers"] == "not labelled"
    assert "wrong hits" not in headline(demo)
    assert "answered right" not in headline(demo)


def test_tenants_are_kept_apart() -> None:
    rows = [row("What is tea?", n, tenant=tenant) for n, tenant in enumerate(["acme", "globex", "acme"])]
    layered = run_demo(traffic_of(*rows), latency=0).layered
    assert [outcome.hit for outcome in layered.outcomes] == [None, None, "exact"]
    assert set(layered.summary.by_tenant) == {"acme", "globex"}


def test_time_in_the_traffic_ends_answers() -> None:
    rows = [row("What is tea?", 0), replace(row("What is tea?", 1), at=1e6)]
    assert run_demo(traffic_of(*rows), latency=0).layered.summary.totals.hits == 0


def test_a_real_endpoint_is_not_asked_what_it_served() -> None:
    with FakeProvider(keep_alive=False) as provider:
        endpoint = Endpoint(base_url=provider.url, api_key="k")
        demo = run_demo(traffic_of(row("What is tea?", 1), row("what is tea", 2)), endpoint=endpoint)
        assert provider.calls == 3
    assert endpoint.real
    assert demo.plain.billed_is_served is None
    assert {name: after for name, _, after in table_rows(demo)}["billed = served"] == "not known"


# --- Estimates


def test_the_estimate_is_not_below_what_a_demo_costs(demo: Demo) -> None:
    most = estimate(demo.traffic, Endpoint())
    assert most is not None
    assert most >= 2 * float(demo.plain.summary.totals.cost) / 1e12 * 0.9


def test_an_estimate_needs_a_price() -> None:
    traffic, endpoint = traffic_of(row("What is tea?", 1)), Endpoint(strong="nobody-knows")
    assert estimate(traffic, endpoint) is None
    book = PriceBook()
    book.set("nobody-knows", per_call=1)
    assert estimate(traffic, endpoint, book) == 2 * PICO


# --- The page


class Page(HTMLParser):
    """Collects a page's tags, addresses and text, and checks that tags are closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        if tag not in ("meta", "rect", "path", "polyline"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_stands_alone(demo: Demo) -> None:
    text = html_report(demo)
    page = Page(text)
    assert page.addresses == []
    assert page.open == []
    assert not page.tags & {"script", "link", "iframe", "img", "object", "embed", "base"}
    assert not re.search(r"https?://|//\w|@import|url\(", text)
    assert "svg" in page.tags


def test_the_page_says_what_the_table_says(demo: Demo) -> None:
    page = Page(html_report(demo))
    for cells in table_rows(demo):
        for cell in cells:
            assert cell in page.text
    assert headline(demo) in page.text


def test_the_page_escapes_what_it_shows() -> None:
    rows = [row(NASTY, n, answer_id=label, strong_answer=NASTY, weak_answer=NASTY) for n, label in enumerate("ab")]
    endpoint = Endpoint(strong="gpt-5.4<b>", weak="gpt-5.4-mini<i>")
    demo = run_demo(replace(traffic_of(*rows), name=NASTY), endpoint=endpoint, latency=0)
    text = html_report(demo)
    page = Page(text)
    assert len(demo.layered.wrong_hits) == 1
    assert "script" not in page.tags
    assert page.tags.isdisjoint({"b", "i"})
    assert NASTY in page.text


def test_a_demo_of_one_request_has_a_page() -> None:
    demo = run_demo(traffic_of(row("What is tea?", 1)), latency=0)
    assert Page(html_report(demo)).open == []
    assert demo.saved > 0


def test_the_page_is_written_whole(demo: Demo, tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.write_text("old")
    write_report(demo, path)
    assert path.read_text("utf-8") == html_report(demo)
    assert list(tmp_path.iterdir()) == [path]


def test_where_a_page_cannot_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.html")
    for path in (tmp_path / "missing" / "r.html", tmp_path):
        with pytest.raises(ConfigurationError, match="--report"):
            check_writable(path)


def test_a_saving_is_not_claimed_where_a_price_is_not_known() -> None:
    demo = run_demo(traffic_of(row("What is tea?", 1)), endpoint=Endpoint(weak="our-own-model"), latency=0)
    assert demo.saved is None
    assert "saving not known" in headline(demo)
    assert "% saved" not in html_report(demo)
