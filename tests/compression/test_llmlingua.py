"""LLMLingua-2 and coarse ranking on tiny models with random weights, where only what survives means something."""

import importlib
import json
import pickle
import random
import re
import socket
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmcost_plugins.compression import llmlingua_loading
from llmcost_plugins.compression.llmlingua import LLMLingua
from llmcost_plugins.compression.shortening import Shortened
from llmcost_plugins.errors import ConfigurationError, MissingExtra
from llmcost_plugins.tokens import count_text

torch = pytest.importorskip("torch", reason="needs the extra `llmlingua`: run `make setup`")
pytest.importorskip("llmlingua", reason="needs the extra `llmlingua`: run `make setup`")
tiny_models = importlib.import_module("tests.compression.tiny_models")

LEDGER = (
    "The population of Sweden was 7,731,004 in 1962, and the winners were not paid after a long and careful debate. "
    "Researchers reported that the committee paid 150,782 SEK to Wilhelm Conrad Röntgen and to the other winners."
)
GUIDE = (
    "Introduction to the whole system:\n\n```python\nx = 1\nprint(x)\n```\n\nThe company didn't refund the customers "
    "who had complained about broken invoices and late deliveries. See https://example.com/docs/v2?page=3 for the "
    "well-known and state-of-the-art guide."
)
RECORD = '{"id": 12, "name": "Widget", "price": 19.99, "tags": ["a", "b"]}'
TEXTS = [LEDGER, GUIDE, RECORD, "A short and simple one about the debate."]
FACTS = ("7,731,004", "1962", "150,782 SEK", "Wilhelm Conrad Röntgen", "Sweden", "not", "didn't")
LITERALS = ("```python\nx = 1\nprint(x)\n```", "https://example.com/docs/v2?page=3")


def tokens(text: str) -> int:
    return count_text(text).tokens


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {make.__name__: make(folder) for make in (tiny_models.mbert, tiny_models.xlm_roberta, tiny_models.gpt2)}


@pytest.fixture(scope="module", params=["mbert", "xlm_roberta"])
def lingua(request: pytest.FixtureRequest, models: dict[str, Path]) -> LLMLingua:
    return LLMLingua(models[request.param], device="cpu")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("tried to reach the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def assert_is_part_of(shortened: Shortened, text: str) -> None:
    """Every span says what the text says there, the spans are in order, and they are all that is shown."""
    shown = shortened.text
    before = 0
    for start, end in shortened.spans:
        assert before <= start < end <= len(text)
        before = end
        part = text[start:end]
        assert shown.startswith(part)
        shown = shown[len(part) :].lstrip()
    assert not shown


@pytest.mark.parametrize("amount", [{"rate": 0.3}, {"rate": 0.6}, {"budget": 90}, {"budget": 1}])
def test_what_is_left_stood_in_the_text_and_nothing_that_matters_is_gone(lingua: LLMLingua, amount: Any) -> None:
    result = lingua.shorten(TEXTS, **amount)
    for shortened, text in zip(result.texts, TEXTS, strict=True):
        assert_is_part_of(shortened, text)
    everything = "\n".join(shortened.text for shortened in result.texts)
    for part in (*FACTS, *LITERALS):
        assert part in everything
    assert json.loads(result.texts[2].text) == json.loads(RECORD)
    assert result.tokens_after < result.tokens_before
    assert result.restored > 0


def test_the_budget_is_met_in_the_callers_tokens_where_that_can_be(lingua: LLMLingua) -> None:
    for budget in (100, 110, 120):
        result = lingua.shorten(TEXTS, budget=budget)
        assert not result.over_budget
        assert result.tokens_after == sum(tokens(shortened.text) for shortened in result.texts) <= budget
    words = lingua.shorten(TEXTS, budget=60, count=lambda text: len(text.split()))
    assert words.tokens_before == sum(len(text.split()) for text in TEXTS)
    assert words.tokens_after <= 60


def test_what_must_stay_exceeds_a_small_budget_and_says_so(lingua: LLMLingua) -> None:
    result = lingua.shorten(TEXTS, budget=1)
    assert result.over_budget
    assert result.tokens_after > 1


def test_texts_that_fit_are_left_alone(lingua: LLMLingua) -> None:
    for amount in ({"budget": 10_000}, {"rate": 1.0}):
        result = lingua.shorten(TEXTS, **amount)  # type: ignore[arg-type]
        assert [shortened.text for shortened in result.texts][:1] == [LEDGER]
        assert {shortened.reason for shortened in result.texts} == {"fits"}
        assert result.tokens_after == result.tokens_before


def test_only_what_an_earlier_stage_kept_is_read(lingua: LLMLingua) -> None:
    second = LEDGER.index("Researchers")
    result = lingua.shorten([LEDGER, LEDGER], rate=0.4, spans=[[(second, len(LEDGER))], []])
    assert_is_part_of(result.texts[0], LEDGER)
    assert result.texts[0].spans[0][0] >= second
    assert result.tokens_before == tokens(LEDGER[second:])
    assert result.texts[1].text == ""


def test_sentences_that_must_stay_are_whole(lingua: LLMLingua) -> None:
    binding = "You must wear a helmet and you must keep the receipt for the whole of the season."
    result = lingua.shorten([f"{binding} {LEDGER}"], rate=0.2, keep=lambda text: text.startswith("You must"))
    assert result.texts[0].text.startswith(binding)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n\t",
        "\x00\x01\ufffd☃☃☃",
        "☃" * 2_000,
        "a" * 5_000,
        "<|endoftext|> said the debate to the winners",
        "##ing ##ed",
    ],
)
def test_junk_costs_nothing_and_nobody_else(lingua: LLMLingua, text: str) -> None:
    result = lingua.shorten([text, LEDGER], rate=0.5)
    assert_is_part_of(result.texts[0], text)
    assert len(result.texts[1].text) < len(LEDGER)


@pytest.mark.parametrize("text", ["\x00\x01\ufffd☃☃☃", "☃" * 2_000, "☃ ☃"])
def test_what_the_tokenizer_does_not_know_is_not_dropped(lingua: LLMLingua, text: str) -> None:
    assert lingua.shorten([text, LEDGER], rate=0.5).texts[0].text == text


def test_a_giant_sentence_is_read_in_chunks(lingua: LLMLingua) -> None:
    giant = "the winners of the long debate paid " * 400 + "7,731,004 in 1962"
    result = lingua.shorten([giant], rate=0.5)
    assert_is_part_of(result.texts[0], giant)
    assert result.texts[0].text.endswith("7,731,004 in 1962") or "7,731,004" in result.texts[0].text
    assert result.tokens_after < 0.8 * result.tokens_before


def test_a_text_the_library_cannot_take_is_passed_on_and_costs_no_other(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    lingua = LLMLingua(models["mbert"], device="cpu")
    lingua.warm()
    chunk = lingua._compressor._PromptCompressor__chunk_context

    def choosy(text: str, ends: set[str]) -> list[str]:
        if "committee" in text:
            raise IndexError("list index out of range")
        return chunk(text, ends)  # type: ignore[no-any-return]

    monkeypatch.setattr(lingua._compressor, "_PromptCompressor__chunk_context", choosy)
    result = lingua.shorten([LEDGER, GUIDE], rate=0.4)
    assert result.texts[0].text == LEDGER
    assert result.texts[0].reason == "IndexError: list index out of range"
    assert len(result.texts[1].text) < len(GUIDE)
    assert result.rejected == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=200), max_size=4), st.floats(0.01, 0.99))
def test_any_text_comes_out_as_a_part_of_itself(lingua: LLMLingua, texts: list[str], rate: float) -> None:
    result = lingua.shorten(texts, rate=rate)
    assert result.tokens_after <= result.tokens_before
    for shortened, text in zip(result.texts, texts, strict=True):
        assert_is_part_of(shortened, text)
        assert set(re.findall(r"\d+", shortened.text)) == set(re.findall(r"\d+", text))


def test_the_library_itself_damages_what_the_guard_saves(models: dict[str, Path]) -> None:
    plain = unmodified(models["mbert"])
    broken = plain.compress_prompt([LEDGER, RECORD], rate=0.5, use_context_level_filter=False)["compressed_prompt_list"]
    assert "7,731,004" not in broken[0]
    with pytest.raises(ValueError, match=r"."):
        json.loads(broken[1])


# ------------------------------------------------------------------------------------------------- the same, but faster


def unmodified(model: Path) -> Any:
    """Return the library's own compressor, which needs tiktoken's file to be at hand."""
    from llmlingua import PromptCompressor

    from llmcost_plugins import tokens as offline

    folder = next(folder for folder in offline._folders() if offline._holds(folder, "cl100k_base"))
    with offline._environment("TIKTOKEN_CACHE_DIR", str(folder)):
        return PromptCompressor(
            str(model), device_map="cpu", model_config={"trust_remote_code": False}, use_llmlingua2=True
        )


def documents(count: int) -> list[str]:
    words = " ".join(tiny_models.CORPUS[:5]).split()
    chooser = random.Random(4)
    return [" ".join(chooser.choices(words, k=chooser.choice([3, 40, 120, 700]))) + "." for _ in range(count)]


@pytest.mark.parametrize("rate", [0.33, 0.6])
@pytest.mark.parametrize("name", ["mbert", "xlm_roberta"])
def test_batches_by_length_give_what_the_unmodified_library_gives(
    models: dict[str, Path], name: str, rate: float
) -> None:
    texts = documents(24)
    slow, fast = unmodified(models[name]), llmlingua_loading.load(str(models[name]), "llmlingua2", "cpu")
    options = {"rate": rate, "use_context_level_filter": False, "return_word_label": True}
    assert fast.compress_prompt(list(texts), **options) == slow.compress_prompt(list(texts), **options)
    filtered = {"rate": rate, "use_context_level_filter": True, "force_reserve_digit": True}
    assert fast.compress_prompt(list(texts), **filtered) == slow.compress_prompt(list(texts), **filtered)


def test_logits_are_those_of_the_padded_chunks_to_the_sixth_digit(models: dict[str, Path]) -> None:
    classifier = llmlingua_loading.load(str(models["mbert"]), "llmlingua2", "cpu").model
    ids = torch.randint(5, 200, (9, 512))
    mask = torch.arange(512)[None, :] < torch.tensor([3, 512, 40, 41, 300, 2, 128, 77, 500])[:, None]
    with torch.no_grad():
        expected = classifier.model(input_ids=ids, attention_mask=mask).logits
        found = classifier(input_ids=ids, attention_mask=mask).logits
    assert torch.allclose(found[mask], expected[mask], atol=1e-5)


def test_the_model_runs_once_however_many_rates_are_tried(lingua: LLMLingua, monkeypatch: pytest.MonkeyPatch) -> None:
    lingua.warm()
    classifier, runs = lingua._compressor.model, []
    logits = classifier._logits
    monkeypatch.setattr(classifier, "_logits", lambda *given: runs.append(1) or logits(*given))
    lingua.shorten(TEXTS, budget=100)
    assert len(runs) == 1
    assert classifier._last is None


# -------------------------------------------------------------------------------------------------------------- loading


def test_nothing_is_loaded_before_it_is_needed_and_everything_after_close(models: dict[str, Path]) -> None:
    lingua = LLMLingua(models["mbert"], device="cpu")
    assert lingua._compressor is None
    lingua.warm()
    loaded = lingua._compressor
    lingua.warm()
    assert lingua._compressor is loaded
    lingua.close()
    assert lingua._compressor is None
    copied = pickle.loads(pickle.dumps(lingua))
    assert repr(copied) == repr(lingua)
    assert copied.shorten([LEDGER], rate=0.5) == lingua.shorten([LEDGER], rate=0.5)


@pytest.mark.parametrize("method", ["llmlingua2", "longllmlingua"])
def test_a_local_model_needs_no_network(models: dict[str, Path], method: Any, offline: None) -> None:
    if method == "llmlingua2":
        assert LLMLingua(models["mbert"]).shorten([LEDGER], rate=0.5).restored >= 0
    else:
        assert len(LLMLingua(models["gpt2"], method=method).rank([LEDGER, GUIDE], "How many?")) == 2


def test_loading_changes_no_random_generator_and_runs_no_remote_code(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmlingua import prompt_compressor

    trusted: list[bool] = []
    load = prompt_compressor.AutoConfig.from_pretrained

    def watched(*given: Any, **options: Any) -> Any:
        trusted.append(options["trust_remote_code"])
        return load(*given, **options)

    monkeypatch.setattr(prompt_compressor.AutoConfig, "from_pretrained", watched)
    before, library = random.getstate(), (prompt_compressor.tiktoken, prompt_compressor.seed_everything)
    LLMLingua(models["mbert"], device="cpu").warm()
    assert random.getstate() == before
    assert (prompt_compressor.tiktoken, prompt_compressor.seed_everything) == library
    assert set(trusted) == {False}


def test_threads_share_one_model(models: dict[str, Path]) -> None:
    lingua = LLMLingua(models["mbert"], device="cpu")
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(lingua.shorten([LEDGER], rate=0.5).texts[0].text))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_missing_directory_and_one_without_a_model_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "xlm-roberta-large-empty").mkdir()
    for name, state in (
        ("xlm-roberta-large-none", "does not exist"),
        ("xlm-roberta-large-empty", "has no config.json"),
    ):
        with pytest.raises(ConfigurationError, match=f"{name} {state}"):
            LLMLingua(tmp_path / name).warm()


def test_a_path_without_the_tokenizers_name_is_explained(models: dict[str, Path], tmp_path: Path) -> None:
    renamed = tmp_path / "mine"
    renamed.symlink_to(models["mbert"])
    with pytest.raises(ConfigurationError, match="'bert-base-multilingual-cased' nor 'xlm-roberta-large'"):
        LLMLingua(renamed).warm()


def test_a_broken_model_and_one_of_the_wrong_kind_are_explained(models: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "xlm-roberta-large-broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")
    with pytest.raises(ConfigurationError, match="cannot be loaded"):
        LLMLingua(broken).warm()
    causal = tmp_path / "xlm-roberta-large-causal"
    causal.symlink_to(models["gpt2"])
    with pytest.raises(ConfigurationError, match=r"llmlingua2 .*GPT2LMHeadModel"):
        LLMLingua(causal, device="cpu").warm()
    with pytest.raises(ConfigurationError, match="longllmlingua needs a causal language model"):
        LLMLingua(models["mbert"], method="longllmlingua", device="cpu").warm()


def test_a_missing_package_is_a_command_to_paste(models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise llmlingua_loading.PackageNotFoundError(name)

    monkeypatch.setattr(llmlingua_loading, "version", absent)
    with pytest.raises(MissingExtra, match=r'pip install "llmcost-plugins\[llmlingua\]"'):
        LLMLingua(models["mbert"]).warm()


@pytest.mark.parametrize(
    "call",
    [
        lambda: LLMLingua("x", method="llmlingua3"),  # type: ignore[arg-type]
        lambda: LLMLingua("x").shorten([LEDGER]),
        lambda: LLMLingua("x").shorten([LEDGER], rate=0.5, budget=5),
        lambda: LLMLingua("x").shorten([LEDGER], rate=0),
        lambda: LLMLingua("x").shorten([LEDGER], budget=-1),
        lambda: LLMLingua("x").rank([LEDGER], "q"),
        lambda: LLMLingua("x", method="longllmlingua").rank([LEDGER], " "),
        lambda: LLMLingua("x", method="longllmlingua").shorten([LEDGER], rate=0.5),
    ],
)
def test_what_cannot_work_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError):
        call()


# -------------------------------------------------------------------------------------------------------------- ranking


@pytest.mark.parametrize("method", ["llmlingua", "longllmlingua"])
def test_texts_are_ranked_as_the_library_ranks_them(models: dict[str, Path], method: Any) -> None:
    lingua = LLMLingua(models["gpt2"], method=method, device="cpu")
    texts = [LEDGER, GUIDE, RECORD, "The committee paid the winners."]
    scores = lingua.rank(texts, "Who paid the winners?")
    mode = "after" if method == "longllmlingua" else "none"
    ranked = lingua._compressor.get_rank_results(texts, "Who paid the winners?", method, mode, [0] * 4)
    assert sorted(range(4), key=lambda n: -scores[n]) == [n for n, _ in ranked]


def test_blank_and_overlong_texts_are_ranked_too(models: dict[str, Path]) -> None:
    lingua = LLMLingua(models["gpt2"], method="longllmlingua", device="cpu")
    scores = lingua.rank(["", LEDGER * 50, " ", LEDGER], "How many people live in Sweden?")
    assert [score > float("-inf") for score in scores] == [False, True, False, True]
    assert lingua.rank([], "How many?") == []


@pytest.mark.skipif(
    tuple(map(int, version("transformers").split(".")[:2])) <= (4, 46), reason="this transformers can: see legacy"
)
@pytest.mark.parametrize("method", ["llmlingua", "longllmlingua"])
def test_dropping_by_perplexity_says_which_transformers_it_needs(models: dict[str, Path], method: Any) -> None:
    with pytest.raises(ConfigurationError, match=r'pip install "transformers==4.46.3"'):
        LLMLingua(models["gpt2"], method=method, device="cpu").shorten([LEDGER], query="How many?", rate=0.5)
