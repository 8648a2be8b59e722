"""One request's way through the tiers: asked, judged, escalated, fallen back."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from llmcost_plugins.errors import NoTierAnswered
from llmcost_plugins.events import Compared, ComponentFailed, Escalated, Event, FellBack, Routed, Sink, emit
from llmcost_plugins.plan import Cut, Plan, Step, drive
from llmcost_plugins.pricing import PriceBook, pico, usd
from llmcost_plugins.routing.answers import agreement
from llmcost_plugins.routing.conversations import Served
from llmcost_plugins.routing.decision import Decision, named
from llmcost_plugins.routing.guard import Draft
from llmcost_plugins.routing.health import Place
from llmcost_plugins.routing.scoring import ask_answer_scorer, in_background
from llmcost_plugins.routing.validators import shortcoming, task
from llmcost_plugins.types import Fault, Reply, Request, Tier, Usage, new_id

if TYPE_CHECKING:
    from llmcost_plugins.routing.router import Paid, Router

_BYTES_PER_TOKEN = 4
_SPREAD = 0.5  # seconds over which those spread who wait for the same moment
_FIRST_BACKOFF = 0.5  # seconds, twice as long each time; as the providers' own clients wait


@dataclass(slots=True)
class Attempt:
    """One call: who was asked, what came of it, and what it cost in US dollars, None where that is not known."""

    tier: str
    deployment: str
    model: str
    outcome: str = ""
    cost: float | None = None
    seconds: float = 0.0


class Route:
    """Asks the tiers in the order of a decision until one's answer is good enough."""

    def __init__(
        self,
        router: "Router",
        request: Request,
        decision: Decision,
        paid: "Paid",
        fault: Callable[[Exception], Fault],
        sink: Sink | None,
        prices: PriceBook,
    ) -> None:
        self._router = router
        self._request = request
        self._decision = decision
        self._paid = paid
        self._fault = fault
        self._sink = sink
        self._prices = prices
        self._id = new_id()
        self._attempts: list[Attempt] = []
        self._errors: list[Exception] = []
        self._failed: Place | None = None
        self._draft: Reply | None = None
        self._escalations: list[Escalated] = []
        self._kinds: list[str] = []  # of the errors
        self._compared_with: set[int] = set()
        self._window = 0  # of the largest tier that the prompt was too long for

    def run(self) -> Plan[Reply]:
        """Return the first good enough answer, with how it came about in its `routing`."""
        first = self._decision.tiers[self._decision.first]
        self._tell(
            Routed(
                time=self._router.clock(),
                tier=first.name,
                reason=self._decision.reason,
                scope=self._request.scope,
                difficulty=self._decision.difficulty,
                arm=self._decision.arm,
            )
        )
        return (yield from self._until_answered())

    def _until_answered(self) -> Plan[Reply]:
        """Go through the tiers until one answers, waiting in between as long as the request may wait."""
        retries, patience, forced = self._router.retries, self._router.patience, False
        round_ = 0
        while True:
            before = len(self._errors)
            reply = yield from self._through_tiers(forced)
            if reply is not None:
                return reply
            failed = len(self._errors) > before  # else all rest, and nobody was asked
            counts = failed and set(self._kinds[before:]) != {"rate_limit"}  # those cost nothing but time
            wait = self._wait(round_)
            if failed and (wait > patience or not self._left() or (counts and not retries)):
                raise self._failure()
            if wait > patience:
                forced, wait = True, 0.0  # before a call is lost, those are asked that should be left alone
            retries -= counts
            patience -= wait
            round_ += 1
            yield self._router.pause(wait)

    def _through_tiers(self, forced: bool) -> Plan[Reply | None]:
        """Ask one tier after the other; None where all failed in passing."""
        for index in self._decision.hops:
            if self._draft is not None and index < self._decision.first:
                break
            if index not in self._left() or self._passed_over(index):
                continue
            held = self._judges(index)
            try:
                reply = yield from self._ask(self._decision.tiers[index], shown=not held, forced=forced)
                good = reply is None or not held or (yield from self._stands(index, reply))
            except Exception:
                if self._draft is not None:
                    return self._draft_after_all()
                raise
            except BaseException:  # cut or cancelled: nobody gets the drafts
                self._tell(*self._escalations)
                raise
            if reply is not None and good:
                return (yield from self._accepted(index, reply))
        return self._draft_after_all() if self._draft is not None else None

    def _ask(self, tier: Tier, *, shown: bool, forced: bool) -> Plan[Reply | None]:
        """Return the answer of one of a tier's deployments; None where all failed in passing, or rest."""
        health = self._router.health
        for place in health.places(tier):
            if not health.begin(place, self._decision.needs.at_most // _BYTES_PER_TOKEN, forced=forced):
                continue
            attempt = self._begin(place)
            started = self._router.clock()
            try:
                reply: Reply = yield from self._paid(place.tier, shown=shown)
            except Exception as error:  # noqa: BLE001 - raised again unless it is a passing one
                fault = self._note_failure(place, attempt, error)
                if fault.kind == "too_long":
                    return None
            except BaseException as error:
                self._note_leaving(place, attempt, error)
                raise
            else:
                seconds = self._router.clock() - started
                health.succeeded(place, seconds)
                attempt.outcome, attempt.seconds, attempt.model = "answered", seconds, reply.model
                attempt.cost = None if reply.cost is None else float(usd(reply.cost))
                return reply
        return None

    def _begin(self, place: Place) -> Attempt:
        """Note who is asked next, and tell what that is in place of."""
        name = place.tier.name
        if self._failed is not None and self._failed.key != place.key:
            to = name if name != self._failed.tier.name else f"{name}/{place.key[1]}"
            self._tell(
                FellBack(
                    time=self._router.clock(),
                    tier=self._failed.tier.name,
                    to=to,
                    error=f"{type(self._errors[-1]).__name__}: {self._errors[-1]}",
                    scope=self._request.scope,
                )
            )
        self._failed = None
        if self._escalations and not self._escalations[-1].to:
            self._escalations[-1] = replace(self._escalations[-1], to=name)
        attempt = Attempt(name, place.key[1], place.tier.model_name)
        self._attempts.append(attempt)
        return attempt

    def _note_failure(self, place: Place, attempt: Attempt, error: Exception) -> Fault:
        """Take note of a call that failed in passing.

        Raises:
            Exception: The error itself, if it would be the same anywhere.
        """
        fault = self._fault(error)
        self._router.health.failed(place, fault)
        attempt.outcome = f"{fault.kind}: {type(error).__name__}"
        if fault.kind == "fatal":
            raise error
        self._errors.append(error)
        self._kinds.append(fault.kind)
        self._failed = place
        if fault.kind == "too_long":
            self._window = max(
                self._window, place.tier.context_window or self._decision.needs.tokens(place.tier.model_name)
            )
        return fault

    def _note_leaving(self, place: Place, attempt: Attempt, error: BaseException) -> None:
        """Take note of a stream that was cut, by its reader or by its model."""
        cause = error.error if isinstance(error, Cut) else error
        attempt.outcome = f"cut: {type(cause).__name__}"
        if isinstance(cause, Exception):
            self._router.health.failed(place, self._fault(cause))
        elif isinstance(error, Cut):
            self._router.health.succeeded(place)
        else:
            self._router.health.released(place)

    def _left(self) -> list[int]:
        """Return the tiers that may still answer: after a prompt was too long, only those with a larger window."""
        if not self._window:
            return list(self._decision.hops)
        windows = {index: self._decision.tiers[index].context_window for index in self._decision.hops}
        return [index for index, window in windows.items() if window is not None and window > self._window]

    def _judges(self, index: int) -> bool:
        """Tell whether an answer is judged before anybody sees it: where asking a stronger tier then may pay."""
        decision = self._decision
        return decision.policy.escalate and not self._errors and index >= decision.first and self._pays(index)

    def _pays(self, index: int) -> bool:
        stronger = self._stronger(index)
        names = self._decision.tiers[index].name, "" if stronger is None else stronger.name
        return stronger is not None and self._router.guards[self._decision.arm].allows(*names)

    def _stronger(self, index: int) -> Tier | None:
        decision = self._decision
        return next((decision.tiers[other] for other in decision.hops if other > index), None)

    def _passed_over(self, index: int) -> bool:
        """Tell whether a tier between a draft and the strongest is left out: it has answered, or its drafts lose."""
        between = self._draft is not None and self._stronger(index) is not None
        return between and (index in self._compared_with or not self._pays(index))

    def _stands(self, index: int, draft: Reply) -> Plan[bool]:
        """Judge a draft, and set it aside where it falls short or nobody waits for the judgement."""
        first = len(self._attempts) - 1
        tier, attempt = self._decision.tiers[index], self._attempts[first]
        try:
            fault = yield from self._shortfall(index, draft)
        except BaseException:
            self._set_aside(tier, attempt, "not judged to the end", draft)
            raise
        self._note_draft(index, draft, self._attempts[first:], escalated=fault is not None)
        if fault is not None:
            self._set_aside(tier, attempt, fault, draft)
        return fault is None

    def _shortfall(self, index: int, reply: Reply) -> Plan[str | None]:
        """Say why an answer will not do, or None: by its visible faults, its scorer, and a second opinion."""
        fault = shortcoming(self._request, reply)
        if fault is None:
            fault = yield from self._doubt(reply)
        if fault is None:
            fault = yield from self._disagreement(index, reply)
        return fault

    def _doubt(self, reply: Reply) -> Plan[str | None]:
        """Say that an answer looks wrong; a scorer that fails says nothing."""
        policy, moved = self._decision.policy, self._router.learning.moved(self._decision.arm)
        if policy.answer_scorer is None or reply.calls_tools:
            return None
        try:
            wrong = yield from ask_answer_scorer(policy.answer_scorer, self._request, reply, self._router.deadline)
        except Exception as error:  # noqa: BLE001 - a scorer must not cost the user the call
            self._tell_failed(error)
            return None
        good = wrong is None or wrong < policy.answer_threshold + moved
        return None if good else f"the answer looks wrong ({wrong:.0%})"

    def _disagreement(self, index: int, reply: Reply) -> Plan[str | None]:
        """Say that another cheap tier answers otherwise; one that cannot be asked says nothing."""
        decision, name = self._decision, self._decision.policy.second_opinion
        other = named(decision.tiers, name, "second_opinion") if name is not None else index
        decidable = other in decision.hops and max(decision.hops) > max(index, other)
        if other == index or not decidable or reply.calls_tools:
            return None
        second = yield from self._ask_beside(other)
        if second is None:
            return None
        agrees = agreement(reply.text, second.text)
        self._compared_with.add(other)
        self._attempts[-1].outcome = "compared"
        self._compared(second, decision.tiers[other].name, agrees)
        return f"{decision.tiers[other].name} answers otherwise" if agrees is False else None

    def _ask_beside(self, index: int) -> Plan[Reply | None]:
        """Return another tier's answer to compare with the one at hand, None where it fails: an event tells of that."""
        before, window, reply = len(self._errors), self._window, None
        try:
            reply = yield from self._ask(self._decision.tiers[index], shown=False, forced=False)
        except Exception as error:  # noqa: BLE001 - an answer is at hand
            self._errors.append(error)
        for each in self._errors[before:]:
            self._tell_failed(each)
        self._errors, self._kinds = self._errors[:before], self._kinds[:before]
        self._window, self._failed = window, None
        return reply

    def _note_draft(self, index: int, reply: Reply, attempts: Sequence[Attempt], *, escalated: bool) -> None:
        """Have the guard count what a draft and its second opinion cost, and what asking the stronger tier would."""
        decision = self._decision
        above = [other for other in decision.hops if other > index]
        takes_over = next(other for other in above if other not in self._compared_with)
        price = self._price(decision.tiers[takes_over], reply.usage) if reply.usage is not None else None
        if reply.cost is not None and price is not None:
            cost = sum(pico(attempt.cost) for attempt in attempts if attempt.cost is not None)
            names = decision.tiers[index].name, decision.tiers[above[0]].name
            self._router.guards[decision.arm].note(*names, Draft(cost, price, escalated))

    def _price(self, tier: Tier, usage: Usage) -> int | None:
        now, tenant = self._router.clock(), self._request.scope.tenant
        cost = self._prices.cost(tier.provider, tier.model_name, usage, at=now, tenant=tenant)
        return None if cost is None else cost.total

    def _compared(self, reply: Reply, tier: str, agrees: bool | None) -> None:
        now, scope = self._router.clock(), self._request.scope
        self._tell(Compared(time=now, call_id=reply.call_id, tier=tier, agrees=agrees, scope=scope))

    def _tell_failed(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        now, scope = self._router.clock(), self._request.scope
        self._tell(ComponentFailed(time=now, component="router", error=text, scope=scope))

    def _set_aside(self, tier: Tier, attempt: Attempt, fault: str, reply: Reply) -> None:
        """Keep an answer in case that nothing better comes."""
        self._draft = reply
        attempt.outcome = f"escalated: {fault}"
        self._escalations.append(
            Escalated(
                time=self._router.clock(),
                call_id=reply.call_id,
                tier=tier.name,
                to="",
                reason=fault,
                scope=self._request.scope,
                cost=reply.cost,
            )
        )

    def _draft_after_all(self) -> Reply:
        """Return the best answer that came, when those that should better it failed."""
        self._tell(*self._escalations[:-1])
        draft: Reply = self._draft  # type: ignore[assignment]
        tier = self._escalations[-1].tier
        self._note_answer(tier, draft)
        return replace(draft, degraded=True, routing=self._trace(tier))

    def _accepted(self, index: int, reply: Reply) -> Plan[Reply]:
        """Return the answer, and have what is to be learnt of it learnt."""
        self._tell(*self._escalations)
        tier = self._decision.tiers[index].name
        if len(self._decision.tiers) > 1:
            self._note_answer(tier, reply)
        answer = replace(reply, degraded=index < self._decision.first, routing=self._trace(tier))
        if self._in_shadow(index, reply):
            yield Step(partial(in_background, partial(self._ask_in_shadow, reply)))
        return answer

    def _note_answer(self, tier: str, reply: Reply) -> None:
        """Remember who answered, for the turns and the feedback to come."""
        costs = [attempt.cost for attempt in self._attempts]
        served = Served(tier, self._router.clock(), reply.usage or Usage())
        self._router.conversations.remember(self._request, served, reply)
        self._router.learning.note(
            self._decision.arm,
            (self._id, reply.call_id, self._request.run_id),
            tier,
            strongest=tier == self._decision.tiers[-1].name,
            escalated=bool(self._escalations),
            cost=None if reply.cost is None else sum(pico(cost) for cost in costs if cost is not None),
        )

    def _in_shadow(self, index: int, reply: Reply) -> bool:
        """Tell by lot whether the strongest tier is asked as well."""
        shadow, strongest = self._router.shadow, len(self._decision.tiers) - 1
        asks = shadow is not None and index < strongest and strongest in self._decision.hops and not reply.calls_tools
        return asks and self._router.draw() < shadow.share  # type: ignore[union-attr]

    def _ask_in_shadow(self, given: Reply) -> None:
        """Ask the strongest tier behind the user's back, in a thread of its own."""
        try:
            strongest = drive(self._ask_beside(len(self._decision.tiers) - 1))
            if strongest is None:
                return
            self._compared(strongest, self._decision.tiers[-1].name, None)
            self._router.shadow.keep(self._request, task(self._request), given, strongest)  # type: ignore[union-attr]
        except Exception as error:  # noqa: BLE001 - nobody waits for it
            self._tell_failed(error)

    def _trace(self, tier: str) -> dict[str, Any] | None:
        """Return how an answer came about, in plain JSON with costs in US dollars; None where it could only be so."""
        decision = self._decision
        if len(decision.tiers) == 1 and not decision.tiers[0].deployments:
            return None
        refused = dict(decision.refused)
        costs = [attempt.cost for attempt in self._attempts if attempt.cost is not None]
        return {
            "id": self._id,
            "tier": tier,
            "reason": decision.reason,
            "difficulty": decision.difficulty,
            "threshold": decision.threshold,
            **({"arm": decision.arm} if decision.arm else {}),
            "candidates": [{"tier": one.name, "refused": refused.get(one.name)} for one in decision.tiers],
            "attempts": [asdict(attempt) for attempt in self._attempts],
            "cost": sum(costs) if costs else None,
        }

    def _wait(self, round_: int) -> float:
        """Return the seconds until it is worth to ask again."""
        ready = self._router.health.ready_in([self._decision.tiers[index] for index in self._left()])
        backoff: float = _FIRST_BACKOFF * 2**round_ * (1 + self._router.draw()) / 2
        return max(ready + self._router.draw() * _SPREAD if ready else 0.0, backoff)

    def _failure(self) -> Exception:
        """Return the one error that says it all, or all of them."""
        places = {(attempt.tier, attempt.deployment) for attempt in self._attempts}
        if len(places) == 1 or set(self._kinds) == {"too_long"}:
            return self._errors[-1]
        return NoTierAnswered("every tier failed", self._errors)

    def _tell(self, *events: Event) -> None:
        for event in events:
            emit(event, self._sink)
