"""Ask the cheapest tier that should do, a stronger one if it did not, another one if it failed."""

import time
from collections.abc import Callable, Generator, Sequence
from copy import copy
from dataclasses import replace
from itertools import pairwise
from typing import Any, Protocol, TypeAlias

from llmcost_plugins.errors import ConfigurationError, NoTierAnswered
from llmcost_plugins.events import ComponentFailed, Escalated, FellBack, Routed, Sink, emit
from llmcost_plugins.plan import Plan, Step
from llmcost_plugins.routing.rules import Choice, difficulty, shortcoming
from llmcost_plugins.types import Reply, Request, Tier

Rule: TypeAlias = Callable[[Request], Choice]


class Paid(Protocol):
    """Calls one tier and pays for it; `shown` lets its answer reach the reader as it comes."""

    def __call__(self, tier: Tier, *, shown: bool) -> Generator[Step[Any], Any, Reply]:
        """Return the plan of the call."""
        ...


class Router:
    """Chooses among tiers, ordered from the cheapest to the strongest.

    Args:
        tiers: The models to choose from; one is a router that never has a choice.
        rule: Judges how hard a request is; `difficulty`'s rules by default. An object needs an `id` that names what it
            decides by, for cached answers to be found again.
        threshold: Requests at least this hard go to the strongest tier at once.
        escalate: Judge the answers of weaker tiers and ask the next stronger one where they fall short. Such answers
            are held back until judged, so they reach a streaming reader at once instead of word by word.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        tiers: Sequence[Tier],
        *,
        rule: Rule = difficulty,
        threshold: float = 0.5,
        escalate: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 0 <= threshold <= 1:
            raise ConfigurationError(f"`threshold` is {threshold!r}; expected 0 to 1")
        self.tiers = _checked(tiers)
        self._rule = rule
        self._threshold = threshold
        self._escalate = escalate
        self._clock = clock

    def __repr__(self) -> str:
        return f"Router({' -> '.join(tier.name for tier in self.tiers)})"

    def with_tiers(self, tiers: Sequence[Tier]) -> "Router":
        """Return a router with the same settings over other tiers, as doors need it that fill tiers in."""
        router = copy(self)
        router.tiers = _checked(tiers)
        return router

    @property
    def strongest(self) -> Tier:
        """The tier that costs are compared with."""
        return self.tiers[-1]

    def describe(self) -> list[Any]:
        """Return what decides who answers, in plain JSON: a part of the identity that cached answers rest on."""
        name = str(getattr(self._rule, "id", None) or getattr(self._rule, "__qualname__", "<"))
        lasting = "<" not in name  # not a lambda, a closure or an object without an `id`
        rule = f"{self._rule.__module__}.{name}" if lasting else repr(self._rule)
        return [[tier.name for tier in self.tiers], rule, self._threshold, self._escalate]

    def choose(self, request: Request) -> tuple[int, str]:
        """Return the index of the tier to ask first, and why."""
        if len(self.tiers) == 1:
            return 0, "only tier"
        choice = self._rule(request)
        return (len(self.tiers) - 1 if choice.difficulty >= self._threshold else 0), choice.reason

    def route(
        self, request: Request, paid: Paid, retryable: Callable[[Exception], bool], sink: Sink | None = None
    ) -> Plan[Reply]:
        """Return the first good enough answer.

        Raises:
            NoTierAnswered: Several tiers failed; the error of a single tier is raised as it is.
        """
        first, reason = self._choose_or_strongest(request, sink)
        emit(Routed(time=self._clock(), tier=self.tiers[first].name, reason=reason, scope=request.scope), sink)
        errors: list[Exception] = []
        draft: Reply | None = None
        escalations: list[Escalated] = []
        for tier, following in pairwise([*self.tiers[first:], *reversed(self.tiers[:first]), None]):
            if tier is None:
                break
            held = self._escalate and not errors and tier is not self.strongest
            try:
                reply = yield from paid(tier, shown=not held)
            except Exception as error:
                stronger = following is not None and following in self.tiers[first:]
                if draft is not None and not (stronger and retryable(error)):
                    self._tell(escalations[:-1], sink)  # the last is the draft that is given after all
                    return replace(draft, degraded=True)
                if not retryable(error):
                    raise
                errors.append(error)
                self._tell_fallback(request, tier, following, error, sink)
                continue
            except BaseException:  # cut or cancelled: nobody gets the drafts
                self._tell(escalations, sink)
                raise
            fault = shortcoming(request, reply) if held else None
            if fault is None:
                self._tell(escalations, sink)
                weaker = bool(errors) and tier in self.tiers[:first]
                return replace(reply, degraded=True) if weaker else reply
            draft = reply
            escalations.append(self._escalation(request, tier, following, fault, reply))
        raise errors[0] if len(errors) == 1 else NoTierAnswered("every tier failed", errors)

    def _tell_fallback(
        self, request: Request, tier: Tier, to: Tier | None, error: Exception, sink: Sink | None
    ) -> None:
        if to is not None:
            text = f"{type(error).__name__}: {error}"
            emit(FellBack(time=self._clock(), tier=tier.name, to=to.name, error=text, scope=request.scope), sink)

    def _tell(self, escalations: Sequence[Escalated], sink: Sink | None) -> None:
        for escalation in escalations:
            emit(escalation, sink)

    def _escalation(self, request: Request, tier: Tier, to: Tier | None, fault: str, draft: Reply) -> Escalated:
        """Return what is told once a stronger tier has answered; until then the draft may still be given."""
        return Escalated(
            time=self._clock(),
            call_id=draft.call_id,
            tier=tier.name,
            to=to.name if to else "",
            reason=fault,
            scope=request.scope,
        )

    def _choose_or_strongest(self, request: Request, sink: Sink | None) -> tuple[int, str]:
        try:
            return self.choose(request)
        except Exception as error:  # noqa: BLE001 - a rule must not cost the user the call
            text = f"{type(error).__name__}: {error}"
            emit(ComponentFailed(time=self._clock(), component="router", error=text, scope=request.scope), sink)
            return len(self.tiers) - 1, "the rule failed"


def _checked(tiers: Sequence[Tier]) -> tuple[Tier, ...]:
    if not tiers:
        raise ConfigurationError("`tiers` is empty; pass at least one model")
    names = [tier.name for tier in tiers]
    if len(set(names)) < len(names):
        raise ConfigurationError(f"`tiers` have the names {names}; give each `Tier` a name of its own")
    return tuple(tiers)
