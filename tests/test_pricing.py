"""The price book: to the pico-dollar what `genai-prices` says, one's own prices first, and never a made-up zero."""

import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from threading import Barrier
from typing import Any

import pytest
from genai_prices import Usage as PublishedUsage
from genai_prices import calc_price
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ConditionalPrice, ModelInfo, ModelPrice, TieredPrices

from llmcost_plugins.errors import ConfigurationError, InvalidUsage
from llmcost_plugins.pricing import BATCH, STANDARD, Context, PriceBook, pico, provider_id, usd
from llmcost_plugins.types import TOKEN_CLASSES, Usage

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC).timestamp()
FIRST, LAST = datetime(2024, 1, 1, tzinfo=UTC).timestamp(), datetime(2026, 11, 30, tzinfo=UTC).timestamp()
MILLION = Usage(1_000_000, 1_000_000)
PICO_USD = Decimal(10) ** -12
PROVIDERS = [
    "openai",
    "anthropic",
    "google",
    "azure",
    "aws",
    "groq",
    "mistral",
    "deepseek",
    "x-ai",
    "cohere",
    "fireworks",
    "together",
    "perplexity",
    "openrouter",
    "huggingface_together",
    "cerebras",
]


def at(*moment: int) -> float:
    return datetime(*moment, tzinfo=UTC).timestamp()  # type: ignore[misc,arg-type]


# --- The same as genai-prices


def published(provider: str, model: str, usage: Usage, when: float, context: Context = STANDARD) -> Decimal:
    return calc_price(
        PublishedUsage(
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_read_tokens=usage.cached_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            output_reasoning_tokens=usage.reasoning_tokens,
            input_audio_tokens=usage.input_audio_tokens,
            output_audio_tokens=usage.output_audio_tokens,
            cache_audio_read_tokens=0,
            cache_audio_write_tokens=0,
        ),
        model,
        provider_id=provider,
        genai_request_timestamp=datetime.fromtimestamp(when, UTC),
        price_context=dict(context) or None,
    ).total_price


def findable(provider: str, model: ModelInfo) -> bool:
    try:
        return get_snapshot().find_provider_model(model.id, None, provider, None)[1].id == model.id
    except LookupError:
        return False


def models(providers: Iterable[str]) -> dict[str, list[ModelInfo]]:
    wanted = set(providers)
    every = {p.id: [m for m in p.models if findable(p.id, m)] for p in get_snapshot().providers if p.id in wanted}
    return {provider: found for provider, found in every.items() if found}


def contexts(model: ModelInfo) -> list[Context]:
    variants = [tuple(variant.when.items()) for variant in model.price_variants or ()]
    return [STANDARD, BATCH, *variants]


def amounts(model: ModelInfo) -> Iterable[Decimal]:
    sets: list[Any] = [*(model.prices if isinstance(model.prices, list) else [model.prices])]
    sets += [variant.prices for variant in model.price_variants or ()]
    for prices in sets:
        price = prices.prices if isinstance(prices, ConditionalPrice) else prices
        assert isinstance(price, ModelPrice)
        for value in price.__dict__.values():
            if isinstance(value, TieredPrices):
                yield from (value.base, *(tier.price for tier in value.tiers))
            elif isinstance(value, Decimal):
                yield value


def has_artefact(model: ModelInfo) -> bool:
    return any(amount * 10**6 % 1 for amount in amounts(model))


def some_usage(rnd: random.Random) -> Usage:
    read = int(rnd.choice([100, 5_000, 250_000, 600_000]) * rnd.random())
    cached = int(read * rnd.random() * 0.6)
    stored = int((read - cached) * rnd.random() * 0.7)
    hour = int(stored * rnd.random())
    heard = 0
    if rnd.random() < 0.1:
        cached, stored, hour, heard = 0, 0, 0, int(read * rnd.random())
    written = int(5_000 * rnd.random())
    reasoning = int(written * rnd.random())
    spoken = int((written - reasoning) * rnd.random()) if rnd.random() < 0.1 else 0
    return Usage(read, written, cached, stored, hour, reasoning, heard, spoken)


def test_random_usage_costs_what_genai_prices_says() -> None:
    book, rnd = PriceBook(), random.Random(20261101)
    by_provider = models(PROVIDERS)
    wrong, seen, checked = [], set(), 0
    for _ in range(11_000):
        provider = rnd.choice(list(by_provider))
        model = rnd.choice(by_provider[provider])
        context, usage, when = rnd.choice(contexts(model)), some_usage(rnd), rnd.uniform(FIRST, LAST)
        cost = book.cost(provider, model.id, usage, at=when, context=context)
        assert cost is not None, (provider, model.id)
        expected = published(provider, model.id, usage, when, context)
        allowed = usage.total_tokens * PICO_USD if has_artefact(model) else 0
        if abs(usd(cost.total) - expected) > allowed:
            wrong.append((provider, model.id, context, usage, cost, expected))
        seen.add((provider, model.id))
        checked += 1
    assert wrong == []
    assert checked >= 10_000
    assert len(seen) >= 50
    assert len({provider for provider, _ in seen}) >= 8


def test_every_tier_and_variant_of_every_published_model() -> None:
    book, rnd, wrong, checked = PriceBook(), random.Random(7), [], 0
    for provider, found in models(provider.id for provider in get_snapshot().providers).items():
        for model in found:
            for context in set(contexts(model)):
                for read in (1, 200_000, 200_001, 272_000, 272_001):
                    usage = some_usage(rnd)._replace(input_tokens=600_000) if read == 1 else Usage(read, 100)
                    cost = book.cost(provider, model.id, usage, at=NOW, context=context)
                    expected = published(provider, model.id, usage, NOW, context)
                    allowed = usage.total_tokens * PICO_USD if has_artefact(model) else 0
                    checked += 1
                    if cost is None or abs(usd(cost.total) - expected) > allowed:
                        wrong.append((provider, model.id, context, usage, cost, expected))
    assert wrong == []
    assert checked >= 5_000


def test_artefact_rates_are_rounded_to_the_nearest_pico_dollar() -> None:
    artefacts = [m for m in models(["openrouter"])["openrouter"] if has_artefact(m)]
    assert artefacts
    model = next(m for m in artefacts if m.id == "google/gemini-2.5-flash-image")
    usage = Usage(3, 0, 0, 3)
    cost = PriceBook().cost("openrouter", model.id, usage, at=NOW)
    assert cost is not None
    assert cost.total == 3 * 83_333
    assert abs(usd(cost.total) - published("openrouter", model.id, usage, NOW)) < 3 * PICO_USD


def test_cache_writes_for_an_hour_cost_more_than_those_for_five_minutes() -> None:
    book = PriceBook()
    short = book.cost("anthropic", "claude-sonnet-4-6", Usage(1_000_000, 0, 0, 100_000, 0), at=NOW)
    long = book.cost("anthropic", "claude-sonnet-4-6", Usage(1_000_000, 0, 0, 100_000, 100_000), at=NOW)
    assert short is not None
    assert long is not None
    assert usd(long.total - short.total) == Decimal("0.225")  # $6.00 - $3.75 a million
    assert short.provider_cache_saving == -pico("0.075")


def test_provider_cache_saving_is_what_the_cache_took_off() -> None:
    book = PriceBook()
    plain = book.cost("openai", "gpt-5.4", Usage(10_000, 10), at=NOW)
    cached = book.cost("openai", "gpt-5.4", Usage(10_000, 10, 8_000), at=NOW)
    assert plain is not None
    assert cached is not None
    assert plain.total - cached.total == cached.provider_cache_saving > 0
    assert cached.total - cached.input == plain.total - plain.input


def test_a_long_prompt_is_charged_at_the_long_rate_throughout() -> None:
    card = PriceBook().card("openai", "gpt-5.4", at=NOW)
    assert card is not None
    assert len(card.steps) > 1
    threshold = card.steps[0][0]
    assert card.rates(threshold).input < card.rates(threshold + 1).input
    assert card.cost(Usage(threshold + 1)).total == (threshold + 1) * card.rates(threshold + 1).input


@pytest.mark.parametrize(
    ("context", "dearer"),
    [(BATCH, False), ((("service_tier", "flex"),), False), ((("service_tier", "priority"),), True)],
)
def test_service_tiers_of_openai(context: Context, dearer: bool) -> None:
    book = PriceBook()
    standard = book.cost("openai", "gpt-5.4", MILLION, at=NOW)
    other = book.cost("openai", "gpt-5.4", MILLION, at=NOW, context=context)
    assert standard is not None
    assert other is not None
    assert (other.total > standard.total) is dearer
    assert other.total != standard.total


def test_prices_may_change_within_a_day() -> None:
    book, usage = PriceBook(), Usage(1_000_000)
    peak = book.cost("deepseek", "deepseek-chat", usage, at=at(2025, 3, 1, 10))
    night = book.cost("deepseek", "deepseek-chat", usage, at=at(2025, 3, 1, 20))
    again = book.cost("deepseek", "deepseek-chat", usage, at=at(2025, 3, 1, 10))
    assert peak is not None
    assert night is not None
    assert peak != night
    assert peak == again
    for cost, hour in ((peak, 10), (night, 20)):
        assert usd(cost.total) == published("deepseek", "deepseek-chat", usage, at(2025, 3, 1, hour))


def test_prices_change_with_the_day_at_midnight_utc() -> None:
    book, usage = PriceBook(), Usage(300_000, 1_000)
    before, after = at(2026, 3, 12, 23, 59, 59), at(2026, 3, 13)
    old, new = (book.cost("anthropic", "claude-opus-4-6", usage, at=when) for when in (before, after))
    assert old is not None
    assert new is not None
    assert old.total > new.total
    assert usd(old.total) == published("anthropic", "claude-opus-4-6", usage, before)
    assert usd(new.total) == published("anthropic", "claude-opus-4-6", usage, after)


# --- Names


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("openai", "openai"),
        ("OpenAI", "openai"),
        ("azure", "azure"),
        ("azure_openai", "azure"),
        ("azureai", "azure"),
        ("anthropic", "anthropic"),
        ("google_genai", "google"),
        ("google_vertexai", "google"),
        ("amazon_bedrock", "aws"),
        ("bedrock", "aws"),
        ("bedrock_converse", "aws"),
        ("anthropic_bedrock", "aws"),
        ("mistralai", "mistral"),
        ("groq", "groq"),
        ("deepseek", "deepseek"),
        ("cohere", "cohere"),
        ("fireworks", "fireworks"),
        ("together", "together"),
        ("xai", "x-ai"),
        ("perplexity", "perplexity"),
        ("openrouter", "openrouter"),
        ("ollama", "ollama"),
    ],
)
def test_provider_names(name: str, expected: str) -> None:
    assert provider_id(name) == expected


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-5.4-mini"),
        ("azure", "gpt-4o"),
        ("azure_openai", "gpt-4o"),
        ("anthropic", "claude-sonnet-4-6"),
        ("google_genai", "gemini-2.5-flash"),
        ("google_vertexai", "gemini-2.5-flash"),
        ("amazon_bedrock", "anthropic.claude-3-5-sonnet-20240620-v1:0"),
        ("bedrock_converse", "us.anthropic.claude-sonnet-4-5-20250929-v1:0"),
        ("mistralai", "mistral-large-latest"),
        ("groq", "llama-3.3-70b-versatile"),
        ("deepseek", "deepseek-chat"),
        ("cohere", "command-r-plus"),
        ("fireworks", "accounts/fireworks/models/gpt-oss-120b"),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo"),
        ("xai", "grok-4"),
        ("perplexity", "sonar"),
        ("openrouter", "openai/gpt-5.4"),
    ],
)
def test_langchain_names_are_priced_as_their_provider_prices_them(provider: str, model: str) -> None:
    cost = PriceBook().cost(provider, model, MILLION, at=NOW)
    assert cost is not None
    assert cost.source == "genai-prices"
    assert usd(cost.total) == published(provider_id(provider), model, MILLION, NOW) > 0


@pytest.mark.parametrize(
    ("provider", "model"),
    [("ollama", "llama3"), ("ollama", "gpt-4o"), ("nobody", "gpt-4o"), ("openai", "no-such-model"), ("openai", "")],
)
def test_unknown_is_unpriced_and_never_free(provider: str, model: str) -> None:
    book = PriceBook()
    assert book.cost(provider, model, MILLION, at=NOW) is None
    assert book.cost(provider, model, MILLION, at=NOW) is None
    assert book.card(provider, model, at=NOW) is None


def test_googles_model_prefix_makes_no_difference() -> None:
    book = PriceBook()
    plain = book.cost("google_genai", "gemini-2.5-flash", MILLION, at=NOW)
    assert plain is not None
    assert book.cost("google_genai", "models/gemini-2.5-flash", MILLION, at=NOW) == plain


@pytest.mark.parametrize("version", ["gpt-5.4-2031-01-01", "gpt-5.4-20310101"])
def test_an_unknown_version_costs_about_what_its_model_does(version: str) -> None:
    book = PriceBook()
    known, dated = (book.cost("openai", name, MILLION, at=NOW) for name in ("gpt-5.4", version))
    assert known is not None
    assert dated is not None
    assert dated.source == "approximate"
    assert dated.total == known.total


def test_a_date_alone_is_no_model() -> None:
    assert PriceBook().cost("openai", "2031-01-01", MILLION, at=NOW) is None


# --- One's own prices


def test_own_prices_come_first() -> None:
    book = PriceBook()
    assert book.cost("openai", "gpt-5.4", MILLION, at=NOW) is not None  # compiled before the override
    book.set("gpt-5.4", input=1, output="2.5")
    cost = book.cost("openai", "gpt-5.4", MILLION, at=NOW)
    assert cost is not None
    assert (usd(cost.total), cost.source) == (Decimal("3.5"), "override")
    assert usd(cost.input) == 1
    batch = book.cost("openai", "gpt-5.4", MILLION, at=NOW, context=BATCH)
    assert batch == cost


def test_own_price_of_a_provider_beats_that_for_any() -> None:
    book = PriceBook()
    book.set("m", input=1)
    book.set("m", provider="azure_openai", input=2)
    usage = Usage(1_000_000)
    costs = {name: book.cost(name, "m", usage, at=NOW) for name in ("azure", "azure_openai", "openai", "ollama", "")}
    assert {name: cost and usd(cost.total) for name, cost in costs.items()} == {
        "azure": 2,
        "azure_openai": 2,
        "openai": 1,
        "ollama": 1,
        "": 1,
    }


def test_own_price_of_one_provider_leaves_the_others() -> None:
    book = PriceBook()
    book.set("gpt-5.4", provider="azure", input=7, output=0)
    own, other = (book.cost(name, "gpt-5.4", MILLION, at=NOW) for name in ("azure", "openai"))
    assert own is not None
    assert other is not None
    assert (own.source, other.source) == ("override", "genai-prices")


def test_setting_a_price_again_replaces_it() -> None:
    book = PriceBook()
    for price in (1, 2):
        book.set("m", input=price)
        cost = book.cost("", "m", Usage(1_000_000), at=NOW)
        assert cost is not None
        assert usd(cost.total) == price


def test_a_price_of_zero_is_a_price() -> None:
    book = PriceBook()
    book.set("llama3", provider="ollama")
    cost = book.cost("ollama", "llama3", MILLION, at=NOW)
    assert cost is not None
    assert (cost.total, cost.source) == (0, "override")


def test_cached_input_and_cache_writes() -> None:
    book = PriceBook()
    book.set("m", input=10, output=0, cached_input=1, cache_write="12.5")
    cost = book.cost("", "m", Usage(1_000_000, 0, 400_000, 200_000), at=NOW)
    assert cost is not None
    assert usd(cost.total) == Decimal("0.4") * 10 + Decimal("0.4") * 1 + Decimal("0.2") * Decimal("12.5")
    assert usd(cost.provider_cache_saving) == Decimal("0.4") * 9 - Decimal("0.2") * Decimal("2.5")
    book.set("n", input=10)
    cost = book.cost("", "n", Usage(1_000_000, 0, 400_000, 200_000), at=NOW)
    assert cost is not None
    assert (usd(cost.total), cost.provider_cache_saving) == (10, 0)


def test_a_call_may_have_a_price() -> None:
    book = PriceBook()
    book.set("m", input=1, per_call="0.005")
    cost = book.cost("", "m", Usage(1_000), at=NOW)
    assert cost is not None
    assert usd(cost.total) == Decimal("0.006")
    assert usd(cost.input) == Decimal("0.001")


@pytest.mark.parametrize(
    ("concurrency", "seconds", "expected"),
    [(1, 0.0, "0"), (1, 3_600.0, "3.6"), (1, 1.5, "0.0015"), (4, 1_800.0, "0.45")],
)
def test_hardware_by_the_hour(concurrency: int, seconds: float, expected: str) -> None:
    book = PriceBook()
    book.set("local", provider="ollama", gpu_hour="3.6", concurrency=concurrency)
    cost = book.cost("ollama", "local", MILLION, at=NOW, seconds=seconds)
    assert cost is not None
    assert usd(cost.total) == Decimal(expected)


def test_published_prices_do_not_depend_on_seconds() -> None:
    book = PriceBook()
    assert book.cost("openai", "gpt-5.4", MILLION, at=NOW, seconds=100) == book.cost(
        "openai", "gpt-5.4", MILLION, at=NOW
    )


def marked_up(book: PriceBook, provider: str = "openai", tenant: str | None = None) -> Decimal:
    cost = book.cost(provider, "m", Usage(1_000_000, 0, 400_000), at=NOW, tenant=tenant)
    assert cost is not None
    assert isinstance(cost.total, int)
    return usd(cost.total)


def test_mark_ups_multiply() -> None:
    book = PriceBook()
    book.set("m", input=10, cached_input=5)
    assert marked_up(book) == 8
    book.mark_up("1.055", provider="azure_openai")
    book.mark_up(2, tenant="acme")
    assert marked_up(book) == 8
    assert marked_up(book, tenant="globex") == 8
    assert marked_up(book, "azure") == Decimal("8.44")
    assert marked_up(book, "openai", "acme") == 16
    assert marked_up(book, "azure_openai", "acme") == Decimal("16.88")
    book.mark_up("0.5", tenant="acme")
    assert marked_up(book, "openai", "acme") == 4
    cost = book.cost("openai", "m", Usage(1_000_000, 0, 400_000), at=NOW, tenant="acme")
    assert cost is not None
    assert (usd(cost.input), usd(cost.provider_cache_saving), cost.source) == (4, 1, "override")


# --- What cannot be


@pytest.mark.parametrize("counter", TOKEN_CLASSES)
@pytest.mark.parametrize("value", [-1, 10**12, 1.5, "7", None, True])
def test_counts_that_cannot_be_true(counter: str, value: Any) -> None:
    usage = Usage(100, 100, 10, 10, 5, 10, 10, 10)._replace(**{counter: value})
    with pytest.raises(InvalidUsage, match=counter):
        PriceBook().cost("openai", "gpt-5.4", usage, at=NOW)


@pytest.mark.parametrize(
    "usage",
    [
        Usage(10, 0, 11),
        Usage(10, 0, 0, 11),
        Usage(10, 0, 6, 6),
        Usage(10, 0, 0, 5, 6),
        Usage(10, 10, reasoning_tokens=11),
        Usage(10, 10, input_audio_tokens=11),
        Usage(10, 10, output_audio_tokens=11),
        Usage(1_000_000_001),
    ],
)
def test_parts_that_exceed_their_whole(usage: Usage) -> None:
    with pytest.raises(InvalidUsage):
        PriceBook().cost("openai", "gpt-5.4", usage, at=NOW)


def test_a_thousand_million_tokens_are_believed() -> None:
    assert PriceBook().cost("openai", "gpt-5.4", Usage(10**9, 10**9), at=NOW) is not None


Setting = Callable[[PriceBook], None]


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        (lambda book: book.set("m", input=-1), "input"),
        (lambda book: book.set("m", output="dear"), "output"),
        (lambda book: book.set("m", output=float("nan")), "output"),
        (lambda book: book.set("m", cached_input="-0.1"), "cached_input"),
        (lambda book: book.set("m", cache_write=float("inf")), "cache_write"),
        (lambda book: book.set("m", per_call=-1), "per_call"),
        (lambda book: book.set("m", gpu_hour="x"), "gpu_hour"),
        (lambda book: book.set("m", gpu_hour=1, concurrency=0), "concurrency"),
        (lambda book: book.mark_up(-1, provider="openai"), "factor"),
        (lambda book: book.mark_up("much", tenant="acme"), "factor"),
        (lambda book: book.mark_up(2), "mark_up"),
        (lambda book: book.mark_up(2, provider="openai", tenant="acme"), "mark_up"),
    ],
)
def test_settings_that_cannot_work_are_named(setting: Setting, named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"`{named}`"):
        setting(PriceBook())


def test_a_refused_setting_changes_nothing() -> None:
    book = PriceBook()
    book.set("m", input=1)
    with pytest.raises(ConfigurationError):
        book.set("m", input=2, output=-1)
    assert marked_up(book) == 1


# --- Threads and imports


def test_threads_agree_on_a_cold_book() -> None:
    asked = [("openai", "gpt-5.4"), ("anthropic", "claude-sonnet-4-6"), ("deepseek", "deepseek-chat"), ("x", "y")]
    for _ in range(5):
        book, barrier = PriceBook(), Barrier(8)

        def ask(book: PriceBook = book, barrier: Barrier = barrier) -> Sequence[Any]:
            barrier.wait()
            return [book.cost(provider, model, MILLION, at=NOW) for provider, model in asked * 20]

        with ThreadPoolExecutor(8) as pool:
            answers = [future.result() for future in [pool.submit(ask) for _ in range(8)]]
        assert all(answer == answers[0] for answer in answers)


class Interrupted(tuple[Any, ...]):  # noqa: SLOT001 - carries what happens meanwhile
    """A context during whose reading another thread sets a price."""

    def __iter__(self) -> Any:
        self.meanwhile()  # type: ignore[attr-defined]
        return super().__iter__()


def test_a_price_set_while_another_thread_compiles_the_published_one_holds() -> None:
    book, context = PriceBook(), Interrupted(BATCH)
    context.meanwhile = lambda: book.set("gpt-5.4", input=1)  # type: ignore[attr-defined]
    book.cost("openai", "gpt-5.4", MILLION, at=NOW, context=context)
    cost = book.cost("openai", "gpt-5.4", MILLION, at=NOW, context=BATCH)
    assert cost is not None
    assert cost.source == "override"


def test_the_price_data_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, llmcost_plugins.pricing; print('genai_prices' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("amount", ["0", "0.000000000001", "12.5", "1000000"])
def test_pico_and_usd_are_inverse(amount: str) -> None:
    assert usd(pico(amount)) == Decimal(amount)
    assert isinstance(pico(amount), int)


def test_pico_rounds_half_to_even() -> None:
    assert [pico(f"{n}.5e-12") for n in range(4)] == [0, 2, 2, 4]
    assert pico(0.1) == 10**11
