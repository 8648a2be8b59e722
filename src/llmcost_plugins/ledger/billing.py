"""From a model's reported usage to the one event that carries its money."""

from llmcost_plugins.errors import InvalidUsage
from llmcost_plugins.events import CallFinished, Status
from llmcost_plugins.pricing import STANDARD, Context, Cost, PriceBook
from llmcost_plugins.types import Scope, Usage

_NOTHING = Usage()


def bill(
    prices: PriceBook,
    usage: Usage,
    call_id: str,
    at: float,
    provider: str,
    model: str,
    requested: str,
    scope: Scope = Scope(),
    context: Context = STANDARD,
    latency: float = 0.0,
    status: Status = "ok",
    error: str = "",
    attempt: int = 1,
    *,
    tier: str = "",
    baseline: tuple[str, str] | None = None,
    tags: tuple[str, ...] = (),
    fallback: bool = False,
) -> CallFinished:
    """Price a finished call.

    Counts that cannot be true leave the call unpriced, with the reason in `error`: a bill must not be made up, and the
    caller's answer must not be lost over it.

    Args:
        prices: What to price with.
        usage: The tokens of the call.
        call_id: Names the call; reports of one call are merged by it.
        at: Seconds since the epoch.
        provider: The provider's name.
        model: What the provider says answered; its price is preferred to that of
        requested: the model that was asked for.
        scope: Whose call it was.
        context: What else the price depends on.
        latency: Seconds that the call took.
        status: How it ended.
        error: What went wrong.
        attempt: Which of the request's calls this is, from 1.
        tier: The router's name for the model.
        baseline: Provider and model that the same tokens are priced at for comparison.
        tags: The framework's tags of the run.
        fallback: Whether the call stands in for one that failed.
    """
    base: int | None = None
    cost: Cost | None = None
    failed = status == "error" and usage == _NOTHING  # costs nothing, whatever the price of a call is
    try:
        if not failed:
            cost = prices.cost(provider, model or requested, usage, at, context, scope.tenant, latency)
            if model and model != requested and (cost is None or cost.source == "approximate"):
                cost = prices.cost(provider, requested, usage, at, context, scope.tenant, latency) or cost
        if cost is None:
            usage.check()  # priced usage was
        elif baseline is not None:
            other = prices.cost(*baseline, usage, at, context, scope.tenant, latency)
            base = None if other is None else other.total
    except InvalidUsage as invalid:
        cost, usage, error = None, Usage(), error or str(invalid)
    return CallFinished(
        call_id,
        at,
        provider,
        model or requested,
        usage,
        cost,
        base,
        latency,
        status,
        error,
        attempt,
        tier,
        scope,
        tags,
        fallback,
    )
