"""What every door makes of the same keywords."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from llmcost_plugins.cache import Cache
from llmcost_plugins.errors import ConfigurationError
from llmcost_plugins.flow.serve import Account
from llmcost_plugins.ledger import Ledger
from llmcost_plugins.pricing import PriceBook, default_prices, pico
from llmcost_plugins.routing import Router
from llmcost_plugins.types import Overrides, Tier


def cache_of(cache: Cache | bool | None) -> Cache | None:
    """Return the cache that a door was given: its own, one with default settings for True, or none."""
    if cache is None or isinstance(cache, bool):
        return Cache() if cache else None
    if isinstance(cache, Cache):
        return cache
    raise ConfigurationError(f"`cache` is {cache!r}; expected True, a `Cache` or None")


def account_of(ledger: Ledger | None, prices: PriceBook | None) -> Account:
    """Return what calls are priced with and where they are recorded."""
    sink = ledger.record if ledger is not None else None
    return Account(prices or (ledger.prices if ledger is not None else default_prices()), sink)


def models_of(name: str, model: Any, tiers: Sequence[Any] | None, router: Router | None) -> Sequence[Any]:
    """Return the models to choose from; `name` is what the door calls the keyword for a single one."""
    given = [key for key, value in ((name, model), ("tiers", tiers)) if value is not None]
    if len(given) > 1 or not (given or router):
        raise ConfigurationError(f"pass one of `{name}` and `tiers`, or a `router` with tiers; got {given or 'none'}")
    if tiers is not None:
        return tiers
    return [model] if model is not None else router.tiers if router else ()


def router_of(router: Router | None, tiers: Sequence[Tier]) -> Router:
    """Return a router over the tiers, with the settings of the one given."""
    return Router(tiers) if router is None else router.with_tiers(tiers)


def overrides_in(wishes: Mapping[str, Any]) -> Overrides:
    """Return what one request asks of the router: `threshold`, `tier`, `force_model`, and `budget` in US dollars."""
    if wishes.keys().isdisjoint(Overrides._fields):
        return Overrides()
    threshold, budget = wishes.get("threshold"), wishes.get("budget")
    share = isinstance(threshold, int | float) and not isinstance(threshold, bool) and 0 <= threshold <= 1
    if threshold is not None and not share:
        raise ConfigurationError(f"`threshold` is {threshold!r}; expected 0 to 1")
    return Overrides(
        threshold=threshold,
        tier=_text(wishes, "tier"),
        force_model=_text(wishes, "force_model"),
        budget=None if budget is None else _dollars(budget),
    )


def _text(wishes: Mapping[str, Any], name: str) -> str | None:
    value = wishes.get(name)
    if value is not None and not isinstance(value, str):
        raise ConfigurationError(f"`{name}` is {value!r}; expected the name of a tier or of its model")
    return value


def _dollars(budget: Any) -> int:
    try:
        amount = pico(budget)
    except (ArithmeticError, ValueError, TypeError):
        amount = -1
    if amount < 0:
        raise ConfigurationError(f"`budget` is {budget!r}; expected US dollars such as '0.05'")
    return amount


def refuse_unknown(door: str, given: Mapping[str, Any], known: Collection[str]) -> None:
    """Raise on settings that nobody would act on; a budget must not be believed in that does not exist."""
    unknown = [f"`{name}`" for name in given if name not in known]
    if unknown:
        raise ConfigurationError(f"{', '.join(unknown)}: not a setting of `{door}`")
