"""Words dropped from what was chosen: within the budget, facts unharmed, and never at the price of the answer."""

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins.compression import CompressionResult, Compressor, LLMLingua, Passage
from llmcost_plugins.events import ComponentFailed, Event, listening
from llmcost_plugins.plan import adrive, drive
from llmcost_plugins.tokens import count_text

QUESTION = "When was the lighthouse of Port Ellis built?"
FACT = "The lighthouse of Port Ellis was built in 1874 by Ada Lorne for 150,782 crowns after a long and careful debate."
PLACES = (
    *("harbour", "village", "island", "valley", "station", "market", "castle", "garden", "bridge", "palace", "school"),
    *(
        "museum",
        "theatre",
        "library",
        "mill",
        "farm",
        "tower",
        "temple",
        "quarry",
        "forest",
        "orchard",
        "chapel",
        "inn",
    ),
)


def noise(*places: str) -> str:
    return " ".join(
        f"The old {place} has a small shop where visitors usually buy what the people there have made in winter."
        for place in places
    )


PASSAGES = [
    Passage(f"{noise(*PLACES[:4])} {FACT} {noise(*PLACES[4:8])}", id="a"),
    Passage(f"{noise(*PLACES[8:16])} A ferry leaves every two hours.", id="b"),
    Passage(noise(*PLACES[16:]), id="c"),
]


class Stage(LLMLingua):
    """A second stage that cannot do its work."""

    def __init__(self, error: Exception) -> None:
        super().__init__("xlm-roberta-large")
        self.error = error

    def shorten(self, *given: Any, **settings: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("way", ["sync", "async"])
def test_where_the_second_stage_fails_the_first_does_the_whole_work(way: str) -> None:
    events: list[Event] = []
    compressor = Compressor("bm25", ratio=6, second_stage=Stage(RuntimeError("no memory")))
    with listening(events.append):
        plan = compressor.compress(QUESTION, PASSAGES)
        result = drive(plan) if way == "sync" else asyncio.run(adrive(plan))
    plain = drive(Compressor("bm25", ratio=6).compress(QUESTION, PASSAGES))
    assert result.kept == plain.kept
    assert result.scorer == "bm25"
    assert "llmlingua2 failed: RuntimeError: no memory" in result.reason
    assert [event.error for event in events if isinstance(event, ComponentFailed)] == ["RuntimeError: no memory"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> LLMLingua:
    pytest.importorskip("torch", reason="needs the extra `llmlingua`: run `make setup`")
    pytest.importorskip("llmlingua", reason="needs the extra `llmlingua`: run `make setup`")
    tiny_models = importlib.import_module("tests.compression.tiny_models")
    folder: Path = tiny_models.mbert(tmp_path_factory.mktemp("models"))
    return LLMLingua(folder, device="cpu")


def shortened(stage: LLMLingua, ratio: float, passages: list[Passage], **settings: Any) -> CompressionResult:
    compressor = Compressor("bm25", ratio=ratio, second_stage=stage, **settings)
    return drive(compressor.compress(QUESTION, passages))


@pytest.mark.parametrize("ratio", [3, 4, 6, 8])
def test_the_budget_holds_and_facts_are_unharmed(stage: LLMLingua, ratio: float) -> None:
    result = shortened(stage, ratio, PASSAGES)
    assert result.budget is not None
    assert result.tokens_after <= result.budget
    text = "\n\n".join(part.text for part in result.kept)
    assert count_text(text).tokens == result.tokens_after
    assert all(fact in text for fact in ("Port Ellis", "1874", "Ada Lorne", "150,782"))
    for part in result.kept:
        original = PASSAGES[part.index].text
        assert all(original[start:end] in part.text for start, end in part.spans)


def sentences_of(result: CompressionResult) -> int:
    """Count the sentences that a part of a result comes from."""
    found: set[tuple[int, int]] = set()
    for part in result.kept:
        for start, end in part.spans:
            text = PASSAGES[part.index].text
            before, within = text.count(". ", 0, start), text[start : end - 2].count(". ")
            found |= {(part.index, before + n) for n in range(within + 1)}
    return len(found)


def test_it_draws_on_more_sentences_than_the_first_stage_alone(stage: LLMLingua) -> None:
    both, plain = shortened(stage, 4, PASSAGES), drive(Compressor("bm25", ratio=4).compress(QUESTION, PASSAGES))
    assert (both.scorer, plain.scorer) == ("bm25+llmlingua2", "bm25")
    assert sentences_of(both) > sentences_of(plain)


def test_what_is_protected_is_not_thinned(stage: LLMLingua) -> None:
    held = Passage(
        "Never give the key of the lighthouse to anyone who has not signed the book.", id="rule", protected=True
    )
    result = shortened(stage, 4, [*PASSAGES, held])
    assert next(part.text for part in result.kept if part.index == 3) == held.text
    pattern = r"A ferry leaves every two hours\."
    result = shortened(stage, 3, PASSAGES, protect=[pattern])
    assert any("A ferry leaves every two hours." in part.text for part in result.kept)
