"""From a model's reported usage to the one event that carries its money."""

from dataclasses import dataclass

from llmcost_plugins.errors import InvalidUsage
from llmcost_plugins.events import CallFinished, Status
from llmcost_plugins.pricing import STANDARD, Context, Cost, PriceBook
from llmcost_plugins.types import Scope, Usage

_NOTHING = Usage()


@dataclass(frozen=True, slots=True)
class Billed:
    """Names and circumstances of a call that its price depends on.

    `model` is what the provider says answered, `requested` what was asked for; the price of the first is preferred.
    """

    provider: str
    model: str
    requested: str
    scope: Scope = Scope()
    context: Context = STANDARD


def bill(
    prices: PriceBook,
    billed: Billed,
    usage: Usage,
    *,
    call_id: str,
    at: float,
    latency: float = 0.0,
    status: Status = "ok",
    error: str = "",
    attempt: int = 1,
    tier: str = "",
    baseline: tuple[str, str] | None = None,
    tags: tuple[str, ...] = (),
) -> CallFinished:
    """Price a finished call. `baseline` names provider and model that the same tokens are priced at for comparison.

    Counts that cannot be true leave the call unpriced, with the reason in `error`: a bill must not be made up, and the
    caller's answer must not be lost over it.
    """
    priced: tuple[int, int, int, bool] | None = None
    base: int | None = None
    try:
        cost = _cost(prices, billed, usage, at, latency)
        if cost is not None:
            priced = (cost.total, cost.input, cost.provider_cache_saving, cost.source == "approximate")
        elif usage == _NOTHING:
            priced = (0, 0, 0, False)
        if baseline is not None and (other := _baseline(prices, baseline, billed, usage, at, latency)) is not None:
            base = other.total
    except InvalidUsage as invalid:
        usage, error = _NOTHING, error or str(invalid)
    total, read, saving, approximate = priced or (None, 0, 0, False)
    return CallFinished(
        call_id=call_id,
        time=at,
        provider=billed.provider,
        model=billed.model or billed.requested,
        usage=usage,
        cost=total,
        baseline=base,
        provider_cache_saving=saving,
        input_cost=read,
        approximate=approximate,
        latency=latency,
        status=status,
        error=error,
        attempt=attempt,
        tier=tier,
        scope=billed.scope,
        tags=tags,
    )


def _cost(prices: PriceBook, billed: Billed, usage: Usage, at: float, seconds: float) -> Cost | None:
    def of(model: str) -> Cost | None:
        tenant, context = billed.scope.tenant, billed.context
        return prices.cost(billed.provider, model, usage, at=at, context=context, tenant=tenant, seconds=seconds)

    cost = of(billed.model) if billed.model else None
    if billed.requested == billed.model or (cost is not None and cost.source != "approximate"):
        return cost
    return of(billed.requested) or cost


def _baseline(
    prices: PriceBook, baseline: tuple[str, str], billed: Billed, usage: Usage, at: float, seconds: float
) -> Cost | None:
    return _cost(prices, Billed(baseline[0], baseline[1], baseline[1], billed.scope), usage, at, seconds)
