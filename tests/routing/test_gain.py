"""Learning which requests gain from the strong model, and the scorer that comes with the package."""

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcost_plugins.embeddings import LocalEmbedder
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.routing import evaluation
from llmcost_plugins.routing.gain import GainScorer, Ranks
from llmcost_plugins.routing.records import Record
from llmcost_plugins.routing.rules import Choice
from llmcost_plugins.routing.training import Fitted, fit, held_out_scores
from llmcost_plugins.types import Request

EASY = "Name the capital city of this country in one word please"
HARD = "Derive the integral under these boundary constraints rigorously today"
FILLER = ["amber", "basalt", "cedar", "delta", "ember", "fjord", "grove", "heron", "iris", "juniper"]


def record(content: str, gain: bool, group: str = "") -> Record:
    return Record(messages=({"role": "user", "content": content},), weak=float(not gain), strong=1.0, group=group)


def padded(text: str, number: int, words: int) -> str:
    chosen = random.Random(number).choices(FILLER, k=words)
    return f"{text} {' '.join(chosen)} {number}?"


def learnable(rows: int = 300) -> list[Record]:
    """Gains go with words, not with length."""
    return [record(padded(HARD if n % 3 == 0 else EASY, n, n % 7), n % 3 == 0) for n in range(rows)]


def noise(rows: int = 300) -> list[Record]:
    chance = random.Random(1)
    return [record(padded(EASY, n, n % 7), chance.random() < 0.3) for n in range(rows)]


def length_only(rows: int = 300) -> list[Record]:
    chance = random.Random(2)
    words = [chance.randrange(1, 60) for _ in range(rows)]
    return [record(padded("", n, count), chance.random() < count / 60) for n, count in enumerate(words)]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit(learnable())


def test_what_can_be_learned_is_adopted(fitted: Fitted) -> None:
    assert fitted.scorer is not None
    assert fitted.report.why_not is None
    assert fitted.report.over_length.low > 0
    hard, easy = (fitted(Request(({"role": "user", "content": text},))) for text in (HARD, EASY))
    assert hard is not None
    assert easy is not None
    assert hard.difficulty >= 0.5 > easy.difficulty


def test_the_report_can_be_read(fitted: Fitted) -> None:
    text = str(fitted.report)
    assert text.startswith("adopted (300 records in 300 groups")
    assert "prompt length" in text
    assert "keep" in text


@pytest.mark.parametrize(("records", "why"), [(noise(), "random"), (length_only(), "length")])
def test_what_does_not_beat_random_and_length_is_refused(records: list[Record], why: str) -> None:
    refused = fit(records)
    assert refused.scorer is None
    assert why in str(refused.report)
    assert "not adopted" in str(refused.report)
    assert refused(Request(({"role": "user", "content": HARD},))) is None


def test_subjects_that_share_no_words_are_not_learned_across() -> None:
    """Random folds would learn the names of the subjects."""
    subjects = [f"{first}{second}" for first in FILLER for second in FILLER][:12]
    rows = [record(padded(subjects[n % 12], n, 5), n % 12 < 4, subjects[n % 12]) for n in range(360)]
    by_subject = fit(rows)
    assert by_subject.scorer is None
    assert fit([record(str(row.messages[0]["content"]), row.gain > 0) for row in rows]).scorer is not None


def test_quality_is_kept_at_the_threshold() -> None:
    rows = learnable()
    kept = fit(rows, keep=0.9).report.point
    assert kept.kept >= 0.9
    assert kept.strong_share < fit(rows, keep=1.0).report.point.strong_share


def test_a_budget_is_kept_at_the_threshold() -> None:
    assert fit(learnable(), strong_share=0.2).report.point.strong_share <= 0.2


@pytest.mark.parametrize("made", [learnable, noise])
def test_saved_and_loaded_exactly(made: Any) -> None:
    saved = fit(made())
    loaded = Fitted.from_dict(json.loads(json.dumps(saved.to_dict())))
    assert loaded == saved
    assert loaded.id == saved.id


def test_learning_twice_gives_the_same(fitted: Fitted) -> None:
    assert fit(learnable()).to_dict() == fitted.to_dict()


def test_an_embedder_is_learned_with_saved_and_asked_for() -> None:
    embedder = LocalEmbedder()
    with_vectors = fit(learnable(120), embedder=embedder)
    assert with_vectors.scorer is not None
    assert not with_vectors.quick
    saved = json.loads(json.dumps(with_vectors.to_dict()))
    loaded = Fitted.from_dict(saved, embedder)
    assert loaded == with_vectors
    assert loaded(learnable(1)[0].request) == with_vectors(learnable(1)[0].request)
    with pytest.raises(ConfigurationError, match="pass that as `embedder`"):
        Fitted.from_dict(saved)


def test_other_records_have_another_id(fitted: Fitted) -> None:
    assert fitted.id not in (fit(noise()).id, fit(learnable(270)).id, GainScorer.shipped().id)


def test_held_out_scores_come_from_other_groups() -> None:
    """Words of one group alone say nothing about the others, however well they tell its own rows apart."""
    rows = [record(f"{FILLER[n // 30]}{'xy'[n % 2]}", bool(n % 2), f"{n // 30}") for n in range(300)]
    scores = held_out_scores(rows)
    assert np.all((scores >= 0) & (scores <= 1))
    weak, strong = [row.weak for row in rows], [row.strong for row in rows]
    assert 0.4 < evaluation.apgr(scores, weak, strong) < 0.6


@pytest.mark.parametrize(
    ("records", "remedy"),
    [
        (learnable(99), "at least 100"),
        ([record(EASY, True, "one")] * 100, "1 groups"),
        ([record(f"{n}", False) for n in range(100)], "no gap"),
        (
            [Record(messages=learnable(1)[0].messages, weak=0, strong=7)] * 100,
            "`strong` of record 0 is 7; expected 0 to 1",
        ),
        ([Record(messages=learnable(1)[0].messages, weak=float("nan"), strong=1)] * 100, "`weak` of record 0 is nan"),
    ],
)
def test_bad_records_are_named_with_their_remedy(records: list[Record], remedy: str) -> None:
    with pytest.raises(ConfigurationError, match=remedy):
        fit(records)


@pytest.mark.parametrize("option", [{"keep": 0}, {"keep": 1.1}, {"strong_share": 0}, {"confidence": 2}])
def test_bad_options_are_named(option: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        fit(learnable(), **option)  # type: ignore[arg-type]


@pytest.mark.parametrize("data", [{}, {"scorer": None}, {"scorer": {"version": 1}, "threshold": 1, "report": {}}])
def test_damaged_files_are_refused(data: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="fit it again"):
        Fitted.from_dict(data)


def test_a_scorer_of_another_version_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="another version"):
        GainScorer.from_dict({**GainScorer.shipped().to_dict(), "version": 0})


TEXT = st.none() | st.text() | st.lists(st.fixed_dictionaries({"type": st.just("text"), "text": st.text()}))


@given(TEXT)
def test_any_text_has_a_difficulty_from_0_to_1_or_none(fitted: Fitted, content: Any) -> None:
    request = Request(({"role": "user", "content": content},))
    assert GainScorer.shipped()(request) is None or 0 <= GainScorer.shipped()(request).difficulty <= 1  # type: ignore[union-attr]
    choice = fitted(request)
    assert isinstance(choice, Choice)
    assert 0 <= choice.difficulty <= 1


@pytest.mark.parametrize(
    "text",
    [
        "Write a persuasive email to convince your introverted friend to attend a community event.",
        "What are the names of some famous actors that started their careers on Broadway?",
        "Pretend yourself to be Elon Musk in all the following conversations.",
        "Hi, how are you?",
        "yes",
    ],
)
def test_the_shipped_scorer_abstains_from_what_is_open(text: str) -> None:
    assert GainScorer.shipped()(Request(({"role": "user", "content": text},))) is None


def test_the_shipped_scorer_ranks_by_what_there_is_to_keep_in_mind() -> None:
    easy = "How many legs do 2 cats and 1 dog have?"
    hard = (
        "Ann, Bob and Cy share 120 sweets. If Ann gets twice as many as Bob, Cy gets 5 less than Bob unless Bob has "
        "more than 40, and each of them then gives half of the rest to Dan, who had none, how many sweets does he have?"
    )
    judged = [GainScorer.shipped()(Request(({"role": "user", "content": text},))) for text in (easy, hard)]
    assert judged[0] is not None
    assert judged[1] is not None
    assert judged[0].difficulty < 0.5 < judged[1].difficulty
    assert "conditions" in judged[1].reason or "quantities" in judged[1].reason


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=50), st.lists(st.floats(-2e3, 2e3), min_size=2, max_size=20))
def test_ranks_rise_and_stay_from_0_to_1(learned: list[float], asked: list[float]) -> None:
    ranks = Ranks.of(np.array(learned))
    shares = [ranks(score) for score in sorted(asked)]
    assert shares == sorted(shares)
    assert 0 <= shares[0] <= shares[-1] <= 1
