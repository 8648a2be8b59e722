"""Dropping words by perplexity: needs transformers 4.46 or older, and `make llmlingua-legacy` runs it with that."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest

from llmcost_plugins.compression.llmlingua import LLMLingua


def _transformers() -> tuple[int, ...]:
    try:
        return tuple(map(int, version("transformers").split(".")[:2]))
    except PackageNotFoundError:
        return (0, 0)


if not (0, 0) < _transformers() <= (4, 46):
    pytest.skip("needs transformers 4.46 or older: run `make llmlingua-legacy`", allow_module_level=True)

tiny_models = importlib.import_module("tests.compression.tiny_models")

QUESTION = "What was the population of Sweden in 1962?"
LEDGER = (
    "The population of Sweden was 7,731,004 in 1962, and the winners were not paid after a long and careful debate. "
    "Researchers reported that the committee paid 150,782 SEK to Wilhelm Conrad Röntgen and to the other winners."
)
RECORD = '{"id": 12, "name": "Widget", "price": 19.99, "tags": ["a", "b"]}'
FACTS = ("7,731,004", "1962", "150,782 SEK", "Wilhelm Conrad Röntgen", "Sweden", "not")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Path = tiny_models.gpt2(tmp_path_factory.mktemp("models"), window=1024)
    return found


@pytest.fixture(params=["llmlingua", "longllmlingua"])
def lingua(request: pytest.FixtureRequest, model: Path) -> LLMLingua:
    return LLMLingua(model, method=request.param, device="cpu")


@pytest.mark.parametrize("amount", [{"rate": 0.4}, {"budget": 75}])
def test_what_matters_survives_and_the_rest_is_a_part_of_the_text(lingua: LLMLingua, amount: Any) -> None:
    result = lingua.shorten([LEDGER, RECORD, "", "short"], query=QUESTION, **amount)
    first = result.texts[0]
    assert len(first.text) < len(LEDGER)
    assert all(fact in first.text for fact in FACTS)
    assert first.text.split() == " ".join(LEDGER[start:end] for start, end in first.spans).split()
    assert result.texts[1].text == RECORD
    assert result.texts[2].text == ""
    assert result.tokens_after < result.tokens_before


def test_a_long_text_is_pruned_in_steps(lingua: LLMLingua) -> None:
    long = " ".join(
        f"In the year {year} the committee paid the winners after a long debate." for year in range(1901, 1931)
    )
    result = lingua.shorten([long], query=QUESTION, rate=0.5)
    assert result.texts[0].reason == ""
    assert result.tokens_after < 0.9 * result.tokens_before
    assert all(str(year) in result.texts[0].text for year in range(1901, 1931))


def test_words_kept_are_those_the_library_keeps(model: Path) -> None:
    lingua = LLMLingua(model, method="llmlingua", device="cpu")
    lingua.warm()
    text = "the committee paid the winners after a long and careful debate about broken invoices and late deliveries"
    plain = lingua._compressor.compress_prompt(
        [text], rate=0.5, use_context_level_filter=False, concate_question=False
    )["compressed_prompt"]
    dropped = lingua._pruned_one(text, 0.5, "")
    kept = "".join(letter for n, letter in enumerate(text) if not any(start <= n < end for start, end in dropped))
    assert kept.replace(" ", "") == plain.replace(" ", "")


def test_ranking_and_the_guarded_classifier_work_here_too(model: Path, tmp_path: Path) -> None:
    assert len(LLMLingua(model, method="longllmlingua", device="cpu").rank([LEDGER, RECORD], QUESTION)) == 2
    shortened = LLMLingua(tiny_models.mbert(tmp_path), device="cpu").shorten([LEDGER], rate=0.4)
    assert all(fact in shortened.texts[0].text for fact in FACTS)
