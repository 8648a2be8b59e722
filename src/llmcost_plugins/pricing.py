"""What tokens cost: the `genai-prices` data compiled to integer rate cards.

Money is an integer number of pico-USD (10⁻¹² USD). Published rates are whole numbers of pico-USD a token; the few that
are not (float artefacts such as 0.0833333 $/M) are rounded to the nearest one.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.forks import after_fork
from llmcost_plugins.types import Usage

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

PICO = 10**12
Context: TypeAlias = tuple[tuple[str, str], ...]
Source: TypeAlias = Literal["override", "genai-prices", "approximate", "unpriced"]

BATCH: Context = (("processing", "batch"),)
STANDARD: Context = ()

_DAY = 86_400
_USAGE_KEYS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "output_reasoning_tokens",
    "input_audio_tokens",
    "output_audio_tokens",
)
_PROVIDERS = {
    "azure_openai": "azure",
    "azureai": "azure",
    "azure_ai": "azure",
    "google_genai": "google",
    "google_vertexai": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gcp.gemini": "google",
    "amazon_bedrock": "aws",
    "bedrock": "aws",
    "bedrock_converse": "aws",
    "anthropic_bedrock": "aws",
    "aws.bedrock": "aws",
    "mistralai": "mistral",
    "mistral_ai": "mistral",
    "xai": "x-ai",
    "x_ai": "x-ai",
}


class Rates(NamedTuple):
    """Pico-USD a token that each count of a `Usage` adds, in the order of its fields.

    Partial counts (cached, reasoning …) carry the *difference* to the rate of the count that includes them, so a
    cost is one sum of products.
    """

    input: int
    output: int
    cached: int
    cache_write: int
    cache_write_1h: int
    reasoning: int
    input_audio: int
    output_audio: int


@dataclass(frozen=True, slots=True)
class RateCard:
    """One model's prices: rates by total input tokens, and what a call or a second costs on top (pico-USD).

    `steps` holds (threshold, rates) in falling order; the first whose threshold the input exceeds holds for all tokens.
    """

    steps: tuple[tuple[int, Rates], ...]
    source: Source = "override"
    per_call: int = 0
    per_second: int = 0

    def rates(self, input_tokens: int) -> Rates:
        """Return the rates that hold for a call with that many input tokens."""
        for threshold, rates in self.steps:
            if input_tokens > threshold:
                return rates
        return self.steps[-1][1]

    def cost(self, usage: Usage, seconds: float = 0.0) -> "Cost":
        """Price one call; `seconds` is its duration, for hardware that is rented by the hour.

        Raises:
            InvalidUsage: The counts cannot be true.
        """
        usage.check()
        read, written, cached, stored, stored_1h, reasoning, heard, spoken, _ = usage
        rates = self.steps[0][1] if len(self.steps) == 1 else self.rates(read)
        read_cost, written_cost, provider_cache = read * rates.input, written * rates.output, 0
        if cached or stored:
            provider_cache = cached * rates.cached + stored * rates.cache_write + stored_1h * rates.cache_write_1h
            read_cost += provider_cache
        if reasoning or heard or spoken:
            read_cost += heard * rates.input_audio
            written_cost += reasoning * rates.reasoning + spoken * rates.output_audio
        total = read_cost + written_cost
        if self.per_call or self.per_second:
            total += self.per_call + round(seconds * self.per_second)
        return Cost(total, read_cost, -provider_cache, self.source)


class Cost(NamedTuple):
    """What a call cost, in pico-USD.

    `input` is the share of the input tokens; `provider_cache_saving` what the provider's prompt cache took off it, net
    of what writing to that cache cost.
    """

    total: int
    input: int
    provider_cache_saving: int
    source: Source


def usd(pico: int) -> Decimal:
    """Return an amount of pico-USD as exact US dollars."""
    return Decimal(pico).scaleb(-12)


def pico(amount: Decimal | str | int | float) -> int:
    """Return US dollars as whole pico-USD, rounded half to even."""
    dollars = amount if isinstance(amount, Decimal) else Decimal(str(amount))
    return int((dollars * PICO).to_integral_value(ROUND_HALF_EVEN))


class PriceBook:
    """Prices of models: your own first, then those of `genai-prices` for the day of the call.

    A model that neither knows is *unpriced*: `cost` returns None, never zero.
    """

    def __init__(self) -> None:
        self._own: dict[tuple[str | None, str], RateCard] = {}
        self._markups: dict[tuple[str, str], Decimal] = {}
        self._cards: dict[tuple[str, str, Context, int], RateCard | None] = {}
        self._changes = 0
        self._renew_lock()
        after_fork(self, PriceBook._renew_lock)

    def _renew_lock(self) -> None:
        self._lock = threading.Lock()

    def set(
        self,
        model: str,
        *,
        provider: str | None = None,
        input: Decimal | str | float = 0,  # noqa: A002 - the price of input, as providers print it
        output: Decimal | str | float = 0,
        cached_input: Decimal | str | float | None = None,
        cache_write: Decimal | str | float | None = None,
        per_call: Decimal | str | float = 0,
        gpu_hour: Decimal | str | float = 0,
        concurrency: int = 1,
    ) -> None:
        """Set the price of a model: US dollars per million tokens, per call, or per hour of the hardware it runs on.

        `cached_input` and `cache_write` default to the price of input. `gpu_hour` is shared by `concurrency` calls
        at a time. Without `provider` the price holds for the model at any provider.
        """
        if concurrency < 1:
            raise ConfigurationError(f"`concurrency` is {concurrency!r}; expected how many calls share the hardware")
        full = _per_token(input, "input")
        rates = Rates(
            input=full,
            output=_per_token(output, "output"),
            cached=0 if cached_input is None else _per_token(cached_input, "cached_input") - full,
            cache_write=0 if cache_write is None else _per_token(cache_write, "cache_write") - full,
            cache_write_1h=0,
            reasoning=0,
            input_audio=0,
            output_audio=0,
        )
        per_second = round(pico(_price(gpu_hour, "gpu_hour")) / 3600 / concurrency)
        card = RateCard(((-1, rates),), per_call=pico(_price(per_call, "per_call")), per_second=per_second)
        with self._lock:
            self._own[provider and provider_id(provider), model] = card
            self._changes += 1
            self._cards = {}

    def mark_up(self, factor: Decimal | str | float, *, provider: str | None = None, tenant: str | None = None) -> None:
        """Multiply what calls to a provider, or of a tenant, cost: a reseller's fee of 5.5 % is the factor `1.055`."""
        if (provider is None) == (tenant is None):
            raise ConfigurationError("`mark_up` needs exactly one of `provider` and `tenant`")
        key = ("provider", provider_id(provider)) if provider is not None else ("tenant", str(tenant))
        self._markups[key] = _price(factor, "factor")

    def cost(
        self,
        provider: str,
        model: str,
        usage: Usage,
        at: float,
        context: Context = STANDARD,
        tenant: str | None = None,
        seconds: float = 0.0,
    ) -> Cost | None:
        """Price one call made at `at` (seconds since the epoch), or return None for a model without a known price.

        Raises:
            InvalidUsage: The counts cannot be true.
        """
        key = (provider, model, context, int(at // _DAY))
        try:
            card = self._cards[key]
        except KeyError:
            card = self._compile(key, at)
        if card is None:
            return None
        cost = card.cost(usage, seconds)
        return self._marked_up(cost, provider, tenant) if self._markups else cost

    def card(self, provider: str, model: str, *, at: float, context: Context = STANDARD) -> RateCard | None:
        """Return the rate card that holds for a model at a time, None where no price is known."""
        key = (provider, model, context, int(at // _DAY))
        return self._cards[key] if key in self._cards else self._compile(key, at)

    def _compile(self, key: tuple[str, str, Context, int], at: float) -> RateCard | None:
        provider, model, context, _ = key
        resolved = provider_id(provider)
        changes = self._changes
        own = self._own_card(resolved, model)
        card, lasting = (own, True) if own else _published(resolved, model, context, at)
        if lasting:
            with self._lock:
                if changes == self._changes:
                    self._cards[key] = card
        return card

    def _own_card(self, provider: str, model: str) -> RateCard | None:
        """Return your own price for a model; one set for `gpt-x` holds for the dated `gpt-x-2026-01-31` as well."""
        for name, _ in _spellings(model):
            card = self._own.get((provider, name)) or self._own.get((None, name))
            if card is not None:
                return card
        return None

    def _marked_up(self, cost: Cost, provider: str, tenant: str | None) -> Cost:
        factor = self._markups.get(("provider", provider_id(provider)), Decimal(1))
        factor *= self._markups.get(("tenant", tenant or ""), Decimal(1))
        if factor == 1:
            return cost
        total, read, saving = (
            int((part * factor).to_integral_value(ROUND_HALF_EVEN))
            for part in (cost.total, cost.input, cost.provider_cache_saving)
        )
        return Cost(total, read, saving, cost.source)


@cache
def default_prices() -> PriceBook:
    """Return the price book of this process, which every component uses unless it is given another."""
    return PriceBook()


def provider_id(name: str) -> str:
    """Return the `genai-prices` id of a provider that LangChain, LlamaIndex or OpenTelemetry calls `name`."""
    lowered = name.lower()
    return _PROVIDERS.get(lowered, lowered)


def _price(value: Decimal | str | float, name: str) -> Decimal:
    try:
        amount = Decimal(str(value))
    except ArithmeticError:
        amount = Decimal("nan")
    if not amount.is_finite() or amount < 0:
        raise ConfigurationError(f"`{name}` is {value!r}; expected a number of US dollars >= 0")
    return amount


def _per_token(value: Decimal | str | float, name: str) -> int:
    return _rate(_price(value, name))


def _rate(per_million: Decimal) -> int:
    return int((per_million * (PICO // 10**6)).to_integral_value(ROUND_HALF_EVEN))


def _published(provider: str, model: str, context: Context, at: float) -> tuple[RateCard | None, bool]:
    """Return the card that `genai-prices` gives, and whether it holds for the whole day."""
    found, source = _find(provider, model)
    if found is None:
        return None, True
    moment = datetime.fromtimestamp(at, UTC)
    price = found.get_prices(moment, dict(context) or None)
    return _card(price, source), not _changes_within_a_day(found)


def _find(provider: str, model: str) -> tuple["ModelInfo | None", Source]:
    from genai_prices.data_snapshot import get_snapshot  # 1.6 MB of data, loaded when the first price is asked for

    for name, source in _spellings(model):
        try:
            return get_snapshot().find_provider_model(name, None, provider or None, None)[1], source
        except LookupError:
            continue
    return None, "unpriced"


def _spellings(model: str) -> Iterable[tuple[str, Source]]:
    yield model, "genai-prices"
    bare = model.removeprefix("models/")
    if bare != model:
        yield bare, "genai-prices"
    parts = bare.split("-")
    if len(parts) > 3 and "".join(parts[-3:]).isdigit() and len(parts[-3]) == 4:
        yield "-".join(parts[:-3]), "approximate"
    elif len(parts) > 1 and parts[-1].isdigit() and len(parts[-1]) == 8:
        yield "-".join(parts[:-1]), "approximate"


def _changes_within_a_day(model: "ModelInfo") -> bool:
    from genai_prices.types import TimeOfDateConstraint

    conditions: list[Any] = [*(model.prices if isinstance(model.prices, list) else ()), *(model.price_variants or ())]
    return any(isinstance(condition.constraint, TimeOfDateConstraint) for condition in conditions)


def _card(price: "ModelPrice", source: Source) -> RateCard:
    from genai_prices.types import TieredPrices

    units = _priced_units(price)
    thresholds = {tier.start for value in units.values() if isinstance(value, TieredPrices) for tier in value.tiers}
    steps = tuple((start, _rates(_at_step(units, start))) for start in sorted({-1, *thresholds}, reverse=True))
    per_call = price.__dict__.get("requests_kcount")
    return RateCard(steps, source, per_call=pico(per_call / 1000) if isinstance(per_call, Decimal) else 0)


def _priced_units(price: "ModelPrice") -> dict[str, Any]:
    """Return the prices per million tokens by usage key, of the counts that we know."""
    from genai_prices.units import _get_registry

    units = _get_registry().units
    prices = ((key, price.__dict__.get(units[key].price_key)) for key in _USAGE_KEYS)
    return {key: value for key, value in prices if value is not None}


def _at_step(units: Mapping[str, Any], start: int) -> dict[str, Decimal]:
    from genai_prices.types import TieredPrices

    def at(value: Any) -> Decimal:
        if not isinstance(value, TieredPrices):
            return Decimal(value)
        return next((tier.price for tier in reversed(value.tiers) if start >= tier.start), value.base)

    return {key: at(value) for key, value in units.items()}


def _rates(prices: Mapping[str, Decimal]) -> Rates:
    """Return the coefficient of each count: its own price less the prices of the counts that include it.

    `genai-prices` charges every token at its most specific price. A count's tokens also stand in each count that
    includes it, so what they add on top is found from the outside in (inclusion-exclusion).
    """
    from genai_prices.decompose import is_descendant_or_self
    from genai_prices.units import _get_registry

    units = _get_registry().units
    inside_out = sorted(prices, key=lambda key: (-len(units[key].dimensions), key))
    leaves: dict[str, dict[str, int]] = {}
    for key in inside_out:
        leaf = {key: 1}
        for other, theirs in leaves.items():
            if is_descendant_or_self(units[key], units[other]):
                for count, share in theirs.items():
                    leaf[count] = leaf.get(count, 0) - share
        leaves[key] = leaf
    totals = dict.fromkeys(_USAGE_KEYS, 0)
    for key, leaf in leaves.items():
        for count, share in leaf.items():
            totals[count] += share * _rate(prices[key])
    return Rates(*(totals[key] for key in _USAGE_KEYS))
