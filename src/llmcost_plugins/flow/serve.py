"""The one way of a request: find, route, call, settle, keep."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from llmcost_plugins.cache import Cache
from llmcost_plugins.events import CacheHit, CallFinished, ComponentFailed, Sink, Status, emit
from llmcost_plugins.ledger.billing import bill
from llmcost_plugins.plan import Cut, Plan
from llmcost_plugins.pricing import STANDARD, PriceBook, default_prices
from llmcost_plugins.routing import Router
from llmcost_plugins.types import Caller, Hit, Reply, Request, Tier, Usage, new_id


@dataclass(frozen=True, slots=True)
class Account:
    """What calls are priced with, and where they are recorded; the process's ledger where `sink` is None."""

    prices: PriceBook = field(default_factory=default_prices)
    sink: Sink | None = None
    clock: Callable[[], float] = time.time


def serve(request: Request, *, cache: Cache | None, router: Router, caller: Caller, account: Account) -> Plan[Reply]:
    """Answer a request from the cache or from the tier that the router chooses; every call made is recorded once."""
    paid = _Payer(request, router, caller, account)
    if cache is None:
        return (yield from router.route(request, paid, caller.fault, account.sink, account.prices))
    found = yield from cache.find(request, account.sink, read=caller.read)
    if found.reply is not None:
        return found.reply
    try:
        reply = yield from router.route(request, paid, caller.fault, account.sink, account.prices)
    except BaseException:
        yield from cache.leave(found)
        raise
    yield from cache.keep(found, reply)
    return reply


class _Payer:
    """Makes the calls of one request, and settles each."""

    __slots__ = ("_account", "_attempts", "_baseline", "_caller", "_failed", "_request")

    def __init__(self, request: Request, router: Router, caller: Caller, account: Account) -> None:
        strongest = router.strongest
        self._request = request
        self._caller = caller
        self._account = account
        self._attempts = 0
        self._failed = False
        self._baseline = (strongest.provider, strongest.model_name) if len(router.tiers) > 1 else None

    def __call__(self, tier: Tier, *, shown: bool) -> Plan[Reply]:
        self._attempts += 1
        call = _Call(tier, new_id(), self._attempts, self._failed, self._account.clock(), time.perf_counter())
        self._failed = False
        try:
            reply: Reply = yield self._caller.ask(tier, call.id, shown=shown)
        except Cut as cut:  # a reader may leave at the last chunk, when the answer is whole
            whole = cut.partial is not None and cut.partial.finish is not None
            self._settle(call, cut.partial, "ok" if whole else "cut", cut.error)
            raise
        except Exception as error:
            self._settle(call, None, "error", error)
            self._failed = True
            raise
        except BaseException as error:
            self._settle(call, None, "abandoned", error)
            raise
        provider, model = tier.provider or reply.provider, reply.model or tier.model_name
        if reply.hit is not None:
            found = replace(reply, provider=provider, model=model, call_id=reply.hit.id)
            self._record_hit(call, found, reply.hit)
            return found
        settled = self._settle(call, reply, "cut" if reply.finish is None else "ok")
        usage, cost = (None, None) if settled is None else (settled.usage, settled.cost)
        total = None if cost is None else cost.total
        return replace(reply, provider=provider, model=model, call_id=call.id, usage=usage, cost=total)

    def _record_hit(self, call: "_Call", reply: Reply, hit: Hit) -> None:
        """Record a hit of a cache that the tier's own model asked."""
        event = CacheHit(
            call_id=hit.id,
            time=call.time,
            hit=hit,
            provider=reply.provider,
            model=reply.model,
            usage=reply.usage or Usage(),
            scope=self._request.scope,
            attempt=call.attempt,
        )
        emit(event, self._account.sink)

    def _settle(
        self, call: "_Call", reply: Reply | None, status: Status, error: BaseException | None = None
    ) -> CallFinished | None:
        """Record the call and return its record; books that fail must not cost the user a paid answer."""
        try:
            finished = self._finished(call, reply, self._usage(call.tier, reply, status), status, error)
            emit(finished, self._account.sink)
        except Exception as failure:  # noqa: BLE001 - see above
            text = f"{type(failure).__name__}: {failure}"
            scope, now = self._request.scope, self._account.clock()
            emit(ComponentFailed(time=now, component="ledger", error=text, scope=scope), self._account.sink)
            return None
        return finished

    def _finished(
        self, call: "_Call", reply: Reply | None, usage: Usage, status: Status, error: BaseException | None
    ) -> CallFinished:
        return bill(
            self._account.prices,
            usage,
            call.id,
            call.time,
            call.tier.provider,
            reply.model if reply is not None else "",
            call.tier.model_name,
            scope=self._request.scope,
            context=reply.price_context if reply is not None else STANDARD,
            latency=time.perf_counter() - call.started,
            status=status,
            error="" if error is None else f"{type(error).__name__}: {error}",
            attempt=call.attempt,
            fallback=call.fallback,
            tier=call.tier.name,
            baseline=self._baseline,
        )

    def _usage(self, tier: Tier, reply: Reply | None, status: Status) -> Usage:
        """Return what was reported; nothing for a call that failed; an estimate for one that was paid in silence."""
        if reply is not None and reply.usage is not None:
            return reply.usage
        return Usage() if status == "error" else self._caller.estimate(tier, reply)


@dataclass(frozen=True, slots=True)
class _Call:
    tier: Tier
    id: str
    attempt: int
    fallback: bool
    time: float
    started: float
