"""The compressor: a budget that is a promise, words that stay as they were, and what happens when parts fail."""

import asyncio
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcost_plugins.compression import (
    CompressionResult,
    Compressor,
    Headed,
    Passage,
    Rates,
    StoredEmbedder,
    compressor_of,
    described,
    worth_it,
)
from llmcost_plugins.compression.features import FEATURES
from llmcost_plugins.compression.head import Head
from llmcost_plugins.compression.keep import boosted
from llmcost_plugins.embeddings import Embedded
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.events import ComponentFailed, Compressed, Event, listening
from llmcost_plugins.plan import Plan, adrive, do, drive
from llmcost_plugins.scope import scope
from llmcost_plugins.tokens import count_text

QUERY = "When was the harbour bridge of Port Nevin opened?"
ANSWER = "The harbour bridge of Port Nevin was opened in 1931."
NOISE = (
    "Its market sells fish on Tuesdays.",
    "A ferry crosses the bay every 20 minutes.",
    "Rainfall is 1,204.5 mm a year.",
    "The museum owns 7,731,004 stamps.",
    "Nobody has counted the gulls.",
    "An old mill stands at the river.",
)
PASSAGES = (
    Passage(f"Port Nevin lies in a bay. {' '.join(NOISE)} {ANSWER} It is painted green.", "a", "Port Nevin"),
    Passage(f"Lake Orrin is deep. {' '.join(reversed(NOISE))} {'Trout live there. ' * 3}", "b", "Lake Orrin", 0.4),
    Passage(f"Mount Tarn is high. {' '.join(NOISE[2:])} Climbers like it in May.", "c", "Mount Tarn", None),
)


class Words:
    """An embedder whose vectors count letters, and which may be told to fail or to take its time."""

    id, dimension = "words", 27

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.then = then
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> Plan[Embedded]:
        self.asked += texts
        yield from do(self.then)
        rows = np.array([[1, *(text.casefold().count(chr(97 + n)) for n in range(26))] for text in texts], np.float32)
        vectors = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return Embedded(vectors, (False,) * len(texts), tuple(len(text) // 4 for text in texts))


def compress(
    query: str = QUERY, passages: Sequence[Passage] = PASSAGES, scorer: Any = "bm25", **changes: Any
) -> CompressionResult:
    settings_ = {"min_tokens": 0, "embedder": Words(), **changes}
    return drive(Compressor(scorer, **settings_).compress(query, passages, sink=lambda event: None))


def prompt_of(result: CompressionResult) -> str:
    titles = [passage.title.strip() for passage in result.originals]
    return "\n\n".join(f"{titles[k.index]}\n{k.text}" if titles[k.index] else k.text for k in result.kept if k.text)


def check(result: CompressionResult, passages: Sequence[Passage]) -> None:
    """Check what holds for every result: the budget, the order, the words."""
    assert result.originals == tuple(passages)
    assert [kept.index for kept in result.kept] == sorted({kept.index for kept in result.kept})
    assert result.budget is None or result.over_budget or result.tokens_after <= result.budget
    assert result.tokens_after == count_text(prompt_of(result)).tokens
    for kept in result.kept:
        text, place = passages[kept.index].text, 0
        for start, end in kept.spans:
            assert place <= start < end <= len(text)
            place = end
        if "{" not in text and "[" not in text:
            parts = [text[start:end] for start, end in kept.spans]
            assert kept.text.split() == " ".join(parts).split()
            assert all(part in kept.text for part in parts)


# --- What holds whatever comes

TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(
        st.sampled_from([*NOISE, ANSWER, "# Part\n\n", "\n\n- one\n- two\n\n", "```\nx = 1\n```\n", "好。", "\0\x1b"])
    ).map(" ".join),
    st.binary(max_size=80).map(lambda junk: junk.decode("latin-1")),
)
ANY_PASSAGES = st.lists(
    st.builds(Passage, TEXTS, st.text(max_size=3), st.text(max_size=20), st.none() | st.floats(), st.booleans()),
    max_size=5,
)


@settings(max_examples=100, deadline=None)
@given(
    st.text(max_size=40) | st.just(QUERY), ANY_PASSAGES, st.integers(1, 120), st.sampled_from(["bm25", "hybrid+head"])
)
def test_a_budget_in_tokens_is_a_promise(query: str, passages: list[Passage], tokens: int, scorer: str) -> None:
    copies = [replace(passage) for passage in passages]
    result = compress(query, passages, scorer, tokens=tokens)
    check(result, passages)
    assert "failed" not in result.reason
    assert result.over_budget or result.tokens_after <= tokens
    assert not result.over_budget or any(passage.protected for passage in passages)
    assert repr(passages) == repr(copies)
    kept = {part.index for part in result.kept if part.text}
    assert kept.issuperset(n for n, passage in enumerate(passages) if passage.protected and passage.text.strip())


@settings(max_examples=40, deadline=None)
@given(ANY_PASSAGES, st.floats(1, 30))
def test_a_ratio_never_loses_everything(passages: list[Passage], ratio: float) -> None:
    result = compress(QUERY, passages, ratio=ratio)
    check(result, passages)
    assert bool(result.kept) == bool(passages)


# --- What is kept


@pytest.mark.parametrize("scorer", ["bm25", "hybrid", "hybrid+head"])
def test_the_answer_is_kept(scorer: str) -> None:
    result = compress(scorer=scorer, ratio=4, embedder=None)
    check(result, PASSAGES)
    assert ANSWER in result.kept[0].text
    assert (result.scorer, result.reason) == (scorer, "")
    assert result.ratio >= 4
    assert result.expand("a") == PASSAGES[0].text
    assert described(result.kept[0], result)["kept_spans"]


def test_window_less_reserve_is_a_budget() -> None:
    assert compress(window=100, reserve=60).budget == 40


def test_protected_content_goes_over_the_budget() -> None:
    result = compress(passages=[*PASSAGES, Passage("Keep all of this. To the end.", protected=True)], tokens=3)
    assert [kept.text for kept in result.kept] == ["Keep all of this. To the end."]
    assert (result.over_budget, result.reason) == (True, "over budget: protected")


def test_patterns_protect_sentences() -> None:
    result = compress(ratio=4, protect=[r"gulls"])
    assert all("Nobody has counted the gulls." in kept.text for kept in result.kept)


def test_json_is_written_shorter_and_reads_the_same() -> None:
    value = {"id": 1.0, "n": list(range(40)), "opened": "Port Nevin harbour bridge"}
    text = json.dumps(value, indent=4)
    result = compress(passages=[Passage(text), *PASSAGES[1:]], ratio=2)
    assert json.loads(result.kept[0].text) == value
    assert len(result.kept[0].text) < len(text)
    assert result.kept[0].spans == ((0, len(text)),)


def test_headings_come_with_their_text() -> None:
    text = f"# Bridges\n\n{' '.join(NOISE)} {ANSWER}\n\n# Fish\n\n{' '.join(NOISE)} Cod is sold."
    result = compress(passages=[Passage(text)], ratio=4)
    assert result.kept[0].text.startswith("# Bridges\n")
    assert "# Fish" not in result.kept[0].text


def test_duplicates_are_kept_once() -> None:
    result = compress(passages=[PASSAGES[0], PASSAGES[0], PASSAGES[1]], ratio=4)
    assert prompt_of(result).count(ANSWER) == 1


def test_binding_sentences_win_over_equals() -> None:
    texts = ["You must never mix the two.", "He must have been tired.", "Only two came.", "Use no later than in May."]
    assert boosted(np.zeros(4), texts).tolist() == [0.5, 0, 0, 0.5]
    assert boosted(np.array([0.0, 1.0, 0.0, 0.0]), texts).argmax() == 1


# --- What passes through


@pytest.mark.parametrize(
    ("query", "passages", "changes", "reason"),
    [
        ("", PASSAGES, {}, "the question is empty"),
        (QUERY, (), {}, "there is no text"),
        (QUERY, (Passage(""), Passage("")), {}, "there is no text"),
        (QUERY, PASSAGES, {"tokens": 10_000}, "fits the budget"),
        (QUERY, PASSAGES, {"ratio": 4, "min_tokens": 5_000}, "shorter than 5000 tokens"),
        (QUERY, (Passage("x" * 4_000),), {"ratio": 4}, "nothing that could be left out fits the budget"),
        (QUERY, PASSAGES, {"rates": Rates(1, cached=0), "cached": 10_000}, "it would cost more than it saves"),
    ],
)
def test_pass_through(query: str, passages: Sequence[Passage], changes: dict[str, Any], reason: str) -> None:
    cached = changes.pop("cached", 0)
    compressor = Compressor("bm25", **{"min_tokens": 0, **changes})
    result = drive(compressor.compress(query, passages, cached_tokens=cached, sink=lambda event: None))
    assert [kept.text for kept in result.kept] == [passage.text for passage in passages]
    assert (result.reason, result.budget, result.scorer) == (reason, None, "none")
    assert result.tokens_after == result.tokens_before


def test_a_budget_in_tokens_holds_though_nothing_fits() -> None:
    result = compress(passages=[Passage("x" * 4_000)], tokens=5)
    assert (result.kept, result.tokens_after) == ((), 0)
    assert result.reason == "no part of the passages fits the budget"


def test_what_pays() -> None:
    assert worth_it(1_000, 250, input_rate=10)
    assert not worth_it(1_000, 250, input_rate=10, cached_tokens=1_000, cached_rate=1)
    assert not worth_it(1_000, 250, input_rate=10, embedded_tokens=1_000, embedding_rate=8)


# --- What fails


def fail() -> None:
    raise OSError("no network")


def reasons(scorer: Any = "hybrid+head", **changes: Any) -> tuple[str, str, list[Event]]:
    events: list[Event] = []
    compressor = Compressor(scorer, **{"min_tokens": 0, **changes})
    result = drive(compressor.compress(QUERY, PASSAGES, sink=events.append))
    check(result, PASSAGES)
    return result.scorer, result.reason, events


def test_without_vectors_words_decide() -> None:
    scorer, reason, events = reasons(embedder=Words(fail))
    assert scorer == "bm25"
    assert reason == "hybrid+head failed: OSError: no network; hybrid failed: OSError: no network"
    assert [type(event) for event in events] == [ComponentFailed, ComponentFailed, Compressed]


def test_a_head_that_fails_leaves_fixed_shares() -> None:
    broken = replace(Head(FEATURES, (0.0,) * 28, (1.0,) * 28, (1.0,) * 28, 0.0))
    object.__setattr__(broken, "weights", ())
    assert reasons(head=broken, embedder=Words())[0] == "hybrid"


@pytest.mark.parametrize(
    "function",
    [
        lambda query, texts: [1.0],
        lambda query, texts: [None] * len(texts),
        lambda query, texts: [math.nan] * len(texts),
        lambda query, texts: fail(),
    ],
)
def test_a_function_that_fails(function: Any) -> None:
    scorer, reason, _ = reasons(function)
    assert scorer == "bm25"
    assert "failed" in reason


def test_when_all_fails_the_passages_come_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llmcost_plugins.compression.compressor.choose", lambda *given: fail())
    scorer, reason, events = reasons("bm25")
    assert (scorer, reason) == ("none", "bm25 failed: OSError: no network")
    monkeypatch.setattr("llmcost_plugins.compression.compressor.header_of", lambda *given: fail())
    compressor = Compressor("bm25")
    result = drive(compressor.compress(QUERY, PASSAGES, sink=events.append))
    assert [kept.text for kept in result.kept] == [passage.text for passage in PASSAGES]
    assert result.reason == "failed: OSError: no network"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def pass_(self) -> None:
        self.now += 9


def test_after_the_deadline_words_decide() -> None:
    clock = Clock()
    late = reasons(embedder=Words(clock.pass_), deadline=5.0, clock=clock)
    assert late[0] == "bm25"
    assert "TimeoutError" in late[1]
    clock = Clock()
    assert reasons(embedder=Words(clock.pass_), deadline=20.0, clock=clock)[0] == "hybrid+head"


async def test_an_awaited_step_is_cut_short() -> None:
    async def forever(query: str, texts: list[str]) -> list[float]:
        await asyncio.Event().wait()
        return []

    compressor = Compressor(forever, min_tokens=0, deadline=0.01)
    result = await adrive(compressor.compress(QUERY, PASSAGES, sink=lambda event: None))
    assert result.scorer == "bm25"


# --- Faces


@pytest.mark.parametrize("scorer", ["bm25", "hybrid", "hybrid+head"])
async def test_the_async_face_is_the_same(scorer: str) -> None:
    compressor = Compressor(scorer, embedder=Words(), min_tokens=0, clock=lambda: 1.0)
    plans = [compressor.compress(QUERY, PASSAGES, sink=lambda event: None) for _ in range(2)]
    assert await adrive(plans[0]) == drive(plans[1])


async def test_functions_sync_and_async_score() -> None:
    def by_length(query: str, texts: list[str]) -> list[int]:
        return [len(text) for text in texts]

    async def slowly(query: str, texts: list[str]) -> list[int]:
        return by_length(query, texts)

    results = []
    for function in (by_length, slowly):
        compressor = Compressor(function, min_tokens=0)
        results.append(
            drive(Compressor(function, min_tokens=0).compress(QUERY, PASSAGES, sink=lambda event: None))
            if (function is by_length)
            else await adrive(compressor.compress(QUERY, PASSAGES, sink=lambda event: None))
        )
    assert results[0].kept == results[1].kept
    assert [result.scorer for result in results] == ["by_length", "slowly"]


def test_a_scorer_of_ones_own() -> None:
    result = compress(scorer=Headed(name="mine"))
    assert result.scorer == "mine"


def test_the_event_says_what_happened() -> None:
    events: list[Event] = []
    compressor = Compressor("bm25", ratio=3, min_tokens=0, clock=lambda: 7.0)
    with scope(tenant="acme"):
        result = drive(compressor.compress(QUERY, PASSAGES, sink=events.append))
    (event,) = events
    assert isinstance(event, Compressed)
    assert (event.tokens_before, event.tokens_after) == (result.tokens_before, result.tokens_after)
    assert (event.requested, event.reached, event.scope.tenant, event.time) == (3, result.ratio, "acme", 7)


# --- Vectors


def test_indexed_passages_are_not_embedded_again() -> None:
    words = Words()
    compressor = Compressor(embedder=words, min_tokens=0)
    drive(compressor.index(PASSAGES))
    indexed = len(words.asked)
    drive(compressor.compress(QUERY, PASSAGES, sink=lambda event: None))
    assert words.asked[indexed:] == [QUERY]


def test_vectors_outlive_the_process_in_a_file(tmp_path: Path) -> None:
    path, words = tmp_path / "vectors.db", Words()
    first = drive(StoredEmbedder(words, path).embed(["one", "two", "one"]))
    again = drive(StoredEmbedder(words, path).embed(["two", "one", "one"]))
    assert words.asked == ["one", "two"]
    assert np.array_equal(first.vectors, again.vectors[[1, 0, 1]])
    assert first.tokens == (again.tokens[1], again.tokens[0], again.tokens[1])


def test_a_broken_file_of_vectors_costs_the_saving_only(tmp_path: Path) -> None:
    path = tmp_path / "vectors.db"
    path.write_bytes(b"not a database" * 100)
    events: list[Event] = []
    with listening(events.append):
        assert drive(StoredEmbedder(Words(), path).embed(["one"])).vectors.shape == (1, 27)
    assert {event.component for event in events if isinstance(event, ComponentFailed)} == {"vectors"}


# --- Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"ratio": 0.5},
        {"ratio": math.nan},
        {"ratio": 4, "tokens": 5},
        {"tokens": 0},
        {"window": 10, "reserve": 10},
        {"scorer": "best"},
        {"scorer": 5},
        {"protect": "abc"},
        {"protect": ["("]},
        {"min_tokens": -1},
        {"deadline": 0},
        {"header": "{nope}"},
        {"remembered": 0},
    ],
)
def test_wrong_settings_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Compressor(**wrong)


@pytest.mark.parametrize(
    ("query", "passages"),
    [(None, PASSAGES), (QUERY, ["text"]), (QUERY, [Passage(None)])],  # type: ignore[arg-type]
)
def test_wrong_input_is_named(query: Any, passages: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected a"):
        drive(Compressor().compress(query, passages))


def test_a_compressor_or_its_settings() -> None:
    compressor = Compressor()
    assert compressor_of(compressor, {}) is compressor
    assert isinstance(compressor_of(None, {"ratio": 2}), Compressor)
    for given_, settings_ in ((compressor, {"ratio": 2}), (None, {"nope": 1}), ("x", {})):
        with pytest.raises(ConfigurationError):
            compressor_of(given_, settings_)
