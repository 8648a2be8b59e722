"""What rooms tell the ledger: frozen facts, one type each.

Decisions carry no money; `CallFinished` does. A `Sink` must not raise and must not block.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

from llmcost_plugins.context import restore
from llmcost_plugins.pricing import Cost
from llmcost_plugins.types import Hit, Scope, Usage

Status: TypeAlias = Literal["ok", "error", "cut", "abandoned"]


class CallFinished(NamedTuple):
    """One model call, paid or failed: the one event that carries money.

    `cost` is None where no price is known. `baseline` is what the same tokens would have cost at the strongest tier, in
    pico-USD. `attempt` counts the calls made for one request from 1; `fallback` says that a call stands in for one that
    failed. `status` is `cut` for a stream whose reader left or whose connection broke, `abandoned` for a call that
    never reported its end.
    """

    call_id: str
    time: float
    provider: str
    model: str
    usage: Usage
    cost: Cost | None
    baseline: int | None = None
    latency: float = 0.0
    status: Status = "ok"
    error: str = ""
    attempt: int = 1
    tier: str = ""
    scope: Scope = Scope()
    tags: tuple[str, ...] = ()
    fallback: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheHit:
    """The cache answered; `usage` is what the stored answer took when it was bought.

    `call_id` names this answering, so that a cache and a callback handler may both report it. `question` is kept in
    memory for explanations only. `attempt` is over 1 where calls were made for the request before.
    """

    call_id: str
    time: float
    hit: Hit
    provider: str
    model: str
    usage: Usage
    scope: Scope = Scope()
    question: str = field(default="", repr=False)
    attempt: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheMissed:
    """The cache had no answer it may give; `reason` names why.

    `question` and `nearest` (the stored question that came nearest) are kept in memory for explanations only. `veto`
    names what refused the nearest one, "" where its likeness was too low.
    """

    time: float
    reason: str
    scope: Scope = Scope()
    category: str = ""
    question: str = field(default="", repr=False)
    nearest: str = field(default="", repr=False)
    similarity: float = 0.0
    veto: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """The router chose a tier; `difficulty` is None where nobody judged it, `arm` names the half of an A/B split."""

    time: float
    tier: str
    reason: str
    scope: Scope = Scope()
    difficulty: float | None = None
    arm: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """No tier could answer: `reasons` holds each tier's name and why not."""

    time: float
    reasons: tuple[tuple[str, str], ...]
    scope: Scope = Scope()


@dataclass(frozen=True, slots=True, kw_only=True)
class Escalated:
    """A tier's answer was not good enough; the call `call_id` was paid for nothing shown.

    `cost` says again what its `CallFinished` says, in pico-USD; None where no price is known.
    """

    time: float
    call_id: str
    tier: str
    to: str
    reason: str
    scope: Scope = Scope()
    cost: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Another tier was asked to compare its answer with one; the call `call_id` was paid for nothing shown.

    `agrees` is None where that was not judged.
    """

    time: float
    call_id: str
    tier: str
    agrees: bool | None = None
    scope: Scope = Scope()


@dataclass(frozen=True, slots=True, kw_only=True)
class FellBack:
    """A tier, or one of its deployments, failed and another was asked."""

    time: float
    tier: str
    to: str
    error: str
    scope: Scope = Scope()


@dataclass(frozen=True, slots=True, kw_only=True)
class ComponentFailed:
    """A part that must not cost the user the call failed, and the call went on without it."""

    time: float
    component: str
    error: str
    scope: Scope = Scope()


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """Retrieved passages were made shorter for a question, or passed through: `reason` says why, "" if all went well.

    Tokens are the target model's, `estimated` where its tokenizer is not at hand. `requested` and `reached` say how
    many times shorter; `requested` is None where nothing was asked for. `cost` is its own, in pico-USD.
    """

    time: float
    tokens_before: int
    tokens_after: int
    scorer: str
    reason: str = ""
    requested: float | None = None
    reached: float = 1.0
    seconds: float = 0.0
    cost: int = 0
    estimated: bool = False
    over_budget: bool = False
    scope: Scope = Scope()


Event: TypeAlias = (
    CallFinished
    | CacheHit
    | CacheMissed
    | Routed
    | Refused
    | Escalated
    | Compared
    | FellBack
    | ComponentFailed
    | Compressed
)
Sink: TypeAlias = Callable[[Event], None]

_log = logging.getLogger("llmcost_plugins")
_subscribed: list[Sink] = []
_listening: ContextVar[tuple[Sink, ...]] = ContextVar("llmcost_listening", default=())


def subscribe(sink: Sink) -> None:
    """Deliver every later event of this process to `sink`, but for those sent to a sink of their own."""
    _subscribed.append(sink)


@contextmanager
def listening(sink: Sink) -> Iterator[None]:
    """Deliver to `sink` every event that the block sends, to whomever else it goes."""
    token = _listening.set((*_listening.get(), sink))
    try:
        yield
    finally:
        restore(_listening, token)


def emit(event: Event, sink: Sink | None = None) -> None:
    """Send an event to `sink`, or to the process's subscribers, and to those listening around the caller.

    A receiver that raises breaks the rule for sinks: it is logged, and costs neither the call nor other receivers.
    """
    for receiver in _subscribed if sink is None else (sink,):
        try:
            receiver(event)
        except Exception:  # noqa: BLE001 - where events themselves fail, the log is what is left
            _log_failure(event)
    for listener in _listening.get():
        if listener != sink and (sink is not None or listener not in _subscribed):
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - see above
                _log_failure(event)


def _log_failure(event: Event) -> None:
    _log.exception("a sink failed on %s", type(event).__name__)
